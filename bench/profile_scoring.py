"""Where the time of scoring goes, kernel group by kernel group, and what the host does meanwhile.

    python bench/profile_scoring.py carry/eval --shape polyglot-ko-5.8b --tasks copa wic --out FOLDER     on a card

The requests are those of bench/eval.py. For each task: two turns timed; the host's work alone (tokenizing, trees
and lots, giving the card its kernels; the card is waited for after each lot); one turn under torch.profiler: kernel
groups, the floor of the products at the rates that cuBLAS reaches here, and the gaps in which nothing ran. Writes
OUT/scoring.json and prints.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import floors
import measure
import shapes
import torch
from profile_step import GROUPS, busy, events, group_of, our_names

import eval as beside
from koalpaca_tune.inference import prefixes
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.inference.scoring import Scorer
from koalpaca_tune.tokens.encode import Encoder


def host(lm: TorchLanguageModel, scorer: Scorer, rendered: list[Any]) -> dict[str, float]:
    """Seconds of the host's parts, each by itself, and of the card after all kernels of a lot were given."""
    clock = time.perf_counter
    began = clock()
    encoded = list(lm.encoder.encode(sorted(rendered, key=lambda one: one.text)))
    tokenized = clock()
    lots = list(prefixes.lots(encoded, scorer.budget))
    planned = clock()
    given = waited = 0.0
    with torch.inference_mode():
        for lot in lots:
            at = clock()
            scorer._compute(lot)
            given += clock() - at
            measure.synchronize()
            waited += clock() - at
    return {
        "tokenize": tokenized - began,
        "plan": planned - tokenized,
        "launch": given,
        "compute": waited,
        "lots": len(lots),
        "tokens": sum(lot.tokens for lot in lots),
        "keys": sum(lot.keys for lot in lots),
    }


def profiled(lm: TorchLanguageModel, rendered: list[Any]) -> tuple[float, list[tuple[str, float, float]]]:
    """Seconds of a turn under the profiler, and what ran."""
    kinds = torch.profiler.ProfilerActivity
    kind = kinds.CUDA if torch.cuda.is_available() else kinds.CPU
    with torch.profiler.profile(activities=[kind]) as profiler:
        seconds, _ = beside.timed(lambda: lm.score(rendered), "wall")
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        return seconds, events(trace)


def gaps(found: list[tuple[str, float, float]], longer_than: float) -> list[tuple[float, float]]:
    """(when since the first kernel, seconds) of pauses between kernels."""
    pauses, until = [], None
    ordered = sorted(found, key=lambda event: event[1])
    for _, start, seconds in ordered:
        if until is not None and start - until > longer_than:
            pauses.append((until - ordered[0][1], start - until))
        until = max(until or 0.0, start + seconds)
    return pauses


def task(name: str, lm: TorchLanguageModel, given: argparse.Namespace, rates: floors.Rates) -> dict[str, Any]:
    """One task's table."""
    requests = beside.asked(name, given.data_root, given.shots, given.limit, "default")
    kept, _ = beside.fitting(requests, lm)
    rendered = [one.rendered() for one in kept]
    lm.score(rendered[:64])
    turns = [beside.timed(lambda: lm.score(rendered), "wall")[0] for _ in range(2)]
    scorer = lm._scorer()
    assert isinstance(scorer, Scorer)
    parts = host(lm, scorer, rendered)
    seconds, found = profiled(lm, rendered)
    names, times = our_names(), defaultdict(float)
    of_kernel: dict[str, list[float]] = defaultdict(list)
    for kernel, _, took in found:
        times[group_of(kernel, names)] += took
        of_kernel[kernel].append(took)
    least = parts["tokens"] * sum(rates.forward) * shapes.SHAPES[given.shape].layers
    top = sorted(of_kernel.items(), key=lambda item: -sum(item[1]))[:12]
    result = {
        "task": name,
        "requests": len(kept),
        "turns_s": turns,
        "parts_s": parts,
        "profiled_s": seconds,
        "busy_s": busy(found),
        "products_floor_s": least,
        "groups_s": {group: times[group] for group in GROUPS},
        "gaps": gaps(found, 0.0005),
        "top": [{"kernel": kernel, "s": sum(took), "times": len(took)} for kernel, took in top],
    }
    print(
        f"{name}: {len(kept)} requests, turns {turns[0]:.3f} {turns[1]:.3f} s, profiled {seconds:.3f} s, busy "
        f"{result['busy_s']:.3f} s; products can take {least:.3f} s"
    )
    print(
        "  host:",
        "  ".join(
            f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value:,}" for key, value in parts.items()
        ),
    )
    print("  card:", "  ".join(f"{group} {1e3 * times[group]:.1f} ms" for group in GROUPS))
    print("  gaps:", "  ".join(f"{1e3 * long:.1f} ms at {when:.3f}" for when, long in result["gaps"]))
    for one in result["top"]:
        print(f"    {1e3 * one['s']:8.2f} ms {one['times']:6} x  {one['kernel'][:100]}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path, help="folder that holds kobest/ and polyglot_tokenizer/")
    parser.add_argument("--shape", choices=shapes.SHAPES, required=True)
    parser.add_argument("--tasks", nargs="+", choices=beside.NAMES, default=beside.NAMES)
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-scoring"))
    given = parser.parse_args()
    logging.disable(logging.ERROR)
    rates = floors.rates(shapes.SHAPES[given.shape], beside.bases.default_device())
    loaded, _ = beside.loaded_base(given)
    lm = TorchLanguageModel(
        loaded.model, loaded, Encoder(loaded.vocabulary, loaded.vocabulary.template("koalpaca"))
    )
    facts = measure.facts()
    print(f"{facts['date']} UTC, {facts['gpu']}, {facts['versions']}; {given.shape}")
    found = [task(name, lm, given, rates) for name in given.tasks]
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "scoring.json").write_text(json.dumps({**facts, "tasks": found}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
