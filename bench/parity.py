"""Whether the fast engine, in bfloat16 and in FP8, learns what the plain one learns: losses and held-out text.

    python bench/parity_data.py ../shared/data                            (the text, once, without a GPU)
    python bench/parity.py carry/parity --out $OUT                        200 steps, 3 seeds, both families
    python bench/parity.py carry/parity --out FOLDER --quick              on the CPU: short rows, no FP8

The reference is PEFT, transformers and bitsandbytes as they are (engine.kind: plain), on the same NF4 weights (the
embedded base, GPT-NeoX; and a random Llama made here), through the Trainer that users get. At a seed all engines
start from the same LoRA matrices and see the same rows in the same order; from seed to seed both change. LoRA is
on every linear, without dropout and with; products in bfloat16 on CUDA, in float32 on the CPU. Beside `plain`:

    fast            engine.kind: fast
    fp8             the same with engine.compute: fp8 (CUDA)
    fast, small     whole blocks recomputed, micro-steps of 1,024 tokens
    plain, redraw   with other dropout: data and start are the same
    plain, split    micro-steps of half a step: the same sum in another order (and other dropout)
    plain, again    once more (CUDA): what atomics alone do
    plain, float32  in float32 (CUDA, without dropout): what bfloat16 alone does
    plain, alpha    with alpha 35 in place of 32: a defect, planted to see what the rules see

The last five with the first seed only.

Two rules for losses, smoothed over 10 steps, at equal seeds. *Within noise*: the mean |difference from plain| is
below a tenth of the standard deviation between the seeds of `plain` (mean over steps), and the validation losses,
by the engine that trained, differ in the mean of the seeds by less than their standard deviation between seeds.
That deviation is mostly the order of the data, so the rule is a wide one. *Sharp*: the mean |difference| is below a
hundredth of that deviation, or at most twice the largest that `plain` differs from itself (redraw, split, again,
float32). Where `plain, alpha` passes a rule, the rule could not have seen a defect of that size there.

*Evaluation parity* is a rule for what a user gets. The saved adapter is put on the NF4 base as `koalpaca eval` does
it, with PEFT's modules and in bfloat16 whatever trained it, and scores the validation conversations. With d the
mean over seeds of (variant - plain) in nats per token, parity holds where

    (a) |d| is below what plain differs from plain: the standard deviation between its seeds, or the largest
        |again, split or redraw - plain| at one seed if that is larger; and
    (b) the 95 % interval of d (paired bootstrap over documents) lies within 2 % of what training gained
        (base - plain, mean of the seeds), on both sides.

This was written on 2026-11-21, before any run in FP8 and before any adapter was judged so. Validation losses of
`fast` and `plain` by their own engines were known: with GPT-NeoX the three seeds of `plain` lie within 0.001 nats,
and the same seed once more 0.003 away, which is why (a) counts what plain differs from itself. Dropout draws other
masks in each engine: there the rules say less, and with one seed (`--dropout-seeds 1`) nothing.

How long, from the seconds logged on an H200 (bench/results/parity-h200-2026-11-21.jsonl, six processes at once):
for a family without dropout, three seeds of `plain` took 37 to 40 s, of `fast` 7 to 11 s, one run of `again` or
`alpha` 10 to 13 s. So `--variants plain fast fp8 "plain, again" "plain, alpha" --dropouts 0` is 64 to 77 s of
training a family in two processes, or 32 to 38 s each, beside one for FP8 (unknown; 14 to 22 s if twice `fast`).
With `--dropouts 0 0.05 --dropout-seeds 1` another 40 to 47 s a family, or 20 to 23 s each. Judging was not measured
on a card; 1 to 4 s for each of 5 to 8 runs of a process is assumed, and 20 s for starting. In all 55 to 80 s, and
80 to 115 s with dropout.

Writes OUT/parity.jsonl (a line for every run as it ends, with every loss), parity.md, and for each family an SVG of
losses and one of differences. `--read parity.jsonl` measures nothing and writes the rest again, from whole logs or
broken off ones, several too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import parity_report
import parity_runs
from parity_runs import FAMILIES, FULL, LOG, NAMES, QUICK, Run

HERE = Path(__file__).resolve().parent
DROPOUTS = (0.0, 0.05)


def read(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The runs of logs: one entry for each family and dropout, `runs` of it by variant in the order of seeds.

    A run that was logged twice counts as it was last; a line that was broken off is left out.
    """
    parts: dict[tuple[str, float], dict[str, Any]] = {}
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                one = json.loads(line)
            except ValueError:
                print(f"{path}:{number} was broken off and is left out")
                continue
            key = (one["family"], one["dropout"])
            part = parts.setdefault(key, {"family": key[0], "dropout": key[1], "runs": {}, "facts": one["facts"]})
            part["runs"].setdefault(one["variant"], {})[one["seed"]] = one
    for part in parts.values():
        # processes that ran side by side wrote as they came
        part["runs"] = {
            name: [part["runs"][name][seed] for seed in sorted(part["runs"][name])]
            for name in NAMES
            if name in part["runs"]
        }
    return [parts[key] for key in sorted(parts)]


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder that bench/parity_data.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="default: 200; with --quick 60")
    parser.add_argument("--seeds", type=int, help="of `plain`, `fast`, `fp8`; default: 3; with --quick 2")
    parser.add_argument("--dropout-seeds", type=int, help="the same where there is dropout; default: --seeds")
    parser.add_argument("--quick", action="store_true", help="rows of 128 tokens, 4 a step, a smaller Llama")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--dropouts", type=float, nargs="+", default=list(DROPOUTS))
    parser.add_argument(
        "--variants", nargs="+", choices=NAMES, default=list(NAMES), help="`plain` is always among them"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        help="processes at once; default: 6 on CUDA, where small steps are host-bound, else 1. "
        "`fp8` has one of a family's for itself; `plain, float32` has one more.",
    )
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="cpu: leave the card alone")
    parser.add_argument("--read", type=Path, nargs="+", metavar="JSONL", help="run nothing: tables and plots")
    parser.add_argument("--part", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if (given.data is None) == (given.read is None):
        parser.error("give the folder of the data, or --read")
    given.steps = given.steps or (60 if given.quick else 200)
    given.seeds = given.seeds or (2 if given.quick else 3)
    given.dropout_seeds = given.dropout_seeds or given.seeds
    given.variants = ["plain", *(name for name in given.variants if name != "plain")]
    given.out = given.out.resolve()
    if given.data:
        given.data = given.data.resolve()
    return given


def process(given: argparse.Namespace, family: str, lane: Sequence[Run]) -> int:
    """Some runs, in a process of their own; how it ended."""
    command = [sys.executable, str(HERE / "parity.py"), str(given.data), "--out", str(given.out)]
    command += ["--steps", str(given.steps), "--part", json.dumps([family, lane])]
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
    """Runs everything that is asked for; how many processes failed."""
    import torch

    cuda = given.device == "auto" and torch.cuda.is_available()
    jobs = given.jobs or (6 if cuda else 1)
    # the variants that stay apart have their place among them
    shared = max(1, jobs // len(given.families) - (cuda and "fp8" in given.variants))
    seeds = {dropout: given.dropout_seeds if dropout else given.seeds for dropout in given.dropouts}
    runs = parity_runs.wanted(given.variants, seeds, cuda)
    if not cuda and "fp8" in given.variants:
        print("fp8 and the other variants that need a CUDA card are left out")
    work = [(family, lane) for lane in parity_runs.lanes(runs, shared) for family in given.families]
    print(f"{len(runs) * len(given.families)} runs in {len(work)} processes", flush=True)
    with ThreadPoolExecutor(len(work) if cuda else jobs) as pool:
        ends = list(pool.map(lambda one: process(given, *one), work))
    return sum(end != 0 for end in ends)


def main() -> None:
    """Runs what is asked for, compares and writes."""
    given = parsed()
    if given.part:
        family, lane = given.part
        scale = QUICK if given.quick else FULL
        parity_runs.train(family, [Run(*one) for one in lane], given.data, given.out, scale, given.steps)
        return
    began = time.perf_counter()
    given.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    if not given.read:
        given.read = [given.out / LOG]
        given.read[0].unlink(missing_ok=True)
        failed = run(given)
    parts = [part for part in read([path for path in given.read if path.is_file()]) if "plain" in part["runs"]]
    if not parts:
        sys.exit("there is no run of `plain` to compare with")
    compared = [parity_report.compare(part) for part in parts]
    text = parity_report.page(compared, parts)
    (given.out / "parity.md").write_text(text, encoding="utf-8")
    parity_report.draw(parts, given.out)
    print(f"\n{text}\n{time.perf_counter() - began:.0f} s")
    if failed:
        sys.exit(f"{failed} processes ended early")


if __name__ == "__main__":
    main()
