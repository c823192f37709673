"""Which examples each step learns from: a pure function of data, seed and recipe.

Nothing of the data order has to be saved in a checkpoint but the step number. A step takes
batch_size x accumulation x ranks rows whatever the split among them, so 1 x 8 and 8 x 1 are the
same step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from koalpaca_tune.config.recipe import Training
from koalpaca_tune.records import Encoded
from koalpaca_tune.tokens.pack import Row, pack


@dataclass(frozen=True)
class Step:
    """One step's rows, and where in the data it stands (epochs done before it, as a fraction)."""

    rows: tuple[Row, ...]
    epoch: float


def steps(
    examples: Sequence[Encoded], training: Training, *, max_length: int, packing: bool, seed: int, ranks: int = 1
) -> list[Step]:
    """All steps of a run, in order.

    Each epoch is shuffled (and packed) anew; its last step may have fewer rows. Nothing is left out
    and nothing stands twice within an epoch. With a fraction of an epoch at the end, its first rows.
    """
    per_step = training.batch_size * training.accumulation * ranks
    plan: list[Step] = []
    epoch = 0
    while True:
        rows = _epoch(examples, max_length if packing else None, np.random.default_rng([seed, epoch]))
        count = math.ceil(len(rows) / per_step)
        share = 1.0 if training.epochs is None else min(1.0, training.epochs - epoch)
        for n in range(max(1, round(count * share)) if share < 1.0 else count):
            plan.append(Step(tuple(rows[n * per_step : (n + 1) * per_step]), epoch + n / count))
            if training.max_steps is not None and len(plan) == training.max_steps:
                return plan
        epoch += 1
        if training.epochs is not None and epoch >= training.epochs:
            return plan


def _epoch(examples: Sequence[Encoded], max_length: int | None, rng: np.random.Generator) -> list[Row]:
    order = [int(i) for i in rng.permutation(len(examples))]
    if max_length is None:
        return [(index,) for index in order]
    rows = [tuple(order[i] for i in row) for row in pack([len(examples[index].ids) for index in order], max_length)]
    # packing sorts by length; without this the loss would saw with it (qlora#84)
    return [rows[int(i)] for i in rng.permutation(len(rows))]


def micro_batches(rows: Sequence[Row], batch_size: int, rank: int = 0, ranks: int = 1) -> list[list[Row]]:
    """This rank's share of a step, cut into micro-batches.

    Every rank gets equally many (an empty row learns nothing), since they wait for each other.
    """
    mine = list(rows[rank::ranks])
    full = math.ceil(len(rows) / ranks)
    mine += [()] * (full - len(mine))
    return [mine[at : at + batch_size] for at in range(0, full, batch_size)]
