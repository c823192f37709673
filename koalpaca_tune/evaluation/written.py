"""Written answers: held against right ones, or against the instructions of their prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from koalpaca_tune.evaluation import requests
from koalpaca_tune.evaluation.extract import EXTRACT, GOLD, VERSIONS
from koalpaca_tune.evaluation.job import Job, about, categories, mean_of
from koalpaca_tune.evaluation.protocol import LanguageModel, Renderer, Written
from koalpaca_tune.evaluation.store import Line, digest
from koalpaca_tune.records import Rendered
from koalpaca_tune.suites.asking import AnswerProfile
from koalpaca_tune.suites.item import Item
from koalpaca_tune.suites.items import ItemSet
from koalpaca_tune.suites.schema import AnswerTask
from koalpaca_tune.suites.tasks import Task

Scores = Mapping[str, float | None]


@dataclass(frozen=True)
class Measured:
    """How written answers of a task are scored.

    Attributes:
        names: metrics; the first is tested.
        yes_no, lower_is_better: which of them are.
        score: (item, answer) -> what its line holds beside the answer; `scores` among it.
        totals: lines -> metrics over all of them; None: means of the scores.
        decided_by: libraries and ways of reading, with their versions, that have a part in the scores.
        also: fields of `lines.MORE` that its lines have.
    """

    names: tuple[str, ...]
    yes_no: tuple[str, ...]
    lower_is_better: tuple[str, ...]
    score: Callable[[Item, str], dict[str, Any]]
    totals: Callable[[Sequence[Line]], dict[str, float | None]] | None = None
    decided_by: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    def summary(self, lines: Sequence[Line]) -> dict[str, Any]:
        """Means over what could be decided, and how much could not."""
        primary = self.names[0]
        means = {name: mean_of([line["scores"][name] for line in lines]) for name in self.names}
        return {
            "metrics": self.totals(lines) if self.totals else means,
            "yes_no": list(self.yes_no),
            "lower_is_better": list(self.lower_is_better),
            "undecided": {name: sum(line["scores"][name] is None for line in lines) for name in self.names},
            "errors": sum("error" in line for line in lines),
            "empty": sum(not line["text"].strip() for line in lines),
            "cut": sum(not line["stopped"] for line in lines),
            **categories(lines, primary, lambda group: mean_of([line["scores"][primary] for line in group])),
        }


def job(task: Task, chosen: ItemSet, model: LanguageModel, render: Renderer) -> Job:
    """An answer is written to every item."""
    file, profile, items = task.file, task.asked, chosen.items
    assert isinstance(profile, AnswerProfile)
    measured = _references(file) if isinstance(file, AnswerTask) else _instructions()

    def texts(position: int) -> list[Rendered]:
        return [requests.to_answer(profile, items[position], render)]

    def lines(positions: Sequence[int]) -> list[Line]:
        asked = [one for n in positions for one in texts(n)]
        answers = model.write(asked, profile.max_new_tokens, until=tuple(profile.until))
        return [
            line_of(items[n], answer) | measured.score(items[n], answer.text)
            for n, answer in zip(positions, answers, strict=True)
        ]

    return Job(
        name=task.name,
        title=file.title,
        title_en=file.title_en,
        kind="answer",
        version=file.version,
        digest=digest(chosen.digest, *measured.decided_by) if measured.decided_by else chosen.digest,
        ids=tuple(item.id for item in items),
        requests=1,
        lines=lines,
        summary=measured.summary,
        about=about(task, chosen) | {"primary": measured.names[0], "max_new_tokens": profile.max_new_tokens},
        texts=texts,
        writes=profile.max_new_tokens,
        also=measured.also,
    )


def line_of(item: Item, answer: Written) -> Line:
    """What every written answer's line holds."""
    line: Line = {
        "id": item.id,
        "prompt": item.prompt if item.context is None else f"{item.context}\n{item.prompt}",
        "text": answer.text,
        "golds": list(item.golds),
        "tokens": answer.tokens,
        "stopped": answer.stopped,
    }
    return line if item.category is None else line | {"category": item.category}


def _references(file: AnswerTask) -> Measured:
    from koalpaca_tune.measures import registry

    take, gold = EXTRACT[file.extract], GOLD[file.extract]

    def score(item: Item, text: str) -> dict[str, Any]:
        taken = take(text)
        golds = [gold(one) for one in item.golds]
        scores = {name: float(registry.REFERENCE[name](taken, golds)) for name in file.metrics}
        return {"scores": scores} if file.extract == "whole" else {"extracted": taken, "scores": scores}

    names = tuple(file.metrics)
    yes_no, lower = _among(names, registry.YES_NO), _among(names, registry.LOWER_IS_BETTER)
    kiwi = (f"kiwipiepy {version('kiwipiepy')}",) if _among(names, registry.BY_KIWI) else ()
    way = (f"{file.extract} {VERSIONS[file.extract]}",) if file.extract in VERSIONS else ()
    return Measured(names, yes_no, lower, score, decided_by=(*kiwi, *way))


def _among(names: Sequence[str], group: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in group)


def _instructions() -> Measured:
    from koalpaca_tune.instructions import follow

    def score(item: Item, text: str) -> dict[str, Any]:
        ids = [id for id, _ in item.instructions]
        found = follow.followed(ids, [arguments for _, arguments in item.instructions], text, item.origin)
        told = zip(ids, found.strict, found.loose, strict=True)
        return {
            "scores": found.scores(),
            "instructions": [{"id": id, "strict": strict, "loose": loose} for id, strict, loose in told],
        }

    def totals(lines: Sequence[Line]) -> dict[str, float | None]:
        return dict(follow.totals(list(_followed(lines))))

    return Measured(tuple(follow.METRICS), tuple(follow.YES_NO), (), score, totals, also=("instructions",))


def _followed(lines: Sequence[Line]) -> Iterator[Any]:
    from koalpaca_tune.instructions import follow

    for line in lines:
        told = line["instructions"]
        yield follow.Followed(tuple(one["strict"] for one in told), tuple(one["loose"] for one in told))
