"""Paired statistics: before and after are the same items, so the difference of each item is what varies.

Sources: McNemar (1947), exact form; Tango (1998) for the interval of paired proportions; Cohen (1988) and Clopper
and Pearson (1934) for g; Efron (1979), Hall (1988) and Koehn (2004) for the paired bootstrap; Fisher (1935) for
sign flips; Hedges and Olkin (1985) for the standardised mean difference; Holm (1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from koalpaca_tune.comparison import classes, resampling
from koalpaca_tune.comparison.power import ALPHA, smallest_change
from koalpaca_tune.comparison.resampling import RESAMPLES, Estimate, sign_flip

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_Z_ALPHA = 1.959963984540054
_Z_POWER = 0.8416212335729143

COHEN_G, COHEN_DZ, DIFFERENCE = "Cohen's g", "Cohen's dz", "difference"


@dataclass(frozen=True, slots=True)
class Paired:
    """A paired difference, after less before.

    Attributes:
        before, after, difference: the statistic on each side, and its change.
        low, high: 95 % interval of the difference, for this comparison alone; None where the items are all alike
            and tell of no spread. It holds 0 wherever p is no less than 0.05.
        p: two-sided p-value of no difference, not yet adjusted for other comparisons.
        smallest: the change that would be found with 80 % power at alpha 0.05; None when it cannot be told.
        n: pairs.
        lost, won: pairs that went from right to wrong, from wrong to right; None for measures that are not yes/no.
        test: the name of the test.
        effect, effect_low, effect_high: size of the effect with its 95 % interval; None when it cannot be told.
        effect_name: Cohen's g (share of the changed items that went to the better, less a half), Cohen's dz (mean
            difference over the standard deviation of the differences) or the difference itself.
    """

    before: float
    after: float
    difference: float
    low: float | None
    high: float | None
    p: float
    smallest: float | None
    n: int
    lost: int | None
    won: int | None
    test: str
    effect: float | None = None
    effect_low: float | None = None
    effect_high: float | None = None
    effect_name: str = ""

    @property
    def odds_ratio(self) -> float | None:
        """Won over lost, the odds ratio of matched pairs; None where nothing was lost or it is not yes/no."""
        return self.won / self.lost if self.won is not None and self.lost else None


def proportions(before: Bools, after: Bools) -> Paired:
    """Yes/no outcomes: McNemar's exact test, Tango's interval, Cohen's g.

    The smallest detectable change assumes the share of changed items (at least the change itself) that was
    seen here.
    """
    n = len(before)
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    p = mcnemar(lost, won)
    low, high = _agreeing(*score_interval(lost, won, n), p)
    one, two = float(before.mean()), float(after.mean())
    effect = cohen_g(lost, won)
    return Paired(
        one,
        two,
        (won - lost) / n,
        low,
        high,
        p,
        smallest_proportion((lost + won) / n, n),
        n,
        lost,
        won,
        "McNemar (exact)",
        *_known(effect),
        effect_name=COHEN_G,
    )


def means(before: Floats, after: Floats, seed: int, *, resamples: int = RESAMPLES) -> Paired:
    """Measured values: sign flips and the studentised paired bootstrap.

    p is the larger of the two. Sign flips alone are exact where before and after could be swapped, but find too
    much where nothing changed on average and rare large gains stand against common small losses.
    """
    estimate = resampling.mean(after - before, seed, resamples=resamples)
    return _values(before, after, float(len(before)), estimate, seed, resamples)


def stratified(
    before: Floats, after: Floats, strata: Sequence[Ints], seed: int, *, resamples: int = RESAMPLES
) -> Paired:
    """The mean over categories of the categories' means; items are resampled within their category."""
    share = np.empty(len(before))
    for rows in strata:
        share[rows] = 1 / len(rows) / len(strata)
    estimate = resampling.stratified(after - before, strata, seed, resamples=resamples)
    paired = _values(before * share, after * share, 1.0, estimate, seed, resamples)
    return replace(
        paired,
        effect=None if paired.low is None else paired.difference,
        effect_low=paired.low,
        effect_high=paired.high,
        effect_name=DIFFERENCE,
    )


def ratios(before: Floats, after: Floats, weights: Floats, seed: int, *, resamples: int = RESAMPLES) -> Paired:
    """Totals over a common denominator (nats over characters): sum(values) / sum(weights).

    The weights belong to the items, the same before and after. The bootstrap resamples items with their weights.
    """
    estimate = resampling.ratio(after - before, weights, seed, resamples=resamples)
    return _values(before, after, float(weights.sum()), estimate, seed, resamples)


