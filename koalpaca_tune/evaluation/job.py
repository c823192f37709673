"""Work on the items of one task: what all kinds of it share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation import metrics
from koalpaca_tune.evaluation.protocol import LanguageModel, Score
from koalpaca_tune.evaluation.store import Line
from koalpaca_tune.records import Rendered
from koalpaca_tune.suites.items import ItemSet
from koalpaca_tune.suites.tasks import Task

Kind = Literal["choice", "likelihood", "answer", "generation"]


@dataclass(frozen=True)
class Job:
    """Work on the items of one task.

    Attributes:
        name, title, title_en, kind: the task; `kind` says what its lines hold.
        version, digest: what must be equal for two evaluations to be compared.
        ids: item ids, in order.
        requests: how many requests one item makes of the model.
        lines: (positions) -> one line for each.
        summary: all lines, in order -> what the result says of them.
        about: fixed facts for the result (skill, profile, form, primary metric, where the items are from).
        texts: (position) -> what the model reads for an item: to count, before it is asked.
        writes: most tokens written for an item.
        also: fields of `lines.MORE` that its lines have.
        mend: lines that failed for a reason outside the model -> the same, tried again; None: nothing can fail so.
    """

    name: str
    title: str
    title_en: str
    kind: Kind
    version: int
    digest: str
    ids: tuple[str, ...]
    requests: int
    lines: Callable[[Sequence[int]], list[Line]]
    summary: Callable[[Sequence[Line]], dict[str, Any]]
    about: dict[str, Any] = field(default_factory=dict)
    texts: Callable[[int], list[Rendered]] = lambda position: []
    writes: int = 0
    also: tuple[str, ...] = ()
    mend: Callable[[Sequence[int], Sequence[Line]], list[Line]] | None = None


def about(task: Task, chosen: ItemSet) -> dict[str, Any]:
    """What the result says of a task besides its numbers."""
    file = task.file
    told: dict[str, Any] = {
        "skill": file.skill,
        "licence": file.licence,
        "source": chosen.origin,
        "revision": chosen.revision,
        "of_items": chosen.total,
    }
    if task.profile:
        told |= {"profile": task.profile, "form": task.asked.form}
    if task.limit is not None and len(chosen.items) == task.limit < chosen.total:
        told["limit"] = task.limit
    if chosen.decided_by:
        told["decided_by"] = list(chosen.decided_by)
    if chosen.ambiguous:
        told["ambiguous"] = len(chosen.ambiguous)
    return told | {"shots": chosen.examples}


def categories(
    lines: Sequence[Line], metric: str, value: Callable[[Sequence[Line]], float | None]
) -> dict[str, Any]:
    """The primary metric by category, and its mean over categories (macro); nothing where lines have none."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        if "category" in line:
            groups.setdefault(line["category"], []).append(line)
    if not groups:
        return {}
    values = {name: value(group) for name, group in sorted(groups.items())}
    found = {name: {"items": len(groups[name]), metric: one} for name, one in values.items()}
    return {"categories": found, "macro": {metric: mean_of(list(values.values()))}}


def column(lines: Sequence[Line], key: str) -> metrics.Floats:
    """One measured value of every line, as float64."""
    return np.asarray([line[key] for line in lines], dtype=np.float64)


def mean_of(values: Sequence[float | bool | None]) -> float | None:
    """The mean of those that could be decided; None where none could."""
    decided = [float(value) for value in values if value is not None]
    return float(np.mean(decided)) if decided else None


def scored(model: LanguageModel, asked: Sequence[Rendered]) -> Sequence[Score]:
    """Scores of requests, each finite.

    Raises:
        KoalpacaError: a log-likelihood that is no number (eval-not-finite).
    """
    scores = model.score(asked)
    assert len(scores) == len(asked)
    for score, request in zip(scores, asked, strict=True):
        if not math.isfinite(score.logprob):
            raise KoalpacaError(
                "eval-not-finite",
                f"the model gives a log-likelihood of {score.logprob}.",
                where=request.origin,
                fix="Its weights overflow: load it in bfloat16 or float32, and look at the training loss.",
            )
    return scores
