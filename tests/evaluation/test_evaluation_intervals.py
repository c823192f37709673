"""Intervals say no more than the items do, and nothing that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders import answer, picked, task, write

from koalpaca_tune.comparison import report, stats, words
from koalpaca_tune.comparison.compare import Comparison, compare
from koalpaca_tune.comparison.power import ALPHA


def pairs(tmp_path: Path, before: object, after: object) -> Comparison:
    return compare(
        write(tmp_path / "a", before),  # type: ignore[arg-type]
        write(tmp_path / "b", after, adapter="x"),  # type: ignore[arg-type]
    )


def points(values: list[float], **more: object) -> object:
    lines = [answer(f"q{n}", {"score": value}) for n, value in enumerate(values)]
    return task("대화", "answer", lines, **({"judge": {"judge_model": "m"}} | more))


def test_points_change_no_further_than_the_judges_scale(tmp_path: Path) -> None:
    one, two = [10.0, 9.0, 1.0], [1.0, 10.0, 1.0]
    free = pairs(tmp_path / "free", points(one), points(two)).rows[0].paired
    assert free.low is not None
    assert free.low < -9
    held = pairs(tmp_path / "held", points(one, scale=[1, 10]), points(two, scale=[1, 10])).rows[0].paired
    assert (held.low, held.difference) == (-9.0, free.difference)
    assert held.high == min(9.0, free.high or 0.0)


@pytest.mark.parametrize(("before", "after"), [([0.5] * 8, [0.75] * 8), ([0.2, 0.7, 0.9], [0.2, 0.7, 0.9])])
def test_differences_that_are_all_equal_have_no_interval(before: list[float], after: list[float]) -> None:
    found = stats.means(np.asarray(before), np.asarray(after), 0)
    assert (found.low, found.high, found.smallest, found.effect) == (None, None, None, None)
    assert words.spread(found, "share") == words.NO_INTERVAL
    assert found.difference == pytest.approx(after[0] - before[0])


def test_a_ratio_that_changed_alike_everywhere_has_none() -> None:
    weights = np.array([10.0, 20.0, 40.0])
    assert stats.ratios(weights, weights * 1.5, weights, 0).low is None


def test_yes_and_no_keep_their_interval_where_nothing_changed() -> None:
    same = np.array([True] * 40)
    found = stats.proportions(same, same)
    assert found.low is not None
    assert found.low < 0 < (found.high or 0)


def test_macro_f1_of_one_class_has_no_interval() -> None:
    same = np.zeros(5, dtype=np.int64)
    found = stats.macro_f1(same, same, same, 0)
    assert (found.low, found.high, found.effect) == (None, None, None)


def test_an_interval_holds_zero_wherever_the_test_does() -> None:
    # five won of fifty: Tango's interval is above 0, McNemar's exact p is 1/16
    before = np.array([False] * 50)
    after = np.array([True] * 5 + [False] * 45)
    assert stats.score_interval(0, 5, 50)[0] > 0
    found = stats.proportions(before, after)
    assert (found.p, found.low) == (0.0625, 0.0)
    # eleven shares, four of them from 0 to 1: the real before/after had [+2.5, +72.7] beside p 0.125
    values = np.array([1.0] * 4 + [0.0] * 7)
    share = stats.means(np.zeros(11), values, 0)
    assert share.p >= ALPHA
    assert share.low == 0.0
    clear = stats.means(np.zeros(30), np.full(30, 0.5) + np.arange(30) / 100, 0)
    assert clear.p < ALPHA
    assert (clear.low or 0) > 0


def test_a_category_of_one_item_shows_no_point(tmp_path: Path) -> None:
    kinds = ["하나", "여럿", "여럿", "여럿"]

    def side(values: list[float]) -> object:
        lines = [
            answer(f"q{n}", {"chrf": v}, category=k) for n, (v, k) in enumerate(zip(values, kinds, strict=True))
        ]
        return task("쓰기", "answer", lines)

    found = pairs(tmp_path, side([0.2, 0.3, 0.4, 0.5]), side([0.9, 0.3, 0.6, 0.4]))
    rows = {row.name: row.paired for row in found.categories[0].rows}
    assert (rows["하나"].n, rows["하나"].low) == (1, None)
    assert rows["여럿"].low is not None
    page = report.write(found, tmp_path / "out").read_text(encoding="utf-8")
    assert f'+70.0%p<span class="range">{words.NO_INTERVAL}</span>' in page


def test_categories_of_one_item_each_say_so_in_their_mean_too(tmp_path: Path) -> None:
    lines = [picked(f"q{n}", 0, 0, category=f"범주 {n}") for n in range(3)]
    macro = pairs(tmp_path, task("고르기", "choice", lines), task("고르기", "choice", lines)).categories[0].macro
    assert macro is not None
    assert (macro.low, macro.effect) == (None, None)
