"""The signals of a curve, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from koalpaca_tune.diagnosis import curve


def trail(losses: list[float], **fields: list[float]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"step": n, "loss": loss} for n, loss in enumerate(losses, 1)]
    for name, values in fields.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def test_an_empty_trail_has_no_signals_but_its_count() -> None:
    assert curve.signals([]) == {"curve.rows": 0.0, "curve.valid_rows": 0.0}


def test_levels() -> None:
    found = curve.signals(trail([4.0, 5.0, 3.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0]))
    assert found["curve.first"] == 4.0
    assert found["curve.start"] == 5.0
    assert found["curve.begin"] == 4.5
    assert found["curve.last"] == 2.0
    assert found["curve.highest"] == pytest.approx(4.0)  # the mean of the first three
    assert found["curve.lowest"] == 2.0


def test_qlora_290_the_staircase_is_the_fall_at_the_borders_of_epochs() -> None:
    losses = [4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 1.5, 1.5, 1.5]
    epochs = [0.1, 0.5, 0.9, 1.1, 1.5, 1.9, 2.1, 2.5, 2.9]
    found = curve.signals(trail(losses, epoch=epochs))
    assert found["curve.stairs"] == pytest.approx((0.25 + 0.5) / 2)
    assert found["curve.epochs"] == 2.9


def test_qlora_84_sorted_lengths_go_one_way() -> None:
    lengths = [100.0 - 5 * (n % 10) for n in range(30)]
    found = curve.signals(trail([3.0] * 30, tokens=lengths, learned_tokens=[9.0] * 30))
    # of 28 neighbours in 29 full rows two go up
    assert found["curve.falling"] == pytest.approx(26 / 28)
    shuffled = [50.0, 80.0] * 15
    found = curve.signals(trail([3.0] * 30, tokens=shuffled, learned_tokens=[9.0] * 30))
    assert found["curve.falling"] == pytest.approx(0.5)
    assert found["curve.order_length"] < -0.9


def test_learned_share_counts_tokens_not_rows() -> None:
    found = curve.signals(trail([3.0, 3.0], tokens=[100.0, 300.0], learned_tokens=[50.0, 50.0]))
    assert found["curve.learned_share"] == 0.25


def test_validation_beside_training() -> None:
    rows = trail([8.0, 8.0, 8.0, 8.0, 6.0, 6.0])
    rows[1]["valid_loss"], rows[5]["valid_loss"] = 4.0, 3.5
    found = curve.signals(rows)
    assert found["curve.ratio_first"] == 2.0
    assert found["curve.ratio_last"] == pytest.approx((8 + 8 + 8 + 6 + 6) / 5 / 3.5)
    assert found["curve.valid_moved"] == 0.5
    assert found["curve.valid_best"] == 3.5


def test_notices_are_counted() -> None:
    assert curve.signals(trail([3.0] * 20 + [9.0]))["curve.notice_loss-spike"] == 1.0
