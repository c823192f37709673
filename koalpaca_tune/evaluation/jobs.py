"""What a suite and a held-out set come to: one job for each task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from koalpaca_tune.errors import KoalpacaError, Problem
from koalpaca_tune.evaluation import choices, heldout, requests, written
from koalpaca_tune.evaluation.heldout import GENERATION, LIKELIHOOD, MEASURES, generation, likelihood
from koalpaca_tune.evaluation.job import Job, Kind, column
from koalpaca_tune.evaluation.protocol import LanguageModel, Lengths, Renderer, Score, Written
from koalpaca_tune.records import Conversation, Rendered
from koalpaca_tune.suites import items
from koalpaca_tune.suites.items import ItemSet
from koalpaca_tune.suites.schema import JudgedTask
from koalpaca_tune.suites.tasks import Suite, Task, scored

if TYPE_CHECKING:
    from koalpaca_tune.judging.judge import Judge

__all__ = [
    "GENERATION",
    "LIKELIHOOD",
    "MEASURES",
    "Job",
    "Kind",
    "Loaded",
    "choice",
    "column",
    "generation",
    "likelihood",
    "load",
    "of",
]

JudgeOf = Callable[[str], "Judge"]
"""The judge of a task file's name for it."""

choice = choices.job

Loaded = Sequence[tuple[Task, ItemSet]]
"""Tasks with their items, read and checked: what a run asks, before there is a model."""


def load(suite: Suite, data_root: Path | None) -> list[tuple[Task, ItemSet]]:
    """Reads the items of all tasks of a suite.

    A Hub that cannot be reached is asked once, not again for each task.

    Raises:
        KoalpacaError: as `items.load`, what is wrong with each task, all at once.
    """
    loaded: list[tuple[Task, ItemSet]] = []
    problems: list[Problem] = []
    lost: KoalpacaError | None = None
    wanting: list[Task] = []
    for task in suite.tasks:
        try:
            if lost is not None and scored(task, data_root).hub is not None:
                wanting.append(task)
                continue
            loaded.append((task, items.load(task, data_root)))
        except KoalpacaError as error:
            if _unreachable(error):
                lost = error
                wanting.append(task)
            else:
                problems += error.problems
    if lost is not None:
        problems += lost.problems if len(wanting) == 1 else [_without_hub(wanting, lost)]
    if problems:
        raise KoalpacaError.of(problems)
    return loaded


def _unreachable(error: KoalpacaError) -> bool:
    """Whether the Hub did not answer at all: what is true for one set then is true for all."""
    cause = error.__cause__
    if not isinstance(cause, KoalpacaError) or cause.problems[0].code != "hub-set":
        return False
    origin = cause.__cause__
    answered = getattr(origin, "response", None) is not None
    return isinstance(origin, Exception) and not answered and not isinstance(origin, _OF_THE_SET)


_OF_THE_SET = (ValueError, RuntimeError, FileNotFoundError, PermissionError)
"""What is raised over a set that was reached: no data files, a script, no such set."""


def _without_hub(wanting: Sequence[Task], lost: KoalpacaError) -> Problem:
    cause = lost.__cause__
    assert isinstance(cause, KoalpacaError)
    reason = cause.problems[0]
    files = [task.file.source.local for task in wanting if task.file.source.local]
    ways = f"Put their files under --data-root ({', '.join(files)}), or reach the Hub" if files else "Reach the Hub"
    names = ", ".join(task.name for task in wanting)
    return Problem(
        "task-data",
        f"the items of {len(wanting)} tasks ({names}) are not here, and the Hub gives none: {reason.what}",
        "hf:",
        f"{ways}: {reason.fix or 'check the network.'}",
    )


def of(
    loaded: Loaded,
    held: Sequence[Conversation],
    model: LanguageModel,
    render: Renderer,
    *,
    max_new_tokens: int,
    heldout_limit: int,
    lengths: Lengths | None = None,
    judge: JudgeOf | None = None,
) -> list[Job]:
    """All the work, in order.

    Raises:
        KoalpacaError: a judged task without a judge (judge-none), a held-out conversation without an answer
            (heldout-answer).
    """
    work = [_of_task(task, chosen, model, render, lengths, judge) for task, chosen in loaded]
    by_id = {conversation.id: conversation for conversation in held}
    ordered = [by_id[id] for id in sorted(by_id)]
    for conversation in ordered:
        requests.question_of(conversation)
    # what was left out belongs to the result: it counts fewer than the file has rows
    twice = {"duplicates": len(held) - len(ordered)} if len(held) > len(ordered) else {}
    if ordered:
        work.append(_told(likelihood(ordered, model, render), twice))
    if ordered[:heldout_limit]:
        work.append(_told(generation(ordered[:heldout_limit], model, render, max_new_tokens), twice))
    return work


def _told(job: Job, more: dict[str, int]) -> Job:
    return replace(job, about=job.about | more)


def _of_task(
    task: Task,
    chosen: ItemSet,
    model: LanguageModel,
    render: Renderer,
    lengths: Lengths | None,
    judge: JudgeOf | None,
) -> Job:
    if task.file.kind == "choice":
        return choices.job(task, chosen, model, render, lengths)
    if task.file.kind == "text":
        return heldout.text(task, chosen, model)
    if isinstance(task.file, JudgedTask):
        from koalpaca_tune.evaluation import judged

        return judged.job(task, chosen, model, render, _judge(task, judge)(task.file.judge), lengths)
    return written.job(task, chosen, model, render)


def _judge(task: Task, judge: JudgeOf | None) -> JudgeOf:
    if judge is None:
        raise judge_none(task.name)
    return judge


def judge_none(name: str) -> KoalpacaError:
    """The error for a judged task without a judge."""
    return KoalpacaError(
        "judge-none",
        f"task '{name}' is judged by a model, and none was named.",
        where="--judge-url",
        fix="Give --judge-url and --judge-model (and --judge-key-env), or leave the task out.",
    )


class NoModel:
    """Stands for a model while work is only counted."""

    def score(self, requests: Sequence[Rendered]) -> Sequence[Score]:
        """Never called."""
        raise AssertionError("work that is only counted asks no model")

    def write(
        self, prompts: Sequence[Rendered], max_new_tokens: int, *, until: Sequence[str] = ()
    ) -> Sequence[Written]:
        """Never called."""
        raise AssertionError("work that is only counted asks no model")
