"""Comparison, verdict, report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from bigram import Bigram
from bigram_runs import BASE, HELDOUT, run

from koalpaca_tune import jsonl
from koalpaca_tune.comparison import report, stats
from koalpaca_tune.comparison.compare import Comparison, compare
from koalpaca_tune.comparison.verdict import Finding, say
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation.run import Result
from koalpaca_tune.records import Conversation, Turn

SCRIPT = "<script>alert('x')</script>"


@pytest.fixture
def comparison(before: Result, after: Result) -> Comparison:
    return compare(before.folder, after.folder)


def edit(result: Result, change: object) -> None:
    path = result.folder / "result.json"
    value = jsonl.read_json(path)
    change(value)  # type: ignore[operator]
    jsonl.write_json(path, value)


def test_rows_are_the_family_that_was_promised(comparison: Comparison) -> None:
    assert [row.group for row in comparison.rows] == ["skill"] * 6 + ["fit"] * 5
    assert [row.p_holm for row in comparison.rows] == pytest.approx(
        stats.holm([row.paired.p for row in comparison.rows])
    )
    for row in comparison.rows:
        if row.paired.low is None or row.paired.high is None:
            assert row.paired.smallest is None
        else:
            assert row.paired.low <= row.paired.difference <= row.paired.high


def test_numbers_agree_with_the_results(comparison: Comparison, before: Result, after: Result) -> None:
    for task, row in zip(before.tasks[:7], comparison.rows, strict=False):
        assert row.paired.before == pytest.approx(task["metrics"][task["primary"]])
    for name, value in after.tasks[7]["metrics"].items():
        rows = [row for row in comparison.rows if row.measure == name]
        if not after.tasks[7]["undecided"][name] and not before.tasks[7]["undecided"][name]:
            assert rows[0].paired.after == pytest.approx(value)
    for flip, row in zip(comparison.flips, comparison.rows, strict=False):
        assert (len(flip.lost), len(flip.won)) == (row.paired.lost, row.paired.won)
        total = flip.both_right + flip.both_wrong + len(flip.lost) + len(flip.won)
        assert total == row.paired.n
        assert [item.change for item in flip.lost] == sorted(item.change for item in flip.lost)


def test_fit_improves_and_skills_do_not_and_that_is_what_is_said(comparison: Comparison) -> None:
    said = comparison.said
    assert (said.overall, said.skills, said.fit) == ("improved", "no detectable improvement", "improved")
    assert said.headline == "검증 데이터에서만 나아졌습니다"
    assert "‘검증 답변의 글자당 비트’가" in said.korean
    assert "능력 평가 6가지에서는 달라진 것을 확인하지 못했습니다." in said.korean
    assert "none of the 6 skill tasks changed detectably" in said.english


def test_the_other_way_round_is_worse(before: Result, after: Result) -> None:
    assert compare(after.folder, before.folder).said.overall == "worse"


def test_a_model_compared_with_itself(before: Result, tmp_path: Path) -> None:
    same = compare(before.folder, before.folder)
    assert same.said.overall == "no detectable improvement"
    assert all(row.verdict == "no detectable change" for row in same.rows)
    report.write(same, tmp_path / "out")
    assert "전과 후가 같은 모델입니다." in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def finding(group: str, verdict: str, title: str = "감정") -> Finding:
    return Finding(title, "Sentiment", group, verdict)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("findings", "overall", "korean"),
    [
        ([finding("skill", "improved")], "improved", "능력 평가에서는 ‘감정’이 나아졌습니다."),
        ([finding("skill", "worse")], "worse", "능력 평가에서는 ‘감정’이 나빠졌습니다."),
        (
            [finding("skill", "improved"), finding("skill", "worse", "조사")],
            "mixed",
            "능력 평가에서는 ‘감정’이 나아지고 ‘조사’가 나빠졌습니다.",
        ),
        (
            [finding("skill", "worse"), finding("fit", "improved", "되풀이")],
            "mixed",
            "능력 평가에서는 ‘감정’이 나빠졌습니다. 검증 데이터에서는 ‘되풀이’가 나아졌습니다.",
        ),
        (
            [
                finding("skill", "no detectable change"),
                finding("fit", "improved"),
                finding("fit", "worse", "되풀이"),
            ],
            "mixed",
            "검증 데이터에서는 ‘감정’이 나아졌지만 ‘되풀이’가 나빠졌고, "
            "능력 평가 1가지에서는 달라진 것을 확인하지 못했습니다.",
        ),
        (
            [finding("skill", "no detectable change")],
            "no detectable improvement",
            "능력 평가 1가지에서는 달라진 것을 확인하지 못했습니다.",
        ),
        ([], "no detectable improvement", "견줄 것이 없습니다."),
    ],
)
def test_verdicts(findings: list[Finding], overall: str, korean: str) -> None:
    said = say(findings)
    assert said.overall == overall
    assert said.korean == korean


def test_refuses_another_base(before: Result, tmp_path: Path, after_model: Bigram) -> None:
    other = run(tmp_path / "other", after_model, identity=BASE | {"base_fingerprint": "9999"})
    assert codes(before, other) == ["compare-base"]


def test_refuses_another_template(before: Result, after: Result) -> None:
    edit(after, lambda value: value.update(template="0" * 16))
    assert codes(before, after) == ["compare-template"]


def test_refuses_other_tasks_versions_and_heldout_all_at_once(
    before: Result, tmp_path: Path, after_model: Bigram
) -> None:
    other = run(tmp_path / "other", after_model, suite="ko-mini", heldout=HELDOUT[:-1])
    assert codes(before, other) == ["compare-task-version"] * 7
    none = run(tmp_path / "none", after_model, heldout=())
    assert codes(before, none) == ["compare-tasks"]


def test_refuses_missing_lines_and_unfinished_folders(before: Result, after: Result, tmp_path: Path) -> None:
    path = after.folder / "items.jsonl"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    assert codes(before, after) == ["compare-items"]
    (after.folder / "result.json").unlink()
    assert codes(before, after) == ["eval-unfinished"]


def codes(one: Result, two: Result) -> list[str]:
    with pytest.raises(KoalpacaError) as caught:
        compare(one.folder, two.folder)
    return [problem.code for problem in caught.value.problems]


def test_report_files(comparison: Comparison, tmp_path: Path) -> None:
    page = report.write(comparison, tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    # skills and fit, each wide and narrow; flips
    assert text.count("<svg") == 5
    # the model before never finishes a sentence: no speech level on that side
    assert "높임 수준의 일관성: 전과 후 모두에서 판단할 수 있는 답이 없어" in text
    assert not re.search(r"(src|href)=[\"']https?:", text)
    assert str(tmp_path) not in text
    assert comparison.said.korean in text
    stored = jsonl.read_json(tmp_path / "out" / "comparison.json")
    assert stored == json.loads(json.dumps(comparison.as_dict()))
    lines = [line for _, line in jsonl.read(tmp_path / "out" / "items.jsonl")]
    assert len(lines) == sum(task["items"] for task in comparison.pair.before.tasks)
    choice = lines[0]
    assert set(choice["before"]) == set(choice["after"]) == {"logprobs"}
    assert choice["item"]["choices"]
    again = report.write(comparison, tmp_path / "again")
    assert again.read_bytes() == page.read_bytes()


def test_report_escapes_what_models_and_users_wrote(tmp_path: Path) -> None:
    held = [
        Conversation((Turn("user", f"{SCRIPT} {n}"), Turn("assistant", f"{SCRIPT}|네")), "v:1") for n in range(3)
    ]
    one = run(tmp_path / "one", Bigram([SCRIPT]), heldout=held, identity=BASE | {"note": SCRIPT})
    two = run(tmp_path / "two", Bigram([SCRIPT] * 3), heldout=held, identity=BASE | {"note": SCRIPT + "2"})
    page = report.write(compare(one.folder, two.folder), tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<script" not in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_report_warns_of_collapse_and_of_other_settings(before: Result, after: Result, tmp_path: Path) -> None:
    path = after.folder / "items.jsonl"
    lines = [line for _, line in jsonl.read(path)]
    for line in lines:
        if line["task"] == "ko-mini-sentiment":
            line["logprobs"] = [-1.0, -2.0]
    jsonl.write(path, lines)
    edit(after, lambda value: value["identity"].update(compute_dtype="float16"))
    report.write(compare(before.folder, after.folder), tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "감정 (후): 문항의 100%에서 ‘긍정’을 골랐습니다." in text
    assert "어댑터 말고도 다른 설정이 있습니다: compute_dtype." in text
    # warnings come before the verdict
    assert text.index("먼저 읽을 것") < text.index('class="headline"')


def test_report_does_not_overwrite_what_it_compares(comparison: Comparison, before: Result) -> None:
    with pytest.raises(KoalpacaError) as caught:
        report.write(comparison, before.folder)
    assert caught.value.problems[0].code == "compare-out"
