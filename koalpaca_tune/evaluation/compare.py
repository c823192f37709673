"""Before and after on the same items: differences with intervals, tests, and a verdict that may be "no"."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from koalpaca_tune.evaluation import flips, metrics, stats, verdict
from koalpaca_tune.evaluation.flips import Flip
from koalpaca_tune.evaluation.jobs import MEASURES, column
from koalpaca_tune.evaluation.pairing import Pair, TaskPair, pair
from koalpaca_tune.evaluation.stats import ALPHA, Paired
from koalpaca_tune.evaluation.verdict import Finding, Said, Verdict

SEED = 20240501
"""Seed of every resampling; each measure adds its own name."""

Unit = Literal["share", "bits"]

BITS = ("검증 답변의 글자당 비트", "Bits per character of the answers")
TITLES: dict[str, tuple[str, str]] = {
    "stop_rate": ("스스로 끝맺은 비율", "Answers that end by themselves"),
    "repetition": ("되풀이", "Repetition"),
    "hangul_share": ("한글 비율", "Share of Hangul"),
    "speech_consistency": ("높임 수준의 일관성", "Consistent speech level"),
    "morpheme_f1": ("기준 답과의 형태소 일치", "Morpheme F1 with the reference"),
}
LOWER_IS_BETTER = ("repetition", "bits_per_character")
YES_NO = ("stop_rate", "speech_consistency")


@dataclass(frozen=True)
class Row:
    """One tested measure.

    Attributes:
        task, measure: what was measured.
        title, title_en: its names.
        group: a skill (choice task), or fit to the held-out data.
        unit: `share` of 0..1, or `bits`.
        lower_is_better: whether a negative difference is an improvement.
        paired: before, after, difference, interval, p, smallest detectable change.
        p_holm: p adjusted over all rows of the comparison (Holm).
        verdict: by p_holm at 0.05 and the direction.
    """

    task: str
    measure: str
    title: str
    title_en: str
    group: Literal["skill", "fit"]
    unit: Unit
    lower_is_better: bool
    paired: Paired
    p_holm: float
    verdict: Verdict

    @property
    def gain(self) -> tuple[float, float, float]:
        """(difference, low, high), turned so that more is better."""
        p = self.paired
        return (-p.difference, -p.high, -p.low) if self.lower_is_better else (p.difference, p.low, p.high)


@dataclass(frozen=True)
class Side:
    """A measure that is shown but not tested, so that it does not enter the family."""

    title: str
    title_en: str
    before: float
    after: float
    difference: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """All that a report shows."""

    pair: Pair
    rows: tuple[Row, ...]
    sides: tuple[Side, ...]
    flips: tuple[Flip, ...]
    said: Said

    def as_dict(self) -> dict[str, Any]:
        """The content of comparison.json."""
        before, after = self.pair.before, self.pair.after
        return {
            "verdict": asdict(self.said),
            "suite": dict(before.suite),
            "alpha": ALPHA,
            "adjustment": "Holm over all rows",
            "seed": SEED,
            "before": {"identity": dict(before.identity), "tasks": [dict(task) for task in before.tasks]},
            "after": {"identity": dict(after.identity), "tasks": [dict(task) for task in after.tasks]},
            "template": before.template,
            "rows": [asdict(row) for row in self.rows],
            "not_tested": [asdict(side) for side in self.sides],
            "flips": [asdict(flip) for flip in self.flips],
        }


def compare(before: Path, after: Path) -> Comparison:
    """Compares two finished evaluations.

    Args:
        before, after: folders of `evaluate`, usually adapter off and on.

    Raises:
        KoalpacaError: they did not do the same (compare-*), or one is not finished (eval-unfinished).
    """
    both = pair(before, after)
    tested = [one for task in both.tasks for one in _tested(task)]
    adjusted = stats.holm([paired.p for *_, paired in tested])
    rows = tuple(_row(*one, p) for one, p in zip(tested, adjusted, strict=True))
    findings = [Finding(row.title, row.title_en, row.group, row.verdict) for row in rows]
    return Comparison(
        both,
        rows,
        tuple(_sides(both)),
        tuple(flips.of(task) for task in both.tasks if task.before["kind"] == "choice"),
        verdict.say(findings),
    )


Tested = tuple[TaskPair, str, tuple[str, str], Paired]


def _tested(task: TaskPair) -> list[Tested]:
    kind = task.before["kind"]
    if kind == "choice":
        metric = task.before["primary"]
        paired = stats.proportions(
            metrics.right(task.lines_before, metric), metrics.right(task.lines_after, metric)
        )
        return [(task, metric, (task.before["title"], task.before["title_en"]), paired)]
    if kind == "likelihood":
        nats = column(task.lines_before, "nats"), column(task.lines_after, "nats")
        bits = column(task.lines_before, "characters") * np.log(2)
        return [(task, "bits_per_character", BITS, stats.ratios(*nats, bits, _seed(task.name)))]
    written = [(name, _written(task, name)) for name in MEASURES]
    return [(task, name, TITLES[name], paired) for name, paired in written if paired is not None]


def _written(task: TaskPair, name: str) -> Paired | None:
    """A measure of written answers, over the questions where both sides have a value."""
    decided = [
        (one[name], two[name])
        for one, two in zip(task.lines_before, task.lines_after, strict=True)
        if one[name] is not None and two[name] is not None
    ]
    if not decided:
        return None
    before, after = (np.asarray(side, dtype=np.float64) for side in zip(*decided, strict=True))
    if name in YES_NO:
        return stats.proportions(before > 0, after > 0)
    return stats.means(before, after, _seed(f"{task.name}.{name}"))


def _row(task: TaskPair, measure: str, titles: tuple[str, str], paired: Paired, p_holm: float) -> Row:
    lower = measure in LOWER_IS_BETTER
    found: Verdict = "no detectable change"
    if p_holm < ALPHA and paired.difference != 0:
        found = "improved" if (paired.difference < 0) == lower else "worse"
    return Row(
        task=task.name,
        measure=measure,
        title=titles[0],
        title_en=titles[1],
        group="skill" if task.before["kind"] == "choice" else "fit",
        unit="bits" if measure == "bits_per_character" else "share",
        lower_is_better=lower,
        paired=paired,
        p_holm=p_holm,
        verdict=found,
    )


def _sides(both: Pair) -> list[Side]:
    choices = [task for task in both.tasks if task.before["kind"] == "choice"]
    sides = []
    if len(choices) > 1:
        right = [
            np.concatenate([metrics.right(_lines(task, n), task.before["primary"]) for task in choices])
            for n in (0, 1)
        ]
        sides.append(_side(("모든 능력의 문항", "All skill items"), stats.proportions(right[0], right[1])))
    for task in choices:
        title = (task.before["title"], task.before["title_en"])
        for metric in task.before["metrics"]:
            if metric == "macro_f1":
                sides.append(_macro_f1(task, (f"{title[0]}: 매크로 F1", f"{title[1]}: macro-F1")))
            elif metric != task.before["primary"]:
                words = (
                    ("글자당 정확도", "accuracy per character")
                    if metric == "accuracy_norm"
                    else ("정확도", "accuracy")
                )
                right = [metrics.right(_lines(task, n), metric) for n in (0, 1)]
                named = (f"{title[0]}: {words[0]}", f"{title[1]}: {words[1]}")
                sides.append(_side(named, stats.proportions(right[0], right[1])))
    return sides


def _side(titles: tuple[str, str], paired: Paired) -> Side:
    return Side(*titles, paired.before, paired.after, paired.difference, paired.low, paired.high, paired.n)


def _macro_f1(task: TaskPair, titles: tuple[str, str]) -> Side:
    gold = metrics.answers(task.lines_before)
    before, after = metrics.picks(task.lines_before), metrics.picks(task.lines_after)
    low, high = stats.bootstrap(
        lambda rows: metrics.macro_f1(gold[rows], after[rows]) - metrics.macro_f1(gold[rows], before[rows]),
        len(gold),
        _seed(f"{task.name}.macro_f1"),
    )
    one, two = float(metrics.macro_f1(gold, before)), float(metrics.macro_f1(gold, after))
    return Side(*titles, one, two, two - one, low, high, len(gold))


def _lines(task: TaskPair, side: int) -> Sequence[Mapping[str, Any]]:
    return task.lines_after if side else task.lines_before


def _seed(name: str) -> int:
    return SEED + zlib.crc32(name.encode())
