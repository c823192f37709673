"""All kinds of tasks compared: families, categories, flips, texts; and the gate."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from folders import Lines, answer, choice, picked, task, write

from koalpaca_tune.cli.main import cli
from koalpaca_tune.comparison import gate, report, words
from koalpaca_tune.comparison.compare import Comparison, compare


def compared(tmp_path: Path, before: list[Any], after: list[Any]) -> Comparison:
    return compare(write(tmp_path / "a", *before), write(tmp_path / "b", *after, adapter="x"))


def right(n: int, share: float, seed: int, **more: Any) -> Lines:
    """Picks that are right for about a share of n items."""
    random = np.random.default_rng(seed)
    hits = random.random(n) < share
    return [picked(f"i{k:03d}", k % 2, k % 2 if hits[k] else 1 - k % 2, **more) for k in range(n)]


def scored(n: int, base: float, seed: int) -> Lines:
    random = np.random.default_rng(seed)
    return [
        answer(f"i{k:03d}", {"korquad_f1": float(np.clip(base + random.normal(0, 0.2), 0, 1))}, text=f"답 {k}")
        for k in range(n)
    ]


def test_every_kind_has_its_test_and_its_effect(tmp_path: Path) -> None:
    def tasks(side: int) -> list[Any]:
        nats = [
            {"id": f"t{k}", "nats": 50.0 + k - (5 + k % 3) * side, "characters": 20, "tokens": 9} for k in range(30)
        ]
        yes = [answer(f"i{k:02d}", {"korquad_exact": float(k % 3 > 1 - side)}, text=f"{k}") for k in range(30)]
        return [
            task("감정", "choice", right(60, 0.5 + 0.3 * side, 1 + side)),
            task("감정2", "choice", right(60, 0.5 + 0.3 * side, 1 + side), primary="macro_f1"),
            task("독해", "answer", scored(40, 0.3 + 0.3 * side, 3 + side)),
            task("정답", "answer", yes, yes_no=["korquad_exact"]),
            task("위키", "likelihood", nats),
        ]

    found = compared(tmp_path, tasks(0), tasks(1))
    told = {row.task: (row.paired.test, row.paired.effect_name, row.unit, row.group) for row in found.rows}
    values = "sign-flip permutation and studentised bootstrap"
    assert told == {
        "감정": ("McNemar (exact)", "Cohen's g", "share", "skill"),
        "감정2": ("swap permutation", "difference", "share", "skill"),
        "독해": (values, "Cohen's dz", "share", "skill"),
        "정답": ("McNemar (exact)", "Cohen's g", "share", "skill"),
        "위키": (values, "Cohen's dz", "bits", "skill"),
    }
    for row in found.rows:
        paired = row.paired
        assert paired.effect_low <= paired.effect <= paired.effect_high  # type: ignore[operator]
        assert row.verdict == "improved"
    assert [flip.task for flip in found.flips] == ["감정", "감정2", "독해", "정답"]
    assert found.rows[-1].title == "위키: 글자당 비트"
    page = report.write(found, tmp_path / "out").read_text(encoding="utf-8")
    assert "위키: 글자당 비트" in page


def test_other_metrics_stand_beside_the_family_with_a_p_of_their_own(tmp_path: Path) -> None:
    metrics = {"accuracy": 0.5, "macro_f1": 0.5}
    found = compared(
        tmp_path,
        [task("감정", "choice", right(80, 0.5, 1), metrics=metrics)],
        [task("감정", "choice", right(80, 0.9, 2), metrics=metrics)],
    )
    assert len(found.rows) == 1
    side = found.sides[0]
    assert (side.measure, side.title) == ("macro_f1", "감정: 매크로 F1")
    assert side.paired.p < 0.001
    assert side.paired.low <= side.paired.difference <= side.paired.high


def test_how_answers_look_stands_beside_the_verdict(tmp_path: Path) -> None:
    def dialogues(hanja: float) -> Lines:
        def turn(value: float | None) -> dict[str, Any]:
            return {"question": "?", "answer": "!", "measures": {"hanja_leak": value, "distinct_1": 0.5}}

        lines = [answer(f"i{k}", {"score": 5.0 + k % 2}, text=f"{k}") for k in range(8)]
        return [line | {"turns": [turn(hanja), turn(None if k else 0.0)]} for k, line in enumerate(lines)]

    found = compared(tmp_path, [task("판정", "answer", dialogues(0.0))], [task("판정", "answer", dialogues(1.0))])
    assert [row.measure for row in found.rows] == ["score"]
    hanja, distinct = found.sides
    assert hanja.title == "판정: 섞여 든 한자"
    # seven dialogues decide it in one answer, the first in two
    assert hanja.paired.after == pytest.approx((7 * 1.0 + 0.5) / 8)
    assert hanja.lower_is_better
    assert distinct.paired.difference == 0.0


def test_a_corpus_measure_is_tested_by_its_items_and_the_page_says_so(tmp_path: Path) -> None:
    before = task("번역", "answer", scored(30, 0.3, 1), metrics={"korquad_f1": 0.25})
    after = task("번역", "answer", scored(30, 0.5, 2), metrics={"korquad_f1": 0.45})
    found = compared(tmp_path, [before], [after])
    row = found.rows[0]
    assert (row.corpus_before, row.corpus_after) == (0.25, 0.45)
    assert row.paired.before == pytest.approx(np.mean([line["scores"]["korquad_f1"] for line in before[1]]))
    page = report.write(found, tmp_path / "out").read_text(encoding="utf-8")
    assert "말뭉치 전체 (corpus): 25.0% → 45.0%" in page
    assert "문항마다 매긴 점수의 평균으로 검정했습니다" in page


def subjects(side: int) -> Lines:
    """역사: 10 items, all won. 법: 40 items, 5 lost, 5 won, 10 right and 20 wrong on both sides."""
    lines = [picked(f"a{k:02d}", 0, 1 - side, category="역사") for k in range(10)]
    for k in range(40):
        state = (side == 0) if k < 5 else (side == 1) if k < 10 else k < 20
        lines.append(picked(f"b{k:02d}", 0, 0 if state else 1, category="법"))
    return lines


def test_flip_table_of_every_category_and_the_mean_over_them(tmp_path: Path) -> None:
    found = compared(tmp_path, [task("지식", "choice", subjects(0))], [task("지식", "choice", subjects(1))])
    law, history = found.categories[0].rows
    counts = [(row.name, row.paired.lost, row.paired.won, row.both_right, row.both_wrong) for row in (law, history)]
    assert counts == [("법", 5, 5, 10, 20), ("역사", 0, 10, 0, 0)]
    macro = found.categories[0].macro
    assert macro is not None
    assert (macro.before, macro.after) == pytest.approx(((15 / 40 + 0) / 2, (15 / 40 + 1) / 2))
    assert found.rows[0].paired.difference == pytest.approx(10 / 50)
    flip = found.flips[0]
    assert (len(flip.lost), len(flip.won), flip.both_right, flip.both_wrong) == (5, 15, 10, 20)
    assert {item.category for item in flip.lost} == {"법"}
    markdown = (report.write(found, tmp_path / "out").parent / "report.md").read_text(encoding="utf-8")
    assert "| 법 | 37.5% | 37.5% | 0.0%p" in markdown
    assert "| 5 | 5 | 10 | 20 | 40 |" in markdown


def test_regressions_are_listed_by_the_fall_of_the_right_answers_share(tmp_path: Path) -> None:
    # before: right by 1 nat each. After: wrong by 0.5, 3 and 1.5
    before = [choice(f"i{k}", 0, [0.0, -1.0]) for k in range(3)]
    after = [choice(f"i{k}", 0, [-fall, 0.0]) for k, fall in enumerate((0.5, 3.0, 1.5))]
    found = compared(tmp_path, [task("감정", "choice", before)], [task("감정", "choice", after)])
    lost = found.flips[0].lost
    assert [item.id for item in lost] == ["i1", "i2", "i0"]
    share = 1 / (1 + np.exp(-1.0))
    assert lost[0].value_before == pytest.approx(share)
    assert lost[0].value_after == pytest.approx(1 / (1 + np.exp(3.0)))
    assert lost[0].change == pytest.approx(lost[0].value_after - share)
    assert (lost[0].gold, lost[0].before, lost[0].after) == (" 예", " 예", " 아니오")
    page = report.write(found, tmp_path / "out").read_text(encoding="utf-8")
    worst = page[page.index("가장 나빠진 문항") :]
    assert worst.index("문항 i1") < worst.index("문항 i2") < worst.index("문항 i0")


def test_answers_that_fell_stand_beside_choices_on_one_scale(tmp_path: Path) -> None:
    def judged(value: float) -> Lines:
        return [answer("j1", {"score": value}, text=f"{value}점 답", golds=[])]

    before = [task("판정", "answer", judged(9.0)), task("감정", "choice", [choice("i1", 0, [0.0, -0.1])])]
    after = [task("판정", "answer", judged(2.0)), task("감정", "choice", [choice("i1", 0, [-0.1, 0.0])])]
    found = compared(tmp_path, before, after)
    fallen = found.flips[0].lost[0]
    assert (fallen.value_before, fallen.value_after, fallen.change) == (9.0, 2.0, pytest.approx(-0.7))
    page = report.write(found, tmp_path / "out").read_text(encoding="utf-8")
    worst = page[page.index("가장 나빠진 문항") :]
    assert worst.index("2.0점 답") < worst.index("문항 i1")


def test_the_lowest_points_of_a_judge_are_no_shares(tmp_path: Path) -> None:
    lines = [answer(f"i{n}", {"score": 1.0}, text=f"답 {n}") for n in range(9)]
    sides = [task("판정", "answer", lines, judge={"judge": "logickor"}) for _ in range(2)]
    found = compared(tmp_path, sides[:1], sides[1:])
    assert [row.unit for row in found.rows] == ["points"]
    assert words.row(found.rows[0])["before"] == "1.00"


def test_the_change_of_a_share_is_no_more_than_one(tmp_path: Path) -> None:
    """Three answers, far apart: Student's t would reach beyond 100 points."""

    def tasks(values: list[float]) -> list[Any]:
        lines = [answer(f"i{k}", {"korquad_f1": value}, text=f"{k}") for k, value in enumerate(values)]
        return [task("독해", "answer", lines)]

    (row,) = compared(tmp_path, tasks([0.0, 0.9, 0.1]), tasks([1.0, 0.8, 0.9])).rows
    assert row.paired.low > -1.0
    assert row.paired.high == 1.0


