"""Macro-F1 before and after, by counts of (right class, pick before, pick after): no item is looked at twice.

Resampling items is drawing such counts, so thousands of items cost as much as a few.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from koalpaca_tune.comparison.power import ALPHA
from koalpaca_tune.comparison.resampling import RESAMPLES

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ADDED = 2.0
"""Items added before resampling, spread over all pairs of picks: Agresti and Min's (2005) remedy for few
changes."""
_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A difference of macro-F1 with its standard error and 95 % interval: everything where all items are alike."""

    value: float
    error: float
    low: float
    high: float


def counts(gold: Ints, before: Ints, after: Ints) -> Floats:
    """How many items have each right class and each pair of picks; shape [classes, classes, classes]."""
    _, flat = np.unique(np.concatenate([gold, before, after]), return_inverse=True)
    one, two, three = np.split(flat.reshape(-1), 3)
    size = int(flat.max()) + 1
    found = np.bincount((one * size + two) * size + three, minlength=size**3)
    return found.reshape(size, size, size).astype(np.float64)


def difference(table: Floats) -> Floats:
    """Macro-F1 after less before; shape [...] of counts [..., classes, classes, classes]."""
    return np.asarray(_macro_f1(table.sum(-2)) - _macro_f1(table.sum(-1)))


def macro_f1s(table: Floats) -> tuple[float, float]:
    """Macro-F1 before and after."""
    return float(_macro_f1(table.sum(-1))), float(_macro_f1(table.sum(-2)))


def _macro_f1(table: Floats) -> Floats:
    """Macro-F1 of counts [..., right class, pick], over the classes that are right or picked at all."""
    hits = np.einsum("...cc->...c", table)
    either = table.sum(-1) + table.sum(-2)
    scores = np.where(either > 0, 2 * hits / np.where(either > 0, either, 1.0), 0.0)
    return np.asarray(scores.sum(-1) / np.maximum((either > 0).sum(-1), 1))


def bootstrap(table: Floats, seed: int, *, resamples: int = RESAMPLES) -> Estimate:
    """The difference with the bootstrap's standard error and Student's t; no point even where nothing changed."""
    from scipy.stats import t

    size, n = table.shape[0], table.sum()
    spread = np.broadcast_to(table.sum((1, 2))[:, None, None] / size**2, table.shape)
    shares = ((table + _ADDED / n * spread) / (n + _ADDED)).ravel()
    random = np.random.default_rng(seed)

    def draw(rows: int) -> Floats:
        drawn = random.multinomial(int(n), shares / shares.sum(), size=rows)
        return difference(drawn.reshape(rows, size, size, size).astype(np.float64))

    error = float(_parts(draw, size**3, resamples).std(ddof=1))
    value = float(difference(table))
    if error <= 0:
        return Estimate(value, 0.0, -math.inf, math.inf)
    half = float(t.ppf(1 - ALPHA / 2, max(n - 1, 1))) * error
    return Estimate(value, error, max(-1.0, value - half), min(1.0, value + half))


def permutation(table: Floats, seed: int, *, resamples: int = RESAMPLES) -> float:
    """Two-sided p-value of no difference: before and after of each item may be swapped.

    The seen arrangement is counted among the random ones (Phipson and Smyth 2010), so that p is never 0.
    """
    size = table.shape[0]
    either = (table + table.swapaxes(1, 2)).astype(np.int64)
    upper = np.triu(np.ones((size, size), dtype=bool), 1) & (either > 0)
    where = np.nonzero(upper)
    if not len(where[0]):
        return 1.0
    same = table * np.eye(size)
    random = np.random.default_rng(seed)
    seen = abs(float(difference(table)))

    def draw(rows: int) -> Floats:
        kept = random.binomial(either[where], 0.5, size=(rows, len(where[0])))
        mixed = np.broadcast_to(same, (rows, *table.shape)).copy()
        one, two, three = where
        mixed[:, one, two, three] = kept
        mixed[:, one, three, two] = either[where] - kept
        return np.abs(difference(mixed))

    extreme = int((_parts(draw, size**3, resamples) >= seen - 1e-12).sum())
    return (1 + extreme) / (1 + resamples)


def _parts(draw: Callable[[int], Floats], cells: int, resamples: int) -> Floats:
    step = max(1, _CELLS // cells)
    return np.concatenate([draw(min(step, resamples - done)) for done in range(0, resamples, step)])
