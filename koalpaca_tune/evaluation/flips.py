"""Items whose answer changed: which were lost, which were won, and how clearly."""

from __future__ import annotations

from dataclasses import dataclass

from koalpaca_tune.evaluation import metrics
from koalpaca_tune.evaluation.pairing import TaskPair
from koalpaca_tune.evaluation.store import Line


@dataclass(frozen=True, slots=True)
class Changed:
    """One item that was right on one side only.

    Attributes:
        id, prompt: the item.
        gold, before, after: texts of the right answer and of both picks.
        change: by how many nats the margin of the right answer over the best wrong one moved; per character
            where the metric is.
    """

    id: str
    prompt: str
    gold: str
    before: str
    after: str
    change: float


@dataclass(frozen=True, slots=True)
class Flip:
    """Right and wrong before and after in one task.

    Attributes:
        task, title, title_en: the task.
        both_right, both_wrong: how many items did not change.
        lost: right before, wrong after, the worst first.
        won: wrong before, right after, the clearest first.
    """

    task: str
    title: str
    title_en: str
    both_right: int
    both_wrong: int
    lost: tuple[Changed, ...]
    won: tuple[Changed, ...]


def of(task: TaskPair) -> Flip:
    """The flips of one choice task."""
    metric = task.before["primary"]
    one, two = metrics.right(task.lines_before, metric), metrics.right(task.lines_after, metric)
    norm = metric == "accuracy_norm"
    picks = [metrics.picks(lines, per_character=norm) for lines in (task.lines_before, task.lines_after)]
    changed = [
        (bool(one[n]), _changed(before, after, int(picks[0][n]), int(picks[1][n]), norm))
        for n, (before, after) in enumerate(zip(task.lines_before, task.lines_after, strict=True))
        if one[n] != two[n]
    ]
    return Flip(
        task=task.name,
        title=task.before["title"],
        title_en=task.before["title_en"],
        both_right=int((one & two).sum()),
        both_wrong=int((~one & ~two).sum()),
        lost=tuple(sorted((item for was, item in changed if was), key=lambda item: (item.change, item.id))),
        won=tuple(sorted((item for was, item in changed if not was), key=lambda item: (-item.change, item.id))),
    )


def _changed(before: Line, after: Line, pick_before: int, pick_after: int, norm: bool) -> Changed:
    choices = before["choices"]
    return Changed(
        id=before["id"],
        prompt=before["prompt"],
        gold=choices[before["answer"]],
        before=choices[pick_before],
        after=choices[pick_after],
        change=_margin(after, norm) - _margin(before, norm),
    )


def _margin(line: Line, norm: bool) -> float:
    scores = [
        logprob / max(characters, 1) if norm else logprob
        for logprob, characters in zip(line["logprobs"], line["characters"], strict=True)
    ]
    right = scores.pop(line["answer"])
    return float(right - max(scores))
