"""A report says what was run, what was guessed, and what too few items cannot say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from bigram import Bigram, render
from click.testing import CliRunner
from folders import answer, choice, picked, task, write

from koalpaca_tune import jsonl
from koalpaca_tune.cli.main import cli
from koalpaca_tune.comparison import gate, report, stats, words
from koalpaca_tune.comparison.compare import Comparison, compare
from koalpaca_tune.comparison.power import ALPHA, FEWEST
from koalpaca_tune.evaluation.run import evaluate
from koalpaca_tune.suites.selection import Asked, select


def compared(tmp_path: Path, *pairs: Any) -> Comparison:
    """Tasks given as (before, after)."""
    one = write(tmp_path / "a", *(before for before, _ in pairs))
    return compare(one, write(tmp_path / "b", *(after for _, after in pairs), adapter="x"))


def labels(name: str, right: int, total: int, **more: Any) -> Any:
    """A task of two labels, `right` of whose answers are right; picks are as varied as the answers."""
    lines = [picked(f"{name}{n:03d}", n % 2, n % 2 if n < right else 1 - n % 2) for n in range(total)]
    return task(name, "choice", lines, chance=0.5, **more)


# --- --limit and --task --------------------------------------------------------------------------------------


@pytest.fixture
def limited(tmp_path: Path) -> Path:
    """Two runs of ko-smoke's suite with three items a task, and one task added."""
    suite, _ = select(Asked("ko-smoke", (), limit=3), "ko-mini")
    for name, texts in (("a", ["가나"]), ("b", ["나가"])):
        identity = {"base": "tiny", "adapter": name}
        facts = {suite.tasks[-1].name: {"added": True}}
        evaluate(suite, Bigram(texts), render, tmp_path / name, identity=identity, facts=facts)
    return tmp_path


def test_a_limited_run_says_so_wherever_it_speaks(limited: Path) -> None:
    out = limited / "out"
    result = CliRunner().invoke(
        cli, ["compare", str(limited / "a"), str(limited / "b"), "--out", str(out), "--gate"]
    )
    shown = "".join(result.output.split())
    assert "과제마다처음3문항만" in shown
    assert "문항일부만물었습니다(--limit3)" in shown
    assert "더한과제:글읽기" in shown
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<title>미세 조정 전후 비교 (문항 일부):" in page
    head = page[page.index("<h1>") : page.index("</h1>")]
    assert "과제마다 처음 3문항만" in head
    assert "더한 과제: 글 읽기" in head
    warning = re.search(r"\(--limit 3\): ([\d,]+)문항 가운데 18문항", page)
    assert warning
    assert page.index(warning[0]) < page.index('class="headline"')
    assert (out / "report.md").read_text(encoding="utf-8").startswith("# 미세 조정 전후 비교 (문항 일부):")
    stored = jsonl.read_json(out / "comparison.json")
    assert (stored["scope"]["limit"], stored["scope"]["asked"]) == (3, 18)
    assert stored["warnings"][0]["code"] == "limited"


def test_a_limit_above_the_items_leaves_nothing_out(tmp_path: Path) -> None:
    suite, _ = select(Asked("ko-smoke", (), limit=10_000), "ko-mini")
    result = evaluate(suite, Bigram(["가"]), render, tmp_path / "a", identity={"base": "tiny"})
    assert all("limit" not in told for told in result.tasks)


def test_a_whole_suite_is_called_by_its_name_alone(tmp_path: Path) -> None:
    found = compared(tmp_path, (labels("조사", 5, 10), labels("조사", 6, 10)))
    assert found.scope.heading() == []
    assert gate.passed(found).startswith("gate passed: ")


def test_chosen_tasks_are_named(tmp_path: Path) -> None:
    found = compared(tmp_path, (labels("조사", 5, 10, skill="x"), labels("조사", 6, 10, skill="x")))
    assert found.scope.chosen == ()
    for folder in ("a", "b"):
        path = tmp_path / folder / "result.json"
        whole = jsonl.read_json(path)
        jsonl.write_json(path, whole | {"suite": whole["suite"] | {"name": "tasks"}})
    assert compare(tmp_path / "a", tmp_path / "b").scope.heading() == [("조사", "조사")]


# --- guessing, and few items ---------------------------------------------------------------------------------


