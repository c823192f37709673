"""Do the statistics of a comparison keep their word? False positives and coverage by simulation.

    python bench/paired_statistics.py | tee bench/results/statistics-2026-11-21.log
    python bench/paired_statistics.py --speed

Each line is 2,000 simulated before/after pairs (--pairs). A test may find a change where there is none in at most
5 % of them; a 95 % interval should hold the truth in 93 to 97 %. Resamples are 1,000 in place of 10,000, for time.
`--quick` is 200 pairs.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from koalpaca_tune.comparison import classes, resampling, stats
from koalpaca_tune.comparison.power import ALPHA

Floats = NDArray[np.float64]
Random = np.random.Generator
RESAMPLES = 1000
SIZES = (30, 100, 300, 1000)

mcnemar = cache(stats.mcnemar)
score_interval = cache(stats.score_interval)


class Line(NamedTuple):
    """What was simulated, for how many items, and the share that was counted."""

    what: str
    n: int
    share: float


# --- data ---------------------------------------------------------------------------------------------------


def cells(
    n_classes: int, right: tuple[float, float], same: float, lean: tuple[float, float], skew: float
) -> Floats:
    """Probabilities of (gold, before, after).

    Args:
        right: accuracy on each side.
        same: how much the two sides' picks agree beyond chance, 0..1.
        lean: how much likelier a wrong pick is the first class (before), the last (after).
        skew: how much likelier the first class is right.
    """
    gold = np.ones(n_classes)
    gold[0] *= skew
    gold /= gold.sum()
    found = np.zeros((n_classes,) * 3)
    for one in range(n_classes):
        picks = []
        for accuracy, factor, place in zip(right, lean, (0, n_classes - 1), strict=True):
            wrong = np.ones(n_classes)
            wrong[place] *= factor
            wrong[one] = 0
            pick = (1 - accuracy) * wrong / wrong.sum()
            pick[one] = accuracy
            picks.append(pick)
        common = np.diag(np.minimum(*picks))
        rest = [pick - np.diag(common) for pick in picks]
        free = max(1 - common.sum(), 1e-12)
        tied = common + np.outer(*rest) / free
        found[one] = gold[one] * (same * tied + (1 - same) * np.outer(*picks))
    return found


def normal(random: Random, n: int) -> Floats:
    return random.normal(size=n)


def heavy(random: Random, n: int) -> Floats:
    return random.standard_t(3, size=n)


def sparse(random: Random, n: int) -> Floats:
    """chrF-like: seven in ten unchanged, the others by a small share either way."""
    size = random.beta(1, 3, size=n)
    return np.where(random.random(n) < 0.7, 0.0, np.where(random.random(n) < 0.5, size, -size))


def lopsided(random: Random, n: int) -> Floats:
    """As sparse, but gains are rare and large, losses common and small; the mean is still 0."""
    kind = random.random(n)
    return np.where(
        kind < 0.5, 0.0, np.where(kind < 0.6, 3 * random.beta(2, 4, size=n), -random.beta(1, 3, size=n))
    )


def judged(random: Random, n: int) -> Floats:
    """Differences of scores 1..10, most of them none or one point."""
    return random.choice([-2.0, -1, 0, 1, 2], p=[0.08, 0.17, 0.5, 0.17, 0.08], size=n)


def long_tail(random: Random, n: int) -> Floats:
    """Log-normal differences, one-sided: worse than anything a comparison is likely to meet."""
    return np.exp(random.normal(size=n)) - np.exp(0.5)


# mean of lopsided: 0.1 * 3 * 1/3 - 0.4 * 1/4 = 0
MEANS: dict[str, Callable[[Random, int], Floats]] = {
    "normal": normal,
    "t with 3 degrees": heavy,
    "sparse": sparse,
    "lopsided": lopsided,
    "judge's points": judged,
    "log-normal (extreme)": long_tail,
}


def nats(random: Random, n: int, tied: float) -> tuple[Floats, Floats]:
    """Differences of nats and characters of answers; long answers differ more. The mean difference is 0."""
    characters = np.ceil(np.exp(random.normal(4, 0.7, size=n)))
    own = random.normal(size=n) * characters**0.5
    return tied * 0.1 * random.normal(size=n) * characters + (1 - tied) * own, characters


# --- false positives ----------------------------------------------------------------------------------------

TABLES = {
    "2 classes, .6 right, loosely tied": (2, (0.6, 0.6), 0.3, (1.0, 1.0), 1.0),
    "2 classes, .6 right, closely tied": (2, (0.6, 0.6), 0.9, (1.0, 1.0), 1.0),
    "4 options, .4 right, tied": (4, (0.4, 0.4), 0.6, (1.0, 1.0), 1.0),
    "2 classes 3:1, .8 right, tied": (2, (0.8, 0.8), 0.6, (1.0, 1.0), 3.0),
    "7 classes, .5 right, tied": (7, (0.5, 0.5), 0.6, (2.0, 2.0), 1.0),
}
NOT_SWAPPED = (3, (0.5, 0.5), 0.3, (4.0, 4.0), 1.0)
"""Before leans to the first class and after to the last: equal macro-F1, yet swapping changes the picture."""


def false_positives(pairs: int) -> Iterator[Line]:
    for name, setting in TABLES.items():
        for n in SIZES:
            yield Line(f"accuracy, McNemar: {name}", n, _accuracy(setting, n, pairs))
    for name, setting in {**TABLES, "3 classes, leaning to opposite sides": NOT_SWAPPED}.items():
        for n in SIZES:
            yield Line(f"macro-F1, swaps: {name}", n, _macro_f1(setting, n, pairs))
    for name, draw in MEANS.items():
        for n in SIZES:
            random = np.random.default_rng(n)
            p = (stats.means(np.zeros(n), draw(random, n), s, resamples=RESAMPLES).p for s in range(pairs))
            yield Line(f"mean, sign flips and bootstrap: {name}", n, _share(p))
    for tied in (0.0, 0.8):
        for n in SIZES:
            random = np.random.default_rng(n)
            p = (_ratio_p(random, n, tied, s) for s in range(pairs))
            yield Line(f"ratio, sign flips and bootstrap: nats per character, tied {tied}", n, _share(p))
    for n in (10, 40):
        yield Line("macro-average of 12 categories, sign flips and bootstrap", 12 * n, _share(_macro_p(n, pairs)))
    for n in (46, 300):
        yield Line("Holm, 6 accuracies + 1 macro-F1 + 4 means + 1 ratio: any", n, _share(_family(n, pairs)))


def _accuracy(
    setting: tuple[int, tuple[float, float], float, tuple[float, float], float], n: int, pairs: int
) -> float:
    table, size = cells(*setting), setting[0]
    drawn = np.random.default_rng(n).multinomial(n, table.ravel(), size=pairs).reshape(pairs, size, size, size)
    return _share(mcnemar(*_flips(one)) for one in drawn)


def _flips(table: NDArray[np.int64]) -> tuple[int, int]:
    """(lost, won) of counts (gold, before, after)."""
    each = range(len(table))
    both = sum(int(table[c, c, c]) for c in each)
    return sum(int(table[c, c].sum()) for c in each) - both, sum(int(table[c, :, c].sum()) for c in each) - both


def _macro_f1(
    setting: tuple[int, tuple[float, float], float, tuple[float, float], float], n: int, pairs: int
) -> float:
    table = cells(*setting)
    drawn = np.random.default_rng(n).multinomial(n, table.ravel(), size=pairs).reshape(pairs, *table.shape)
    return _share(classes.permutation(one.astype(float), s, resamples=RESAMPLES) for s, one in enumerate(drawn))


def _categories(random: Random, n: int) -> tuple[Floats, list[NDArray[np.int64]]]:
    """Differences of right answers in 12 categories of n/2 to 3n/2 items, of different difficulty."""
    sizes = np.linspace(n // 2, n + n // 2, 12).astype(int)
    ends = np.cumsum(sizes)
    chance = np.repeat(random.random(12), sizes)
    item = np.clip(chance + random.normal(0, 0.2, size=len(chance)), 0, 1)
    difference = (random.random(len(item)) < item).astype(float) - (random.random(len(item)) < item)
    return difference, np.split(np.arange(ends[-1]), ends[:-1])


def _macro_p(n: int, pairs: int) -> Iterator[float]:
    random = np.random.default_rng(n)
    for s in range(pairs):
        difference, strata = _categories(random, n)
        yield stats.stratified(np.zeros(len(difference)), difference, strata, s, resamples=RESAMPLES).p


def _ratio_p(random: Random, n: int, tied: float, seed: int) -> float:
    return stats.ratios(np.zeros(n), *nats(random, n, tied), seed, resamples=RESAMPLES).p


def _family(n: int, pairs: int) -> Iterator[float]:
    """The smallest adjusted p of a whole comparison in which nothing changed."""
    random = np.random.default_rng(n)
    table = cells(*TABLES["2 classes 3:1, .8 right, tied"])
    for s in range(pairs):
        one = random.random((6, 2, n)) < random.random((6, 1, n))
        p = [mcnemar(int((a & ~b).sum()), int((~a & b).sum())) for a, b in one]
        drawn = random.multinomial(n, table.ravel()).reshape(table.shape).astype(float)
        p.append(classes.permutation(drawn, s, resamples=RESAMPLES))
        for draw in (normal, heavy, sparse, judged):
            p.append(stats.means(np.zeros(n), draw(random, n), s, resamples=RESAMPLES).p)
        p.append(_ratio_p(random, n, 0.5, s))
        yield min(stats.holm(p))


def _share(p: Iterator[float]) -> float:
    return float(np.mean([one < ALPHA for one in p]))


# --- coverage -----------------------------------------------------------------------------------------------

CHANGED = {
    "2 classes, .6 to .7, loosely tied": (2, (0.6, 0.7), 0.3, (1.0, 1.0), 1.0),
    "2 classes, .6 to .7, tied": (2, (0.6, 0.7), 0.7, (2.0, 1.0), 1.0),
    "2 classes 3:1, .7 to .6, tied": (2, (0.7, 0.6), 0.5, (1.0, 1.0), 3.0),
    "4 options, .4 to .5, tied": (4, (0.4, 0.5), 0.5, (1.0, 1.0), 1.0),
    "7 classes, .5 to .5, tied": (7, (0.5, 0.5), 0.6, (2.0, 2.0), 1.0),
    "2 classes, .9 to .9, few change": (2, (0.9, 0.9), 0.7, (1.0, 1.0), 1.0),
}


def coverage(pairs: int) -> Iterator[Line]:
    for name, setting in CHANGED.items():
        table = cells(*setting)
        truth = setting[1][1] - setting[1][0]
        for n in SIZES:
            drawn = np.random.default_rng(n).multinomial(n, table.ravel(), size=pairs).reshape(pairs, *table.shape)
            held = [_holds(score_interval(*_flips(one), n), truth) for one in drawn]
            yield Line(f"accuracy, Tango: {name}", n, float(np.mean(held)))
    for name, setting in CHANGED.items():
        table = cells(*setting)
        truth = float(classes.difference(table))
        for n in SIZES:
            drawn = np.random.default_rng(n).multinomial(n, table.ravel(), size=pairs).reshape(pairs, *table.shape)
            found = (classes.bootstrap(one.astype(float), s, resamples=RESAMPLES) for s, one in enumerate(drawn))
            yield Line(f"macro-F1, bootstrap: {name}", n, float(np.mean([_in(one, truth) for one in found])))
    for name, draw in MEANS.items():
        for n in SIZES:
            random = np.random.default_rng(n)
            found = (resampling.mean(draw(random, n) + 0.1, s, resamples=RESAMPLES) for s in range(pairs))
            yield Line(f"mean, bootstrap: {name}", n, float(np.mean([_in(one, 0.1) for one in found])))
    for tied in (0.0, 0.8):
        for n in SIZES:
            yield Line(f"ratio, bootstrap: nats per character, tied {tied}", n, _ratios(n, tied, pairs))
    for n in (10, 40):
        yield Line("macro-average of 12 categories, bootstrap", 12 * n, _strata(n, pairs))
    for name in ("normal", "judge's points"):
        truth = 0.5 / (1 if name == "normal" else (2 * 0.08 * 4 + 2 * 0.17) ** 0.5)
        for n in SIZES:
            random = np.random.default_rng(n)
            held = [_holds(stats.cohen_dz(MEANS[name](random, n) + 0.5), truth) for _ in range(pairs)]
            yield Line(f"Cohen's dz: {name}", n, float(np.mean(held)))
    for share in (0.5, 0.7):
        for n in (10, 30, 100, 1000):
            won = np.random.default_rng(n).binomial(n, share, size=pairs)
            held = [_holds(_g(n - one, one), share - 0.5) for one in won.tolist()]
            yield Line(f"Cohen's g: {share:.0%} of the changed items won", n, float(np.mean(held)))


_g = cache(stats.cohen_g)


def _holds(interval: tuple[float, ...] | None, truth: float) -> bool:
    return interval is not None and interval[-2] - 1e-12 <= truth <= interval[-1] + 1e-12


def _in(found: resampling.Estimate | classes.Estimate, truth: float) -> bool:
    return found.low <= truth <= found.high


def _ratios(n: int, tied: float, pairs: int) -> float:
    random = np.random.default_rng(n)
    held = []
    for s in range(pairs):
        difference, characters = nats(random, n, tied)
        found = resampling.ratio(difference + 0.05 * characters, characters, s, resamples=RESAMPLES)
        held.append(_in(found, 0.05))
    return float(np.mean(held))


def _strata(n: int, pairs: int) -> float:
    random = np.random.default_rng(n)
    held = []
    for s in range(pairs):
        difference, strata = _categories(random, n)
        held.append(_in(resampling.stratified(difference, strata, s, resamples=RESAMPLES), 0.0))
    return float(np.mean(held))


# --- speed --------------------------------------------------------------------------------------------------


def speed(n: int) -> Iterator[tuple[str, float]]:
    """Seconds of a test with its interval, as a comparison runs it: 10,000 resamples."""
    random = np.random.default_rng(0)
    before, after = random.random((2, n))
    table = cells(*TABLES["7 classes, .5 right, tied"])
    picks = np.unravel_index(random.choice(table.size, size=n, p=table.ravel()), table.shape)
    runs: dict[str, Callable[[], object]] = {
        "yes/no": lambda: stats.proportions(before > 0.5, after > 0.5),
        "macro-F1, 7 classes": lambda: stats.macro_f1(*picks, 0),
        "mean": lambda: stats.means(before, after, 0),
        "mean over 45 categories": lambda: stats.stratified(before, after, np.array_split(np.arange(n), 45), 0),
        "ratio": lambda: stats.ratios(before, after, random.random(n) + 1, 0),
    }
    stats.proportions(before[:30] > 0.5, after[:30] > 0.5)  # scipy is read once
    for name, run in runs.items():
        begun = time.perf_counter()
        run()
        yield name, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="200 pairs")
    parser.add_argument("--speed", action="store_true", help="only seconds per test over 5,000 items")
    given = parser.parse_args()
    pairs = 200 if given.quick else given.pairs
    machine = (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}, ", end="")
    print(f"numpy {np.__version__}, scipy {scipy.__version__}")
    if given.speed:
        for name, seconds in speed(5000):
            print(f"{seconds:6.2f} s  5,000 items, 10,000 resamples: {name}")
        return
    print(f"{pairs} simulated pairs a line, {RESAMPLES} resamples; simulation error of 5 %: ", end="")
    error = (0.05 * 0.95 / pairs) ** 0.5
    print(f"{error:.2%} (one standard error)\n")
    begun = time.perf_counter()
    print("false positives (alpha 5 %); '!': above 5 % by more than two standard errors of the simulation")
    for line in false_positives(pairs):
        print(
            f"{line.share:7.2%} {'!' if line.share > 0.05 + 2 * error else ' '}  n {line.n:5d}  {line.what}",
            flush=True,
        )
    print("\ncoverage of 95 % intervals; '!': outside 93 to 97 %")
    for line in coverage(pairs):
        outside = not 0.93 <= line.share <= 0.97
        print(f"{line.share:7.2%} {'!' if outside else ' '}  n {line.n:5d}  {line.what}", flush=True)
    print(f"\n{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
