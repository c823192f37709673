"""Too long, or nothing to learn: left out and counted, never in silence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import NOT_LEARNED, Encoded
from koalpaca_tune.tokens.limit import limit


def example(prompt: int, answer: int) -> Encoded:
    """`prompt` tokens that are not learned, then `answer` tokens that are."""
    ids = tuple(range(10, 10 + prompt + answer))
    return Encoded(ids, (NOT_LEARNED,) * prompt + ids[prompt:], "x")


def test_what_fits_is_kept_as_it_is_and_counted() -> None:
    kept, counts = limit([example(3, 5), example(1, 2)], 8, "drop", "train.jsonl")
    assert kept == [example(3, 5), example(1, 2)]
    assert counts.as_dict() == {
        "examples": 2,
        "too_long_dropped": 0,
        "too_long_cut": 0,
        "nothing_to_learn": 0,
        "kept": 2,
        "tokens": 11,
        "learned_tokens": 7,
    }


def test_drop_leaves_a_long_example_out() -> None:
    kept, counts = limit([example(3, 6), example(3, 5)], 8, "drop", "train.jsonl")
    assert kept == [example(3, 5)]
    assert (counts.too_long_dropped, counts.too_long_cut, counts.kept, counts.tokens) == (1, 0, 1, 8)


def test_cut_keeps_the_beginning() -> None:
    kept, counts = limit([example(3, 6)], 8, "cut", "train.jsonl")
    assert kept == [Encoded(example(3, 6).ids[:8], example(3, 6).labels[:8], "x")]
    assert (counts.too_long_dropped, counts.too_long_cut, counts.learned_tokens) == (0, 1, 5)


def test_a_cut_that_leaves_nothing_to_learn_is_counted_as_such() -> None:
    kept, counts = limit([example(8, 6), example(1, 1)], 8, "cut", "train.jsonl")
    assert kept == [example(1, 1)]
    assert (counts.too_long_cut, counts.nothing_to_learn, counts.kept) == (1, 1, 1)


def test_trl_1183_everything_masked_is_left_out_and_counted() -> None:
    """trl#1183, trl#4879: no label left, and the loss looks normal or NaN."""
    kept, counts = limit([example(4, 0), example(0, 1), example(2, 2)], 8, "drop", "train.jsonl")
    assert kept == [example(2, 2)]
    assert counts.nothing_to_learn == 2, "a single token has nothing before it to be predicted from"


def test_nothing_left_is_an_error_with_the_counts() -> None:
    with pytest.raises(KoalpacaError) as caught:
        limit([example(4, 0), example(3, 9), example(3, 8)], 8, "drop", "train.jsonl")
    assert caught.value.problems[0].code == "data-nothing-left"
    assert str(caught.value) == (
        "train.jsonl: of 3 examples, 2 are longer than 8 tokens and 1 have nothing to learn: none is left. "
        "Raise data.max_length, or check the answers."
    )


def test_no_examples_at_all_is_an_error() -> None:
    with pytest.raises(KoalpacaError, match="of 0 examples"):
        limit([], 8, "drop", "train.jsonl")


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12))),
    st.integers(1, 16),
    st.sampled_from(["drop", "cut"]),
)
def test_every_example_is_accounted_for(shapes: list[tuple[int, int]], room: int, too_long: str) -> None:
    examples = [example(prompt, answer) for prompt, answer in [*shapes, (0, 2), (1, 1)]]
    if room == 1:
        return
    kept, counts = limit(examples, room, too_long, "x")  # type: ignore[arg-type]
    assert counts.examples == len(examples) == counts.kept + counts.too_long_dropped + counts.nothing_to_learn
    assert counts.kept == len(kept)
    assert counts.tokens == sum(len(one.ids) for one in kept)
    assert counts.learned_tokens == sum(one.learned for one in kept)
    assert all(len(one.ids) <= room and one.learned for one in kept)
