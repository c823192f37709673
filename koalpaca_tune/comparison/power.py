"""Power of McNemar's exact test: which change of a proportion so many items would show."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

ALPHA = 0.05
POWER = 0.80
FEWEST = 6
"""Pairs below which no change is significant, not even when all of them change: 2 / 2**5 is more than ALPHA."""
_STEPS = 40
_MOST_ITEMS = 10_000_000


@lru_cache(maxsize=4096)
def power(n: int, changed: float, difference: float, alpha: float = ALPHA) -> float:
    """Chance that the exact test finds a change, and says its direction rightly.

    The number of changed items is binomial (n, changed); of these, (1 + difference / changed) / 2 change to the
    better. Summed over all numbers of changed items that are not out of the question (8 standard deviations).

    Args:
        n: items.
        changed: share of items whose outcome changes at all, at least `difference`.
        difference: the true change of the proportion, above 0.
        alpha: level of the two-sided test.
    """
    from scipy.stats import binom

    changed = min(1.0, max(changed, difference))
    middle, spread = n * changed, (n * changed * (1 - changed)) ** 0.5
    first, last = max(0, int(middle - 8 * spread)), min(n, int(middle + 8 * spread) + 1)
    count = np.arange(first, last + 1)
    # the most items that may go the other way: twice the tail is still below alpha
    most = binom.ppf(alpha / 2, count, 0.5) - 1
    other = (1 - difference / changed) / 2
    found = np.where(most >= 0, binom.cdf(most, count, other), 0.0)
    return float((binom.pmf(count, n, changed) * found).sum())


def smallest_change(changed: float, n: int, *, alpha: float = ALPHA, goal: float = POWER) -> float | None:
    """The change of a proportion that n items show with a power of `goal`; None when even n of n would not do.

    Args:
        changed: share of items that change at all; where the change itself is more, the change is taken.
    """
    if n < 1 or power(n, 1.0, 1.0, alpha) < goal:
        return None
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if power(n, max(changed, middle), middle, alpha) >= goal else (middle, high)
    return high


def items_needed(difference: float, changed: float, *, alpha: float = ALPHA, goal: float = POWER) -> int | None:
    """A number of items that shows a change with a power of `goal`; None above ten million.

    Found by halving. Power rises with n but for small steps back, the test being discrete: a number a little
    smaller may reach the goal as well, and one a little larger just miss it.
    """
    changed = max(changed, difference)
    high = 8
    while power(high, changed, difference, alpha) < goal:
        high *= 2
        if high > _MOST_ITEMS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, changed, difference, alpha) >= goal else (middle, high)
    return high