def macro_f1(gold: Ints, before: Ints, after: Ints, seed: int, *, resamples: int = RESAMPLES) -> Paired:
    """Macro-F1 of picks: before and after are swapped per item (test), items are drawn again (interval).

    Args:
        gold, before, after: class indices, shape [items].
    """
    table = classes.counts(gold, before, after)
    estimate = classes.bootstrap(table, seed, resamples=resamples)
    one, two = classes.macro_f1s(table)
    p = classes.permutation(table, seed, resamples=resamples)
    low, high = _agreeing(estimate.low, estimate.high, p)
    return Paired(
        one,
        two,
        estimate.value,
        low,
        high,
        p,
        (_Z_ALPHA + _Z_POWER) * estimate.error or None,
        len(gold),
        None,
        None,
        "swap permutation",
        None if low is None else estimate.value,
        low,
        high,
        DIFFERENCE,
    )


def _values(
    before: Floats, after: Floats, denominator: float, estimate: Estimate, seed: int, resamples: int
) -> Paired:
    difference = after - before
    effect = cohen_dz(difference)
    p = max(estimate.p, sign_flip(difference, seed, resamples=resamples))
    low, high = _agreeing(estimate.low, estimate.high, p)
    return Paired(
        float(before.sum() / denominator),
        float(after.sum() / denominator),
        estimate.value,
        low,
        high,
        p,
        (_Z_ALPHA + _Z_POWER) * estimate.error or None,
        len(difference),
        None,
        None,
        "sign-flip permutation and studentised bootstrap",
        *_known(effect),
        effect_name=COHEN_DZ,
    )


def _agreeing(low: float, high: float, p: float) -> tuple[float, float] | tuple[None, None]:
    """An interval that says the same as the test beside it: with 0 inside where that is not rejected.

    (None, None) for an interval without ends. A score or bootstrap interval may leave out a 0 that the exact test
    keeps, when few items changed.
    """
    if not math.isfinite(low) or not math.isfinite(high):
        return None, None
    return (min(low, 0.0), max(high, 0.0)) if p >= ALPHA else (low, high)


def _known(effect: tuple[float, float, float] | None) -> tuple[float | None, float | None, float | None]:
    return effect or (None, None, None)


def mcnemar(lost: int, won: int) -> float:
    """Exact two-sided p-value: under no difference, each changed item went either way with probability 1/2."""
    from scipy.stats import binomtest

    return float(binomtest(won, lost + won, 0.5).pvalue) if lost + won else 1.0


def score_interval(lost: int, won: int, n: int) -> tuple[float, float]:
    """95 % interval of (won - lost) / n: the differences that Tango's score test (1998) does not reject.

    Unlike bootstrap and Wald it does not shrink to a point when no item changed, and unlike Agresti and Min's it
    keeps its coverage when nearly all changes go one way.
    """

    def score(change: float) -> float:
        # the share that is lost, at its likeliest where the difference is `change`
        b = (2 * n - won + lost) * change - lost - won
        c = -lost * change * (1 - change)
        share = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        variance = n * (2 * share + change * (1 - change))
        return (won - lost - n * change) / math.sqrt(max(variance, 1e-300))

    seen = (won - lost) / n
    return _bound(score, -1.0, seen, _Z_ALPHA), _bound(score, seen, 1.0, -_Z_ALPHA)


def _bound(score: Callable[[float], float], low: float, high: float, level: float) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if score(middle) > level else (low, middle)
    return (low + high) / 2


def cohen_g(lost: int, won: int) -> tuple[float, float, float] | None:
    """Share of the changed items that went to the better, less a half, with its exact 95 % interval.

    Cohen (1988, chapter 5) calls .05 small, .15 medium, .25 large. Clopper and Pearson's interval leaves out 0
    where McNemar's exact test says p < 0.05, and only there. None when no item changed.
    """
    from scipy.stats import beta

    changed = lost + won
    if not changed:
        return None
    low = float(beta.ppf(ALPHA / 2, won, lost + 1)) if won else 0.0
    high = float(beta.ppf(1 - ALPHA / 2, won + 1, lost)) if lost else 1.0
    return won / changed - 0.5, low - 0.5, high - 0.5


def cohen_dz(difference: Floats) -> tuple[float, float, float] | None:
    """Mean difference over the standard deviation of the differences (Cohen 1988), with a 95 % interval.

    The interval has the large-sample variance 1/n + d^2 / 2n (Hedges and Olkin 1985) and Student's t. None when all
    differences are equal.
    """
    from scipy.stats import t

    n = len(difference)
    spread = float(difference.std(ddof=1)) if n > 1 else 0.0
    if spread <= 1e-12 * float(np.abs(difference).max(initial=0.0)):
        return None
    effect = float(difference.mean()) / spread
    half = float(t.ppf(1 - ALPHA / 2, n - 1)) * math.sqrt(1 / n + effect**2 / (2 * n))
    return effect, effect - half, effect + half


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
    """The change of a proportion that McNemar's exact test finds with 80 % power at alpha 0.05.

    `changed` is the share of items that change at all: the share seen, or the change itself when that is more. None
    when even n items of n would not do.
    """
    return smallest_change(changed, n)
