"""What a suite can show, before it runs."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pytest
from scipy import stats as scipy_stats

from koalpaca_tune.comparison import planning, power, stats


def test_power_is_the_sum_over_all_outcomes() -> None:
    n, changed, difference, alpha = 24, 0.6, 0.4, 0.05
    better, worse = (changed + difference) / 2, (changed - difference) / 2
    exact = 0.0
    for won, lost in product(range(n + 1), repeat=2):
        if won + lost <= n and won > lost and stats.mcnemar(lost, won) < alpha:
            exact += scipy_stats.multinomial.pmf([won, lost, n - won - lost], n, [better, worse, 1 - changed])
    assert power.power(n, changed, difference, alpha) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(("changed", "n", "alpha"), [(0.3, 46, 0.05), (0.2, 400, 0.05), (0.2, 400, 0.01)])
def test_smallest_change_has_80_percent_power(changed: float, n: int, alpha: float) -> None:
    smallest = power.smallest_change(changed, n, alpha=alpha)
    assert smallest is not None
    won, lost = (changed + smallest) / 2, (changed - smallest) / 2
    draws = np.random.default_rng(5).multinomial(n, [won, max(lost, 0.0), 1 - won - max(lost, 0.0)], size=3000)
    mcnemar = cache(stats.mcnemar)
    found = np.mean([mcnemar(int(c), int(b)) < alpha for b, c, _ in draws])
    assert found == pytest.approx(0.80, abs=0.03)
    assert power.power(n, changed, smallest - 0.01, alpha) < 0.80


def test_a_stricter_level_and_fewer_items_see_less() -> None:
    sizes = [power.smallest_change(0.2, n) for n in (2000, 400, 60)]
    assert sizes == sorted(sizes)
    assert power.smallest_change(0.2, 400, alpha=0.01) > power.smallest_change(0.2, 400)  # type: ignore[operator]


def test_few_items_show_nothing() -> None:
    # six items that all go one way have p = 2 / 64; five have 2 / 32
    assert power.smallest_change(0.5, 5) is None
    assert power.smallest_change(0.5, 6) == pytest.approx(0.8 ** (1 / 6), abs=0.01)


@pytest.mark.parametrize(("difference", "changed"), [(0.05, 0.2), (0.1, 0.1), (0.02, 0.5)])
def test_items_needed_and_smallest_change_are_each_others_inverse(difference: float, changed: float) -> None:
    needed = power.items_needed(difference, changed, alpha=0.01)
    assert needed is not None
    assert power.power(needed, max(changed, difference), difference, 0.01) >= 0.80
    assert power.smallest_change(changed, needed, alpha=0.01) == pytest.approx(difference, rel=0.03)
    assert power.power(int(needed * 0.9), max(changed, difference), difference, 0.01) < 0.80


def test_items_needed_for_next_to_nothing_are_not_told() -> None:
    assert power.items_needed(1e-4, 0.5) is None


def test_plan_divides_alpha_by_the_tests() -> None:
    one, two = planning.plan({"가": 500, "나": 46}, changed=0.2)
    assert one.smallest == power.smallest_change(0.2, 500, alpha=0.025)
    assert two.smallest > one.smallest  # type: ignore[operator]
    assert one.needed == two.needed
    alone = planning.plan({"가": 500}, tests=10, points=[0.05])[0]
    assert alone.smallest == power.smallest_change(0.2, 500, alpha=0.005)
    assert alone.needed == {0.05: power.items_needed(0.05, 0.2, alpha=0.005)}


def test_table_and_notes_are_readable() -> None:
    head, row, few = planning.table({"kobest-copa": 1000, "작은 것": 5}, points=[0.05])
    assert head[-1].startswith("5%p에 필요한 문항")
    assert row[0] == "kobest-copa"
    assert row[1] == "1,000"
    assert row[2].startswith("±")
    assert few[2] == "–"
    korean, english = planning.notes(2)
    assert "α = 0.025" in korean
    assert "power 80%" in english
