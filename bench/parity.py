"""Whether the fast engine learns what the plain one learns: loss curves on real text, several seeds, both engines.

    python bench/parity_data.py ../shared/data                            (the text, once, without a GPU)
    python bench/parity.py carry/parity --out $OUT                        200 steps, 3 seeds, both families
    python bench/parity.py carry/parity --out FOLDER --quick              on the CPU, 10 minutes: short rows

The reference is PEFT, transformers and bitsandbytes as they are (engine.kind: plain), on the same NF4 weights (the
embedded base, GPT-NeoX; and a random Llama made here), through the Trainer that users get. At a seed both engines
start from the same LoRA matrices and see the same rows in the same order; from seed to seed both change. LoRA is
on every linear, without dropout and with; products in bfloat16 on CUDA, in float32 on the CPU. Beside `plain` and
`fast`, the last four with the first seed only:

    fast, small     whole blocks recomputed, micro-steps of 1,024 tokens
    plain, redraw   with other dropout: data and start are the same
    plain, split    micro-steps of half a step: the same sum in another order (and other dropout)
    plain, again    once more (CUDA): what atomics alone do
    plain, float32  in float32 (CUDA, without dropout): what bfloat16 alone does
    plain, alpha    with alpha 35 in place of 32: a defect, planted to see what the rules see

Two rules, on losses smoothed over 10 steps, at equal seeds. *Within noise*: the mean |fast - plain| is below a
tenth of the standard deviation between the seeds of `plain` (mean over steps), and the validation losses differ, in
the mean of the seeds, by less than their standard deviation between seeds. That deviation is mostly the order of
the data, so the rule is a wide one. *Sharp*: the mean |fast - plain| is below a hundredth of that deviation, or at
most twice the largest that `plain` differs from itself (redraw, split, again, float32). Where `plain, alpha` passes
a rule, the rule could not have seen a defect of that size there.

Writes OUT/parity.jsonl (a line for every run as it ends, with every loss), parity.md, and for each family an SVG of
losses and one of differences. `--read parity.jsonl` measures nothing and writes the rest again.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import parity_report

HERE = Path(__file__).resolve().parent
LOG = "parity.jsonl"
FAMILIES = ("gpt_neox", "llama")
DROPOUTS = (0.0, 0.05)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is trained.

    Attributes:
        row, batch: tokens of a row, rows of a step.
        small: tokens of a micro-step of `fast, small`.
        valid: validation conversations, at most.
        hidden, layers: of the Llama twin.
    """

    row: int = 512
    batch: int = 8
    small: int = 1024
    valid: int = 10**6
    hidden: int = 512
    layers: int = 4


