"""How fast koalpaca_tune trains: one shape, workload and memory budget, through the Trainer that users get.

    python bench/ours.py polyglot-ko-5.8b --budget 24
    python bench/ours.py llama3-8b --workload kosft --set engine.attention=flash engine.graphs=never
    python bench/ours.py tiny-neox                       (on the CPU, 15 s)

The base is made in memory (bench/shapes.py); 8 rows of 2,048 tokens a step (kosft: packed), rank 8, dropout 0,
every token learned: the work of bench/peers.py. A step's time is that of its line in metrics.jsonl, with a line
for every step: data, update, clipping and logging are in it. Prints one line, RESULT {json}: median real tokens/s
of the steps after the third, peak GiB since the base was made, what was planned and predicted, seconds from the
start of the process to the end of the first step, versions. About 20 seconds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import accelerate
import measure
import torch
import workloads
from shapes import SHAPES, build

from koalpaca_tune.config import document
from koalpaca_tune.config.check import check
from koalpaca_tune.config.load import override
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.models import adapter, base
from koalpaca_tune.models.base import Loaded
from koalpaca_tune.records import Encoded
from koalpaca_tune.training import loop

RECIPE = """
name: bench
seed: 0
base: {{path: random}}
lora: {{r: {rank}, alpha: {alpha}, dropout: 0.0, targets: [{targets}]}}
data: {{train: random, max_length: {row}, packing: true}}
training:
  max_steps: {steps}
  batch_size: {batch}
  learning_rate: 0.0002
  schedule: constant
  max_grad_norm: 0.3
  log_every: 1
  checkpoint_every: 1000000
"""


def recipe(
    shape: str, *, steps: int, batch: int, rank: int, budget: float | None, overrides: Sequence[str] = ()
) -> Recipe:
    """The recipe of a bench run; overrides are `key=value` as on the command line.

    Raises:
        KoalpacaError: an override that is no key or does not fit.
    """
    text = RECIPE.format(
        rank=rank,
        alpha=2 * rank,
        targets=", ".join(SHAPES[shape].targets),
        row=SHAPES[shape].row,
        steps=steps,
        batch=batch,
    )
    if budget is not None:
        text += f"engine: {{memory_budget: {float(budget)}}}\n"
    return check(Recipe, override(document.parse(text, "bench/ours.py"), overrides))


def examples(shape: str, workload: str, row: int, tokens: int) -> list[Encoded]:
    """Documents of random ids, all learned, of at least so many tokens; `row`: tokens of a row."""
    drawn = workloads.ids(workload, row, SHAPES[shape].vocabulary, tokens=tokens)
    return [Encoded(tuple(ids), tuple(ids)) for ids in drawn]


def adapted(asked: Recipe, shape: str, device: torch.device) -> tuple[Loaded, Any]:
    """The base and, on it, the adapter (the PEFT model)."""
    accelerate.utils.set_seed(asked.seed)
    loaded = build(shape, device)
    return loaded, adapter.attach(loaded, asked.lora, "random")


def trainer(asked: Recipe, shape: str, workload: str, loaded: Loaded, model: Any) -> loop.Trainer:
    """Data and Trainer of a bench run; the card's peak counts from here on."""
    assert asked.training.max_steps is not None
    needed = asked.training.max_steps * asked.training.batch_size * asked.data.max_length
    # rows are not packed quite full: a tenth more, so that no epoch ends within the run
    train = examples(shape, workload, asked.data.max_length, needed + needed // 10)
    measure.forget_peak()
    return loop.Trainer(
        asked,
        model,
        loaded.architecture,
        train,
        [],
        pad_id=loaded.vocabulary.pad_id,
        accelerator=loop.accelerator(loaded.compute_dtype, loaded.device),
    )


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Trains; returns the result."""
    device = base.default_device()
    asked = recipe(
        given.shape,
        steps=given.steps,
        batch=given.batch,
        rank=given.rank,
        budget=given.budget,
        overrides=given.set,
    )
    training = trainer(asked, given.shape, given.workload, *adapted(asked, given.shape, device))
    held = torch.cuda.memory_allocated() / 2**30 if device.type == "cuda" else None
    first: list[float] = []

    def progress(done: int, total: int, row: dict[str, Any]) -> None:
        if not first:
            first.append(measure.since_start())
        if row and not given.quiet:
            print(f"{done}/{total} loss {row['loss']:.4f} {row['tokens_per_second']} tokens/s", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        metrics = training.run(Path(folder), progress=progress)
    rows = [row for row in metrics.rows if "loss" in row]
    return {
        "system": "koalpaca",
        "shape": given.shape,
        "workload": given.workload,
        "batch": given.batch,
        "budget_gib": given.budget,
        "rank": given.rank,
        "dropout": 0.0,
        "set": given.set,
        **measure.speed([row["tokens"] for row in rows], [row["seconds"] for row in rows]),
        **measure.memory(),
        "before_first_step_gib": None if held is None else round(held, 2),
        "plan": planned(training),
        **predicted(training),
        "loss": [round(rows[0]["loss"], 4), round(rows[-1]["loss"], 4)],
        "first_step_seconds": round(first[0], 1),
        **measure.facts(),
    }


def planned(training: loop.Trainer) -> str:
    """What was decided, in a few words."""
    choice = training.prepared.choice
    if choice is None:
        return training.prepared.name
    words = [f"{choice.micro_tokens:,} tokens", f"recompute {choice.recompute}", f"{choice.cached_blocks} cached"]
    return ", ".join(words + ["graphs"] * choice.graphs)


def predicted(training: loop.Trainer) -> dict[str, float | None]:
    """What the planner said of it: GiB at most, seconds of a step."""
    plan = training.prepared.plan
    if plan is None:
        return {"predicted_gib": None, "predicted_seconds": None}
    return {"predicted_gib": round(plan.peak / 2**30, 2), "predicted_seconds": round(plan.step_seconds, 4)}


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--workload", choices=workloads.WORKLOADS, default="fixed")
    parser.add_argument("--budget", type=float, help="GiB: engine.memory_budget; default: the whole card")
    parser.add_argument("--batch", type=int, default=8, help="rows a step")
    parser.add_argument("--steps", type=int, default=11, help="of which the first three are not counted")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="recipe keys, as engine.graphs=never"
    )
    parser.add_argument("--quiet", action="store_true", help="only the result")
    return parser.parse_args()


if __name__ == "__main__":
    measure.emit(run(parsed()))
