"""What an item came to on each side, as paired arrays: the one form that tests, flips and categories work on."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from koalpaca_tune.comparison import stats
from koalpaca_tune.comparison.pairing import TaskPair
from koalpaca_tune.comparison.stats import Floats, Ints, Paired
from koalpaca_tune.evaluation import metrics
from koalpaca_tune.evaluation.store import Line
from koalpaca_tune.measures import registry

SEED = 20240501
"""Seed of every resampling; each measure adds its own name."""

Unit = Literal["share", "bits", "points"]

BITS = "bits_per_character"
GENERATION_YES_NO = ("stop_rate", "speech_consistency")
GENERATION_LOWER_IS_BETTER = ("repetition",)


@dataclass(frozen=True)
class Outcome:
    """One measure of one task, over the items where both sides have a value.

    Attributes:
        task, measure: what was measured.
        unit: `share` of 0..1, `bits`, or `points` of another scale (a judge's 1..10).
        yes_no, lower_is_better: how to read a value.
        rows: positions of the items among the task's lines.
        left_out: items without a value on either side.
        before, after: values; of a choice, 1 where the pick is right.
        weights: denominators of a ratio (characters, in bits); None for a mean.
        classes: right class, pick before, pick after, where the measure is macro-F1.
        span: the largest change that there can be: 1 of a share, 9 of points from 1 to 10; None where it is not
            known.
    """

    task: str
    measure: str
    unit: Unit
    yes_no: bool
    lower_is_better: bool
    rows: Ints
    left_out: int
    before: Floats
    after: Floats
    weights: Floats | None = None
    classes: tuple[Ints, Ints, Ints] | None = None
    span: float | None = None

    def paired(self) -> Paired:
        """The test that fits the measure."""
        seed = SEED + zlib.crc32(f"{self.task}.{self.measure}".encode())
        if self.classes is not None:
            return stats.macro_f1(*self.classes, seed)
        if self.weights is not None:
            return stats.ratios(self.before, self.after, self.weights, seed)
        if self.yes_no:
            return stats.proportions(self.before > 0, self.after > 0)
        return self._possible(stats.means(self.before, self.after, seed))

    def macro(self, strata: Sequence[Ints]) -> Paired:
        """The mean over categories; strata are positions in `before`."""
        seed = SEED + zlib.crc32(f"{self.task}.{self.measure}.macro".encode())
        return self._possible(stats.stratified(self.before, self.after, strata, seed))

    def _possible(self, paired: Paired) -> Paired:
        """The interval cut at what a change can be; Student's t knows no bounds."""
        span = 1.0 if self.unit == "share" else self.span
        if span is None or paired.low is None or paired.high is None:
            return paired
        return replace(paired, low=max(-span, paired.low), high=min(span, paired.high))

    def subset(self, rows: Ints) -> Outcome:
        """The same of some items, by their positions in `before`."""
        return replace(
            self,
            rows=self.rows[rows],
            before=self.before[rows],
            after=self.after[rows],
            weights=None if self.weights is None else self.weights[rows],
            classes=_taken(self.classes, rows),
        )


def _taken(classes: tuple[Ints, Ints, Ints] | None, rows: Ints) -> tuple[Ints, Ints, Ints] | None:
    if classes is None:
        return None
    gold, before, after = classes
    return gold[rows], before[rows], after[rows]


def tested(task: TaskPair) -> list[str]:
    """The measures that enter the family: a task's primary one; of generation, which has none, all."""
    primary = task.before.get("primary")
    return [primary] if primary else list(task.before["metrics"])


def of(task: TaskPair, measure: str) -> Outcome | None:
    """One measure of a task; None where no item has a value on both sides."""
    kind = task.before["kind"]
    if kind == "choice":
        return _choice(task, measure)
    if kind == "likelihood":
        return _likelihood(task)
    return _written(task, measure)


def _choice(task: TaskPair, measure: str) -> Outcome | None:
    sides = (task.lines_before, task.lines_after)
    if measure == "accuracy_pmi" and any("unconditional" not in line for lines in sides for line in lines):
        return None
    right = [metrics.right(lines, measure).astype(np.float64) for lines in sides]
    gold = metrics.answers(task.lines_before)
    picks = [metrics.picks(lines) for lines in sides]
    return Outcome(
        task=task.name,
        measure=measure,
        unit="share",
        yes_no=True,
        lower_is_better=False,
        rows=np.arange(len(gold)),
        left_out=0,
        before=right[0],
        after=right[1],
        classes=(gold, picks[0], picks[1]) if measure == "macro_f1" else None,
    )


def _likelihood(task: TaskPair) -> Outcome:
    before, after = (_column(lines, "nats") for lines in (task.lines_before, task.lines_after))
    bits = _column(task.lines_before, "characters") * np.log(2)
    return Outcome(task.name, BITS, "bits", False, True, np.arange(len(bits)), 0, before, after, bits)


def _written(task: TaskPair, measure: str) -> Outcome | None:
    generation = task.before["kind"] == "generation"
    yes_no = GENERATION_YES_NO if generation else task.before.get("yes_no") or ()
    lower = GENERATION_LOWER_IS_BETTER if generation else task.before.get("lower_is_better") or ()
    values = [
        [_value(line, measure, task.before["kind"]) for line in lines]
        for lines in (task.lines_before, task.lines_after)
    ]
    found = _decided(task.name, measure, values, measure in yes_no, measure in lower)
    # a judge whose every score is 1 of 10 gave no 100 %
    return replace(found, unit="points", span=_span(task)) if found and "judge" in task.before else found


def _span(task: TaskPair) -> float | None:
    """How far two points of the task's judge can be apart; None for results that do not say its scale."""
    scale = task.before.get("scale")
    return None if scale is None else float(scale[1]) - float(scale[0])


def style_measures(task: TaskPair) -> list[str]:
    """Measures of how the written answers of a task look, beside what is tested; none where lines have none."""
    line = task.lines_before[0] if task.lines_before else {}
    turns = line.get("turns") or [line]
    found = turns[0].get("measures") or {}
    return [name for name in found if name not in task.before["metrics"]]


def of_style(task: TaskPair, measure: str) -> Outcome | None:
    """One such measure; of a conversation, the mean over its answers that decide it."""
    values = [[_style(line, measure) for line in lines] for lines in (task.lines_before, task.lines_after)]
    one_answer = all("turns" not in line for line in task.lines_before)
    yes_no = one_answer and measure in registry.YES_NO
    return _decided(task.name, measure, values, yes_no, measure in registry.LOWER_IS_BETTER)


def _style(line: Line, measure: str) -> float | None:
    values = [(turn.get("measures") or {}).get(measure) for turn in line.get("turns") or [line]]
    decided = [float(value) for value in values if value is not None]
    return sum(decided) / len(decided) if decided else None


def _decided(
    task: str, measure: str, values: Sequence[Sequence[float | None]], yes_no: bool, lower: bool
) -> Outcome | None:
    both = [n for n, pair in enumerate(zip(*values, strict=True)) if None not in pair]
    if not both:
        return None
    before, after = (np.asarray([side[n] for n in both], dtype=np.float64) for side in values)
    unit: Unit = "points" if max(before.max(), after.max()) > 1 or min(before.min(), after.min()) < 0 else "share"
    left_out = len(values[0]) - len(both)
    rows = np.asarray(both, dtype=np.int64)
    return Outcome(task, measure, unit, yes_no, lower, rows, left_out, before, after)


def _value(line: Line, measure: str, kind: str) -> float | None:
    value = line[measure] if kind == "generation" else line["scores"].get(measure)
    return None if value is None else float(value)


def _column(lines: Sequence[Line], key: str) -> Floats:
    return np.asarray([line[key] for line in lines], dtype=np.float64)


def corpus_value(task: TaskPair, outcome: Outcome, side: Literal["before", "after"]) -> float | None:
    """What the result gives for a measure that is no mean of its items' values (chrF, F1 over all instructions).

    None where it is their mean: then there is nothing to add. Only where all items have a value, else the two
    differ for that reason alone.
    """
    told: dict[str, Any] = getattr(task, side)["metrics"]
    value, own = told.get(outcome.measure), getattr(outcome, side)
    if task.before["kind"] != "answer" or value is None or outcome.left_out:
        return None
    return float(value) if abs(float(value) - float(own.mean())) > 1e-6 else None
