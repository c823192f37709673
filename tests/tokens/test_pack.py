"""Rows and batches: every example once, no row too long, documents kept apart by their positions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from koalpaca_tune.records import NOT_LEARNED, Encoded
from koalpaca_tune.tokens.pack import collate, pack

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
