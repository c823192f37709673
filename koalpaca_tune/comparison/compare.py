"""Before and after on the same items: differences with intervals, tests, and a verdict that may be "no"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from koalpaca_tune.comparison import categories, flips, guards, outcomes, scope, scoring, stats, titles, verdict
from koalpaca_tune.comparison.as_written import AsWritten
from koalpaca_tune.comparison.categories import Categories
from koalpaca_tune.comparison.flips import Flip
from koalpaca_tune.comparison.notice import Notice
from koalpaca_tune.comparison.outcomes import SEED, Outcome, Unit
from koalpaca_tune.comparison.pairing import Pair, TaskPair, pair
from koalpaca_tune.comparison.power import ALPHA
from koalpaca_tune.comparison.scope import Scope
from koalpaca_tune.comparison.scoring import Audit
from koalpaca_tune.comparison.stats import Paired
from koalpaca_tune.comparison.verdict import Finding, Said, Verdict, verdict_of
from koalpaca_tune.evaluation import metrics


@dataclass(frozen=True)
class Row:
    """One tested measure.

    Attributes:
        task, measure: what was measured.
        title, title_en: its names.
        group: a skill (a task of the suite), or fit to the held-out data.
        unit: `share` of 0..1, `bits`, or `points` of another scale.
        lower_is_better: whether a negative difference is an improvement.
        paired: before, after, difference, interval, p, smallest detectable change, effect.
        p_holm: p adjusted over all rows of the comparison (Holm).
        verdict: by p_holm at 0.05 and the direction.
        left_out: items left out because a side has no value (undecided, or the judge failed).
        corpus_before, corpus_after: the measure over the whole corpus where it is no mean over items (chrF, say);
            it is tested by its mean over items, which `paired` holds.
        chance: of a choice task, the share that guessing gets right.
        at_chance: the sides (`before`, `after`) that are not above it by a one-sided exact binomial test at 0.05.
        collapsed: the sides that answer nearly always the same.
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
    left_out: int = 0
    corpus_before: float | None = None
    corpus_after: float | None = None
    chance: float | None = None
    at_chance: tuple[str, ...] = ()
    collapsed: tuple[str, ...] = ()

    @property
    def gain(self) -> tuple[float, float, float]:
        """(difference, low, high), turned so that more is better; unknown ends are the difference itself."""
        p = self.paired
        low, high = (p.difference, p.difference) if p.low is None or p.high is None else (p.low, p.high)
        return (-p.difference, -high, -low) if self.lower_is_better else (p.difference, low, high)


@dataclass(frozen=True)
class Side:
    """A measure beside the tested ones: it does not enter the family, and its p is not adjusted."""

    task: str
    measure: str
    title: str
    title_en: str
    unit: Unit
    lower_is_better: bool
    paired: Paired


@dataclass(frozen=True)
class Comparison:
    """All that a report shows."""

    pair: Pair
    rows: tuple[Row, ...]
    sides: tuple[Side, ...]
    flips: tuple[Flip, ...]
    categories: tuple[Categories, ...]
    audits: tuple[Audit, ...]
    warnings: tuple[Notice, ...]
    said: Said
    scope: Scope

    def as_dict(self) -> dict[str, Any]:
        """The content of comparison.json."""
        before, after = self.pair.before, self.pair.after
        return {
            "verdict": asdict(self.said),
            "warnings": [asdict(warning) for warning in self.warnings],
            "suite": dict(before.suite),
            "scope": asdict(self.scope),
            "alpha": ALPHA,
            "adjustment": "Holm over all rows",
            "seed": SEED,
            "before": {"identity": dict(before.identity), "tasks": [dict(task) for task in before.tasks]},
            "after": {"identity": dict(after.identity), "tasks": [dict(task) for task in after.tasks]},
            "template": before.template,
            "rows": [asdict(row) for row in self.rows],
            "not_tested": [asdict(side) for side in self.sides],
            "categories": [asdict(one) for one in self.categories],
            "scorings": [asdict(audit) | {"depends": audit.depends} for audit in self.audits],
            "flips": [asdict(flip) for flip in self.flips],
        }


def compare(before: Path, after: Path) -> Comparison:
    """Compares two finished evaluations.

    Args:
        before, after: folders of `evaluate`, usually adapter off and on.

    Raises:
        KoalpacaError: they did not do the same (compare-*), one is not finished (eval-unfinished), or not as it was
            written (eval-shape).
    """
    with AsWritten(before, after):
        return _compared(pair(before, after))


