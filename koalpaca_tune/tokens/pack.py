"""Examples to rows, rows to what one micro-step computes: a batch of padded rows, or a stream of documents.

Positions restart at every document of a row, padding included. transformers builds block-diagonal
attention from restarting positions when it gets no attention mask and no cache, so no document sees
another (a test holds packed logits against unpacked ones).
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from koalpaca_tune.records import NOT_LEARNED, Encoded

Row = tuple[int, ...]
"""Indices of the examples that share a row."""


def pack(lengths: Sequence[int], max_length: int) -> list[Row]:
    """Best-fit decreasing: each example goes to the fullest row that still has room.

    Args:
        lengths: tokens of each example, none above `max_length`.
        max_length: room of a row, in tokens.

    Returns:
        Rows in the order of their longest example; equal lengths keep the order given.
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, row), sorted
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        need = lengths[index]
        at = bisect_left(room, (need, -1))
        if at < len(room):
            free, row = room.pop(at)
        else:
            free, row = max_length, len(rows)
            rows.append([])
        rows[row].append(index)
        insort(room, (free - need, row))
    return [tuple(row) for row in rows]


@dataclass(frozen=True)
class Batch:
    """Rows of tokens as int64 arrays [rows, length].

    Attributes:
        ids: token ids.
        labels: the id where it is learned, else NOT_LEARNED; never learned at a document's first token.
        positions: restart at 0 with each document and with the padding.
        tokens: real tokens, padding not counted.
        learned: tokens that the loss counts.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    tokens: int
    learned: int


def collate(rows: Sequence[Sequence[Encoded]], pad_id: int) -> Batch:
    """Joins each row's documents and pads rows on the right to the longest. An empty row is all padding."""
    width = max(1, *(sum(len(one.ids) for one in row) for row in rows))
    ids = np.full((len(rows), width), pad_id, np.int64)
    labels = np.full((len(rows), width), NOT_LEARNED, np.int64)
    positions = np.zeros((len(rows), width), np.int64)
    tokens = learned = 0
    for n, row in enumerate(rows):
        at = 0
        for one in row:
            end = at + len(one.ids)
            ids[n, at:end] = one.ids
            labels[n, at:end] = one.labels
            labels[n, at] = NOT_LEARNED
            positions[n, at:end] = np.arange(len(one.ids))
            at = end
            tokens += len(one.ids)
            learned += one.learned
        positions[n, at:] = np.arange(width - at)
    return Batch(ids, labels, positions, tokens, learned)


@dataclass(frozen=True)
class Stream:
    """Documents end to end: what the fast engine computes in one micro-step.

    Attributes:
        ids: int64 [tokens], token ids.
        positions: int32 [tokens], restart at 0 with each document and with the padding.
        lengths: tokens of each document, in order; padding, where there is some, comes last.
        rows: int64 [learned], rising: the places whose next token is learned.
        targets: int64 [learned], that token.
        tokens: real tokens, padding not counted.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int32]
    lengths: tuple[int, ...]
    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    tokens: int


def stream(
    documents: Sequence[Encoded],
    pad_id: int,
    *,
    multiple: int = 1,
    total: int | None = None,
    longest: int | None = None,
) -> Stream:
    """Joins documents and pads at the end, where nothing is learned.

    Args:
        documents: in order; none at all gives padding alone.
        pad_id: id of the padding.
        multiple: the stream is as long as the next multiple of this, and no less than one.
        total: exact length in tokens, in place of `multiple`; no less than the documents have.
        longest: padding is cut into documents of at most so many tokens.
    """
    lengths = [len(one.ids) for one in documents]
    tokens = sum(lengths)
    size = total if total is not None else max(1, -(-tokens // multiple)) * multiple
    assert size >= tokens, f"{tokens} tokens do not fit into {size}"
    while tokens < size:
        lengths.append(min(size - tokens, longest or size))
        tokens += lengths[-1]
    starts = np.cumsum([0, *lengths[:-1]])
    ids = np.full(size, pad_id, np.int64)
    labels = np.full(size, NOT_LEARNED, np.int64)
    for one, at in zip(documents, starts, strict=False):
        ids[at : at + len(one.ids)] = one.ids
        labels[at : at + len(one.ids)] = one.labels
    # it would be predicted from the document before it
    labels[starts] = NOT_LEARNED
    learned = np.flatnonzero(labels != NOT_LEARNED)
    positions = np.arange(size) - np.repeat(starts, lengths)
    real = sum(len(one.ids) for one in documents)
    return Stream(ids, positions.astype(np.int32), tuple(lengths), learned - 1, labels[learned], real)


def micro_steps(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """A step's documents in groups of at most `budget` tokens, as few and as even as can be had cheaply.

    As many groups as best-fit decreasing needs; then each document, longest first, to the group with the
    fewest tokens (Graham 1969). Where that overflows, best fit's own groups.

    Args:
        lengths: tokens of each document, all above 0.
        budget: tokens of a group; a longer document stands alone.

    Returns:
        Groups of indices, each in rising order; every document stands in one.
    """
    fitted = pack(lengths, budget)
    loads = [(0, group) for group in range(len(fitted))]
    groups: list[list[int]] = [[] for _ in fitted]
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        load, group = loads[0]
        if load and load + lengths[index] > budget:
            return [sorted(row) for row in fitted]
        heapq.heapreplace(loads, (load + lengths[index], group))
        groups[group].append(index)
    return [sorted(group) for group in groups]
