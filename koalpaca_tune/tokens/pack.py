"""Examples to rows, rows to batches of arrays.

Positions restart at every document of a row, padding included. transformers builds block-diagonal
attention from restarting positions when it gets no attention mask and no cache, so no document sees
another (a test holds packed logits against unpacked ones).
"""

from __future__ import annotations

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
