"""Rows and batches: every example once, no row too long, documents kept apart by their positions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from koalpaca_tune.records import NOT_LEARNED, Encoded
from koalpaca_tune.tokens.pack import collate, micro_steps, pack, stream

ROOM = 32
PAD = 7


@given(st.lists(st.integers(1, ROOM), max_size=60))
def test_every_example_stands_in_one_row_and_no_row_is_too_long(lengths: list[int]) -> None:
    rows = pack(lengths, ROOM)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in row) <= ROOM for row in rows)
    assert rows == pack(lengths, ROOM)


@given(st.lists(st.integers(1, ROOM), min_size=1, max_size=60))
def test_no_two_rows_could_be_one(lengths: list[int]) -> None:
    sizes = sorted(sum(lengths[index] for index in row) for row in pack(lengths, ROOM))
    assert len(sizes) < 2 or sizes[0] + sizes[1] > ROOM


def test_best_fit_takes_the_fullest_row_that_has_room() -> None:
    assert pack([20, 24, 8, 5, 3], 32) == [(1, 2), (0, 3, 4)]


def test_equal_lengths_keep_their_order() -> None:
    assert pack([16, 16, 16, 16], 32) == [(0, 1), (2, 3)]


def one(*ids: int, learned: int) -> Encoded:
    """The last `learned` ids are learned."""
    prompt = len(ids) - learned
    return Encoded(ids, (NOT_LEARNED,) * prompt + ids[prompt:])


def test_a_batch_of_two_rows() -> None:
    batch = collate([[one(11, 12, 13, learned=2), one(21, 22, learned=1)], [one(31, 32, learned=1)]], PAD)
    no = NOT_LEARNED
    assert batch.ids.tolist() == [[11, 12, 13, 21, 22], [31, 32, PAD, PAD, PAD]]
    assert batch.labels.tolist() == [[no, 12, 13, no, 22], [no, 32, no, no, no]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]]
    assert (batch.tokens, batch.learned) == (7, 4)
    assert batch.ids.dtype == batch.labels.dtype == batch.positions.dtype == np.int64


def test_the_first_token_of_a_document_is_never_learned() -> None:
    """It would be predicted from the document before it."""
    batch = collate([[one(1, 2, learned=2), one(3, 4, learned=2)]], PAD)
    assert batch.labels.tolist() == [[NOT_LEARNED, 2, NOT_LEARNED, 4]]
    assert batch.learned == (batch.labels != NOT_LEARNED).sum() == 2


def test_an_empty_row_is_all_padding() -> None:
    """A rank whose rows ran out still takes part."""
    batch = collate([[one(1, 2, learned=1)], []], PAD)
    assert batch.ids[1].tolist() == [PAD, PAD]
    assert (batch.labels[1] == NOT_LEARNED).all()
    alone = collate([[]], PAD)
    assert (alone.ids.shape, alone.tokens, alone.learned) == ((1, 1), 0, 0)


documents = st.builds(
    lambda ids, learned: one(*ids, learned=min(learned, len(ids))),
    st.lists(st.integers(8, 99), min_size=1, max_size=9),
    st.integers(0, 9),
)


@given(st.lists(st.lists(documents, max_size=4), min_size=1, max_size=4))
def test_a_batch_holds_each_document_whole(rows: list[list[Encoded]]) -> None:
    batch = collate(rows, PAD)
    assert batch.tokens == sum(len(document.ids) for row in rows for document in row)
    assert batch.learned == sum(document.learned for row in rows for document in row)
    assert batch.learned == (batch.labels != NOT_LEARNED).sum()
    for n, row in enumerate(rows):
        starts = np.flatnonzero(batch.positions[n] == 0)
        at = 0
        for document in row:
            assert at in starts
            end = at + len(document.ids)
            assert tuple(batch.ids[n, at:end]) == document.ids
            assert batch.positions[n, at:end].tolist() == list(range(len(document.ids)))
            at = end
        assert (batch.ids[n, at:] == PAD).all()
        assert (batch.labels[n, at:] == NOT_LEARNED).all()
        # padding is a document of its own, or a learned token could see it
        assert batch.positions[n, at:].tolist() == list(range(batch.ids.shape[1] - at))


def test_a_stream_of_two_documents() -> None:
    made = stream([one(11, 12, 13, learned=2), one(21, 22, learned=1)], PAD, multiple=4)
    assert made.ids.tolist() == [11, 12, 13, 21, 22, PAD, PAD, PAD]
    assert made.positions.tolist() == [0, 1, 2, 0, 1, 0, 1, 2]
    assert (made.rows.tolist(), made.targets.tolist()) == ([0, 1, 3], [12, 13, 22])
    assert (made.lengths, made.tokens) == ((3, 2, 3), 5)
    assert (made.ids.dtype, made.positions.dtype) == (np.int64, np.int32)
    assert made.rows.dtype == made.targets.dtype == np.int64


def test_a_stream_that_is_full_has_no_padding() -> None:
    assert stream([one(1, 2, learned=1), one(3, learned=1)], PAD, multiple=3).lengths == (2, 1)


def test_a_stream_of_nothing_is_padding() -> None:
    """A process whose rows ran out still takes part."""
    for made in (stream([], PAD, multiple=4), stream([], PAD, total=4)):
        assert (made.ids.tolist(), made.positions.tolist()) == ([PAD] * 4, [0, 1, 2, 3])
        assert (made.lengths, made.tokens, len(made.rows), len(made.targets)) == ((4,), 0, 0, 0)


@given(st.lists(documents, max_size=8), st.integers(1, 16), st.integers(0, 9), st.booleans())
def test_a_stream_is_the_batch_of_one_row(row: list[Encoded], multiple: int, more: int, exact: bool) -> None:
    batch = collate([row], PAD)
    real = batch.tokens
    made = stream(row, PAD, total=real + more) if exact and real + more else stream(row, PAD, multiple=multiple)
    assert len(made.ids) == len(made.positions) == sum(made.lengths)
    if not exact:
        assert len(made.ids) % multiple == 0
        assert len(made.ids) - real < multiple or not real
    assert made.tokens == real
    assert made.ids[:real].tolist() == batch.ids[0, :real].tolist()
    assert (made.ids[real:] == PAD).all()
    assert made.positions[:real].tolist() == batch.positions[0, :real].tolist()
    starts = np.cumsum([0, *made.lengths[:-1]])
    assert np.flatnonzero(made.positions == 0).tolist() == starts.tolist()
    assert all(length > 0 for length in made.lengths)
    # the shift that a causal model's loss makes
    shifted = batch.labels[0, 1:]
    places = np.flatnonzero(shifted != NOT_LEARNED)
    assert made.rows.tolist() == places.tolist()
    assert made.targets.tolist() == shifted[places].tolist()


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 60))
def test_micro_steps_hold_every_document_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = micro_steps(lengths, budget)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(group == sorted(group) for group in groups)
    assert all(len(group) == 1 or sum(lengths[index] for index in group) <= budget for group in groups)
    assert len(groups) == len(pack(lengths, budget)), "no more of them than best fit needs"
    assert groups == micro_steps(lengths, budget)


def test_micro_steps_are_even() -> None:
    assert micro_steps([8, 7, 6, 5, 4], 20) == [[0, 3, 4], [1, 2]]
    assert micro_steps([10] * 6, 45) == [[0, 2, 4], [1, 3, 5]], "best fit would put four and two"
    assert micro_steps([3, 90, 4], 10) == [[1], [0, 2]], "a document is not cut"
    assert micro_steps([], 10) == []


def test_micro_steps_that_cannot_be_even_are_as_best_fit_has_them() -> None:
    lengths = [6, 6, 4, 4, 4]
    assert micro_steps(lengths, 12) == [[0, 1], [2, 3, 4]]
