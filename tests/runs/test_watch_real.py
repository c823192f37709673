"""The watch on real runs: memory that is really kept, data that is really waited for, a loss that really drops.

Each fault begins in the middle of a tiny run, and is named within the rows that `SIGNS` states, and not before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, SupportsIndex

import pytest
import torch

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.diagnosis.signs import STALLED
from koalpaca_tune.diagnosis.watch import SIGNS
from koalpaca_tune.records import NOT_LEARNED, Encoded
from koalpaca_tune.runs import train as runs
from koalpaca_tune.training.metrics import resident_gib
from koalpaca_tune.training.steps import Step

Make = Callable[..., Recipe]
BEGINS = 20
"""The last row in health."""


@pytest.fixture
def ready(on_files: Make) -> Callable[[int], runs.Ready]:
    """(steps) -> a run of so many, a row of metrics for each."""

    def make(steps: int) -> runs.Ready:
        training = {"max_steps": steps, "batch_size": 4, "learning_rate": 0.02, "schedule": "constant"}
        recipe = on_files(training={**training, "checkpoint_every": 1000}, data={"valid": None, "packing": False})
        return runs.make_ready(recipe, runs.read_examples(recipe))

    return make


def noticed(ready: runs.Ready, name: str, progress: Any = None) -> list[int]:
    """The rows in which a notice was given, as metrics.jsonl has them."""
    folder = Path(ready.recipe.folder)
    ready.trainer.run(folder, progress=progress)
    rows = [row for _, row in jsonl.read(folder / "metrics.jsonl")]
    assert len(rows) == ready.trainer.total
    return [row["step"] for row in rows if name in row.get("notices", ())]


@pytest.mark.skipif(resident_gib() is None, reason="this system does not tell what a process holds (/proc)")
def test_a_run_that_keeps_tensors_is_told_of_its_memory(ready: Callable[[int], runs.Ready]) -> None:
    kept: list[torch.Tensor] = []
    # a fiftieth of what the process holds, in every step
    bytes_kept = int((resident_gib() or 0.0) * 2**30 / 50)

    def keep(done: int, total: int, row: dict[str, Any]) -> None:
        if done >= BEGINS:
            kept.append(torch.ones(bytes_kept, dtype=torch.uint8))

    within = SIGNS["memory"].rows
    assert noticed(ready(BEGINS + within), "memory", keep) == [BEGINS + within]


class Waiting(list[Encoded]):
    """Examples that must be waited for, once `waits` is set: four times as long as all else takes."""

    waits = False
    left = 0.0

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        if self.waits and time.perf_counter() - self.left > 1e-3:
            time.sleep(min(0.5, 4.0 * (time.perf_counter() - self.left)))
        self.left = time.perf_counter()
        return super().__getitem__(index)


def test_a_run_that_waits_for_its_data_is_told_so(ready: Callable[[int], runs.Ready]) -> None:
    made = ready(BEGINS + 8)
    made.trainer.train = examples = Waiting(made.trainer.train)

    def begin(done: int, total: int, row: dict[str, Any]) -> None:
        # the next step's data are read already
        examples.waits = done >= BEGINS - 1

    (told,) = noticed(made, "stalled-data", begin)
    # on a busy machine a row may take long for other reasons: what counts is what the rows say
    trail = [row for _, row in jsonl.read(Path(made.recipe.folder) / "metrics.jsonl")]
    waited = [row["step"] for row in trail if row["data_seconds"] > STALLED * row["seconds"]]
    first = next(step for step in waited if step - 1 in waited)
    assert BEGINS < first == told
    assert SIGNS["stalled-data"].rows == 2


def test_a_loss_that_drops_because_labels_become_trivial_is_told(ready: Callable[[int], runs.Ready]) -> None:
    made = ready(BEGINS + 4)
    trainer = made.trainer
    # all but the token that ends an answer is masked: what a template fault in the second half of a file does
    trivial = [replace(one, labels=(NOT_LEARNED,) * (len(one.ids) - 1) + (one.ids[-1],)) for one in trainer.train]
    count = len(trainer.train)
    trainer.train = [*trainer.train, *trivial]
    trainer.steps = [
        Step(tuple((index + count,) for (index,) in step.rows) if n >= BEGINS else step.rows, step.epoch)
        for n, step in enumerate(trainer.steps)
    ]
    assert noticed(made, "loss-drop") == [BEGINS + SIGNS["loss-drop"].rows]
