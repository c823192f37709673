"""Items whose answer changed: which were lost, which were won, and how clearly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from koalpaca_tune.comparison.outcomes import Outcome
from koalpaca_tune.comparison.pairing import TaskPair
from koalpaca_tune.evaluation import metrics
from koalpaca_tune.evaluation.store import Line

LEFT_OUT = "(글을 뺐습니다. left out)"
POINTS = 10.0
"""What a change in a judge's points is divided by, to stand beside changes of shares."""


@dataclass(frozen=True, slots=True)
class Changed:
    """One item whose outcome changed.

    Attributes:
        task, title: where it belongs.
        id, prompt, category: the item.
        gold, before, after: texts of the right answer (or answers) and of what both sides picked or wrote.
        value_before, value_after: of a choice, the probability share of the right answer among the choices; of a
            written answer, its score.
        change: the difference of the two, in 0..1 whatever the scale; above 0 is better.
    """

    task: str
    title: str
    id: str
    prompt: str
    category: str | None
    gold: str
    before: str
    after: str
    value_before: float
    value_after: float
    change: float


@dataclass(frozen=True, slots=True)
class Flip:
    """Right and wrong before and after in one task; of measured values, worse and better.

    Attributes:
        task, title, title_en: the task.
        yes_no: whether items are right or wrong; else an item is lost when its value got worse.
        both_right, both_wrong: how many items did not change; of measured values all such are in both_right.
        lost: right before, wrong after, the worst first.
        won: wrong before, right after, the clearest first.
    """

    task: str
    title: str
    title_en: str
    yes_no: bool
    both_right: int
    both_wrong: int
    lost: tuple[Changed, ...]
    won: tuple[Changed, ...]

    def without_texts(self) -> Flip:
        """The same items by their ids, without what was asked and said."""

        def named(items: tuple[Changed, ...]) -> tuple[Changed, ...]:
            return tuple(replace(one, prompt=LEFT_OUT, gold="", before="–", after="–") for one in items)

        return replace(self, lost=named(self.lost), won=named(self.won))


def of(task: TaskPair, outcome: Outcome) -> Flip:
    """The flips of one task of choices or written answers."""
    gain = (outcome.after - outcome.before) * (-1 if outcome.lower_is_better else 1)
    changed = [_changed(task, outcome, n, float(gain[n])) for n in np.flatnonzero(gain).tolist()]
    same = gain == 0
    right = same & (outcome.before > 0) if outcome.yes_no else same
    turned = gain[gain != 0]
    return Flip(
        task=task.name,
        title=task.before["title"],
        title_en=task.before["title_en"],
        yes_no=outcome.yes_no,
        both_right=int(right.sum()),
        both_wrong=int((same & ~right).sum()),
        lost=worst(item for item, by in zip(changed, turned, strict=True) if by < 0),
        won=tuple(
            sorted(
                (item for item, by in zip(changed, turned, strict=True) if by > 0),
                key=lambda item: (-item.change, item.id),
            )
        ),
    )


def worst(items: Iterable[Changed]) -> tuple[Changed, ...]:
    """The same items, those that fell furthest first."""
    return tuple(sorted(items, key=lambda item: (item.change, item.task, item.id)))


def _changed(task: TaskPair, outcome: Outcome, position: int, gain: float) -> Changed:
    row = int(outcome.rows[position])
    before, after = task.lines_before[row], task.lines_after[row]
    if task.before["kind"] == "choice":
        gold, one, two = _choices(before, after, outcome.measure)
        values = _share(before, outcome.measure), _share(after, outcome.measure)
        change = values[1] - values[0]
    else:
        gold = " / ".join(before.get("golds") or ())
        one, two = before["text"], after["text"]
        values = float(outcome.before[position]), float(outcome.after[position])
        change = gain / (POINTS if outcome.unit == "points" else 1.0)
    return Changed(
        task=task.name,
        title=task.before["title"],
        id=before["id"],
        prompt=before["prompt"],
        category=before.get("category"),
        gold=gold,
        before=one,
        after=two,
        value_before=values[0],
        value_after=values[1],
        change=change,
    )


def _choices(before: Line, after: Line, measure: str) -> tuple[str, str, str]:
    texts = before["choices"]
    one, two = metrics.picks([before], measure)[0], metrics.picks([after], measure)[0]
    return texts[before["answer"]], texts[one], texts[two]


def _share(line: Line, measure: str) -> float:
    """Probability of the right answer when one of the choices must be it (softmax over their scores)."""
    scores = metrics.scores([line], measure)[0]
    shares = np.exp(scores - scores.max())
    return float(shares[line["answer"]] / shares.sum())
