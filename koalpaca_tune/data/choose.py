"""What needs all records at once: duplicates, caps and weights, and the division into training and validation.

Every choice follows from the records' own texts and their order, by stable hashes: no random state. A
record's side depends on a hash of its group, the records whose questions, or whole texts, are the same or
nearly the same. Rows added later join groups or make new ones; they can move a record only by coming near
it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from koalpaca_tune.config.overlap import Duplicates
from koalpaca_tune.config.preparation import Input
from koalpaca_tune.data.overlap import near
from koalpaca_tune.data.overlap.grams import mixed
from koalpaca_tune.data.spool import Keys
from koalpaca_tune.errors import KoalpacaError

_SPACE = 2**64

Texts = Callable[[NDArray[np.int64]], list[str]]
"""The texts of some records, by their indices."""


class State(IntEnum):
    """What becomes of a record."""

    TRAIN = 0
    VALID = 1
    EXACT = 2
    NORMALISED = 3
    NEAR = 4
    WEIGHT = 5
    CAP = 6


@dataclass(frozen=True, slots=True)
class Chosen:
    """The fate of each record.

    Attributes:
        states: uint8 [n], a `State`.
        of: int64 [n], the index of the record that a duplicate repeats; its own otherwise.
        times: int64 [n], how often a training record is written.
        questions: different questions among the records kept.
        conflicts: (questions with more than one answer, their records).
        groups: groups of near questions among the records kept.
        moved: the side that the share alone would have left empty ("valid", "train"), or "".
    """

    states: NDArray[np.uint8]
    of: NDArray[np.int64]
    times: NDArray[np.int64]
    questions: int
    conflicts: tuple[int, int]
    groups: int
    moved: str


def choose(
    keys: Keys, inputs: Sequence[Input], duplicates: Duplicates, valid_share: float, texts: Texts, asked: Texts
) -> Chosen:
    """Decides about every record.

    Args:
        keys: of all records, in order.
        inputs: weights and caps.
        duplicates: what is dropped.
        valid_share: share of the questions for validation.
        texts: whole texts, to verify near duplicates on.
        asked: questions, likewise.

    Raises:
        KoalpacaError: too few records to have both sides (split-too-few).
    """
    states = np.zeros(len(keys), np.uint8)
    of = np.arange(len(keys), dtype=np.int64)
    if duplicates.drop != "none":
        _repeats(keys.exact, states, of, State.EXACT)
    if duplicates.drop in ("normalised", "near"):
        _repeats(keys.normalised, states, of, State.NORMALISED)
    alike = _near(keys.near, states, duplicates.threshold, texts)
    if duplicates.drop == "near":
        stands = near.repeats(alike, duplicates.threshold, texts)
        later = stands != np.arange(len(keys))
        states[later], of[later] = State.NEAR, stands[later]
    times = _mix(keys, inputs, states)
    left = states == State.TRAIN
    groups = _groups(keys.questions, alike, _near(keys.asked, states, duplicates.threshold, asked), left)
    moved = _split(groups, states, valid_share)
    _, counts = np.unique(keys.questions[left], return_counts=True)
    several = counts[counts > 1]
    return Chosen(
        states,
        of,
        times,
        len(counts),
        (len(several), int(several.sum())),
        len(np.unique(groups[left])),
        moved,
    )


def _repeats(keys: NDArray[np.void], states: NDArray[np.uint8], of: NDArray[np.int64], state: State) -> None:
    """Marks every record whose key an earlier one has."""
    first: dict[bytes, int] = {}
    raw = keys.tobytes()
    for n in np.flatnonzero(states == State.TRAIN).tolist():
        known = first.setdefault(raw[16 * n : 16 * n + 16], n)
        if known != n:
            states[n], of[n] = state, known


def _near(
    signatures: NDArray[np.uint32], states: NDArray[np.uint8], threshold: float, texts: Texts
) -> NDArray[np.int64]:
    """For each record the first of its cluster; records that are out stand alone."""
    left = np.flatnonzero(states == State.TRAIN)
    first = np.arange(len(states), dtype=np.int64)
    if len(left):
        first[left] = left[near.clusters(signatures[left], threshold, lambda some: texts(left[some]))]
    return first


def _mix(keys: Keys, inputs: Sequence[Input], states: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Marks what weights and caps leave out; how often each record is taken."""
    times = np.ones(len(keys), np.int64)
    # uniform, and independent of the question's hash, which decides the side
    uniform = np.frombuffer(keys.exact.tobytes(), "<u8").reshape(-1, 2)[:, 0]
    for n, given in enumerate(inputs):
        mine = np.flatnonzero((keys.inputs == n) & (states == State.TRAIN))
        whole, part = int(given.weight), given.weight % 1
        times[mine] = whole + (uniform[mine] < np.uint64(min(round(part * _SPACE), _SPACE - 1)))
        out = mine[times[mine] == 0]
        states[out] = State.WEIGHT
        mine = mine[times[mine] > 0]
        if given.cap is not None and len(mine) > given.cap:
            by_hash = mine[np.argsort(uniform[mine], kind="stable")]
            states[by_hash[given.cap :]] = State.CAP
    return times


