"""Near duplicates among any number of records, from their signatures: found by bands, proved on the texts.

Records that agree in all slots of one band are candidates (locality-sensitive hashing, Indyk and Motwani
1998; bands as in Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, ch. 3). A candidate pair
counts when `Proof` says so. Memory beside the signatures: about 60 bytes a record, and one batch of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from koalpaca_tune.data.overlap.grams import distinct, mixed
from koalpaca_tune.data.overlap.minhash import SLOTS, slots
from koalpaca_tune.data.overlap.proof import Proof

Indices = NDArray[np.int64]
Texts = Callable[[Indices], list[str]]

_RECALL = 0.99
"""Least chance of a pair exactly at the threshold to be a candidate; of more similar ones it is higher."""

_ROUNDS = 16
_LARGE_ROUNDS = 4
_LARGE = 256
"""Records of a bucket that the others are held against, and of a bucket of more than _LARGE. One of up to 17 is
compared in full; for larger ones the cost grows with the size and not its square."""

_AT_ONCE = 100_000


def clusters(signatures: NDArray[np.uint32], threshold: float, texts: Texts) -> Indices:
    """Groups of records linked by near-duplicate pairs.

    A chain links its ends, however different they are: right for keeping near records on one side of a
    split, too much for throwing records away (see `repeats`).

    Args:
        signatures: uint32 [n, minhash.WIDTH].
        threshold: least Jaccard similarity of the texts' sets of character pairs.
        texts: gives the texts that were signed, by index; asked for at most some thousands at once.

    Returns:
        int64 [n]: the first record of each record's group; itself when it is alone.
    """
    groups = _Groups(len(signatures))
    proof = Proof(threshold, texts)
    least = round(SLOTS * (threshold - 3 * (threshold * (1 - threshold) / SLOTS) ** 0.5))
    values = slots(signatures)
    refused = np.empty(0, np.uint64)
    for order, starts in _buckets(signatures[:, 0], values, rows(threshold)):
        members, ends = order, np.append(starts[1:], len(order))
        for done in range(1, _ROUNDS + 1):
            # the first of each bucket against the rest of it
            sizes = ends - starts
            leader = np.repeat(members[starts], sizes - 1)
            rest_at = np.delete(np.arange(len(members)), starts)
            rest = members[rest_at]
            apart = groups.of(leader) != groups.of(rest)
            ones, others = leader[apart], rest[apart]
            alike = _agree(values, ones, others) >= least
            ones, others = ones[alike], others[alike]
            pairs = _pair(ones, others)
            new = ~_among(pairs, refused)
            ones, others, pairs = ones[new], others[new], pairs[new]
            proved = proof(ones, others)
            groups.join(ones[proved], others[proved])
            refused = distinct(np.concatenate((refused, pairs[~proved])))
            members, starts, ends = _open(groups, rest, np.repeat(np.arange(len(starts)), sizes - 1), done)
            if not len(members):
                break
    return groups.of(np.arange(len(signatures)))


def repeats(groups: Indices, threshold: float, texts: Texts) -> Indices:
    """For each record, the earlier record of its group that stands for it; itself when it is kept.

    A record is left out only when it is proved near to one that is kept, and no two that are kept are near,
    unless one group holds more than a few dozen kept ones.

    Args:
        groups: from `clusters`.
        threshold, texts: as there.

    Returns:
        int64 [n].
    """
    proof = Proof(threshold, texts)
    stands = np.arange(len(groups), dtype=np.int64)
    sizes = np.bincount(groups, minlength=len(groups))
    two = np.flatnonzero((groups != stands) & (sizes[groups] == 2))
    stands[two] = groups[two]
    left = np.flatnonzero(sizes[groups] > 2)
    left = left[np.argsort(groups[left], kind="stable")]
    for _ in range(2 * _ROUNDS):
        if not len(left):
            break
        first = np.flatnonzero(np.diff(groups[left], prepend=-1))
        leader = np.repeat(left[first], np.diff(np.append(first, len(left))) - 1)
        rest = np.delete(left, first)
        proved = proof(leader, rest)
        stands[rest[proved]] = leader[proved]
        left = rest[~proved]
    return stands


def rows(threshold: float) -> int:
    """Slots of a band: the most with which a pair at the threshold is found with 99 %."""
    return max(
        (n for n in range(1, SLOTS + 1) if 1 - (1 - threshold**n) ** (SLOTS // n) >= _RECALL),
        default=1,
    )


def _buckets(
    numbers: NDArray[np.uint32], values: NDArray[np.uint16], rows: int
) -> Iterator[tuple[Indices, Indices]]:
    """For each band: the records that share a bucket, bucket by bucket, and where each bucket starts.

    Records with different numbers share none: a million records that differ in a date only are not compared.
    """
    for first in range(0, SLOTS // rows * rows, rows):
        keys = numbers.astype(np.uint64)
        for n in range(first, first + rows):
            keys = mixed(keys ^ (values[:, n].astype(np.uint64) << np.uint64(32)))
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        same = keys[1:] == keys[:-1]
        shared = np.append(same, False) | np.insert(same, 0, False)
        if shared.any():
            order, keys = order[shared], keys[shared]
            yield order, np.flatnonzero(np.insert(keys[1:] != keys[:-1], 0, True))


def _open(groups: _Groups, members: Indices, buckets: Indices, done: int) -> tuple[Indices, Indices, Indices]:
    """What is left of the buckets after so many rounds: those whose records are not all in one group yet."""
    if not len(members):
        return members, members, members
    starts = np.flatnonzero(np.diff(buckets, prepend=-1))
    sizes = np.diff(np.append(starts, len(members)))
    roots = groups.of(members)
    several = np.minimum.reduceat(roots, starts) != np.maximum.reduceat(roots, starts)
    if done >= _LARGE_ROUNDS:
        several &= sizes <= _LARGE
    left = np.repeat(several, sizes)
    members, buckets = members[left], buckets[left]
    starts = np.flatnonzero(np.diff(buckets, prepend=-1))
    return members, starts, np.append(starts[1:], len(members)).astype(np.int64)


def _agree(values: NDArray[np.uint16], ones: Indices, others: Indices) -> NDArray[np.int64]:
    """In how many slots the records of each pair agree."""
    counts = np.empty(len(ones), np.int64)
    for start in range(0, len(ones), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        counts[part] = (values[ones[part]] == values[others[part]]).sum(axis=1)
    return counts


def _pair(ones: Indices, others: Indices) -> NDArray[np.uint64]:
    low, high = np.minimum(ones, others).astype(np.uint64), np.maximum(ones, others).astype(np.uint64)
    return (low << np.uint64(32)) | high


def _among(some: NDArray[np.uint64], ordered: NDArray[np.uint64]) -> NDArray[np.bool_]:
    if not len(ordered):
        return np.zeros(len(some), np.bool_)
    at = np.minimum(np.searchsorted(ordered, some), len(ordered) - 1)
    found: NDArray[np.bool_] = ordered[at] == some
    return found


class _Groups:
    """Union-find whose root is always the group's first record."""

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count, dtype=np.int64)

    def of(self, some: Indices) -> Indices:
        """The first record of each record's group."""
        roots = self._parent[some]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                self._parent[some] = roots
                return roots
            roots = above

    def join(self, ones: Indices, others: Indices) -> None:
        """Puts the groups of each pair together."""
        parent = self._parent
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            first, second = self._root(one), self._root(other)
            if first != second:
                parent[max(first, second)] = min(first, second)

    def _root(self, one: int) -> int:
        parent = self._parent
        above = int(parent[one])
        while above != one:
            one, above = above, int(parent[above])
        return one
