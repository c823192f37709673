"""Where the time of one warm step of ours goes, kernel group by kernel group, beside each group's floor.

    python bench/profile_step.py polyglot-ko-5.8b --budget 24 --out $OUT
    python bench/profile_step.py llama3-8b --micro-tokens 8192 --recompute wide --set engine.graphs=never --out $OUT
    python bench/profile_step.py tiny-neox --out FOLDER       (on the CPU: operators in place of kernels)

The step is the Trainer's own, data and update included: step 5 is timed alone, step 7 under torch.profiler (which
warms itself up in step 6). About 40 seconds. Floors (see bench/floors.py): products at the rate that cuBLAS reaches
here on the same shapes, bytes at the speed of a copy. Writes OUT/profile-SHAPE-WORKLOAD.md and .json, and prints
the table.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import re
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import floors
import measure
import ours
import torch
import workloads
from shapes import SHAPES

from koalpaca_tune import kernels
from koalpaca_tune.models import base
from koalpaca_tune.training.loop import Trainer

WARM = 4
STEPS = WARM + 3
"""Warm ones, one timed alone, one that warms the profiler up, one profiled."""
PATTERNS = {
    # before products: some attention kernels are CUTLASS's too
    "attention": r"sdpa|flash|fmha|attention|attn|mha_",
    "dequantise": r"dequant",
    "optimizer": r"adam|optimizer|lpnorm|multi_tensor|foreach",
    "products": r"nvjet|gemm|cutlass|xmma|cublas|splitk|gemv|dot_kernel|sm90_|addmm|aten::mm\b|bmm|aten::linear",
    "copies": r"memcpy|memset|copy|fill|cat(array|batched)|to_copy|zero_",
}
OURS, OTHER = "our kernels", "other"
GROUPS = ("products", "attention", "dequantise", OURS, "copies", "optimizer", OTHER)


def our_names() -> set[str]:
    """Names of the Triton kernels of koalpaca_tune.kernels, as a trace spells them."""
    names = set()
    for found in pkgutil.iter_modules(kernels.__path__, f"{kernels.__name__}."):
        try:
            module = importlib.import_module(found.name)
        except ImportError:
            # a machine without Triton runs none of them
            continue
        for value in vars(module).values():
            # an autotuner holds the compiled function, which holds the Python one
            compiled = value
            while type(compiled).__module__.startswith("triton") and hasattr(compiled, "fn"):
                compiled = compiled.fn
            if compiled is not value:
                names.add(compiled.__name__)
    return names


def group_of(name: str, ours_are: set[str]) -> str:
    """The group of a kernel."""
    low = name.lower()
    if name in ours_are:
        return next((group for group in ("attention", "dequantise") if re.search(PATTERNS[group], low)), OURS)
    return next((group for group, pattern in PATTERNS.items() if re.search(pattern, low)), OTHER)


def events(trace: Path) -> list[tuple[str, float, float]]:
    """(name, start, seconds) of what ran on the card; on a CPU of each operator, those within it left out."""
    with trace.open(encoding="utf-8") as file:
        raw = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    on_card = [event for event in raw if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    if on_card:
        return [(event["name"], event["ts"] / 1e6, event["dur"] / 1e6) for event in on_card]
    own: list[list[Any]] = []
    stack: dict[Any, list[list[Any]]] = defaultdict(list)
    operators = [event for event in raw if event.get("cat") == "cpu_op"]
    for event in sorted(operators, key=lambda event: (event["ts"], -event["dur"])):
        open_ones = stack[event["tid"]]
        while open_ones and open_ones[-1][1] + open_ones[-1][3] <= event["ts"]:
            open_ones.pop()
        if open_ones:
            open_ones[-1][2] -= event["dur"]
        # name, start, own time, whole time
        open_ones.append([event["name"], event["ts"], event["dur"], event["dur"]])
        own.append(open_ones[-1])
    return [(name, start / 1e6, max(0.0, alone) / 1e6) for name, start, alone, _ in own]


def busy(found: list[tuple[str, float, float]]) -> float:
    """Seconds in which at least one of them ran."""
    total, until = 0.0, float("-inf")
    for _, start, seconds in sorted(found, key=lambda event: event[1]):
        total += max(0.0, start + seconds - max(until, start))
        until = max(until, start + seconds)
    return total


def profile(training: Trainer, trace: Path) -> tuple[float, float]:
    """Seconds of step 5 alone, and of step 7 under the profiler, which writes `trace`."""
    kinds = torch.profiler.ProfilerActivity
    profiler = torch.profiler.profile(
        activities=[kinds.CUDA if torch.cuda.is_available() else kinds.CPU],
        schedule=torch.profiler.schedule(wait=0, warmup=1, active=1, repeat=1),
        on_trace_ready=lambda done: done.export_chrome_trace(str(trace)),
    )
    began: dict[int, float] = {}
    ended: dict[int, float] = {}

    def progress(done: int, total: int, row: dict[str, Any]) -> None:
        measure.synchronize()
        ended[done] = time.perf_counter()
        if done == WARM + 1:
            profiler.start()
        elif done > WARM + 1:
            profiler.step()
        if done == STEPS:
            profiler.stop()
        measure.synchronize()
        began[done + 1] = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        training.run(Path(folder), progress=progress)
    return ended[WARM + 1] - began[WARM + 1], ended[STEPS] - began[STEPS]


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Measures the floors' rates, then the step."""
    device = base.default_device()
    shape = SHAPES[given.shape]
    settings = list(given.set)
    settings += [f"engine.micro_tokens={given.micro_tokens}"] if given.micro_tokens else []
    settings += [f"engine.recompute={given.recompute}"] if given.recompute else []
    asked = ours.recipe(
        given.shape,
        steps=STEPS,
        batch=given.batch,
        rank=given.rank,
        budget=given.budget,
        overrides=settings,
    )
    narrow = asked.engine.compute == "fp8"
    rates = floors.rates(shape, device, narrow=narrow)
    training = ours.trainer(asked, given.shape, given.workload, *ours.adapted(asked, given.shape, device))
    rows = [[training.train[index] for index in row] for row in training.steps[STEPS - 1].rows]
    choice = training.prepared.choice
    work = floors.Work(
        lengths=tuple(len(one.ids) for row in rows for one in row),
        micro_steps=training.engine.count(rows, grad=True),
        recompute="none" if choice is None else choice.recompute,
        cached_blocks=0 if choice is None else choice.cached_blocks,
        rank=given.rank,
        narrow=narrow,
    )
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        alone, profiled = profile(training, trace)
        found = events(trace)
    least = floors.seconds(shape, work, rates)
    names = our_names()
    times: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    of_kernel: dict[str, list[float]] = defaultdict(list)
    for name, _, seconds in found:
        group = group_of(name, names)
        times[group] += seconds
        counts[group] += 1
        of_kernel[name].append(seconds)
    groups = [
        {
            "group": group,
            "ms": round(1e3 * times[group], 3),
            "floor_ms": round(1e3 * least[group], 3) if group in least else None,
            "kernels": counts[group],
        }
        for group in GROUPS
    ]
    top = sorted(of_kernel.items(), key=lambda item: -sum(item[1]))[: given.top]
    return {
        "shape": given.shape,
        "workload": given.workload,
        "budget_gib": given.budget,
        "set": settings,
        "plan": ours.planned(training),
        **ours.predicted(training),
        "tokens": sum(work.lengths),
        "micro_steps": work.micro_steps,
        "step_ms": round(1e3 * alone, 2),
        "profiled_ms": round(1e3 * profiled, 2),
        "gaps_ms": round(1e3 * (profiled - busy(found)), 2),
        "tokens_per_second": round(sum(work.lengths) / alone, 1),
        "groups": groups,
        "floor_ms": round(1e3 * sum(least.values()), 2),
        "rates": asdict(rates),
        "top": [
            {"kernel": name, "group": group_of(name, names), "ms": round(1e3 * sum(s), 3), "times": len(s)}
            for name, s in top
        ],
        **measure.memory(),
        **measure.facts(),
    }