def test_what_is_no_better_than_guessing_is_marked(tmp_path: Path) -> None:
    found = compared(
        tmp_path,
        (labels("찍기", 52, 100), labels("찍기", 50, 100)),
        (labels("배움", 55, 100), labels("배움", 70, 100)),
    )
    guess, learned = found.rows
    # 58 of 100 and fewer: P(X >= 58) = 0.067, P(X >= 59) = 0.044
    assert (guess.at_chance, learned.at_chance) == (("before", "after"), ("before",))
    assert [mark[0] for mark in words.row(guess)["marks"]] == ["찍으면 50%", "전·후: 찍기와 구별 안 됨"]
    said = words.guessing(found.rows)
    assert said is not None
    assert said[0].startswith("선택형 2가지 가운데 1가지에서는")
    page = report.write(found, tmp_path / "out").read_text(encoding="utf-8")
    assert said[0] in page
    assert "전·후: 찍기와 구별 안 됨" in page


@pytest.mark.parametrize(("right", "guessed"), [(58, True), (59, False)])
def test_the_edge_of_guessing(tmp_path: Path, right: int, guessed: bool) -> None:
    (row,) = compared(tmp_path, (labels("a", right, 100), labels("a", 90, 100))).rows
    assert ("before" in row.at_chance) is guessed
    assert "after" not in row.at_chance


def test_one_answer_to_all_is_marked_as_that(tmp_path: Path) -> None:
    before = task("예", "choice", [picked(f"i{n}", n % 2, 0) for n in range(20)], chance=0.5)
    (row,) = compared(tmp_path, (before, before)).rows
    assert row.collapsed == ("before", "after")
    assert [mark[0] for mark in words.row(row)["marks"]] == ["찍으면 50%", "전·후: 한 가지 답만 함"]


def written(values: list[float | None], **more: Any) -> Any:
    lines = [answer(f"q{n:03d}", {"speech": value}) for n, value in enumerate(values)]
    undecided = {"speech": sum(value is None for value in values)}
    return task("높임", "answer", lines, yes_no=["speech"], undecided=undecided, **more)


def test_a_measure_that_few_answers_decide_says_how_many(tmp_path: Path) -> None:
    found = compared(tmp_path, (written([1.0, *[None] * 19]), written([1.0] * 18 + [None] * 2)))
    (row,) = found.rows
    texts = words.row(row)
    assert (texts["verdict"], texts["n"], texts["left_out"]) == ("문항이 모자람", 1, 19)
    assert ("20개 가운데 1개만", "only 1 of 20", "mixed") in texts["marks"]
    assert row.verdict == "no detectable change", "programs know three verdicts"
    (notice,) = [one for one in found.warnings if one.code == "left-out"]
    assert "20개 가운데 1개만 견주었습니다" in notice.korean
    assert "(전 19개, 후 2개)" in notice.korean
    assert "알아챌 수 없습니다" in notice.korean
    page = report.write(found, tmp_path / "out").read_text(encoding="utf-8")
    assert "나아짐 0 · 나빠짐 0 · 변화 확인 안 됨 0 · 문항이 모자람 1" in page
    # an interval over nearly everything would hide the others in the plot
    assert "높임: speech" not in "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))


def test_a_few_answers_left_out_are_no_warning(tmp_path: Path) -> None:
    found = compared(tmp_path, (written([1.0] * 39 + [None]), written([0.0] * 40)))
    assert not [one for one in found.warnings if one.code == "left-out"]


def test_six_pairs_are_the_fewest_that_can_be_significant() -> None:
    assert stats.mcnemar(0, FEWEST) < ALPHA <= stats.mcnemar(0, FEWEST - 1)


def test_held_out_rows_that_repeat_are_told_in_the_report(tmp_path: Path) -> None:
    lines = [{"id": f"h{n}", "nats": 5.0 + n, "characters": 10, "tokens": 4} for n in range(8)]
    one = task("heldout-nll", "likelihood", lines, duplicates=3)
    found = compared(tmp_path, (one, one))
    assert "3개는 앞의 것과 똑같아" in next(w.korean for w in found.warnings if w.code == "duplicates")


def test_items_with_two_right_letters_are_told(tmp_path: Path) -> None:
    one = labels("보기", 20, 40, ambiguous=2)
    assert "문항 2개는" in next(w.korean for w in compared(tmp_path, (one, one)).warnings if w.code == "ambiguous")


def test_titles_stay_as_they_are_in_english(tmp_path: Path) -> None:
    lines = [choice(f"i{n:02d}", 0, [-2.0, -1.0]) for n in range(40)]
    won = [line | {"logprobs": [-1.0, -2.0]} for line in lines]
    named = {"title_en": "Naver movie reviews"}
    found = compared(tmp_path, (task("t", "choice", lines, **named), task("t", "choice", won, **named)))
    assert "“Naver movie reviews” improved" in found.said.english
