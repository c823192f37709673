"""The runs of bench/parity.py: what is trained, and what a line of its log holds."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import measure
import parity_heldout

LOG = "parity.jsonl"
FAMILIES = ("gpt_neox", "llama")


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
        seconds: of 200 steps on an H200 beside five other processes, for sharing runs out (`lanes`).
        every: for every seed, or only the first.
        compute: type of the products, `quantization.bnb_4bit_compute_dtype`.
        redraw: other dropout at the same seed.
        alpha: the adapter's.
        apart: in processes without other variants.
        dropout: with dropout (True), without (False), or both (None).
        cuda: on a card only.
    """

    name: str
    engine: str
    seconds: float
    every: bool = True
    compute: str = "auto"
    redraw: bool = False
    alpha: int = 32
    apart: bool = False
    dropout: bool | None = None
    cuda: bool = False


def variants(scale: Scale) -> dict[str, Variant]:
    """What can be run; the plain engine keeps its blocks' states, since nothing here is large."""
    plain = "{{kind: plain, recompute: none, micro_tokens: {}}}".format
    whole = plain(scale.batch * scale.row)
    made = (
        Variant("plain", whole, 12),
        Variant("fast", "{kind: fast}", 3),
        # twice the fast one's seconds: assumed. A kernel that fails on the card takes its process with it
        Variant("fp8", "{kind: fast, compute: fp8}", 6, apart=True, cuda=True),
        Variant("fast, small", f"{{kind: fast, recompute: blocks, micro_tokens: {scale.small}}}", 8),
        Variant("plain, split", plain(scale.batch * scale.row // 2), 25, every=False),
        Variant("plain, alpha", whole, 12, every=False, alpha=35),
        Variant("plain, again", whole, 12, every=False, cuda=True),
        # accelerate keeps the first mixed precision of a process
        Variant("plain, float32", whole, 15, every=False, compute="float32", apart=True, dropout=False, cuda=True),
        Variant("plain, redraw", whole, 12, every=False, redraw=True, dropout=True),
    )
    return {variant.name: variant for variant in made}


NAMES = tuple(variants(FULL))


class Run(NamedTuple):
    """One training run of a family."""

    variant: str
    dropout: float
    seed: int


def wanted(names: Sequence[str], seeds: dict[float, int], cuda: bool) -> list[Run]:
    """The runs of a family; `seeds` by dropout. Those that can be compared soonest come first."""
    runs = [
        Run(variant.name, dropout, seed)
        for dropout, count in seeds.items()
        for variant in variants(FULL).values()
        if variant.name in names
        and (cuda or not variant.cuda)
        and (variant.dropout is None or variant.dropout == (dropout > 0))
        for seed in range(count if variant.every else 1)
    ]
    return sorted(runs, key=lambda run: (run.seed, run.dropout))


def lanes(runs: Sequence[Run], count: int) -> list[list[Run]]:
    """The runs of each process: at most `count` processes, and one more for each variant that stays apart.

    Longest first to the process with the least to do (Graham 1969); each then keeps the order of `runs`.
    """
    known = variants(FULL)
    alone = {name: [run for run in runs if run.variant == name] for name, one in known.items() if one.apart}
    rest = [run for run in runs if not known[run.variant].apart]
    shared: list[list[Run]] = [[] for _ in range(count)]

    def load(lane: list[Run]) -> float:
        return sum(known[run.variant].seconds for run in lane)

    for run in sorted(rest, key=lambda run: -known[run.variant].seconds):
        min(shared, key=load).append(run)
    return [sorted(lane, key=runs.index) for lane in (*shared, *alone.values()) if lane]


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


def train(family: str, lane: Sequence[Run], data: Path, out: Path, scale: Scale, steps: int) -> None:
    """The runs of a process, one after another; each adds a line to parity.jsonl as it ends.

    Args:
        family: gpt_neox or llama.
        lane: the runs.
        data: folder of train.jsonl and valid.jsonl.
        out: where parity.jsonl is.
        scale, steps: how much each run trains.
    """
    from koalpaca_tune import jsonl
    from koalpaca_tune.cli import quiet

    quiet.libraries()
    facts = measure.facts()
    examples = None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if family == "llama":
            twin(folder / "llama", scale)
        base = "embedded" if family == "gpt_neox" else str(folder / "llama")
        for n, run in enumerate(lane):
            one, examples = trained(run, family, base, data, folder / str(n), scale, steps, examples)
            line = (jsonl.dumps({**one, "facts": facts}) + "\n").encode()
            # in one piece: other processes write here too
            with (out / LOG).open("ab", buffering=0) as file:
                file.write(line)
            print(
                f"{family}, dropout {run.dropout}, {run.variant}, seed {run.seed}: loss {one['loss'][0]:.4f} to "
                f"{one['loss'][-1]:.4f}, held out {parity_heldout.mean(one['heldout']):.5f}, {one['seconds']} s "
                f"and {one['judging_seconds']} s",
                flush=True,
            )


def trained(
    run: Run, family: str, base: str, data: Path, folder: Path, scale: Scale, steps: int, examples: Any
) -> tuple[dict[str, Any], Any]:
    """Trains, saves and judges: a line of the log, and the encoded data for the next run."""
    import torch

    from koalpaca_tune import jsonl
    from koalpaca_tune.config import document
    from koalpaca_tune.config.check import check
    from koalpaca_tune.config.recipe import Quantization, Recipe
    from koalpaca_tune.runs import adapters
    from koalpaca_tune.runs import train as runs

    variant = variants(scale)[run.variant]
    text = RECIPE.format(
        seed=run.seed,
        base=base,
        compute=variant.compute,
        lora=LORA[family] % (variant.alpha, run.dropout),
        data=data,
        row=scale.row,
        steps=steps,
        batch=scale.batch,
        rate=RATES[family],
        engine=variant.engine,
    )
    recipe = check(Recipe, document.parse(text, "bench/parity_runs.py"))
    if examples is None:
        examples = runs.read_examples(recipe)
        examples.valid = examples.valid[: scale.valid]
    ready = runs.make_ready(recipe, examples)
    if variant.redraw:
        torch.manual_seed(1000 + run.seed)
    one: dict[str, Any] = {
        "family": family,
        "dropout": run.dropout,
        "variant": run.variant,
        "seed": run.seed,
        "rows": [scale.batch, scale.row],
        "engine": ready.trainer.prepared.name,
        "start": digest(ready.trainer.parameters),
        "data": _order(ready.trainer),
        "epochs": round(ready.trainer.steps[-1].epoch, 3),
    }
    began = time.perf_counter()
    runs.run(ready, folder, resume=False)
    one["seconds"] = round(time.perf_counter() - began, 1)
    rows = [row for _, row in jsonl.read(folder / "metrics.jsonl")]
    one["loss"] = [row["loss"] for row in rows if "loss" in row]
    one["valid"] = next(row["valid_loss"] for row in rows if "valid_loss" in row)
    del ready
    gc.collect()

    began = time.perf_counter()
    # from the files, as `koalpaca eval` does; for all variants with the same type of products
    choices = adapters.choose(base, folder / "adapter", None, None)
    lm = adapters.open_model(dataclasses.replace(choices, quantization=Quantization()))
    one["heldout"] = parity_heldout.judge(lm, data / "valid.jsonl", scale.valid)
    if run.variant == "plain" and not run.seed:
        with lm.without_adapter():
            one["base"] = parity_heldout.judge(lm, data / "valid.jsonl", scale.valid)
    one["judging_seconds"] = round(time.perf_counter() - began, 1)
    del lm
    gc.collect()
    return one, examples


def digest(parameters: Sequence[Any]) -> str:
    """Of the LoRA matrices."""
    whole = hashlib.sha256()
    for parameter in parameters:
        whole.update(parameter.detach().float().cpu().numpy().tobytes())
    return whole.hexdigest()[:12]


def _order(trainer: Any) -> str:
    """Of the rows in their order."""
    return hashlib.sha256(repr([step.rows for step in trainer.steps]).encode()).hexdigest()[:12]
