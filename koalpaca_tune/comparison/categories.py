"""A task by category: each with its own flips, and the mean over categories, where each counts the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from koalpaca_tune.comparison.outcomes import Outcome, Unit
from koalpaca_tune.comparison.pairing import TaskPair
from koalpaca_tune.comparison.stats import Paired

NONE = "(없음)"
"""The category of items that have none, in a task where others do."""


@dataclass(frozen=True, slots=True)
class Category:
    """One category before and after; not tested.

    Attributes:
        name: as the items say.
        paired: values, difference, interval, and the items lost and won where the measure is yes/no.
        both_right, both_wrong: items right (wrong) on both sides; None where the measure is not yes/no.
    """

    name: str
    paired: Paired
    both_right: int | None
    both_wrong: int | None


@dataclass(frozen=True)
class Categories:
    """A task's categories in the order of their names.

    Attributes:
        macro: the mean over categories, its interval by a bootstrap within the categories; None for ratios and
            macro-F1, which have no mean over items.
    """

    task: str
    title: str
    title_en: str
    unit: Unit
    rows: tuple[Category, ...]
    macro: Paired | None


def of(task: TaskPair, outcome: Outcome) -> Categories | None:
    """A task's categories; None where it has fewer than two."""
    names = [task.lines_before[row].get("category") for row in outcome.rows]
    if len(set(names)) < 2:
        return None
    labels = np.asarray([NONE if name is None else str(name) for name in names])
    strata = {str(name): np.flatnonzero(labels == name) for name in np.unique(labels)}
    plain = outcome.weights is None and outcome.classes is None
    return Categories(
        task.name,
        task.before["title"],
        task.before["title_en"],
        outcome.unit,
        tuple(_category(name, outcome.subset(rows)) for name, rows in strata.items()),
        outcome.macro(list(strata.values())) if plain else None,
    )


def _category(name: str, outcome: Outcome) -> Category:
    paired = outcome.paired()
    if not outcome.yes_no or outcome.classes is not None:
        return Category(name, paired, None, None)
    right = int(((outcome.before > 0) & (outcome.after > 0)).sum())
    lost, won = paired.lost or 0, paired.won or 0
    return Category(name, paired, right, paired.n - right - lost - won)
