"""Questions with choices: every choice is scored, the likeliest is the pick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from koalpaca_tune import patterns
from koalpaca_tune.evaluation import bias, fit, metrics, requests
from koalpaca_tune.evaluation.job import Job, about, categories, scored
from koalpaca_tune.evaluation.protocol import LanguageModel, Lengths, Renderer, Score
from koalpaca_tune.evaluation.store import Line
from koalpaca_tune.records import Rendered
from koalpaca_tune.suites.asking import ChoiceProfile
from koalpaca_tune.suites.item import Item
from koalpaca_tune.suites.items import ItemSet
from koalpaca_tune.suites.schema import ChoiceTask
from koalpaca_tune.suites.tasks import Task


@dataclass
class Choices:
    """Items of a task with choices, as requests and lines.

    Attributes:
        alone: log-likelihoods of choices without their question, by what was asked; each distinct text once.
    """

    file: ChoiceTask
    profile: ChoiceProfile
    items: tuple[Item, ...]
    model: LanguageModel
    render: Renderer
    lengths: Lengths | None = None
    alone: dict[tuple[str, ...], list[float]] = field(default_factory=dict)

    def texts(self, position: int) -> list[Rendered]:
        """The requests of an item."""
        return requests.of_choices(self.profile, self.items[position], self.render)

    def lines(self, positions: Sequence[int]) -> list[Line]:
        """One line for each item."""
        asked = [self._fitting(self.texts(n)) for n in positions]
        self._learn_alone(positions)
        scores = iter(scored(self.model, [request for _, one in asked for request in one]))
        return [
            self._line(self.items[n], [next(scores) for _ in one], cut)
            for n, (cut, one) in zip(positions, asked, strict=True)
        ]

    def _fitting(self, asked: list[Rendered]) -> tuple[int, list[Rendered]]:
        """(tokens cut off at the left, requests); nothing is cut unless the profile says so."""
        if self.profile.too_long == "error" or self.lengths is None or self.lengths.room is None:
            return 0, asked
        room = self.lengths.room
        if fit.surely_fits(asked, room):
            return 0, asked
        over = [count - room for count in self.lengths.tokens(asked)]
        fitting = [self.lengths.cut(one, room) if n > 0 else one for one, n in zip(asked, over, strict=True)]
        return max(0, *over), fitting

    def _learn_alone(self, positions: Sequence[int]) -> None:
        wanted: dict[tuple[str, ...], list[Rendered]] = {}
        for n in positions:
            item = self.items[n]
            if item.unconditional is not None and _key(item) not in self.alone:
                wanted.setdefault(_key(item), requests.unconditional(self.profile, item, self.render))
        scores = iter(scored(self.model, [request for one in wanted.values() for request in one]) if wanted else ())
        for key, asked in wanted.items():
            self.alone[key] = [next(scores).logprob for _ in asked]

    def _line(self, item: Item, scores: Sequence[Score], cut: int) -> Line:
        line: Line = {
            "id": item.id,
            "prompt": item.prompt if item.context is None else f"{item.context}\n{item.prompt}",
            "choices": list(item.choices),
            "answer": item.answer,
            "logprobs": [score.logprob for score in scores],
            "characters": [len(choice.lstrip()) for choice in item.choices],
            "tokens": [score.tokens for score in scores],
        }
        if item.category is not None:
            line["category"] = item.category
        if item.unconditional is not None:
            line["unconditional"] = self.alone[_key(item)]
        if item.biased is not None:
            line |= {"biased": item.biased, "unclear": item.unclear}
        if cut:
            line["cut_left"] = cut
        return line

    def summary(self, lines: Sequence[Line]) -> dict[str, Any]:
        """Metrics, chance, collapse, label tokens, categories."""
        primary = self.file.metrics[0]
        choices = self.profile.choices
        fixed = isinstance(choices, list) and not any(patterns.fields(pattern) for pattern in choices)
        # a profile without an unconditional prompt has no PMI to offer, another of the same task may
        beside = ["accuracy_pmi"] if self.profile.unconditional and "accuracy_pmi" in metrics.CHOICE else []
        return {
            "metrics": {name: metrics.CHOICE[name](lines) for name in dict.fromkeys([*self.file.metrics, *beside])},
            "chance": float(np.mean([1 / len(line["choices"]) for line in lines])),
            "collapse": metrics.collapse(lines, primary),
            # a label of two tokens is less likely than one of one, whatever the question: worth seeing
            "label_tokens": dict(zip(_labels(lines[0]), lines[0]["tokens"], strict=True)) if fixed else None,
            **({"bias": bias.of(lines)} if self.file.bias is not None else {}),
            "cut_left": sum("cut_left" in line for line in lines),
            **categories(lines, primary, metrics.CHOICE[primary]),
        }


def _key(item: Item) -> tuple[str, ...]:
    return (str(item.unconditional), *item.choices)


def _labels(line: Line) -> list[str]:
    return [choice.strip() for choice in line["choices"]]


def job(task: Task, chosen: ItemSet, model: LanguageModel, render: Renderer, lengths: Lengths | None = None) -> Job:
    """Every choice of every item is scored."""
    file, profile, items = task.file, task.asked, chosen.items
    assert isinstance(file, ChoiceTask)
    assert isinstance(profile, ChoiceProfile)
    work = Choices(file, profile, items, model, render, lengths)
    return Job(
        name=task.name,
        title=file.title,
        title_en=file.title_en,
        kind="choice",
        version=file.version,
        digest=chosen.digest,
        ids=tuple(item.id for item in items),
        requests=max(len(item.choices) for item in items),
        lines=work.lines,
        summary=work.summary,
        about=about(task, chosen) | {"primary": file.metrics[0], "too_long": profile.too_long},
        texts=partial(Choices.texts, work),
    )
