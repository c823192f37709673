"""Paired resampling of measured values, vectorised: intervals by the bootstrap, p-values by sign flips.

The bootstrap is studentised (Efron 1979; Hall 1988), each side of its interval at least as far out as Student's t.
The percentile bootstrap holds the truth too seldom at 30 items, the studentised one alone with heavy tails,
Student's t alone with skewed differences (bench/paired_statistics.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from koalpaca_tune.comparison.power import ALPHA

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 10_000
_CELLS = 1_000_000
_KINDS, _FEW = 64, 8
"""Most different values, and fewest items for each, where values are drawn in place of items."""
_LEAST_ERROR = 0.75
"""A resample that drew almost only unchanged items says little of its own error: it counts as at least this
share of the error seen."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic with its standard error, 95 % interval and the two-sided p-value of being 0.

    The interval is everything where the items are all alike: they tell of no error.
    """

    value: float
    error: float
    low: float
    high: float
    p: float


def mean(values: Floats, seed: int, *, resamples: int = RESAMPLES) -> Estimate:
    """The mean of one value per item (a paired difference)."""
    return stratified(values, [np.arange(len(values))], seed, resamples=resamples)


def stratified(values: Floats, strata: Sequence[Ints], seed: int, *, resamples: int = RESAMPLES) -> Estimate:
    """The mean over strata of the strata's means: items are drawn within their stratum.

    Args:
        values: one value per item.
        strata: positions of the items of each stratum, none empty. The variance of a stratum with one item is
            taken from all items together.
    """
    random = np.random.default_rng(seed)
    count = len(strata)
    whole = float(values.var(ddof=1)) if len(values) > 1 else 0.0
    middle, variance = 0.0, 0.0
    drawn, errors = np.zeros(resamples), np.zeros(resamples)
    for rows in strata:
        part = values[rows]
        n = len(part)
        middle += float(part.mean()) / count
        variance += (float(part.var(ddof=1)) if n > 1 else whole) / n / count**2
        means, variances = _resampled(part, random, resamples)
        drawn += means / count
        errors += (variances if n > 1 else whole) / n / count**2
    return _studentised(middle, variance**0.5, drawn, np.sqrt(errors), len(values))


def _resampled(values: Floats, random: np.random.Generator, resamples: int) -> tuple[Floats, Floats]:
    """Means and variances of values drawn with replacement; shape [resamples] each."""
    n = len(values)
    if n == 1:
        return np.full(resamples, values[0]), np.zeros(resamples)
    kinds, counts = np.unique(values, return_counts=True)
    if len(kinds) <= min(_KINDS, n // _FEW):
        # how often each of a few values is drawn, in place of which items
        drawn = random.multinomial(n, counts / n, size=resamples)
        means = drawn @ kinds / n
        squares = drawn @ (kinds * kinds) / n
        return means, np.maximum(squares - means * means, 0.0) * n / (n - 1)
    means, variances = np.empty(resamples), np.empty(resamples)
    done = 0
    for picked in _draws(random, n, resamples):
        here = slice(done, done + len(picked))
        one = values.take(picked)
        means[here], variances[here] = one.mean(-1), one.var(-1, ddof=1)
        done += len(picked)
    return means, variances


def ratio(values: Floats, weights: Floats, seed: int, *, resamples: int = RESAMPLES) -> Estimate:
    """sum(values) / sum(weights), items drawn with their weights; its error by the delta method."""
    n = len(values)
    random = np.random.default_rng(seed)
    columns = (values, weights, values * values, values * weights, weights * weights)
    drawn, errors = np.empty(resamples), np.empty(resamples)
    done = 0
    for picked in _draws(random, n, resamples):
        here = slice(done, done + len(picked))
        drawn[here], errors[here] = _ratio(n, *(column.take(picked).sum(-1) for column in columns))
        done += len(picked)
    middle, error = _ratio(n, *(column.sum(keepdims=True) for column in columns))
    return _studentised(float(middle[0]), float(error[0]), drawn, errors, n)


def _ratio(n: int, values: Floats, weights: Floats, vv: Floats, vw: Floats, ww: Floats) -> tuple[Floats, Floats]:
    found = values / weights
    squares = np.maximum(vv - 2 * found * vw + found * found * ww, 0.0)
    return found, np.sqrt(squares * n / max(n - 1, 1)) / weights


def _studentised(value: float, error: float, drawn: Floats, errors: Floats, n: int) -> Estimate:
    from scipy.stats import t

    if error <= 0:
        # all items alike: no error can be told; sign flips say how likely that is
        return Estimate(value, 0.0, -math.inf, math.inf, 1.0 if value == 0 else 2 / (1 + len(drawn)))
    away = (drawn - value) / np.maximum(errors, _LEAST_ERROR * error)
    student = float(t.ppf(1 - ALPHA / 2, n - 1))
    low, high = (float(one) for one in np.quantile(away, [ALPHA / 2, 1 - ALPHA / 2]))
    beyond = min(int((away >= value / error).sum()), int((away <= value / error).sum()))
    return Estimate(
        value,
        error,
        value - max(high, student) * error,
        value - min(low, -student) * error,
        min(1.0, 2 * (1 + beyond) / (1 + len(drawn))),
    )


def _draws(random: np.random.Generator, n: int, resamples: int) -> Iterator[Ints]:
    """Positions drawn with replacement, [some, n] at a time, `resamples` rows in all."""
    step = max(1, _CELLS // max(n, 1))
    for done in range(0, resamples, step):
        yield random.integers(0, n, size=(min(step, resamples - done), n))


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
    # one random byte flips eight items: their signed sums are looked up in a table of 256
    groups = -(-n // 8)
    padded = np.zeros(groups * 8)
    padded[:n] = difference
    turned = 1.0 - 2.0 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)
    sums = (padded.reshape(groups, 8) @ turned.T).ravel()
    first = np.arange(groups) * 256
    random = np.random.default_rng(seed)
    step = max(1, _CELLS // groups)
    extreme = 0
    for done in range(0, resamples, step):
        rows = min(step, resamples - done)
        flips = random.integers(0, 256, size=(rows, groups), dtype=np.uint8)
        extreme += int((np.abs(sums.take(first + flips).sum(-1)) >= seen - slack).sum())
    return (1 + extreme) / (1 + resamples)
