"""Which cause fits which signals; and the stored runs of bench/causes.py, where they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from koalpaca_tune.diagnosis.causes import CAUSES
from koalpaca_tune.diagnosis.names import ODD, SIGNALS, VERDICTS
from koalpaca_tune.diagnosis.verdict import diagnose

STORED = Path(__file__).parents[2] / "bench" / "results"

HEALTH = {
    "curve.rows": 60.0,
    "curve.first": 4.5,
    "curve.start": 4.6,
    "curve.begin": 4.4,
    "curve.highest": 4.5,
    "curve.lowest": 3.2,
    "curve.last": 3.3,
    "curve.noise": 0.3,
    "curve.norm": 5.0,
    "curve.norm_highest": 9.0,
    "curve.norm_zero": 0.0,
    "curve.adapter_zero": 0.0,
    "curve.order_length": 0.0,
    "curve.order_learned": 0.0,
    "curve.falling": 0.5,
    "curve.epochs": 0.8,
    "curve.learned_share": 0.3,
    "curve.valid_rows": 4.0,
    "curve.valid_first": 4.0,
    "curve.valid_last": 3.5,
    "curve.valid_best": 3.5,
    "curve.valid_moved": 0.5,
    "curve.ratio_begin": 1.1,
    "curve.ratio_first": 1.0,
    "curve.ratio_last": 0.95,
    "curve.jump": 0.3,
    "recipe.rate": 5e-4,
    "recipe.four_bit": 1.0,
    "record.linears_4bit": 28.0,
    "record.linears_other": 0.0,
    "record.cut_share": 0.0,
    "data.kept_learned_share": 0.3,
    "data.learned_missing": 0.0,
    "data.end_learned": 1.0,
    "data.repeated": 0.0,
    "data.valid_in_train": 0.0,
}

SIGNS: dict[str, dict[str, float]] = {
    "float16-overflow": {"record.float16": 1.0, "record.not_finite": 1.0},
    "dead-adapter": {"curve.adapter_zero": 1.0},
    "quantization-not-applied": {"record.linears_4bit": 0.0, "record.linears_other": 28.0},
    "mask-everything": {"curve.learned_share": 0.98},
    "mask-empty": {"curve.learned_share": 0.02, "data.learned_missing": 15.0},
    "end-not-learned": {"data.learned_missing": 1.0, "curve.learned_share": 0.28},
    "answers-cut": {"record.cut_share": 0.6},
    "decomposed-hangul": {"data.decomposed": 0.5},
    "garbled-rows": {"data.garbled": 0.1},
    "repeated-data": {"data.repeated": 0.9},
    "leak": {"data.valid_in_train": 0.6},
    "length-order": {"curve.falling": 0.9, "curve.order_length": 0.5},
    "source-order": {"curve.order_learned": 0.8},
    "rate-too-low": {"recipe.rate": 1e-7, "curve.valid_moved": 1e-3, "curve.last": 4.35},
    "rate-too-high": {"recipe.rate": 0.05, "curve.highest": 20.0},
    "accumulation": {"curve.ratio_begin": 8.0, "curve.ratio_last": 7.5, "curve.first": 36.0, "curve.start": 36.0},
    "memorisation": {"curve.epochs": 4.0, "curve.last": 0.4, "curve.ratio_last": 0.1, "curve.valid_last": 5.0},
    "library-fault": {"curve.highest": 9.0, "curve.last": 8.0},
}


def test_health() -> None:
    assert diagnose(HEALTH).verdict == "healthy"


def test_nothing_is_said_of_two_rows() -> None:
    assert diagnose({"curve.rows": 2.0}).verdict == "too-short"


@pytest.mark.parametrize("name", list(CAUSES))
def test_a_cause_is_named_by_its_signs(name: str) -> None:
    found = diagnose({**HEALTH, **SIGNS[name]})
    assert found.verdict == name
    assert found.fits[0].strength >= 0.5


def test_a_blow_that_training_repairs_is_none_of_them() -> None:
    blow = {"curve.highest": 20.0, "curve.last": 5.0, "curve.jump": 12.0}
    assert diagnose({**HEALTH, **blow}).verdict == "none"


def test_a_loss_of_no_number_in_float32_is_not_called_float16() -> None:
    found = diagnose({**HEALTH, "record.not_finite": 1.0})
    assert "float16-overflow" not in [fit.name for fit in found.fits]
    assert "loss-not-finite" in found.odd


def test_what_is_proved_comes_before_what_the_curve_suggests() -> None:
    both = {**HEALTH, **SIGNS["memorisation"], **SIGNS["repeated-data"]}
    assert [fit.name for fit in diagnose(both).fits] == ["repeated-data", "memorisation"]


def test_whatever_is_shown_has_a_name() -> None:
    assert {key for cause in CAUSES.values() for key in cause.evidence} <= set(SIGNALS)
    assert set(diagnose({**HEALTH, "record.not_finite": 1.0, "curve.notice_loss-spike": 1.0}).odd) <= set(ODD)
    assert set(VERDICTS).isdisjoint(CAUSES)


def test_the_stored_runs_are_named_as_they_were() -> None:
    tables = sorted(STORED.glob("causes-*.jsonl"))
    if not tables:
        pytest.skip("bench/results/causes-*.jsonl (python bench/causes.py --out ... --table ...) is not here")
    runs = [json.loads(line) for line in tables[-1].open(encoding="utf-8")]
    right = [diagnose(run["signals"]).verdict == run["cause"] for run in runs]
    assert sum(right) / len(right) >= 0.9
    well = [diagnose(run["signals"]).verdict for run in runs if run["cause"] == "healthy"]
    assert well.count("healthy") / len(well) >= 0.95
