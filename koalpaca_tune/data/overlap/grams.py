"""Character n-grams of many texts at once, as numbers in one flat array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

EDGE = "\n"
"""Stands before, between and after the texts; a normalised text has none of its own."""


def codes(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The characters of all texts, each text led by one EDGE, one more at the end.

    Returns:
        Code points, uint32 [characters + texts + 1]; where each text's EDGE stands, int64 [texts].
    """
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    whole = EDGE + EDGE.join(texts) + EDGE
    starts = np.concatenate(([0], np.cumsum(lengths + 1)))[:-1] if len(texts) else np.empty(0, np.int64)
    return np.frombuffer(whole.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint32, copy=False), starts


def bigrams(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Character pairs of all texts, EDGE counting as a character: a text of n characters has n + 1.

    Returns:
        uint64 [pairs], the two code points side by side (42 bits, so that no two pairs are the same number);
        where each text's pairs begin, int64 [texts].
    """
    chars, starts = codes(texts)
    if not len(starts):
        return np.empty(0, np.uint64), starts
    wide = chars.astype(np.uint64)
    return (wide[:-1] << np.uint64(21)) | wide[1:], starts


def mixed(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each number scattered over 64 bits, always the same way (the finaliser of SplitMix64, Steele et al. 2014)."""
    scattered = keys + np.uint64(0x9E3779B97F4A7C15)
    scattered ^= scattered >> np.uint64(30)
    scattered *= np.uint64(0xBF58476D1CE4E5B9)
    scattered ^= scattered >> np.uint64(27)
    scattered *= np.uint64(0x94D049BB133111EB)
    scattered ^= scattered >> np.uint64(31)
    return scattered


def distinct(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The different numbers, sorted. np.unique builds a hash table, ten times slower on keys with structure."""
    ordered = np.sort(keys)
    first = np.ones(len(ordered), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]
