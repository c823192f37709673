"""Warnings: answers that look like a score and are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from folders import Lines, answer, choice, picked, task, write

from koalpaca_tune.comparison import guards
from koalpaca_tune.comparison.compare import Comparison, compare
from koalpaca_tune.evaluation import metrics


def compared(tmp_path: Path, before: Any, after: Any) -> Comparison:
    return compare(write(tmp_path / "a", before), write(tmp_path / "b", after, adapter="x"))


def codes(comparison: Comparison) -> list[str]:
    return [notice.code for notice in comparison.warnings]


def varied(n: int = 40) -> Lines:
    """Right for three in four, either label as often."""
    return [picked(f"i{k:03d}", k % 2, k % 2 if k % 8 < 6 else 1 - k % 2) for k in range(n)]


@pytest.mark.parametrize(("same", "flagged"), [(20, True), (19, True), (17, False)])
def test_collapse(same: int, flagged: bool) -> None:
    lines = [picked(f"i{n}", n % 2, 0 if n < same else 1) for n in range(20)]
    found = metrics.collapse(lines, "accuracy")
    assert (found is not None) == flagged
    if found:
        assert found["answer"] == "긍정"


def test_nine_in_ten_the_same_is_a_collapse_when_the_macro_f1_is_a_constants() -> None:
    # 18 of 20 say 긍정; both that do not are wrong, so the second class has no hit: macro-F1 is below a constant's
    wrong = [picked(f"i{n}", n % 2, 1 if n in (0, 2) else 0) for n in range(20)]
    found = metrics.collapse(wrong, "accuracy")
    assert found is not None
    assert found["constant_macro_f1"] == pytest.approx((2 / 3) / 2)
    # both right: F1 of 2 * 10 / (10 + 18) and 2 * 2 / (10 + 2), whose mean is far above
    right = [picked(f"i{n}", n % 2, 1 if n in (1, 3) else 0) for n in range(20)]
    assert metrics.collapse(right, "accuracy") is None


def test_one_sided_gold_is_no_collapse() -> None:
    assert metrics.collapse([picked(f"i{n}", 0, 0) for n in range(20)], "accuracy") is None


def test_a_collapsed_side_is_named_in_both_languages(tmp_path: Path) -> None:
    constant = [picked(f"i{k:03d}", k % 2, 1) for k in range(40)]
    found = compared(tmp_path, task("감정", "choice", varied()), task("감정", "choice", constant)).warnings
    assert [notice.code for notice in found] == ["collapse"]
    assert found[0].korean.startswith("감정 (후): 문항의 100%에서 ‘부정’을 골랐습니다.")
    assert "매크로 F1 0.333, 한 가지 답만 하면 0.333" in found[0].korean
    assert "“부정” was chosen for 100% of the items" in found[0].english


def test_the_same_text_for_everything(tmp_path: Path) -> None:
    said = [answer(f"i{k}", {"f1": 0.1}, text="모르겠습니다." if k < 9 else "서울") for k in range(10)]
    golds = [line | {"golds": [f"답 {n}"]} for n, line in enumerate(said)]
    found = compared(tmp_path, task("질문", "answer", golds), task("질문", "answer", golds)).warnings
    assert [notice.code for notice in found] == ["collapse", "collapse"]
    assert found[1].korean == "질문 (전): 답의 90%가 똑같습니다 (‘모르겠습니다.’)."


def test_the_same_text_is_no_collapse_where_it_is_the_right_one(tmp_path: Path) -> None:
    said = [answer(f"i{k}", {"f1": 1.0}, text="정답") for k in range(10)]
    assert not compared(tmp_path, task("질문", "answer", said), task("질문", "answer", said)).warnings


def test_judge_failures_are_left_out_and_counted(tmp_path: Path) -> None:
    def lines(failed: set[int], up: float) -> Lines:
        return [
            answer(f"i{k:02d}", {"score": None}, text=f"답 {k}", error="timeout")
            if k in failed
            else answer(f"i{k:02d}", {"score": k % 5 + 3 + up}, text=f"답 {k}")
            for k in range(20)
        ]

    found = compared(
        tmp_path, task("판정", "answer", lines({0, 1}, 0.0)), task("판정", "answer", lines({1, 2}, 1.0))
    )
    assert codes(found) == ["judge-errors", "judge-errors"]
    row = found.rows[0]
    assert (row.paired.n, row.left_out, row.unit) == (17, 3, "points")
    assert row.paired.difference == pytest.approx(1.0)
    assert "20개 가운데 2개를 채점하지 못했습니다. 0점으로 치지 않고" in found.warnings[0].korean


def test_answers_cut_by_the_limit(tmp_path: Path) -> None:
    def lines(cut: int) -> Lines:
        return [answer(f"i{k}", {"f1": 0.5}, text=f"답 {k}", stopped=k >= cut) for k in range(40)]

    found = compared(tmp_path, task("질문", "answer", lines(2)), task("질문", "answer", lines(10)))
    assert codes(found) == ["cut"]
    assert found.warnings[0].korean.startswith("질문 (후): 40개 가운데 10개가 길이 제한에서 끊겼습니다.")


def test_contamination_that_the_result_tells(tmp_path: Path) -> None:
    found = compared(tmp_path, task("감정", "choice", varied()), task("감정", "choice", varied(), contaminated=12))
    assert codes(found) == ["contamination"]
    assert "문항 40개 가운데 12개가 학습 데이터와 겹칩니다" in found.warnings[0].korean


def test_contamination_that_could_not_be_looked_for_is_said_once(tmp_path: Path) -> None:
    before = [task("감정", "choice", varied()), task("추론", "choice", varied())]
    after = [task(told["name"], "choice", lines, contaminated=None) for told, lines in before]
    found = compare(write(tmp_path / "a", *before), write(tmp_path / "b", *after, adapter="x"))
    assert codes(found) == ["contamination-unknown"]


def options(lean: int, n: int = 120) -> Lines:
    """Four options, each right as often; the first `lean` items that are missed go to option 2."""
    lines = []
    for k in range(n):
        gold = k % 4
        pick = gold if k % 3 else (gold + 1) % 4
        if k < lean:
            pick = 2
        lines.append(choice(f"i{k:03d}", gold, [0.0 if o == pick else -1.0 for o in range(4)]))
    return lines


def test_an_option_that_is_chosen_too_often() -> None:
    assert guards.leaning(options(0), "accuracy") is None
    found = guards.leaning(options(60), "accuracy")
    assert found is not None
    index, picked_share, gold_share = found
    assert (index, gold_share) == (2, 0.25)
    assert picked_share == pytest.approx(75 / 120)


def test_a_model_that_is_right_is_not_biased_whatever_the_gold_is() -> None:
    lines = [picked(f"i{k}", 0 if k < 90 else 1, 0 if k < 90 else 1) for k in range(100)]
    assert guards.leaning(lines, "accuracy") is None


def test_the_leaning_is_said(tmp_path: Path) -> None:
    found = compared(tmp_path, task("상식", "choice", options(0)), task("상식", "choice", options(60)))
    assert codes(found) == ["leaning"]
    assert found.warnings[0].korean == "상식 (후): ‘2번’ 쪽으로 기웁니다. 정답은 25%인데 62%에서 골랐습니다."


def labelled(gain: float) -> Lines:
    """예 (one token) and 아니오 (two): the sum favours 예 by two nats more than the question does."""
    return [
        choice(f"i{k:03d}", k % 2, [-3.0, -4.4 + (gain if k % 2 else -gain)], unconditional=[-2.0, -4.0])
        for k in range(60)
    ]


def test_audit_shows_all_ways_and_warns_where_the_verdict_depends_on_them(tmp_path: Path) -> None:
    # summed, 아니오 stays below 예 on both sides; by PMI it wins half of the items after tuning
    before, after = labelled(0.0), labelled(1.0)
    found = compared(tmp_path, task("긍부정", "choice", before), task("긍부정", "choice", after))
    audit = found.audits[0]
    ways = {way.metric: (way.paired.before, way.paired.after, way.verdict) for way in audit.scorings}
    assert list(ways) == ["accuracy", "accuracy_norm", "accuracy_token", "accuracy_pmi"]
    assert ways["accuracy"] == (0.5, 0.5, "no detectable change")
    assert ways["accuracy_pmi"] == (0.5, 1.0, "improved")
    assert audit.label_tokens == (("예", 1), ("아니오", 2))
    assert "scoring" in codes(found)
    text = next(notice.korean for notice in found.warnings if notice.code == "scoring")
    assert "정확도 변화 확인 안 됨" in text
    assert "PMI 정확도 나아짐" in text


def test_labels_of_equal_length_need_no_audit(tmp_path: Path) -> None:
    found = compared(tmp_path, task("감정", "choice", varied()), task("감정", "choice", varied()))
    assert found.audits == ()
    assert codes(found) == []
