"""Statistics against scipy and against simulation."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import stats as scipy_stats

from koalpaca_tune.evaluation import metrics, stats


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (0, 5), (0, 6), (3, 12), (10, 10), (40, 21)])
def test_mcnemar_is_the_exact_binomial_test(lost: int, won: int) -> None:
    expected = min(1.0, 2 * scipy_stats.binom.cdf(min(lost, won), lost + won, 0.5)) if lost + won else 1.0
    assert stats.mcnemar(lost, won) == pytest.approx(expected)


def test_proportions_of_pairs() -> None:
    before = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
    after = np.array([1, 1, 0, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
    paired = stats.proportions(before, after)
    assert (paired.lost, paired.won, paired.n) == (1, 3, 10)
    assert paired.difference == pytest.approx(0.2)
    assert paired.low < 0.2 < paired.high
    assert paired.p == pytest.approx(0.625)


def test_no_changed_item_is_no_evidence_and_not_a_point() -> None:
    same = np.array([True, False] * 20)
    paired = stats.proportions(same, same)
    assert paired.p == 1.0
    assert paired.low < 0 < paired.high


def test_agresti_min_covers() -> None:
    random = np.random.default_rng(1)
    hits = 0
    for lost, won, _ in random.multinomial(46, [0.1, 0.25, 0.65], size=2000):
        low, high = stats.agresti_min(int(lost), int(won), 46)
        hits += low <= 0.15 <= high
    assert 0.935 <= hits / 2000 <= 0.975


def test_bootstrap_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=60)
    low, high = stats.bootstrap(lambda rows: values[rows].mean(-1), 60, 3)
    theirs = scipy_stats.bootstrap((values,), np.mean, method="percentile", rng=4).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert (low, high) == stats.bootstrap(lambda rows: values[rows].mean(-1), 60, 3)


@pytest.mark.parametrize("n", [5, 9, 40])
def test_sign_flip_agrees_with_scipy(n: int) -> None:
    difference = np.random.default_rng(n).normal(0.4, 1, size=n)
    theirs = scipy_stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=10_000, rng=1
    )
    assert stats.sign_flip(difference, 2) == pytest.approx(theirs.pvalue, abs=0.015)


def test_sign_flip_of_no_difference_is_one_and_never_zero() -> None:
    assert stats.sign_flip(np.zeros(30), 0) == 1.0
    assert stats.sign_flip(np.ones(30), 0) == pytest.approx(1 / 10_001, rel=0.01)


def test_holm_as_in_the_paper() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == []
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]


def test_ratios_weigh_long_answers() -> None:
    before, after = np.array([10.0, 40.0]), np.array([5.0, 50.0])
    paired = stats.ratios(before, after, np.array([10.0, 40.0]), 0)
    assert paired.before == 1.0
    assert paired.difference == pytest.approx(5 / 50)


def test_smallest_detectable_proportion_is_found_at_80_percent() -> None:
    random = np.random.default_rng(5)
    mcnemar = cache(stats.mcnemar)
    for n, changed in ((46, 0.3), (400, 0.2)):
        smallest = stats.smallest_proportion(changed, n)
        assert smallest is not None
        won, lost = (changed + smallest) / 2, (changed - smallest) / 2
        draws = random.multinomial(n, [won, lost, 1 - won - lost], size=1500)
        power = np.mean([mcnemar(int(b), int(c)) < 0.05 for c, b, _ in draws])
        # the exact test is a little conservative, Connor's formula is not
        assert 0.68 <= power <= 0.88


def test_smallest_detectable_change_needs_items() -> None:
    assert stats.smallest_proportion(0.5, 5) is None
    none_changed = stats.smallest_proportion(0.0, 46)
    assert none_changed is not None
    assert none_changed >= 6 / 46


def test_false_positives_of_the_whole_rule_stay_below_five_percent() -> None:
    random = np.random.default_rng(11)
    mcnemar = cache(stats.mcnemar)
    trials, false = 400, 0
    for trial in range(trials):
        # items of varied difficulty; both sides have the same chance on each
        pairs = random.random((6, 2, 46)) < random.random((6, 1, 46))
        p = [mcnemar(int((a & ~b).sum()), int((~a & b).sum())) for a, b in pairs]
        noise = random.standard_t(3, size=(5, 60))
        p += [stats.sign_flip(row, trial, resamples=400) for row in noise]
        false += min(stats.holm(p)) < 0.05
    # 5 % and two standard errors of the simulation
    assert false / trials <= 0.05 + 2 * (0.05 * 0.95 / trials) ** 0.5


def test_macro_f1_of_constant_answers_on_kobest_shapes() -> None:
    # all-예 on WiC: 620 of 1,260 are 예 (see the trap in the reference numbers)
    gold = np.array([1] * 615 + [0] * 645)
    assert metrics.macro_f1(gold, np.ones_like(gold)) == pytest.approx(0.328, abs=0.0005)


def test_macro_f1_over_resamples_at_once() -> None:
    random = np.random.default_rng(0)
    gold, pick = random.integers(0, 3, 50), random.integers(0, 3, 50)
    rows = random.integers(0, 50, size=(20, 50))
    together = metrics.macro_f1(gold[rows], pick[rows])
    assert together == pytest.approx([float(metrics.macro_f1(gold[r], pick[r])) for r in rows])
    by_hand = []
    for one in range(3):
        true = int(((gold == one) & (pick == one)).sum())
        by_hand.append(2 * true / (int((gold == one).sum()) + int((pick == one).sum())))
    assert metrics.macro_f1(gold, pick) == pytest.approx(np.mean(by_hand))


def test_picks_and_normalisation() -> None:
    lines = [{"logprobs": [-4.0, -5.0], "characters": [1, 10], "answer": 1, "choices": ["가", "나나"]}]
    assert metrics.picks(lines).tolist() == [0]
    assert metrics.picks(lines, per_character=True).tolist() == [1]
    assert metrics.right(lines, "accuracy_norm").tolist() == [True]


def test_bits_per_character() -> None:
    assert metrics.bits_per_character(np.array([np.log(2) * 8, 0.0]), np.array([2.0, 2.0])) == pytest.approx(2.0)


@pytest.mark.parametrize(("same", "flagged"), [(20, True), (19, True), (18, False)])
def test_collapse(same: int, flagged: bool) -> None:
    lines = [
        {"logprobs": [0.0, -1.0] if n < same else [-1.0, 0.0], "characters": [1, 1], "answer": n % 2}
        | {"choices": [" 예", " 아니오"]}
        for n in range(20)
    ]
    found = metrics.collapse(lines, "accuracy")
    assert (found is not None) == flagged
    if found:
        assert found["answer"] == "예"
