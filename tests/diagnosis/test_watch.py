"""Each notice comes within its stated rows, and not before; a steady run gives none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import pytest

from koalpaca_tune.config.recipe import NoticeName
from koalpaca_tune.config.recipe import Watch as Settings
from koalpaca_tune.diagnosis.watch import ACTS, ROLLS, SIGNS, Watch

WAVE = (0.0, 0.1, -0.05, 0.02, -0.1, 0.06)


def steady(count: int, **fields: float) -> list[dict[str, Any]]:
    """A loss around 3 that waves by a tenth."""
    return [
        {
            "step": n + 1,
            "loss": 3.0 + WAVE[n % 6],
            "learning_rate": 1e-4,
            "grad_norm": 5.0,
            "tokens_per_second": 1000.0,
            "seconds": 1.0,
            **fields,
        }
        for n in range(count)
    ]


def noticed(rows: Iterable[Mapping[str, Any]], **settings: Any) -> list[tuple[str, int]]:
    watch = Watch(Settings(**settings), 1000)
    return [(notice.name, notice.step) for row in rows for notice in watch.see(row)]


def then(before: int, *changes: dict[str, Any]) -> list[dict[str, Any]]:
    """A steady run, and rows that differ from it."""
    rows = steady(before + len(changes))
    for row, change in zip(rows[before:], changes, strict=True):
        row.update(change)
    return rows


def test_a_steady_run_gives_no_notice() -> None:
    assert noticed(steady(200)) == []


def test_a_loss_that_falls_fast_at_first_gives_no_notice() -> None:
    losses = [10 * math.exp(-n / 8) + 2 for n in range(60)]
    assert noticed({"step": n, "loss": loss, "grad_norm": 5.0} for n, loss in enumerate(losses, 1)) == []


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("not-finite", [{"loss": None}]),
        ("not-finite", [{"grad_norm": math.inf}]),
        ("loss-spike", [{"loss": 4.5}]),
        ("loss-drop", [{"loss": 1.2}, {"loss": 1.1}]),
        ("gradient-norm", [{"grad_norm": 51.0}]),
        ("gradient-norm", [{"grad_norm": 0.0}]),
        (
            "throughput",
            [{"tokens_per_second": 300.0, "seconds": 10.0}, {"tokens_per_second": 350.0, "seconds": 10.0}],
        ),
        ("valid-gap", [{"valid_loss": 3.0}, {"valid_loss": 3.2}, {"valid_loss": 3.3}]),
        ("valid-gap", [{"valid_loss": 8.0}]),
    ],
)
def test_it_is_noticed_within_the_stated_rows(name: NoticeName, changes: list[dict[str, Any]]) -> None:
    rows = then(20, *changes)
    assert noticed(rows) == [(name, len(rows))]
    assert noticed(rows[:-1]) == []
    happened = 1 if name != "valid-gap" or len(changes) == 1 else 2
    assert len(changes) - happened + 1 <= SIGNS[name].rows


def test_alpaca_lora_391_a_loss_that_explodes_in_the_third_row_is_noticed_there() -> None:
    losses = (4.5, 4.6, 33.0, 30.0)
    assert noticed({"step": n, "loss": loss} for n, loss in enumerate(losses, 1)) == [("loss-spike", 3)]


def test_a_second_row_is_a_spike_only_far_above_the_first() -> None:
    assert noticed([{"step": 2, "loss": 4.5}, {"step": 4, "loss": 14.0}]) == [("loss-spike", 4)]
    assert noticed([{"step": 2, "loss": 1.5}, {"step": 4, "loss": 4.2}]) == []


def test_a_loss_that_climbs_without_a_spike_is_rising() -> None:
    climbing = [{"loss": 3.0 + 0.15 * n} for n in range(1, 13)]
    found = noticed(then(20, *climbing))
    assert ("loss-rising", 28) in found  # six rows with a mean of 3.825, a quarter above 3.005
    assert all(name == "loss-rising" for name, _ in found)


def test_a_single_low_row_is_no_drop() -> None:
    assert noticed(then(20, {"loss": 1.0}, {"loss": 3.0})) == []


def test_open_unlearning_178_b_matrices_that_stay_zero_are_noticed_in_the_second_row() -> None:
    assert noticed(steady(2, adapter_zero=1.0)) == [("dead-adapter", 2)]
    assert noticed(steady(2, adapter_zero=0.0)) == []


def test_zero_b_matrices_are_no_wonder_while_the_rate_is_zero() -> None:
    rows = steady(2, adapter_zero=1.0)
    rows[0]["learning_rate"] = 0.0
    assert noticed(rows) == []


def test_memory_that_grows_row_by_row_is_noticed_and_a_higher_level_is_not() -> None:
    creeping = [{**row, "memory_gib": 10.0 + 0.2 * n} for n, row in enumerate(steady(20))]
    assert noticed(creeping) == [("memory", 16)]
    steps = [{**row, "memory_gib": 10.0 if n < 12 else 14.0} for n, row in enumerate(steady(20))]
    assert noticed(steps) == []


def test_waiting_for_data_twice_is_a_stall() -> None:
    assert noticed(then(3, {"data_seconds": 0.5}, {"data_seconds": 0.4})) == [("stalled-data", 5)]
    assert noticed(then(3, {"data_seconds": 0.5}, {"data_seconds": 0.1})) == []


def slow(seconds: float, count: int) -> list[dict[str, float]]:
    return [{"tokens_per_second": 300.0, "seconds": seconds}] * count


def test_short_rows_are_slow_for_twenty_seconds_before_it_is_told() -> None:
    # what another process on the machine does for some seconds is no fall
    assert noticed(then(20, *slow(3.0, 6), {"seconds": 1.0})) == []
    # in the seventh row 21 seconds went by; told once, and what is usual stays what it was before the fall
    assert noticed(then(20, *slow(3.0, 14))) == [("throughput", 27)]
    assert noticed(then(20, *slow(30.0, 2))) == [("throughput", 22)]
    assert noticed(then(20, *slow(60.0, 1))) == []


def test_a_fall_is_told_however_long_the_run_was_slow_in_short_rows() -> None:
    # 50 rows of half a second: more than what is compared with, were the slow rows among it
    assert noticed(then(60, *slow(0.5, 50))) == [("throughput", 100)]


def test_a_notice_is_not_repeated_at_once() -> None:
    rows = then(20, {"grad_norm": 60.0}, {"grad_norm": 60.0}, {"grad_norm": 60.0})
    assert noticed(rows) == [("gradient-norm", 21)]


def test_what_the_recipe_ignores_is_not_told() -> None:
    assert noticed(then(20, {"loss": 9.0}), ignore=["loss-spike"]) == []


def test_a_rollback_takes_back_what_came_after_its_step() -> None:
    spoilt = then(20, {"loss": 9.0})
    again = [{**row, "step": row["step"] + 10} for row in steady(12)]
    rows = [*spoilt, {"step": 10, "rollback": {"number": 1}}, *again]
    assert noticed(rows) == [("loss-spike", 21)]
    assert noticed([*rows, {**again[-1], "step": 23, "loss": 9.0}]) == [("loss-spike", 21), ("loss-spike", 23)]


def test_a_line_is_korean_and_english_with_the_numbers() -> None:
    watch = Watch(Settings(), 100)
    notices = [notice for row in then(20, {"loss": 4.5}) for notice in watch.see(row)]
    assert notices[0].what == "손실이 3.010에서 4.500(으)로 튀었습니다 (the loss jumped from 3.010 to 4.500)"
    assert notices[0].evidence["loss"] == 4.5


def test_every_name_of_the_recipe_is_watched_and_policies_act_on_some() -> None:
    assert set(SIGNS) == set(get_args(NoticeName))
    assert ROLLS < ACTS < set(SIGNS)
    assert "throughput" not in ACTS
    assert "dead-adapter" in ACTS - ROLLS
