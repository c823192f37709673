"""Counts of n-grams, and the F-measures over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

Grams = Counter[tuple[str, ...]]


def of(words: Sequence[str], n: int) -> Grams:
    """The n-grams of a sequence, counted; empty when it is shorter than n."""
    return Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))


def f1(one: Grams, other: Grams) -> float:
    """F1 of two bags: twice what they share over what they hold together. Two empty bags agree."""
    held = one.total() + other.total()
    return 2 * (one & other).total() / held if held else 1.0