def _compared(both: Pair) -> Comparison:
    tested: list[tuple[TaskPair, Outcome, Paired]] = []
    missing: list[tuple[TaskPair, str]] = []
    for task in both.tasks:
        for measure in outcomes.tested(task):
            outcome = outcomes.of(task, measure)
            if outcome is None:
                missing.append((task, measure))
            else:
                tested.append((task, outcome, outcome.paired()))
    p = [paired.p for *_, paired in tested]
    rows = tuple(_row(*one, p_holm) for one, p_holm in zip(tested, stats.holm(p), strict=True))
    audits = [
        scoring.of(task, outcome.measure, p, n)
        for n, (task, outcome, _) in enumerate(tested)
        if task.before["kind"] == "choice"
    ]
    found = tuple(audit for audit in audits if audit is not None)
    reach = scope.of(both)
    primaries = [(task, outcome) for task, outcome, _ in tested if task.before["kind"] != "generation"]
    grouped = (categories.of(*one) for one in primaries)
    return Comparison(
        both,
        rows,
        tuple(_sides(both, tested)),
        tuple(flips.of(*one) for one in primaries if one[0].before["kind"] != "likelihood"),
        tuple(one for one in grouped if one is not None),
        found,
        (
            *reach.notices(both.before.suite["title"], both.before.suite["title_en"]),
            *guards.warnings(both, [(task, outcome) for task, outcome, _ in tested], missing, found),
        ),
        verdict.say([Finding(row.title, row.title_en, row.group, row.verdict) for row in rows]),
        reach,
    )


def _row(task: TaskPair, outcome: Outcome, paired: Paired, p_holm: float) -> Row:
    title, title_en = titles.of_row(task.before, outcome.measure)
    gain = -paired.difference if outcome.lower_is_better else paired.difference
    chance = task.before.get("chance") if outcome.yes_no and task.before["kind"] == "choice" else None
    return Row(
        task=task.name,
        measure=outcome.measure,
        title=title,
        title_en=title_en,
        group="fit" if titles.is_heldout(task.before) else "skill",
        unit=outcome.unit,
        lower_is_better=outcome.lower_is_better,
        paired=paired,
        p_holm=p_holm,
        verdict=verdict_of(gain, p_holm, ALPHA),
        left_out=outcome.left_out,
        corpus_before=outcomes.corpus_value(task, outcome, "before"),
        corpus_after=outcomes.corpus_value(task, outcome, "after"),
        chance=chance,
        at_chance=() if chance is None else tuple(_at_chance(outcome, chance)),
        collapsed=tuple(_collapsed(task)),
    )


def _at_chance(outcome: Outcome, chance: float) -> Iterator[str]:
    from scipy.stats import binom

    for side, values in (("before", outcome.before), ("after", outcome.after)):
        if binom.sf(int((values > 0).sum()) - 1, len(values), chance) >= ALPHA:
            yield side


def _collapsed(task: TaskPair) -> Iterator[str]:
    if task.before["kind"] == "choice":
        for side, lines in (("before", task.lines_before), ("after", task.lines_after)):
            if metrics.collapse(lines, str(task.before["primary"])) is not None:
                yield side


def _sides(both: Pair, tested: list[tuple[TaskPair, Outcome, Paired]]) -> Iterator[Side]:
    choices = [(task, outcome) for task, outcome, _ in tested if task.before["kind"] == "choice"]
    if len(choices) > 1:
        right = [
            np.concatenate([getattr(outcome, side) > 0 for _, outcome in choices]) for side in ("before", "after")
        ]
        names = ("모든 선택형 문항", "All items with choices")
        yield Side("", "accuracy", *names, "share", False, stats.proportions(*right))
    for task in both.tasks:
        for outcome in _beside(task):
            korean, english = titles.of_measure(outcome.measure)
            names = (f"{task.before['title']}: {korean}", f"{task.before['title_en']}: {english}")
            yield Side(task.name, outcome.measure, *names, outcome.unit, outcome.lower_is_better, outcome.paired())


def _beside(task: TaskPair) -> Iterator[Outcome]:
    """A task's other metrics, and how its answers look."""
    kind, tested = task.before["kind"], outcomes.tested(task)
    others = [name for name in task.before["metrics"] if name not in tested]
    known = [name for name in others if kind == "answer" or (kind == "choice" and name in metrics.CHOICE)]
    found = [outcomes.of(task, name) for name in known]
    found += [outcomes.of_style(task, name) for name in outcomes.style_measures(task)]
    yield from (outcome for outcome in found if outcome is not None)