def test_lower_is_better_turns_lost_and_won(tmp_path: Path) -> None:
    def loops(value: float) -> tuple[dict[str, Any], Lines]:
        lines = [answer(f"i{k:02d}", {"repetition": value + k / 100}, text=f"{k}") for k in range(20)]
        return task("쓰기", "answer", lines, lower_is_better=["repetition"])

    found = compared(tmp_path, [loops(0.2)], [loops(0.6)])
    assert found.rows[0].verdict == "worse"
    assert (len(found.flips[0].lost), len(found.flips[0].won)) == (20, 0)


# --- gate ---------------------------------------------------------------------------------------------------


@pytest.fixture
def worse(tmp_path: Path) -> list[str]:
    """Two folders: 감정 got worse, 상식 better, 추론 stayed."""
    shares = ({"감정": 0.9, "상식": 0.5, "추론": 0.6}, {"감정": 0.5, "상식": 0.9, "추론": 0.6})
    for name, side in zip(("a", "b"), shares, strict=True):
        tasks = [task(one, "choice", right(100, share, 7)) for one, share in side.items()]
        write(tmp_path / name, *tasks, adapter=name)
    return [str(tmp_path / "a"), str(tmp_path / "b")]


def test_gate_names_what_got_worse_and_exits_with_3(worse: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(cli, ["compare", *worse, "--out", str(out), "--gate"])
    assert result.exit_code == 3
    lines = [line for line in result.stderr.splitlines() if line.startswith("regression: ")]
    assert len(lines) == 1
    assert lines[0].startswith("regression: 감정 accuracy: ")
    assert "(Holm), n 100" in lines[0]
    # the report is there all the same
    stored = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert [row["verdict"] for row in stored["rows"]] == ["worse", "improved", "no detectable change"]


def test_gate_passes_where_nothing_got_worse(worse: list[str], tmp_path: Path) -> None:
    both = [worse[0], str(shutil.copytree(worse[0], tmp_path / "again"))]
    result = CliRunner().invoke(cli, ["compare", *both, "--out", str(tmp_path / "out"), "--gate"])
    assert result.exit_code == 0
    assert "gate passed: no significant regression in 3 measures; a loss below" in result.stdout


def test_without_the_gate_a_regression_is_no_failure(worse: list[str], tmp_path: Path) -> None:
    assert CliRunner().invoke(cli, ["compare", *worse, "--out", str(tmp_path / "out")]).exit_code == 0


def test_the_status_reaches_the_shell(worse: list[str], tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "koalpaca_tune.cli.main",
        "compare",
        *worse,
        "--out",
        str(tmp_path / "out"),
        "--gate",
    ]
    assert subprocess.run(words, capture_output=True, check=False).returncode == gate.STATUS


def test_a_small_loss_is_not_a_regression(tmp_path: Path) -> None:
    before = [picked(f"i{k:02d}", 0, 0) for k in range(40)]
    after = [picked(f"i{k:02d}", 0, int(k < 5)) for k in range(40)]
    found = compared(tmp_path, [task("감정", "choice", before)], [task("감정", "choice", after)])
    # five of five changed items got worse: p = 2 / 32
    assert (found.rows[0].paired.difference, found.rows[0].p_holm) == (-0.125, 0.0625)
    assert gate.regressions(found) == []
