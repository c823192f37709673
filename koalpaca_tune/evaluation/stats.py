"""Paired statistics: before and after are the same items, so the difference of each item is what varies.

Sources: McNemar (1947), exact form; Agresti and Min (2005) for intervals of paired proportions; Efron (1979)
and Koehn (2004) for the paired bootstrap; Fisher (1935) for sign flips; Holm (1979); Connor (1987) for the
power of McNemar's test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ALPHA = 0.05
POWER = 0.80
RESAMPLES = 10_000
_Z_ALPHA = 1.959963984540054
_Z_POWER = 0.8416212335729143
_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class Paired:
    """A paired difference, after less before.

    Attributes:
        before, after, difference: the statistic on each side, and its change.
        low, high: 95 % interval of the difference, for this comparison alone.
        p: two-sided p-value of no difference, not yet adjusted for other comparisons.
        smallest: the change that would be found with 80 % power at alpha 0.05; None when it cannot be told.
        n: pairs.
        lost, won: pairs that went from right to wrong, from wrong to right; None for measures that are not yes/no.
        test: the name of the test.
    """

    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float
    smallest: float | None
    n: int
    lost: int | None
    won: int | None
    test: str


def proportions(before: Bools, after: Bools) -> Paired:
    """Yes/no outcomes: McNemar's exact test, Agresti and Min's interval.

    The smallest detectable change assumes the share of changed items (at least the change itself) that was
    seen here.
    """
    n = len(before)
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    low, high = agresti_min(lost, won, n)
    one, two = float(before.mean()), float(after.mean())
    smallest = smallest_proportion((lost + won) / n, n)
    return Paired(
        one, two, (won - lost) / n, low, high, mcnemar(lost, won), smallest, n, lost, won, "McNemar (exact)"
    )


def means(before: Floats, after: Floats, seed: int, *, resamples: int = RESAMPLES) -> Paired:
    """Measured values: sign-flip permutation test, percentile interval of the paired bootstrap."""
    return _values(before, after, float(len(before)), seed, resamples)


def ratios(before: Floats, after: Floats, weights: Floats, seed: int, *, resamples: int = RESAMPLES) -> Paired:
    """Totals over a common denominator (nats over characters): sum(values) / sum(weights).

    The weights belong to the items, the same before and after. The bootstrap resamples items with their weights.
    """
    low, high = bootstrap(
        lambda rows: (after - before)[rows].sum(-1) / weights[rows].sum(-1), len(before), seed, resamples=resamples
    )
    return _values(before, after, float(weights.sum()), seed, resamples, interval=(low, high))


def _values(
    before: Floats,
    after: Floats,
    denominator: float,
    seed: int,
    resamples: int,
    interval: tuple[float, float] | None = None,
) -> Paired:
    difference = after - before
    n = len(difference)
    if interval is None:
        interval = bootstrap(lambda rows: difference[rows].mean(-1), n, seed, resamples=resamples)
    spread = float(difference.std(ddof=1)) if n > 1 else 0.0
    smallest = (_Z_ALPHA + _Z_POWER) * spread * math.sqrt(n) / denominator if spread > 0 else None
    return Paired(
        float(before.sum() / denominator),
        float(after.sum() / denominator),
        float(difference.sum() / denominator),
        *interval,
        sign_flip(difference, seed, resamples=resamples),
        smallest,
        n,
        None,
        None,
        "sign-flip permutation",
    )


def mcnemar(lost: int, won: int) -> float:
    """Exact two-sided p-value: under no difference, each changed item went either way with probability 1/2."""
    from scipy.stats import binomtest

    return float(binomtest(won, lost + won, 0.5).pvalue) if lost + won else 1.0


def agresti_min(lost: int, won: int, n: int) -> tuple[float, float]:
    """95 % interval of (won - lost) / n: Wald's with half an item added to each cell.

    Unlike bootstrap and Wald it does not shrink to a point when no item changed.
    """
    total = n + 2
    centre = (won - lost) / total
    variance = (won + lost + 1) - (won - lost) ** 2 / total
    half = _Z_ALPHA * math.sqrt(variance) / total
    return max(-1.0, centre - half), min(1.0, centre + half)


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], Floats], n: int, seed: int, *, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % percentile interval of a statistic of items drawn with replacement.

    Args:
        statistic: index array [resamples, n] -> values [resamples].
        n: how many items.
        seed: same seed, same interval.
        resamples: how many draws.
    """
    random = np.random.default_rng(seed)
    step = max(1, _CELLS // max(n, 1))
    values = [
        statistic(random.integers(0, n, size=(min(step, resamples - done), n)))
        for done in range(0, resamples, step)
    ]
    low, high = np.quantile(np.concatenate(values), [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def sign_flip(difference: Floats, seed: int, *, resamples: int = RESAMPLES) -> float:
    """Two-sided p-value of a mean difference of zero: under it, each difference could have had the other sign.

    All 2^n sign patterns when they are no more than `resamples`, else that many at random, the seen one
    counted among them (Phipson and Smyth 2010), so that p is never 0.
    """
    n = len(difference)
    seen = abs(float(difference.sum()))
    slack = 1e-9 * float(np.abs(difference).sum())
    if seen <= slack:
        return 1.0
    if 2**n <= resamples:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ difference) >= seen - slack).mean())
    random = np.random.default_rng(seed)
    step = max(1, _CELLS // n)
    extreme = 0
    for done in range(0, resamples, step):
        rows = min(step, resamples - done)
        # 2 * (sum of a random half) - total is the sum with random signs
        kept = random.integers(0, 2, size=(rows, n), dtype=np.int8) @ difference
        extreme += int((np.abs(2 * kept - difference.sum()) >= seen - slack).sum())
    return (1 + extreme) / (1 + resamples)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given: the chance of any false finding stays below alpha."""
    order = sorted(range(len(p)), key=lambda n: p[n])
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, n in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[n]))
        adjusted[n] = highest
    return adjusted


def smallest_proportion(changed: float, n: int) -> float | None:
    """The change of a proportion that McNemar's test would find with 80 % power at alpha 0.05.

    Connor's approximation, n d^2 = (z_a sqrt(c) + z_b sqrt(c - d^2))^2, solved for the change d, where c is the
    share of items that change at all: the share seen, or d itself when that is more. Never below six items, the
    fewest with which the exact test can speak. None when even n items of n would not do.
    """
    from scipy.optimize import brentq

    def excess(d: float) -> float:
        c = max(changed, d)
        return n * d * d - (_Z_ALPHA * math.sqrt(c) + _Z_POWER * math.sqrt(max(c - d * d, 0.0))) ** 2

    if n < 6 or excess(1.0) <= 0:
        return None
    found = float(brentq(excess, 1e-9, 1.0))
    return max(found, 6 / n)
