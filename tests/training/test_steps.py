"""Which rows each step takes: every example once in an epoch, the same step however it is split."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koalpaca_tune.config.recipe import Training
from koalpaca_tune.records import NOT_LEARNED, Encoded
from koalpaca_tune.training import steps as plan


def examples(lengths: list[int]) -> list[Encoded]:
    return [Encoded(tuple(range(n)), (NOT_LEARNED, *range(1, n))) for n in lengths]


def steps(
    lengths: list[int], *, packing: bool = False, seed: int = 1, ranks: int = 1, **training: Any
) -> list[plan.Step]:
    values = {"batch_size": 4, **training}
    return plan.steps(
        examples(lengths), Training.model_validate(values), max_length=32, packing=packing, seed=seed, ranks=ranks
    )


def taken(some: list[plan.Step]) -> list[int]:
    return [index for step in some for row in step.rows for index in row]


@given(st.lists(st.integers(2, 32), min_size=1, max_size=40), st.booleans(), st.integers(1, 3))
def test_each_epoch_takes_every_example_once(lengths: list[int], packing: bool, epochs: int) -> None:
    planned = steps(lengths, packing=packing, epochs=float(epochs))
    for epoch in range(epochs):
        of_epoch = [step for step in planned if epoch <= step.epoch < epoch + 1]
        assert sorted(taken(of_epoch)) == list(range(len(lengths)))
        assert all(len(step.rows) == 4 for step in of_epoch[:-1])
    for row in (row for step in planned for row in step.rows):
        assert sum(lengths[index] for index in row) <= 32
        assert packing or len(row) == 1


def test_the_plan_is_a_function_of_the_seed() -> None:
    lengths = list(range(2, 30))
    assert steps(lengths, epochs=2.0) == steps(lengths, epochs=2.0)
    assert steps(lengths, epochs=2.0) != steps(lengths, epochs=2.0, seed=2)
    first, second = steps(lengths, epochs=2.0)[:7], steps(lengths, epochs=2.0)[7:]
    assert [step.rows for step in first] != [step.rows for step in second], "each epoch is shuffled anew"


def test_the_order_does_not_follow_the_length() -> None:
    """qlora#84: rows sorted by length give a sawtooth loss."""
    lengths = [2 + n % 31 for n in range(300)]
    rows = [sum(lengths[i] for i in row) for step in steps(lengths, packing=True, epochs=1.0) for row in step.rows]
    longest = [
        max(lengths[i] for i in row) for step in steps(lengths, packing=True, epochs=1.0) for row in step.rows
    ]
    assert rows != sorted(rows, reverse=True)
    assert longest != sorted(longest, reverse=True)


@pytest.mark.parametrize(
    ("length", "count"),
    [
        ({"epochs": 1.0}, 5),
        ({"epochs": 2.0}, 10),
        ({"epochs": 0.5}, 2),
        ({"epochs": 1.4}, 7),
        ({"epochs": 0.01}, 1),
    ],
)
def test_epochs_and_parts_of_one(length: dict[str, float], count: int) -> None:
    planned = steps([4] * 18, **length)
    assert len(planned) == count
    assert planned == steps([4] * 18, epochs=3.0)[:count], "a part of an epoch is its beginning"


def test_max_steps_goes_on_over_the_end_of_the_data() -> None:
    planned = steps([4] * 18, max_steps=12)
    assert len(planned) == 12
    assert [round(step.epoch, 3) for step in planned] == [
        0.0,
        0.2,
        0.4,
        0.6,
        0.8,
        1.0,
        1.2,
        1.4,
        1.6,
        1.8,
        2.0,
        2.2,
    ]
    assert sorted(taken(planned[5:10])) == list(range(18))


@pytest.mark.parametrize(("batch_size", "ranks"), [(8, 1), (4, 2), (1, 8)])
def test_a_step_is_the_same_however_many_share_it(batch_size: int, ranks: int) -> None:
    lengths = [2 + n % 9 for n in range(50)]
    planned = steps(lengths, batch_size=batch_size, ranks=ranks, epochs=1.0)
    assert planned == steps(lengths, batch_size=8, epochs=1.0)


@given(st.integers(0, 20), st.integers(1, 5))
def test_rows_are_dealt_in_turn(count: int, ranks: int) -> None:
    rows = [(n,) for n in range(count)]
    shares = plan.deal(rows, ranks)
    assert len(shares) == ranks
    assert sorted(row for share in shares for row in share) == rows
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.lists(st.integers(1, 40), max_size=20), st.integers(1, 100))
def test_micro_batches_hold_every_row_once_within_the_tokens(widths: list[int], micro_tokens: int) -> None:
    groups = plan.micro_batches(widths, micro_tokens)
    assert sorted(index for group in groups for index in group) == list(range(len(widths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(widths[index] for index in group) <= micro_tokens
    assert groups == plan.micro_batches(widths, micro_tokens)


def test_rows_of_like_length_are_computed_together() -> None:
    assert plan.micro_batches([5, 30, 6, 28], 60) == [[1, 3], [2, 0]]
    assert plan.micro_batches([5, 30, 6, 28], 29) == [[1], [3], [2, 0]], "a row is not cut"
