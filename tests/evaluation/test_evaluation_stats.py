"""Statistics against scipy, by hand and by short simulations (the long ones: bench/paired_statistics.py)."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize
from scipy import stats as scipy_stats

from koalpaca_tune.comparison import classes, resampling, stats
from koalpaca_tune.evaluation import metrics


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
    assert paired.effect == pytest.approx(3 / 4 - 1 / 2)
    assert paired.odds_ratio == pytest.approx(3.0)


def test_no_changed_item_is_no_evidence_and_not_a_point() -> None:
    same = np.array([True, False] * 20)
    paired = stats.proportions(same, same)
    assert paired.p == 1.0
    # Tango's interval of no change among n is z^2 / (n + z^2)
    assert paired.high == pytest.approx(1.96**2 / (40 + 1.96**2), abs=1e-4)
    assert paired.low == pytest.approx(-paired.high)
    assert paired.effect is None


@pytest.mark.parametrize(("lost", "won", "n"), [(2, 12, 50), (0, 7, 46), (9, 4, 300), (1, 0, 44)])
def test_score_interval_is_where_the_constrained_likelihood_says(lost: int, won: int, n: int) -> None:
    for bound, level in zip(stats.score_interval(lost, won, n), (1.96, -1.96), strict=True):

        def against(share: float, bound: float = bound) -> float:
            shares = np.array([share, share + bound, 1 - 2 * share - bound])
            counts = np.array([lost, won, n - lost - won])
            return -float((counts * np.log(np.maximum(shares, 1e-15))).sum())

        low, high = max(0.0, -bound), (1 - bound) / 2
        share = optimize.minimize_scalar(against, bounds=(low, high), method="bounded", options={"xatol": 1e-10}).x
        score = (won - lost - n * bound) / (n * (2 * share + bound * (1 - bound))) ** 0.5
        assert score == pytest.approx(level, abs=2e-3)


@pytest.mark.parametrize("shares", [(0.1, 0.25), (0.05, 0.05), (0.005, 0.12)])
def test_score_interval_covers_summed_over_all_outcomes(shares: tuple[float, float]) -> None:
    n, (lost, won) = 46, shares
    interval = cache(stats.score_interval)
    covered = 0.0
    for b in range(30):
        for c in range(n + 1 - b):
            weight = scipy_stats.multinomial.pmf([b, c, n - b - c], n, [lost, won, 1 - lost - won])
            if weight > 1e-9:
                low, high = interval(b, c, n)
                covered += weight * (low <= won - lost <= high)
    # with few changed items no interval can be exact: it may be wider, not narrower
    assert 0.93 <= covered <= 0.985


def test_cohen_g_leaves_out_zero_where_mcnemar_does() -> None:
    for lost in range(12):
        for won in range(12):
            found = stats.cohen_g(lost, won)
            if found is None:
                assert lost + won == 0
                continue
            _, low, high = found
            assert (low > 0 or high < 0) == (stats.mcnemar(lost, won) < 0.05)
            theirs = scipy_stats.binomtest(won, lost + won).proportion_ci(method="exact")
            assert (low + 0.5, high + 0.5) == pytest.approx((theirs.low, theirs.high))


def test_cohen_dz_by_hand() -> None:
    found = stats.cohen_dz(np.array([1.0, 2.0, 3.0]))
    assert found is not None
    assert found[0] == pytest.approx(2.0)
    half = scipy_stats.t.ppf(0.975, 2) * (1 / 3 + 4 / 6) ** 0.5
    assert found[1:] == pytest.approx((2 - half, 2 + half))
    assert stats.cohen_dz(np.full(5, 0.3)) is None


def test_mean_bootstrap_is_about_students_t_for_normal_values() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, size=60)
    found = resampling.mean(values, 3)
    theirs = scipy_stats.ttest_1samp(values, 0.0)
    assert found.error == pytest.approx(values.std(ddof=1) / 60**0.5)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval()), abs=0.03)
    assert found.p == pytest.approx(theirs.pvalue, abs=0.02)
    assert found == resampling.mean(values, 3)


def test_bootstrap_distribution_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=60)
    weights = np.random.default_rng(1).integers(1, 9, size=60).astype(float)
    ours = resampling.ratio(values, weights, 5)

    def ratio(one: NDArray[np.float64], two: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.asarray(one.sum(axis) / two.sum(axis))

    theirs = scipy_stats.bootstrap((values, weights), ratio, paired=True, vectorized=True, rng=4)
    assert ours.value == pytest.approx(values.sum() / weights.sum())
    assert ours.error == pytest.approx(theirs.standard_error, rel=0.05)


@pytest.mark.parametrize("n", [5, 9, 40])
def test_sign_flip_agrees_with_scipy(n: int) -> None:
    difference = np.random.default_rng(n).normal(0.4, 1, size=n)
    theirs = scipy_stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=10_000, rng=1
    )
    assert resampling.sign_flip(difference, 2) == pytest.approx(theirs.pvalue, abs=0.015)


def test_sign_flip_of_no_difference_is_one_and_never_zero() -> None:
    assert resampling.sign_flip(np.zeros(30), 0) == 1.0
    assert resampling.sign_flip(np.ones(30), 0) == pytest.approx(1 / 10_001, rel=0.01)


def test_means_say_the_larger_p() -> None:
    difference = np.random.default_rng(2).normal(0.3, 1, size=40)
    paired = stats.means(np.zeros(40), difference, 1)
    assert paired.p == max(resampling.sign_flip(difference, 1), resampling.mean(difference, 1).p)
    assert paired.smallest == pytest.approx(2.8016 * difference.std(ddof=1) / 40**0.5, rel=1e-3)


def test_equal_values_are_no_evidence() -> None:
    same = np.array([0.2, 0.7, 0.9])
    paired = stats.means(same, same, 0)
    assert (paired.p, paired.difference, paired.smallest, paired.effect) == (1.0, 0.0, None, None)


def test_drawing_values_is_drawing_items() -> None:
    # a billionth more for each makes the values too many to be drawn as values
    few = np.random.default_rng(1).choice([-1.0, 0.0, 1.0, 2.0], size=200)
    many = few + np.arange(200) * 1e-9
    one, two = resampling.mean(few, 1), resampling.mean(many, 1)
    assert one.error == pytest.approx(two.error, rel=1e-6)
    assert (one.low, one.high) == pytest.approx((two.low, two.high), abs=0.01)
    assert one.p == pytest.approx(two.p, abs=0.01)


def test_the_same_gain_everywhere_is_evidence() -> None:
    before = np.linspace(0.0, 1.0, 20)
    paired = stats.means(before, before + 0.25, 0)
    assert paired.p < 0.001
    assert paired.difference == pytest.approx(0.25)


def test_ratios_weigh_long_answers() -> None:
    before, after = np.array([10.0, 40.0]), np.array([5.0, 50.0])
    paired = stats.ratios(before, after, np.array([10.0, 40.0]), 0)
    assert paired.before == 1.0
    assert paired.difference == pytest.approx(5 / 50)


def test_stratified_mean_counts_every_category_the_same() -> None:
    before = np.array([0.0] * 10 + [0.0, 1.0])
    after = np.array([1.0] * 10 + [0.0, 0.0])
    strata = [np.arange(10), np.array([10, 11])]
    paired = stats.stratified(before, after, strata, 0)
    assert (paired.before, paired.after) == pytest.approx((0.25, 0.5))
    assert paired.difference == pytest.approx((1.0 - 0.5) / 2)
    # the error is that of independent strata
    values = after - before
    variance = sum(values[rows].var(ddof=1) / len(rows) for rows in strata) / 4
    assert resampling.stratified(values, strata, 0).error == pytest.approx(variance**0.5)


def test_a_category_of_one_item_has_the_variance_of_all() -> None:
    values = np.array([0.0, 1.0, 0.0, 1.0, 1.0])
    found = resampling.stratified(values, [np.arange(4), np.array([4])], 0)
    expected = (values[:4].var(ddof=1) / 4 + values.var(ddof=1)) / 4
    assert found.error == pytest.approx(expected**0.5)
    assert found.low < found.value < found.high


def test_holm_as_in_the_paper() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == []
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]


# --- macro-F1 -----------------------------------------------------------------------------------------------


def picks(n: int, seed: int, right: tuple[float, float] = (0.6, 0.7)) -> tuple[NDArray[np.int64], ...]:
    random = np.random.default_rng(seed)
    gold = random.integers(0, 3, n)
    sides = [np.where(random.random(n) < share, gold, random.integers(0, 3, n)) for share in right]
    return gold, *sides


def test_macro_f1_by_counts_is_that_of_the_items() -> None:
    gold, before, after = picks(80, 1)
    paired = stats.macro_f1(gold, before, after, 0)
    assert paired.before == pytest.approx(float(metrics.macro_f1(gold, before)))
    assert paired.after == pytest.approx(float(metrics.macro_f1(gold, after)))
    assert paired.difference == pytest.approx(paired.after - paired.before)
    assert paired.low < paired.difference < paired.high


def test_macro_f1_swaps_agree_with_scipy() -> None:
    gold, before, after = picks(60, 4)

    def statistic(one: NDArray[np.int64], two: NDArray[np.int64]) -> float:
        return float(metrics.macro_f1(gold, two) - metrics.macro_f1(gold, one))

    theirs = scipy_stats.permutation_test(
        (before, after), statistic, permutation_type="samples", n_resamples=4000, vectorized=False, rng=3
    )
    table = classes.counts(gold, before, after)
    assert classes.permutation(table, 7) == pytest.approx(theirs.pvalue, abs=0.03)
    assert classes.permutation(classes.counts(gold, before, before), 7) == 1.0


def test_macro_f1_bootstrap_agrees_with_scipy() -> None:
    gold, before, after = picks(200, 5)

    def statistic(g: NDArray[np.int64], one: NDArray[np.int64], two: NDArray[np.int64]) -> float:
        return float(metrics.macro_f1(g, two) - metrics.macro_f1(g, one))

    theirs = scipy_stats.bootstrap(
        (gold, before, after), statistic, paired=True, vectorized=False, n_resamples=2000, rng=2
    )
    ours = classes.bootstrap(classes.counts(gold, before, after), 3)
    assert ours.error == pytest.approx(theirs.standard_error, rel=0.08)


def test_macro_f1_of_picks_that_did_not_change_is_no_point() -> None:
    gold, before, _ = picks(40, 6)
    found = classes.bootstrap(classes.counts(gold, before, before), 0)
    assert found.low < 0 < found.high


def test_macro_f1_of_constant_answers_on_kobest_shapes() -> None:
    # all-예 on WiC: 620 of 1,260 are 예 (see the trap in the reference numbers)
    gold = np.array([1] * 615 + [0] * 645)
    assert metrics.macro_f1(gold, np.ones_like(gold)) == pytest.approx(0.328, abs=0.0005)
    assert metrics.constant_macro_f1(gold) == pytest.approx(float(metrics.macro_f1(gold, np.zeros_like(gold))))


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


# --- metrics ------------------------------------------------------------------------------------------------


def test_picks_and_normalisation() -> None:
    line = {"logprobs": [-4.0, -5.0], "characters": [1, 10], "tokens": [1, 5], "unconditional": [-1.0, -4.0]}
    lines = [line | {"answer": 1, "choices": ["가", "나나"]}]
    assert metrics.picks(lines).tolist() == [0]
    assert metrics.picks(lines, "accuracy_norm").tolist() == [1]
    # per token -4.0 and -1.0; PMI -3.0 and -1.0
    assert metrics.picks(lines, "accuracy_token").tolist() == [1]
    assert metrics.picks(lines, "accuracy_pmi").tolist() == [1]
    assert metrics.right(lines, "accuracy_norm").tolist() == [True]
    assert metrics.CHOICE["accuracy_pmi"](lines) == 1.0
    assert metrics.CHOICE["accuracy"](lines) == 0.0


def test_bits_per_character() -> None:
    assert metrics.bits_per_character(np.array([np.log(2) * 8, 0.0]), np.array([2.0, 2.0])) == pytest.approx(2.0)


# --- short simulations --------------------------------------------------------------------------------------


def test_false_positives_of_the_whole_rule_stay_below_five_percent() -> None:
    random = np.random.default_rng(11)
    mcnemar = cache(stats.mcnemar)
    trials, false = 400, 0
    for trial in range(trials):
        # items of varied difficulty; both sides have the same chance on each
        pairs = random.random((6, 2, 46)) < random.random((6, 1, 46))
        p = [mcnemar(int((a & ~b).sum()), int((~a & b).sum())) for a, b in pairs]
        noise = random.standard_t(3, size=(4, 60))
        p += [stats.means(np.zeros(60), row, trial, resamples=400).p for row in noise]
        gold, one, two = picks(60, trial, (0.5, 0.5))
        p.append(classes.permutation(classes.counts(gold, one, two), trial, resamples=400))
        false += min(stats.holm(p)) < 0.05
    # 5 % and two standard errors of the simulation
    assert false / trials <= 0.05 + 2 * (0.05 * 0.95 / trials) ** 0.5


@pytest.mark.parametrize("draw", ["heavy", "sparse", "ratio", "macro-F1"])
def test_intervals_cover_at_40_items(draw: str) -> None:
    random = np.random.default_rng(3)
    n, trials, held = 40, 500, 0
    for trial in range(trials):
        if draw == "macro-F1":
            found = classes.bootstrap(classes.counts(*picks(n, trial, (0.5, 0.5))), trial, resamples=300)
            held += found.low <= 0 <= found.high
            continue
        if draw == "heavy":
            estimate = resampling.mean(random.standard_t(3, size=n), trial, resamples=300)
        elif draw == "sparse":
            size = random.beta(1, 3, size=n) * random.choice([-1, 0, 1], p=[0.15, 0.7, 0.15], size=n)
            estimate = resampling.mean(size, trial, resamples=300)
        else:
            weights = np.ceil(np.exp(random.normal(4, 0.7, size=n)))
            estimate = resampling.ratio(random.normal(size=n) * weights**0.5, weights, trial, resamples=300)
        held += estimate.low <= 0 <= estimate.high
    # 93 to 97 %, and two standard errors of the simulation
    assert 0.93 - 0.02 <= held / trials <= 0.97 + 0.016