def _groups(
    questions: NDArray[np.uint64],
    alike: NDArray[np.int64],
    asked: NDArray[np.int64],
    left: NDArray[np.bool_],
) -> NDArray[np.uint64]:
    """A hash of each record's group, from the smallest question key in it.

    Records are joined by an equal question, by a near question, and by a near text.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes = np.flatnonzero(left)
    place = np.full(len(left), -1, np.int64)
    place[nodes] = np.arange(len(nodes))
    _, first, inverse = np.unique(questions[nodes], return_index=True, return_inverse=True)
    ends = [first[inverse], place[asked[nodes]], place[alike[nodes]]]
    # the first of a cluster may itself have been left out by a cap: its others are joined through it
    missing = ends[2] < 0
    if missing.any():
        _, first, inverse = np.unique(alike[nodes], return_index=True, return_inverse=True)
        ends[2] = first[inverse]
    start = np.tile(np.arange(len(nodes)), len(ends))
    links = coo_array((np.ones(len(start), np.int8), (start, np.concatenate(ends))), shape=(len(nodes),) * 2)
    _, labels = connected_components(links, directed=False)
    smallest = np.full(int(labels.max(initial=-1)) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, labels, questions[nodes])
    groups = questions.copy()
    # hashed again: the smallest of many keys is small, and would put every large group into validation
    groups[nodes] = mixed(smallest)[labels]
    return groups


def _split(groups: NDArray[np.uint64], states: NDArray[np.uint8], valid_share: float) -> str:
    """Marks what is for validation; returns which side would have been empty."""
    left = states == State.TRAIN
    different = np.unique(groups[left])
    if len(different) < 2:
        count = int(left.sum())
        one = ", all with one question, or nearly the same one" if count > 1 else ""
        repeated = int(np.isin(states, (State.EXACT, State.NORMALISED, State.NEAR)).sum())
        mixed_out = int(np.isin(states, (State.WEIGHT, State.CAP)).sum())
        beside = f"; {repeated:,} more repeat others" * bool(repeated)
        beside += f"; weights and caps left out {mixed_out:,}" * bool(mixed_out)
        raise KoalpacaError(
            "split-too-few",
            f"there {'is 1 usable record' if count == 1 else f'are {count:,} usable records'}{one}{beside}.",
            fix="Training and validation need at least 2 different questions.",
        )
    smallest, largest = int(different[0]), int(different[-1])
    cut, moved = round(valid_share * _SPACE), ""
    if smallest >= cut:
        cut, moved = smallest + 1, "valid"
    elif largest < cut:
        cut, moved = largest, "train"
    states[left & (groups < np.uint64(min(cut, _SPACE - 1)))] = State.VALID
    return moved
