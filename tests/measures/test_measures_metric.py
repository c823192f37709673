from __future__ import annotations

import sys

import pytest

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.measures.metric import mean, metric


def test_mean_of_a_measure_with_references() -> None:
    assert mean("korquad_f1", ["임수경이", "서울"], ["임수경", ["부산", "서울"]]) == {
        "korquad_f1": pytest.approx((6 / 7 + 1) / 2)
    }


def test_mean_of_a_measure_of_answers_leaves_undecided_out() -> None:
    said = mean("speech_match", ["서울이야.", "서울입니다.", "서울"], ["수도는 어디인가요?"] * 3)
    assert said == {"speech_match": 0.5, "undecided": 1}
    assert mean("loop", [""], ["왜?"]) == {"loop": None, "undecided": 1}


def test_unknown_measure_is_one_clear_line() -> None:
    with pytest.raises(KoalpacaError, match="korquad_f1") as raised:
        metric("korquadf1")
    assert raised.value.problems[0].code == "measure-unknown"


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "evaluate", None)
    with pytest.raises(KoalpacaError, match="pip install evaluate") as raised:
        metric("chrf")
    assert raised.value.problems[0].code == "evaluate-missing"


def test_an_evaluate_metric_computes_offline() -> None:
    evaluate = pytest.importorskip("evaluate", reason="evaluate is not installed")
    one = metric("korquad_f1")
    assert isinstance(one, evaluate.Metric)
    assert one.compute(predictions=["임수경이"], references=["임수경"]) == {"korquad_f1": pytest.approx(6 / 7)}
    assert metric("exact_korean").compute(predictions=["삼백이십"], references=[["300", "320개"]]) == {
        "exact_korean": 1.0
    }
    parts = metric("loop")
    parts.add_batch(predictions=["밥 먹어 밥 먹어 밥 먹어 밥 먹어 밥 먹어"], references=["배고파"])
    parts.add(prediction="밥 먹자.", reference="배고파")
    assert parts.compute() == {"loop": 0.5, "undecided": 0}
