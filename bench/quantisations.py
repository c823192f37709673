"""Ways to keep the base: NF4, NF4 with double quantisation, FP4, LLM.int8, bf16 (LoRA), full fine-tuning.

    python bench/quantisations.py --base embedded --out quant.jsonl              CPU or card: what is learned
    python bench/quantisations.py --shape polyglot-ko-1.3b --out quant.jsonl     card: memory and speed
    python bench/quantisations.py --base embedded --shape polyglot-ko-1.3b --seconds 290 --out quant.jsonl   both
    python bench/quantisations.py --read quant.jsonl --write-docs docs           tables of what was measured

One process. Every run is `runs.train` itself, so that what is measured is what a user gets; settings and seeds
differ, data and order do not. `--base`: all settings with every seed, round by round, and the loss of held-out
answers; the difference to bf16 LoRA is paired by item (mean over the seeds, an interval by the bootstrap over
items, p by Holm over the settings) and shown for each seed. `--shape`: random weights with the embedded tokenizer,
on the plain engine for all (the same stack) and on the fast one for those that it computes; what such a base learns
says nothing of quality. --seconds: no further round, or run of a shape, is begun that would end later.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SETTINGS = ("nf4", "nf4+double", "fp4", "int8", "bf16", "full")
REFERENCE = "bf16"
FAST = ("nf4", "nf4+double", "fp4", "bf16")
NAMES = {
    "nf4": "NF4",
    "nf4+double": "NF4 + 이중 양자화 (double)",
    "fp4": "FP4",
    "int8": "LLM.int8",
    "bf16": "bf16 LoRA",
    "full": "전체 미세 조정 (full)",
}
MARKS = {"cpu": "bench:quantisations-cpu", "card": "bench:quantisations-card"}
MIB = 1 << 20


class Work(NamedTuple):
    """What every run of one part learns from."""

    part: str
    base: Path | str
    train: Path
    valid: Path
    options: tuple[str, ...]


def cut(source: Path, items: int, target: Path) -> Path:
    """The first rows of a file of conversations."""
    with source.open(encoding="utf-8") as lines:
        target.write_text("".join(itertools.islice(lines, items)), encoding="utf-8")
    return target


def carry_out(
    work: Work, setting: str, seed: int, full_rate: float, folder: Path, *, first: bool = False
) -> dict[str, Any]:
    """One run, and the loss of every held-out answer after it."""
    import torch
    from measure import facts, forget_peak, memory

    from koalpaca_tune.config import load
    from koalpaca_tune.config.space import QUANTISATIONS
    from koalpaca_tune.data.load import conversations
    from koalpaca_tune.inference.language_model import TorchLanguageModel
    from koalpaca_tune.models.proof import company
    from koalpaca_tune.runs import train as runs

    began = time.perf_counter()
    options = [*work.options, *QUANTISATIONS[setting]]
    if setting == "full":
        options = [text for text in options if not text.startswith(("lora.", "training.learning_rate"))]
        options.append(f"training.learning_rate={full_rate:.1e}")
    if setting not in FAST:
        options = [text for text in options if not text.startswith("engine.")]
    recipe = load.load(
        "demo",
        [
            *options,
            f"base.path={work.base}",
            f"data.train={work.train}",
            "data.valid=null",
            f"seed={seed}",
            f"out={folder}",
        ],
    )
    if torch.cuda.is_available():
        # a run with engine.memory_budget limited the whole process
        torch.cuda.set_per_process_memory_fraction(1.0)
    forget_peak()
    examples = runs.read_examples(recipe)
    ready = runs.make_ready(recipe, examples)
    loaded_gib = memory()["peak_gib"]
    talks = list(conversations(work.valid))
    model = TorchLanguageModel(
        ready.trainer.model, ready.loaded, examples.encoder, 1 if company(ready.loaded.proof) else None
    )
    rendered = [examples.encoder.render(one) for one in talks]
    # the seed has no say in it
    looks = work.part == "base" and first
    before = [(one.logprob, one.tokens) for one in model.score(rendered)] if looks else []
    forget_peak()
    entry = runs.run(ready, folder, resume=False)
    peak = memory()["peak_gib"]
    scored = model.score(rendered)
    result = entry["result"]
    found = {
        "part": work.part,
        "base": str(work.base),
        "setting": setting,
        "seed": seed,
        "engine": ready.trainer.prepared.name,
        "learning_rate": recipe.training.learning_rate,
        "steps": result["steps"],
        "tokens": result["tokens"],
        "train_loss": result["loss"],
        "before_loss": -sum(one[0] for one in before) / sum(one[1] for one in before) if before else None,
        "heldout_loss": -sum(one.logprob for one in scored) / sum(one.tokens for one in scored),
        "items": [(round(-one.logprob, 6), one.tokens) for one in scored],
        "tokens_per_second": result["tokens_per_second"],
        "peak_gib": peak,
        "loaded_gib": loaded_gib,
        "held_mib": round(_held(ready) / MIB, 2),
        "saved_mib": round(sum(f.stat().st_size for f in (folder / recipe.output).glob("*.safetensors")) / MIB, 2),
        "trained": sum(ready.trainable.values()),
        "compute": str(ready.loaded.compute_dtype).removeprefix("torch."),
        "seconds": round(time.perf_counter() - began, 2),
        "threads": torch.get_num_threads(),
        **facts(),
    }
    del ready, model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


def _held(ready: Any) -> int:
    """Bytes of weights, of what is trained beside them, of gradients and the optimizer's state."""
    import torch

    tensors: dict[int, int] = {}

    def add(one: Any) -> None:
        if isinstance(one, torch.Tensor):
            tensors[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()

    for module in ready.trainer.model.modules():
        for one in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            add(one)
            state = getattr(one, "quant_state", None)
            for level in (state, getattr(state, "state2", None)) if state is not None else ():
                add(getattr(level, "absmax", None))
        # LLM.int8 keeps its weights here once it has run
        eight = getattr(module, "state", None)
        for name in ("CB", "SCB") if eight is not None else ():
            add(getattr(eight, name, None))
    for one in ready.trainer.parameters:
        add(one)
    gradients = 4 * sum(p.numel() for p in ready.trainer.parameters)
    for state in ready.trainer.optimizer.state.values():
        for value in state.values():
            add(value)
    return sum(tensors.values()) + gradients


def measured(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """All runs that fit into the time, one after the other."""
    began = time.perf_counter()
    train = cut(given.data / "train.jsonl", given.train_items, folder / "train.jsonl")
    valid = cut(given.data / "valid.jsonl", given.heldout_items, folder / "valid.jsonl")
    common = ("data.packing=true", "training.epochs=null", "training.checkpoint_every=100000")
    if given.shape:
        yield from _shape(given, folder, train, cut(valid, 40, folder / "few.jsonl"), common, began)
    if given.base:
        options = (
            *common,
            f"training.max_steps={given.steps}",
            f"training.batch_size={given.batch}",
            f"training.warmup_steps={given.steps // 10}",
            f"training.learning_rate={given.rate:.1e}",
            f"data.max_length={given.length}",
        )
        base = given.base if given.base == "embedded" else Path(given.base)
        longest = 0.0
        for seed in given.seeds:
            if given.seconds and time.perf_counter() - began + longest > given.seconds:
                print(f"no time for seed {seed}", flush=True)
                return
            round_began = time.perf_counter()
            for setting in given.settings:
                work = Work("base", base, train, valid, options)
                first = seed == given.seeds[0]
                yield carry_out(work, setting, seed, given.full_rate, _new(folder), first=first)
            longest = max(longest, time.perf_counter() - round_began)


def _shape(
    given: argparse.Namespace, folder: Path, train: Path, valid: Path, common: Sequence[str], began: float
) -> Iterator[dict[str, Any]]:
    import random_base
    import torch

    from koalpaca_tune.models import sources

    base = folder / given.shape
    random_base.make(
        given.shape,
        base,
        Path(sources.locate("embedded")),
        "cuda" if torch.cuda.is_available() else "cpu",
    )
    torch.set_default_dtype(torch.float32)
    options = (
        *common,
        f"training.max_steps={given.shape_steps}",
        f"training.batch_size={given.shape_batch}",
        "training.warmup_steps=0",
        "training.learning_rate=2.0e-4",
        f"data.max_length={given.shape_length}",
        "lora.r=8",
        "training.log_every=1",
    )
    longest = 0.0
    for engine, setting in [("plain", one) for one in given.settings] + [
        ("fast", one) for one in given.settings if one in FAST
    ]:
        if given.seconds and time.perf_counter() - began + longest > given.seconds:
            print(f"no time for {setting} on the {engine} engine", flush=True)
            return
        run_began = time.perf_counter()
        # the fast engine would fill the card with what saves time: it gets a common card's room
        kind = ["engine.kind=plain"] if engine == "plain" else ["engine.kind=fast"]
        if engine == "fast" and torch.cuda.is_available():
            kind.append("engine.memory_budget=24.0")
        work = Work("shape", base, train, valid, (*options, *kind))
        yield {**carry_out(work, setting, 1, 1e-5, _new(folder)), "base": given.shape}
        longest = max(longest, time.perf_counter() - run_began)
    shutil.rmtree(base)


def _new(folder: Path) -> Path:
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    return run


class Difference(NamedTuple):
    """A setting's held-out loss less bf16 LoRA's, in nats per token."""

    value: float
    low: float
    high: float
    p: float
    seeds: tuple[float, ...]


def differences(
    rows: Sequence[dict[str, Any]], settings: Sequence[str] = SETTINGS, reference: str = REFERENCE
) -> dict[str, Difference]:
    """Of every setting that has the reference's seeds; p by Holm over the settings."""
    import numpy as np

    from koalpaca_tune.comparison import resampling, stats

    by = {(row["setting"], row["seed"]): row for row in rows}
    seeds = sorted({seed for setting, seed in by if setting == reference})
    found = {}
    for setting in settings:
        mine = [seed for seed in seeds if (setting, seed) in by]
        if setting == reference or not mine:
            continue
        apart = [
            np.array([a[0] - b[0] for a, b in zip(by[setting, n]["items"], by[reference, n]["items"], strict=True)])
            for n in mine
        ]
        tokens = np.array([one[1] for one in by[setting, mine[0]]["items"]], dtype=float)
        estimate = resampling.ratio(np.mean(apart, axis=0), tokens, seed=0)
        each = tuple(float(one.sum() / tokens.sum()) for one in apart)
        found[setting] = Difference(estimate.value, estimate.low, estimate.high, estimate.p, each)
    adjusted = stats.holm([one.p for one in found.values()])
    return {name: one._replace(p=p) for (name, one), p in zip(found.items(), adjusted, strict=True)}


def verdict(one: Difference) -> str:
    """Whether it can be told from noise: over the items, and in every seed."""
    same_sign = len({value > 0 for value in one.seeds}) == 1
    if one.p >= 0.05 or not same_sign:
        return "구별되지 않음 (not told from noise)"
    word = "나쁨 (worse)" if one.value > 0 else "좋음 (better)"
    return word if len(one.seeds) > 1 else f"{word}, 씨앗 하나 (one seed)"


def table_of_base(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What is learned, by setting."""
    apart = differences(rows)
    first = rows[0]
    seeds = sorted({row["seed"] for row in rows})
    items = len(first["items"])
    yield (
        f"{first['date'][:10]}, {first['gpu']}, base `{Path(first['base']).name}`, products in {first['compute']}, "
        f"{len(seeds)} seeds, {first['steps']} steps, {first['tokens']:,} tokens, {items} held-out answers of "
        f"{sum(one[1] for one in first['items']):,} tokens; {_versions(first)}."
    )
    yield ""
    yield (
        "| 설정 (setting) | 엔진 (engine) | 튜닝 전 손실 (before) | 학습 손실 (train) | 검증 손실 (held out) | "
        "bf16 LoRA와의 차이 [95 %] | 씨앗마다 (by seed) | p (Holm) | 판정 (verdict) |"
    )
    yield "|---|---|---:|---:|---:|---:|---|---:|---|"
    for setting in SETTINGS:
        mine = [row for row in rows if row["setting"] == setting]
        if not mine:
            continue
        held = [row["heldout_loss"] for row in mine]
        spread = f" ± {statistics.stdev(held):.4f}" if len(held) > 1 else ""
        cells = [
            NAMES[setting],
            mine[0]["engine"],
            next((f"{row['before_loss']:.4f}" for row in mine if row["before_loss"] is not None), "-"),
            f"{statistics.fmean(row['train_loss'] for row in mine):.4f}",
            f"{statistics.fmean(held):.4f}{spread}",
        ]
        if setting in apart:
            one = apart[setting]
            p = "< 0.001" if one.p < 0.001 else f"{one.p:.3f}"
            by_seed = ", ".join(f"{value:+.4f}" for value in one.seeds)
            cells += [f"{one.value:+.4f} [{one.low:+.4f}, {one.high:+.4f}]", by_seed, p, verdict(one)]
        else:
            cells += ["-", "-", "-", "-"]
        yield f"| {' | '.join(cells)} |"
    yield ""
    for name, one in differences(rows, ("nf4+double", "fp4"), "nf4").items():
        by_seed = ", ".join(f"{value:+.4f}" for value in one.seeds)
        yield (
            f"- {NAMES[name]}, NF4와의 차이 (less NF4): {one.value:+.4f} [{one.low:+.4f}, {one.high:+.4f}], "
            f"{by_seed}, p {one.p:.3f}: {verdict(one)}"
        )
    yield ""
    yield (
        "| 설정 (setting) | 학습하는 수 (trained) | 가중치와 옵티마이저 MiB (weights, optimizer) | "
        "저장 MiB (saved) | 토큰/초 (tokens/s) | 최대 GiB (peak, card) |"
    )
    yield "|---|---:|---:|---:|---:|---:|"
    for setting in SETTINGS:
        mine = [row for row in rows if row["setting"] == setting]
        if mine:
            yield _sizes(mine)


def _sizes(mine: Sequence[dict[str, Any]]) -> str:
    one = mine[0]
    peaks = [row["peak_gib"] for row in mine if row["peak_gib"] is not None]
    speed = statistics.median(row["tokens_per_second"] for row in mine)
    cells = [
        NAMES[one["setting"]],
        f"{one['trained']:,}",
        f"{one['held_mib']:,.1f}",
        f"{one['saved_mib']:,.1f}",
        f"{speed:,.0f}",
        f"{max(peaks):.2f}" if peaks else "-",
    ]
    return f"| {' | '.join(cells)} |"


def table_of_shape(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Memory and speed of a published shape, by engine and setting."""
    first = rows[0]
    yield (
        f"{first['date'][:10]}, {first['gpu']}, `{first['base']}` with random weights, products in "
        f"{first['compute']}, {first['steps']} steps, {first['tokens']:,} tokens; {_versions(first)}. "
        "손실은 품질이 아닙니다 (the loss says nothing of quality)."
    )
    yield ""
    yield (
        "| 설정 (setting) | 엔진 (engine) | 최대 GiB (peak) | 가중치와 옵티마이저 MiB | 저장 MiB (saved) | "
        "토큰/초 (tokens/s) | 학습 손실 (train) | 검증 손실 (held out) |"
    )
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        peak = "-" if row["peak_gib"] is None else f"{row['peak_gib']:.2f}"
        cells = [NAMES[row["setting"]], row["engine"], peak, f"{row['held_mib']:,.0f}", f"{row['saved_mib']:,.1f}"]
        cells += [f"{row['tokens_per_second']:,.0f}", f"{row['train_loss']:.4f}", f"{row['heldout_loss']:.4f}"]
        yield f"| {' | '.join(cells)} |"


def _versions(row: dict[str, Any]) -> str:
    shown = ("torch", "bitsandbytes", "peft", "transformers")
    return ", ".join(f"{name} {row['versions'][name]}" for name in shown if name in row["versions"])


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """All tables of some rows, as Markdown."""
    parts = []
    for part, table in (("base", table_of_base), ("shape", table_of_shape)):
        mine = [row for row in rows if row["part"] == part]
        if mine:
            parts.append("\n".join(table(mine)))
    return "\n\n".join(parts) + "\n"


def write_docs(docs: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Puts the tables between the marks of both languages' quantisation.md.

    Raises:
        SystemExit: a page without the marks.
    """
    where = {
        "cpu": [row for row in rows if row["gpu"] == "CPU"],
        "card": [row for row in rows if row["gpu"] != "CPU"],
    }
    for language in ("ko", "en"):
        page = docs / language / "quantisation.md"
        text = page.read_text(encoding="utf-8")
        for place, mine in where.items():
            if not mine:
                continue
            start, end = f"<!-- {MARKS[place]} -->", f"<!-- /{MARKS[place]} -->"
            before, opened, rest = text.partition(start)
            _, closed, after = rest.partition(end)
            if not (opened and closed):
                raise SystemExit(f"{page}: there is no {start} ... {end}.")
            text = f"{before}{start}\n{tables(mine)}{end}{after}"
        page.write_text(text, encoding="utf-8")
        print(page)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="'embedded', or a folder: what is learned")
    parser.add_argument("--shape", help="a shape of bench/shapes.py: memory and speed")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch", type=int, default=4, help="rows of a step")
    parser.add_argument("--length", type=int, default=256, help="tokens of a row")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate of LoRA")
    parser.add_argument("--full-rate", type=float, default=1e-4, help="learning rate of full fine-tuning")
    parser.add_argument("--shape-steps", type=int, default=10)
    parser.add_argument("--shape-batch", type=int, default=8)
    parser.add_argument("--shape-length", type=int, default=2048)
    parser.add_argument(
        "--data", type=Path, default=Path("runs/demo-data"), help="folder with train and valid.jsonl"
    )
    parser.add_argument("--train-items", type=int, default=3000)
    parser.add_argument("--heldout-items", type=int, default=300)
    parser.add_argument("--seconds", type=float, help="of everything")
    parser.add_argument("--out", type=Path, help="JSONL, a line for each run; added to")
    parser.add_argument("--read", nargs="+", type=Path, default=[], help="JSONL of earlier calls")
    parser.add_argument("--write-docs", type=Path, metavar="DOCS", help="folder with ko/ and en/quantisation.md")
    given = parser.parse_args()
    if (given.base or given.shape) and not given.out:
        parser.error("--out says where the results go")
    return given


def main() -> None:
    """Measures, prints the tables, fills the pages."""
    given = parsed()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    rows = [json.loads(line) for path in given.read for line in path.read_text(encoding="utf-8").splitlines()]
    if given.base or given.shape:
        from koalpaca_tune.cli import quiet

        quiet.libraries()
        given.out.parent.mkdir(parents=True, exist_ok=True)
        memory = Path("/dev/shm")
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            for row in measured(given, Path(folder)):
                rows.append(row)
                with given.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                print(
                    f"{row['part']} {row['setting']:10} seed {row['seed']} {row['engine']}: "
                    f"train {row['train_loss']:.4f}, held out {row['heldout_loss']:.4f}, "
                    f"{row['tokens_per_second']:,.0f} tokens/s, {row['peak_gib']} GiB, {row['seconds']:.0f} s",
                    flush=True,
                )
    for gpu in dict.fromkeys(row["gpu"] for row in rows):
        print("\n" + tables([row for row in rows if row["gpu"] == gpu]))
    if given.write_docs:
        write_docs(given.write_docs, rows)


if __name__ == "__main__":
    main()
