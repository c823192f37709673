"""Speed and memory of ours from 512 to 32,768 tokens a micro-step, small to large bases, beside what was planned.

    python bench/scaling.py --out $OUT                        all six shapes: 5 minutes on an H200
    python bench/scaling.py polyglot-ko-12.8b --policies none wide blocks offload --tokens 2048 16384 --out $OUT
    python bench/scaling.py tiny-neox tiny-llama --tokens 64 256 --out FOLDER       (on the CPU, 15 s)
    python bench/scaling.py --read bench/results/scaling-h200-*.jsonl               (tables of logs)

A step has 16,384 tokens (or one micro-step, where that is more) in documents of 2,048 (or of a micro-step, where
that is less); everything but `engine.micro_tokens` and, with --policies, `engine.recompute` is planned for the
whole card. A base is made once; each point is a Trainer of its own, two steps to warm up and three that count.
Appends to OUT/scaling.jsonl as it goes (a point that does not fit says why) and writes OUT/scaling.md. After the
table stands how far the planner was off, by shape. Of a point that was logged twice --read takes the last.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from pathlib import Path
from typing import Any

import measure
import ours
import torch
from shapes import SHAPES

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import base

TOKENS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
STEP = 16384
WARM, COUNTED = 2, 3


def point(shape: str, policy: str, tokens: int, loaded: base.Loaded, model: Any) -> dict[str, Any]:
    """Trains a few steps with one setting; what a point that does not fit says is its `error`."""
    row = min(tokens, SHAPES[shape].row)
    asked = ours.recipe(
        shape,
        steps=WARM + COUNTED,
        batch=max(min(STEP, 8 * SHAPES[shape].row), tokens) // row,
        rank=8,
        budget=None,
        overrides=[f"engine.micro_tokens={tokens}", f"engine.recompute={policy}", f"data.max_length={row}"],
    )
    said: dict[str, Any] = {"shape": shape, "micro_tokens": tokens, "recompute": policy}
    try:
        training = ours.trainer(asked, shape, "fixed", loaded, model)
        with tempfile.TemporaryDirectory() as folder:
            rows = [one for one in training.run(Path(folder)).rows if "loss" in one]
    except (KoalpacaError, torch.OutOfMemoryError) as error:
        return {**said, "error": str(error).splitlines()[0][:200]}
    return {
        **said,
        **measure.speed([one["tokens"] for one in rows], [one["seconds"] for one in rows], WARM),
        **measure.memory(),
        "plan": ours.planned(training),
        **ours.predicted(training),
    }


def table(points: list[dict[str, Any]]) -> str:
    """One line per point."""
    facts = points[-1] if "versions" in points[-1] else measure.facts()
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = [
        f"{facts['date']}, {facts['gpu']}; {versions}.",
        "",
        "| base | tokens per micro-step | plan | tokens/s | predicted | peak GiB | predicted |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for one in points:
        start = f"| {one['shape']} | {one['micro_tokens']:,} | "
        if "error" in one:
            lines.append(f"{start}{one['recompute']}: {one['error'].replace('|', '/')} | | | | |")
            continue
        per_step = sum(one["tokens"]) / len(one["tokens"])
        speed = "" if not one["predicted_seconds"] else f"{per_step / one['predicted_seconds']:,.0f}"
        peak = "" if one["peak_gib"] is None else f"{one['peak_gib']:.2f}"
        planned = "" if one["predicted_gib"] is None else f"{one['predicted_gib']:.2f}"
        lines.append(f"{start}{one['plan']} | {one['tokens_per_second']:,.0f} | {speed} | {peak} | {planned} |")
    return "\n".join(lines) + "\n"


def errors(points: list[dict[str, Any]]) -> str:
    """The largest share by which prediction and measurement differ, one line per shape."""
    lines = []
    for shape in dict.fromkeys(one["shape"] for one in points):
        memory, time = [], []
        for one in points:
            if one["shape"] == shape and one.get("peak_gib") and one.get("predicted_gib"):
                memory.append(abs(one["predicted_gib"] / one["peak_gib"] - 1))
                seconds = sum(one["tokens"]) / len(one["tokens"]) / one["tokens_per_second"]
                time.append(abs(one["predicted_seconds"] / seconds - 1))
        if memory:
            lines.append(f"{shape}: {len(memory)} points, memory within {max(memory):.1%}, time {max(time):.1%}")
    return "\n".join(lines)


def read(paths: list[Path]) -> list[dict[str, Any]]:
    """The points of logs."""
    found = {}
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            found[one["shape"], one["micro_tokens"], one["recompute"]] = one
    return list(found.values())


def main() -> None:
    """Measures every point and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help="default: the six published ones")
    parser.add_argument("--tokens", type=int, nargs="+", default=list(TOKENS))
    parser.add_argument("--policies", nargs="+", default=["auto"], help="engine.recompute")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-scaling"))
    parser.add_argument("--read", type=Path, nargs="+", metavar="JSONL", help="run nothing: tables of logs")
    given = parser.parse_args()
    if given.read:
        points = read(given.read)
        print(f"{table(points)}\n{errors(points)}")
        return
    unknown = sorted(set(given.shapes) - SHAPES.keys())
    if unknown:
        parser.error(f"no such shape: {unknown[0]}. There are: {', '.join(SHAPES)}.")
    given.out.mkdir(parents=True, exist_ok=True)
    points = []
    for shape in given.shapes or [name for name in SHAPES if not name.startswith("tiny")]:
        asked = ours.recipe(shape, steps=1, batch=1, rank=8, budget=None)
        loaded, model = ours.adapted(asked, shape, base.default_device())
        for policy in given.policies:
            for tokens in given.tokens:
                one = point(shape, policy, tokens, loaded, model)
                points.append(one)
                with (given.out / "scaling.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**one, **measure.facts()}, ensure_ascii=False) + "\n")
                print(
                    one.get("error") or f"{shape} {tokens} {policy}: {one['tokens_per_second']} tokens/s",
                    flush=True,
                )
                # the engine of this point holds buffers until it is gone
                gc.collect()
        del loaded, model
        gc.collect()
        measure.forget_peak()
    text = f"{table(points)}\n{errors(points)}\n"
    (given.out / "scaling.md").write_text(text, encoding="utf-8")
    print("\n" + text)


if __name__ == "__main__":
    main()