FULL, QUICK = Scale(), Scale(row=128, batch=4, small=128, valid=60, hidden=128, layers=3)
LORA = {
    "gpt_neox": "{r: 8, alpha: %s, targets: [query_key_value, dense, dense_h_to_4h, dense_4h_to_h], dropout: %s}",
    "llama": "{r: 16, alpha: %s, targets: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj], "
    "dropout: %s}",
}
RECIPE = """
name: parity
seed: {seed}
base: {{path: {base}}}
quantization: {{load_in_4bit: true, bnb_4bit_compute_dtype: {compute}}}
lora: {lora}
data: {{train: {data}/train.jsonl, valid: {data}/valid.jsonl, max_length: {row}, packing: true}}
training:
  max_steps: {steps}
  batch_size: {batch}
  learning_rate: {rate}
  schedule: cosine
  warmup_steps: 10
  log_every: 1
  checkpoint_every: 1000000
engine: {engine}
"""
RATES = {"gpt_neox": 2e-4, "llama": 2e-3}


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to train.

    Attributes:
        name: in the tables.
        engine: the recipe's section.
        every: for every seed, or only the first.
        compute: type of the products.
        redraw: other dropout at the same seed.
        alpha: the adapter's.
    """

    name: str
    engine: str
    every: bool = True
    compute: str = "auto"
    redraw: bool = False
    alpha: int = 32


def variants(scale: Scale, dropout: float, cuda: bool) -> list[Variant]:
    """What is run; the plain engine keeps its blocks' states, since nothing here is large."""
    plain = "{{kind: plain, recompute: none, micro_tokens: {}}}".format
    step = scale.batch * scale.row
    small = f"{{kind: fast, recompute: blocks, micro_tokens: {scale.small}}}"
    made = [
        Variant("plain", plain(step)),
        Variant("fast", "{kind: fast}"),
        Variant("fast, small", small),
        Variant("plain, split", plain(step // 2), every=False),
        Variant("plain, alpha", plain(step), every=False, alpha=35),
    ]
    if cuda:
        made.append(Variant("plain, again", plain(step), every=False))
        if not dropout:
            made.append(Variant("plain, float32", plain(step), every=False, compute="float32"))
    if dropout:
        made.append(Variant("plain, redraw", plain(step), redraw=True))
    return made


def twin(folder: Path, scale: Scale) -> None:
    """Writes a Llama with random weights and the embedded tokenizer."""
    import torch
    import transformers

    from koalpaca_tune.models import tokenizer

    words = tokenizer.load_pretrained("embedded")
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=scale.hidden,
        intermediate_size=scale.hidden * 11 // 4,
        num_hidden_layers=scale.layers,
        num_attention_heads=scale.hidden // 64,
        num_key_value_heads=scale.hidden // 128 if scale.hidden > 128 else 1,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        # wide enough that a frozen head can tell words apart
        initializer_range=0.06,
        tie_word_embeddings=False,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)


def group(name: str) -> str:
    """Which runs share a process: those of the fast engine, `plain` itself, what else is plain."""
    return "fast" if name.startswith("fast") else "plain" if name == "plain" else "other"


GROUPS = ("plain", "other", "fast")


def train(given: argparse.Namespace, family: str, dropout: float, which: str) -> None:
    """The runs of a family, a dropout and a group, one after another; each adds a line to parity.jsonl."""
    import torch

    from koalpaca_tune.cli import quiet
    from koalpaca_tune.config import document
    from koalpaca_tune.config.check import check
    from koalpaca_tune.config.recipe import Recipe
    from koalpaca_tune.models import base
    from koalpaca_tune.runs import train as runs

    quiet.libraries()
    scale = QUICK if given.quick else FULL
    cuda = base.default_device().type == "cuda"
    facts = measure.facts()
    examples = None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if family == "llama":
            twin(folder / "llama", scale)
        for variant in variants(scale, dropout, cuda):
            if group(variant.name) != which:
                continue
            for seed in range(given.seeds if variant.every else 1):
                text = RECIPE.format(
                    seed=seed,
                    base="embedded" if family == "gpt_neox" else folder / "llama",
                    compute=variant.compute,
                    lora=LORA[family] % (variant.alpha, dropout),
                    data=given.data,
                    row=scale.row,
                    steps=given.steps,
                    batch=scale.batch,
                    rate=RATES[family],
                    engine=variant.engine,
                )
                recipe = check(Recipe, document.parse(text, "bench/parity.py"))
                if examples is None:
                    examples = runs.read_examples(recipe)
                    examples.valid = examples.valid[: scale.valid]
                ready = runs.make_ready(recipe, examples)
                if variant.redraw:
                    torch.manual_seed(1000 + seed)
                start = digest(ready.trainer.parameters)
                began = time.perf_counter()
                metrics = ready.trainer.run(folder / f"{variant.name}-{seed}")
                rows = [row for row in metrics.rows if "loss" in row]
                one = {
                    "family": family,
                    "dropout": dropout,
                    "variant": variant.name,
                    "seed": seed,
                    "rows": [scale.batch, scale.row],
                    "engine": ready.trainer.prepared.name,
                    "start": start,
                    "data": data(ready.trainer),
                    "epochs": round(ready.trainer.steps[-1].epoch, 3),
                    "seconds": round(time.perf_counter() - began, 1),
                    "loss": [row["loss"] for row in rows],
                    "valid": next(row["valid_loss"] for row in metrics.rows if "valid_loss" in row),
                }
                with (given.out / LOG).open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**one, "facts": facts}, ensure_ascii=False) + "\n")
                print(
                    f"{family}, dropout {dropout}, {variant.name}, seed {seed}: loss {one['loss'][0]:.4f} to "
                    f"{one['loss'][-1]:.4f}, valid {one['valid']:.5f}, {one['seconds']} s",
                    flush=True,
                )
                del ready, metrics
                gc.collect()