def markdown(result: dict[str, Any]) -> str:
    """The result as tables."""
    title = f"# {result['shape']}, {result['workload']}: one step of {result['tokens']:,} tokens"
    rates = result["rates"]
    lines = [
        title,
        "",
        f"{result['date']}, {result['gpu']}, torch {result['versions']['torch']}; {result['plan']}; "
        f"{result['micro_steps']} micro-steps; {' '.join(result['set']) or 'settings as planned'}; "
        f"peak {result['peak_gib']} GiB.",
        "",
        f"Step {result['step_ms']:,} ms = {result['tokens_per_second']:,.0f} tokens/s (profiled: "
        f"{result['profiled_ms']:,} ms); the floors add up to {result['floor_ms']:,} ms. Rates measured here: best "
        f"product {rates['best'] / 1e12:.0f} TFLOP/s, copy {rates['bandwidth'] / 1e12:.2f} TB/s.",
        "",
        "| group | ms | share | floor ms | ms / floor | kernels |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for group in result["groups"]:
        least = group["floor_ms"]
        ratio = f"{group['ms'] / least:.2f}" if least else ""
        lines.append(
            f"| {group['group']} | {group['ms']:.1f} | {100 * group['ms'] / result['profiled_ms']:.1f} % | "
            f"{'' if least is None else f'{least:.1f}'} | {ratio} | {group['kernels']} |"
        )
    gaps = result["gaps_ms"]
    lines.append(f"| gaps (nothing ran) | {gaps:.1f} | {100 * gaps / result['profiled_ms']:.1f} % | 0.0 | | |")
    lines += ["", "| kernel | group | ms | times | ms each |", "|---|---|---:|---:|---:|"]
    for one in result["top"]:
        name = re.sub(r"[|`\n]", " ", one["kernel"])[:110]
        each = one["ms"] / one["times"]
        lines.append(f"| `{name}` | {one['group']} | {one['ms']:.2f} | {one['times']} | {each:.4f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Profiles and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--workload", choices=workloads.WORKLOADS, default="fixed")
    parser.add_argument("--budget", type=float, help="GiB: engine.memory_budget; default: the whole card")
    parser.add_argument("--micro-tokens", type=int, help="engine.micro_tokens")
    parser.add_argument("--recompute", help="engine.recompute")
    parser.add_argument("--batch", type=int, default=8, help="rows a step")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other recipe keys")
    parser.add_argument("--top", type=int, default=25, help="kernels listed")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-profile"))
    parser.add_argument("--label", default="", help="added to the files' names")
    given = parser.parse_args()
    result = run(given)
    given.out.mkdir(parents=True, exist_ok=True)
    name = "-".join(part for part in ("profile", given.shape, given.workload, given.label) if part)
    text = markdown(result)
    (given.out / f"{name}.md").write_text(text, encoding="utf-8")
    (given.out / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
