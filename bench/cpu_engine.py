"""Tokens/s of the demo's training on this CPU with both engines, in turn, in one process.

    python bench/cpu_engine.py                               plain and fast, three times each: 30 s
    python bench/cpu_engine.py --micro 1024 2048 --set training.batch_size=16 lora.dropout=0.05
    python bench/cpu_engine.py --profile                     also where the time of two steps goes, by operator

The embedded base and the demo's recipe (koalpaca_tune/recipes/demo.yaml) on runs/demo-data, or without it on the
package's samples. A Trainer of each kind is built once; they take turns on the same steps, two to warm up before
the first turn. Prints the median of three turns, each of them, and the ratio to `plain`; and tokens per second of
processor time, which other work on the machine disturbs less. On shared cores give OMP_NUM_THREADS=1: threads that
wait for a core that is taken make both engines several times slower.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import measure
import torch
from torch.profiler import ProfilerActivity, profile

from koalpaca_tune import resources
from koalpaca_tune.cli import quiet
from koalpaca_tune.config import load
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.runs import train as runs
from koalpaca_tune.training.loop import Trainer, Window

WARM, TURNS = 2, 3
PREPARED, SAMPLES = Path("runs/demo-data/train.jsonl"), resources.DATA / "samples" / "tasks.jsonl"


@dataclass
class Way:
    """A Trainer that takes its steps a few at a time.

    Attributes:
        name: in the table.
        trainer: of this engine and setting.
        speeds: tokens/s of each turn.
        efforts: tokens per second of processor time, all threads, of each turn.
    """

    name: str
    trainer: Trainer
    speeds: list[float] = field(default_factory=list)
    efforts: list[float] = field(default_factory=list)

    def steps(self, first: int, count: int) -> tuple[float, float]:
        """Takes steps and says their tokens per second, by the clock and by processor time."""
        window = Window()
        began, worked = time.perf_counter(), time.process_time()
        for number in range(first, first + count):
            self.trainer.take(number % len(self.trainer.steps), window)
        self.trainer.settle(window)
        seconds, processor = time.perf_counter() - began, time.process_time() - worked
        return window.tokens / seconds, window.tokens / processor


def recipe(kind: str, micro: int | None, overrides: list[str]) -> Recipe:
    """The demo's, with an engine."""
    data = PREPARED if PREPARED.is_file() else SAMPLES
    changes = [f"data.train={data}", "data.valid=null", f"engine.kind={kind}"]
    changes += [f"engine.micro_tokens={micro}"] if micro else []
    return load.load("demo", [*changes, *overrides])


def operators(way: Way, first: int) -> str:
    """Where the time of two steps goes."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        way.steps(first, 2)
    table: str = seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=40)
    return table


def main() -> None:
    """Builds the Trainers, lets them take turns, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--micro", type=int, nargs="*", default=[], help="engine.micro_tokens of fast, beside its own"
    )
    parser.add_argument("--steps", type=int, default=6, help="of a turn")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="recipe keys of all")
    parser.add_argument("--profile", action="store_true", help="operators of plain and fast")
    given = parser.parse_args()
    quiet.libraries()
    examples = runs.read_examples(recipe("auto", None, given.set))
    ways = [
        Way(name, runs.make_ready(recipe(kind, micro, given.set), examples).trainer)
        for name, kind, micro in [
            ("plain", "plain", None),
            ("fast", "fast", None),
            *((f"fast, {micro}", "fast", micro) for micro in given.micro),
        ]
    ]
    for way in ways:
        way.steps(0, WARM)
    for turn in range(TURNS):
        for way in ways:
            speed, effort = way.steps(WARM + turn * given.steps, given.steps)
            way.speeds.append(speed)
            way.efforts.append(effort)
    facts = measure.facts()
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    print(f"{facts['date']} UTC, CPU, {torch.get_num_threads()} threads; {versions}")
    print(f"demo on {examples.train_counts.examples} examples{''.join(', ' + one for one in given.set)}")
    reference = [statistics.median(values) for values in (ways[0].speeds, ways[0].efforts)]
    for way in ways:
        speed, effort = statistics.median(way.speeds), statistics.median(way.efforts)
        turns = " ".join(f"{one:,.0f}" for one in way.speeds)
        print(
            f"{way.name:12} {speed:8,.0f} tokens/s ({turns}), {speed / reference[0]:.2f} x plain; "
            f"{effort:,.0f} per second of processor time, {effort / reference[1]:.2f} x plain"
        )
    if given.profile:
        for way in ways[:2]:
            print(f"\n{way.name}\n{operators(way, WARM)}")


if __name__ == "__main__":
    main()
