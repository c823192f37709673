"""Requests that begin alike, as trees of token ids: what two of them share is computed once.

A request needs the tokens up to the one that predicts its last scored token. Sorted by ids, requests that share a
beginning are neighbours, and the lengths of what neighbours share give the tree (Kasai et al. 2001 read suffix
trees off such a list). Sharing is by ids, never by text: the tokenizer decides what a prefix is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray

from koalpaca_tune.records import NOT_LEARNED, Encoded

Ints = NDArray[np.int64]

KEYS_PER_TOKEN = 24
"""A node is cut in two where that saves one token for every so many keys that its halves must gather. To compute
a token of a model of billions takes as long as to gather 70 (by its operations and bytes on an H200); on the CPU
masks cost besides."""
WINDOW = 512
"""Requests that are read at a time: what tokenizes them works while a card computes those before."""
CUT_WINDOW = 0.25
"""A lot is closed in this last part of it, where neighbours share least."""


@dataclass(frozen=True)
class Budget:
    """What one forward pass may hold.

    Attributes:
        tokens: most tokens of it.
        keys: most keys that branches gather.
    """

    tokens: int
    keys: int


@dataclass
class Node:
    """A stretch of tokens that follows another's last token.

    Attributes:
        owner: a request that goes through it: its tokens are that one's from `start` to `end`.
        start, end: positions in the request.
        parent: the node before it, None for a root.
        first: its first row in the stream.
    """

    owner: int
    start: int
    end: int
    parent: Node | None
    first: int = -1

    def path(self) -> list[Node]:
        """From the root to this node."""
        found: list[Node] = []
        node: Node | None = self
        while node is not None:
            found.append(node)
            node = node.parent
        return found[::-1]


@dataclass(frozen=True)
class Sequences:
    """Queries and the keys they see: of each sequence the queries are the last of its keys, in order.

    Attributes:
        query_lengths, key_lengths: of each sequence.
        queries: rows whose queries are read, one sequence after the other.
        keys: rows whose keys are read, one sequence after the other.
        own: whether `keys` are rows of the stream one after the other, so that nothing need be gathered.
    """

    query_lengths: tuple[int, ...]
    key_lengths: tuple[int, ...]
    queries: Ints
    keys: Ints
    own: bool


@dataclass(frozen=True)
class Lot:
    """What one forward pass computes: the nodes of some requests' trees, end to end, roots first.

    Attributes:
        requests: which requests, by their index.
        ids: token ids [T].
        positions: of each token in its request [T].
        roots, branches: all tokens: those that see their own node alone, and those that see the nodes before it.
        last_roots, last_branches: the same of the last block, where only `wanted` rows are computed.
        wanted: rising rows of the stream, those that predict scored tokens and what lies between them in a node.
        rows: for each scored token the place in `wanted` that predicts it [P].
        targets: those tokens [P].
        of: for each the index in `requests` [P].
    """

    requests: tuple[int, ...]
    ids: Ints
    positions: Ints
    roots: Sequences
    branches: Sequences
    last_roots: Sequences
    last_branches: Sequences
    wanted: Ints
    rows: Ints
    targets: Ints
    of: Ints

    @property
    def tokens(self) -> int:
        """Computed tokens."""
        return len(self.ids)

    @property
    def keys(self) -> int:
        """Gathered keys of a block."""
        return len(self.branches.keys)


def lots(encoded: Iterable[Encoded], budget: Budget, window: int = WINDOW) -> Iterator[Lot]:
    """Every request in one lot, each lot within the budget (a single request beyond it stands alone).

    Args:
        encoded: each with a learned token; read as lots are asked for. What begins alike should stand together.
        budget: of a lot.
        window: how many are read at a time.
    """
    numbered = enumerate(encoded)
    held: list[tuple[int, Encoded]] = []
    more = True
    while more:
        read = list(islice(numbered, window))
        more = len(read) == window
        here = held + read
        held = []
        if not here:
            continue
        numbers, requests = zip(*here, strict=True)
        scored = [np.flatnonzero(np.asarray(one.labels[1:], np.int64) != NOT_LEARNED) for one in requests]
        paths = [one.ids[: int(rows[-1]) + 1] for one, rows in zip(requests, scored, strict=True)]
        order = sorted(range(len(paths)), key=paths.__getitem__)
        arrays = [np.asarray(path, np.int64) for path in paths]
        shared = [0] + [_common(arrays[a], arrays[b]) for a, b in pairwise(order)]
        todo = list(_cuts([len(paths[n]) for n in order], shared, budget))[::-1]
        if more and len(todo) > 1:
            # the last is not full yet; were it the only one, the card would wait for the next window
            held = [here[n] for n in order[slice(*todo.pop(0))]]
        while todo:
            begin, end = todo.pop()
            lot = _lot(order[begin:end], arrays, [0, *shared[begin + 1 : end]], requests, scored)
            if end - begin > 1 and (lot.tokens > budget.tokens or lot.keys > budget.keys):
                # what was not worth sharing had been counted as shared
                todo += [((begin + end) // 2, end), (begin, (begin + end) // 2)]
                continue
            yield replace(lot, requests=tuple(numbers[n] for n in lot.requests))


def _common(a: Ints, b: Ints) -> int:
    """How many ids two paths share from the first."""
    size = min(len(a), len(b))
    apart = a[:size] != b[:size]
    return int(apart.argmax()) if apart.any() else size


def _cuts(lengths: Sequence[int], shared: Sequence[int], budget: Budget) -> Iterator[tuple[int, int]]:
    """Begin and end of each lot among the sorted requests."""
    begin, tokens, keys = 0, 0, 0
    sums: list[int] = []
    n = 0
    while n < len(lengths):
        own = lengths[n] - (shared[n] if n > begin else 0)
        # a branch gathers its path; where nothing is shared nothing is
        gathered = lengths[n] if n > begin and shared[n] else 0
        if n > begin and (tokens + own > budget.tokens or keys + gathered > budget.keys):
            low = next(k for k in range(begin, n) if k == n - 1 or sums[k - begin] >= (1 - CUT_WINDOW) * tokens)
            # the last of the least: a lot as full as can be
            end = min(range(n, low, -1), key=lambda k: shared[k])
            yield begin, end
            begin, n, tokens, keys, sums = end, end, 0, 0, []
            continue
        tokens, keys = tokens + own, keys + gathered
        sums.append(tokens)
        n += 1
    if begin < len(lengths):
        yield begin, len(lengths)


def _tree(part: Sequence[int], lengths: Sequence[int], shared: Sequence[int]) -> tuple[list[Node], list[Node]]:
    """All nodes, and the last node of each request.

    Args:
        part: the requests, sorted by their ids.
        lengths: of each.
        shared: what each shares with the one before it.
    """
    nodes: list[Node] = []
    ends: list[Node] = []
    stack: list[Node] = []
    for owner, length, common in zip(part, lengths, shared, strict=True):
        while stack and stack[-1].end > common:
            last = stack.pop()
            if last.start < common and _worth(last, common, length):
                upper = Node(last.owner, last.start, common, last.parent)
                nodes.append(upper)
                last.start, last.parent = common, upper
                stack.append(upper)
        parent = stack[-1] if stack else None
        at = parent.end if parent else 0
        if length > at:
            stack.append(Node(owner, at, length, parent))
            nodes.append(stack[-1])
        ends.append(stack[-1])
    return nodes, ends


def _worth(node: Node, at: int, length: int) -> bool:
    """Whether a node is cut at a position that it shares with a request of this length."""
    gathered = node.end + length if node.parent is None else length
    return (at - node.start) * KEYS_PER_TOKEN >= gathered


def _lot(
    part: Sequence[int],
    paths: Sequence[Ints],
    shared: Sequence[int],
    encoded: Sequence[Encoded],
    scored: Sequence[Ints],
) -> Lot:
    nodes, ends = _tree(part, [len(paths[n]) for n in part], shared)
    roots = [node for node in nodes if node.parent is None]
    branches = [node for node in nodes if node.parent is not None]
    at = 0
    for node in roots + branches:
        node.first = at
        at += node.end - node.start
    ids = np.concatenate([paths[node.owner][node.start : node.end] for node in roots + branches])
    positions = np.concatenate([np.arange(node.start, node.end) for node in roots + branches])
    rows, targets, of = [], [], []
    for number, (request, end) in enumerate(zip(part, ends, strict=True)):
        places = scored[request]
        path = end.path()
        starts = np.array([node.start for node in path])
        nodes_of = np.searchsorted(starts, places, side="right") - 1
        rows.append(places + np.array([node.first - node.start for node in path])[nodes_of])
        targets.append(np.asarray(encoded[request].ids, np.int64)[places + 1])
        of.append(np.full(len(places), number))
    all_rows = np.concatenate(rows)
    is_scored = np.zeros(at, bool)
    is_scored[all_rows] = True
    last_roots = _last(roots, is_scored)
    last_branches = _last(branches, is_scored)
    wanted = np.concatenate([last_roots.queries, last_branches.queries])
    return Lot(
        tuple(part),
        ids,
        positions,
        _sequences([(node, node.start, node.end) for node in roots]),
        _sequences([(node, node.start, node.end) for node in branches]),
        last_roots,
        last_branches,
        wanted,
        np.searchsorted(wanted, all_rows),
        np.concatenate(targets),
        np.concatenate(of),
    )


def _last(nodes: Sequence[Node], is_scored: NDArray[np.bool_]) -> Sequences:
    """Of each node the queries from its first row that predicts a scored token to its last."""
    found = []
    for node in nodes:
        own = np.flatnonzero(is_scored[node.first : node.first + node.end - node.start])
        if len(own):
            found.append((node, node.start + int(own[0]), node.start + int(own[-1]) + 1))
    return _sequences(found)


def _sequences(parts: Sequence[tuple[Node, int, int]]) -> Sequences:
    """Of each node the queries between two positions, and all keys up to the last of them."""
    queries, keys = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for node, start, end in parts:
        queries.append(np.arange(start, end) + (node.first - node.start))
        for one in node.path():
            keys.append(np.arange(one.first, one.first + min(one.end, end) - one.start))
    joined = np.concatenate(keys)
    rising = bool(len(joined)) and bool((np.diff(joined) == 1).all())
    return Sequences(
        tuple(end - start for _, start, end in parts),
        tuple(end for _, _, end in parts),
        np.concatenate(queries),
        joined,
        rising,
    )