def read(path: Path) -> list[dict[str, Any]]:
    """The runs of a log: one entry for each family and dropout, `runs` of it by variant in the order of seeds."""
    parts: dict[tuple[str, float], dict[str, Any]] = {}
    order = [variant.name for variant in variants(FULL, 0.5, True) + variants(FULL, 0.0, True)]
    for line in path.read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        key = (one["family"], one["dropout"])
        part = parts.setdefault(key, {"family": key[0], "dropout": key[1], "runs": {}, "facts": one["facts"]})
        part["runs"].setdefault(one["variant"], []).append(one)
    for part in parts.values():
        # processes that ran side by side wrote as they came
        part["runs"] = {
            name: sorted(part["runs"][name], key=lambda run: run["seed"])
            for name in dict.fromkeys(order)
            if name in part["runs"]
        }
    return [parts[key] for key in sorted(parts)]


def digest(parameters: Sequence[Any]) -> str:
    """Of the LoRA matrices."""
    whole = hashlib.sha256()
    for parameter in parameters:
        whole.update(parameter.detach().float().cpu().numpy().tobytes())
    return whole.hexdigest()[:12]


def data(trainer: Any) -> str:
    """Of the rows in their order."""
    return hashlib.sha256(repr([step.rows for step in trainer.steps]).encode()).hexdigest()[:12]


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder that bench/parity_data.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="default: 200; with --quick 60")
    parser.add_argument("--seeds", type=int, help="at least 2; default: 3; with --quick 2")
    parser.add_argument("--quick", action="store_true", help="rows of 128 tokens, 4 a step, a smaller Llama")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--dropouts", type=float, nargs="+", default=list(DROPOUTS))
    parser.add_argument(
        "--jobs", type=int, help="processes at once; default: 6 on CUDA, where small steps are host-bound, else 1"
    )
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="cpu: leave the card alone")
    parser.add_argument("--read", type=Path, metavar="JSONL", help="run nothing: tables and plots of a log")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if (given.data is None) == (given.read is None):
        parser.error("give the folder of the data, or --read")
    given.steps = given.steps or (60 if given.quick else 200)
    given.seeds = given.seeds or (2 if given.quick else 3)
    if given.seeds < 2:
        parser.error("--seeds: noise between seeds needs two of them")
    given.out = given.out.resolve()
    if given.data:
        given.data = given.data.resolve()
    return given


def process(given: argparse.Namespace, family: str, dropout: float, which: str) -> int:
    """One group of runs, in a process of its own; how it ended."""
    command = [sys.executable, str(HERE / "parity.py"), str(given.data), "--out", str(given.out)]
    command += ["--steps", str(given.steps), "--seeds", str(given.seeds), "--part", f"{family}:{dropout}:{which}"]
    command += ["--quick"] if given.quick else []
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in (str(HERE.parent), os.environ.get("PYTHONPATH", "")) if p),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if given.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return subprocess.run(command, env=environment, check=False).returncode


def run(given: argparse.Namespace) -> int:
    """Runs every part; how many of them failed."""
    if given.jobs is None:
        import torch

        given.jobs = 6 if torch.cuda.is_available() and given.device == "auto" else 1
    wanted = [
        (family, dropout, which) for which in GROUPS for family in given.families for dropout in given.dropouts
    ]
    with ThreadPoolExecutor(given.jobs) as pool:
        ends = list(pool.map(lambda one: process(given, *one), wanted))
    return sum(end != 0 for end in ends)


def main() -> None:
    """Runs every part, compares and writes."""
    given = parsed()
    if given.part:
        family, dropout, which = given.part.split(":")
        train(given, family, float(dropout), which)
        return
    began = time.perf_counter()
    given.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    if not given.read:
        given.read = given.out / LOG
        given.read.unlink(missing_ok=True)
        failed = run(given)
    parts = read(given.read)
    compared = [parity_report.compare(part) for part in parts]
    text = parity_report.page(compared, parts)
    (given.out / "parity.md").write_text(text, encoding="utf-8")
    parity_report.draw(parts, given.out)
    print(f"\n{text}\n{time.perf_counter() - began:.0f} s")
    if failed:
        sys.exit(f"{failed} parts ended early")


if __name__ == "__main__":
    main()
