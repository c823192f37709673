"""Whether two records are near duplicates, on their texts.

More than a large share of common character pairs: texts that differ where it matters are kept apart.

1. Their numbers are the same: word problems, dates and prices differ in little else.
2. Their sets of character pairs have the Jaccard similarity asked for.
3. Turn by turn, when they have the same turns: contexts and answers are half alike at least (a long
   paragraph with two questions is two records; so are 예 and 아니오), and so are the sentences of the
   questions in which they differ (a long instruction over two short reviews).
4. The sentences that differ, when they are short, say no (안, 못, 없다, 불-) equally often.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from koalpaca_tune.data.overlap import grams
from koalpaca_tune.data.overlap.minhash import numbers
from koalpaca_tune.data.overlap.text import CONTEXT, TURN, bare, normalise

_HALF = 0.5
_SHORT = 100
"""Characters up to which one negation turns a text's meaning."""

_PAIRS = 2048
"""Pairs whose texts are held at once."""

_CHARACTERS = 2_000_000
"""Characters whose character pairs are held at once, about 100 bytes each."""

_SENTENCE = re.compile(r"[\n.?!:;\"“”'‘’]+")
_NEGATION = re.compile("안|않|못|없|아니|지마|지말|불")


class Proof:
    """Called with two equally long lists of records, says of each pair whether it is near.

    Args:
        threshold: least Jaccard similarity.
        texts: the records' texts, by index.
    """

    def __init__(self, threshold: float, texts: Callable[[NDArray[np.int64]], list[str]]) -> None:
        self._threshold = threshold
        self._texts = texts

    def __call__(self, ones: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool [pairs]."""
        proved = np.zeros(len(ones), np.bool_)
        for start in range(0, len(ones), _PAIRS):
            part = slice(start, start + _PAIRS)
            proved[part] = self._some(ones[part], others[part])
        return proved

    def _some(self, ones: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
        indices, places = np.unique(np.concatenate((ones, others)), return_inverse=True)
        raw = self._texts(indices)
        normal = [normalise(text) for text in raw]
        first, second = places[: len(ones)], places[len(ones) :]
        alike = jaccard(normal, first, second) >= self._threshold
        for n in np.flatnonzero(alike).tolist():
            one, other = int(first[n]), int(second[n])
            alike[n] = numbers(normal[one]) == numbers(normal[other]) and _same_sense(raw[one], raw[other])
        return alike


def jaccard(normal: list[str], first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    """Jaccard similarity of the sets of character pairs of normalised texts, for pairs of indices into them."""
    lengths = np.fromiter(map(len, normal), np.int64, len(normal)) + 1
    ends = np.cumsum(lengths[first] + lengths[second])
    found = np.empty(len(first), np.float64)
    start = 0
    while start < len(first):
        before = ends[start - 1] if start else 0
        # at least one pair, however long its texts are
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHARACTERS, side="right")))
        found[start:stop] = _jaccard(normal, first[start:stop], second[start:stop])
        start = stop
    return found


def _jaccard(normal: list[str], first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    used, places = np.unique(np.concatenate((first, second)), return_inverse=True)
    keys, starts = grams.bigrams([normal[n] for n in used])
    sizes = np.diff(np.append(starts, len(keys)))
    # each text's set: sorted by text, then by key; 42 bits of key leave 22 for the text
    keys = grams.distinct(keys | (np.repeat(np.arange(len(used), dtype=np.uint64), sizes) << np.uint64(42)))
    owner = (keys >> np.uint64(42)).astype(np.int64)
    keys &= np.uint64((1 << 42) - 1)
    sizes = np.bincount(owner, minlength=len(used))
    starts = np.cumsum(sizes) - sizes
    pair = np.tile(np.arange(len(first)), 2)
    several = sizes[places]
    at = np.arange(several.sum()) + np.repeat(starts[places] - (np.cumsum(several) - several), several)
    both = np.sort(keys[at] | (np.repeat(pair, several).astype(np.uint64) << np.uint64(42)))
    twice = both[1:][both[1:] == both[:-1]] >> np.uint64(42)
    shared = np.bincount(twice.astype(np.int64), minlength=len(first))
    return shared / (sizes[places[: len(first)]] + sizes[places[len(first) :]] - shared)


def _same_sense(one: str, other: str) -> bool:
    """Rules 3 and 4, on texts as `near_text` gives them."""
    turns, others = one.split(TURN), other.split(TURN)
    pairs = [(a.split(CONTEXT), b.split(CONTEXT)) for a, b in zip(turns, others, strict=False)]
    if len(turns) != len(others) or any(len(a) != len(b) for a, b in pairs):
        return says_no_alike(normalise(one), normalise(other))
    for turn, (parts, other_parts) in enumerate(pairs):
        for part, (a, b) in enumerate(zip(parts, other_parts, strict=True)):
            if a != b and not _part_alike(a, b, question=turn % 2 == 0 and part == 0):
                return False
    return True


def _part_alike(one: str, other: str, question: bool) -> bool:
    core, other_core = _differing(one, other)
    if core == other_core:
        return True
    if not says_no_alike(core, other_core):
        return False
    # one of them only says more: how much more, rule 2 has seen
    return (
        not core
        or not other_core
        or overlap(core, other_core) >= _HALF
        or (not question and overlap(normalise(one), normalise(other)) >= _HALF)
    )


def _differing(one: str, other: str) -> tuple[str, str]:
    """Two texts without the sentences that they begin and end with alike, normalised."""
    # most are alike to the letter: those are not normalised
    a, b = _trimmed(_SENTENCE.split(one), _SENTENCE.split(other))
    a, b = _trimmed([left for part in a if (left := bare(part))], [left for part in b if (left := bare(part))])
    return "".join(a), "".join(b)


def _trimmed(a: list[str], b: list[str]) -> tuple[list[str], list[str]]:
    """Two lists without what they begin and end with alike."""
    least, start, end = min(len(a), len(b)), 0, 0
    while start < least and a[start] == b[start]:
        start += 1
    while end < least - start and a[-1 - end] == b[-1 - end]:
        end += 1
    return a[start : len(a) - end], b[start : len(b) - end]


def says_no_alike(one: str, other: str) -> bool:
    """Whether two texts negate equally often, or are too long for one negation to matter."""
    return min(len(one), len(other)) > _SHORT or len(_NEGATION.findall(one)) == len(_NEGATION.findall(other))


def overlap(one: str, other: str) -> float:
    """Jaccard similarity of the sets of character pairs of two normalised texts."""
    a, b = ({padded[n : n + 2] for n in range(len(padded) - 1)} for padded in (f"\n{one}\n", f"\n{other}\n"))
    return len(a & b) / len(a | b)
