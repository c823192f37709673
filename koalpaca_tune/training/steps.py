"""Which examples each step learns from: a pure function of data, seed and recipe.

Nothing of the data order has to be saved in a checkpoint but the step number. A step takes
batch_size x ranks rows; how it is cut into micro-steps changes speed and memory alone.
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
    per_step = training.batch_size * ranks
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


def deal(rows: Sequence[Row], ranks: int) -> list[list[Row]]:
    """Each rank's share of a step's rows, dealt in turn; the last ranks may have one less, or none."""
    return [list(rows[rank::ranks]) for rank in range(ranks)]


def micro_batches(widths: Sequence[int], micro_tokens: int) -> list[list[int]]:
    """Rows that are computed together when each is padded to the longest among them.

    Args:
        widths: tokens of each row.
        micro_tokens: the most that rows x longest may be; a longer row stands alone.

    Returns:
        Groups of indices, longest rows first, so that neighbours in length share a group.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(widths)), key=lambda i: -widths[i]):
        if groups and widths[groups[-1][0]] * (len(groups[-1]) + 1) <= micro_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
