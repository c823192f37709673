"""What the kept records are like: lengths, signals, sources, examples. Filled while they are written."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from koalpaca_tune.data.quality.signals import SIGNALS
from koalpaca_tune.data.work import EXAMPLES
from koalpaca_tune.errors import Problem

BINS = 20
"""Bins of a share's histogram, over 0 to 1."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Lengths of texts in characters."""

    count: int
    shortest: int
    median: int
    p90: int
    longest: int
    mean: float


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths in characters of the questions (with their contexts) and answers of one source."""

    questions: array[int] = field(default_factory=lambda: array("q"))
    answers: array[int] = field(default_factory=lambda: array("q"))

    def add(self, messages: list[Mapping[str, Any]]) -> None:
        """Counts each user and assistant turn."""
        for message in messages:
            if message["role"] != "system":
                side = self.questions if message["role"] == "user" else self.answers
                side.append(len(message["content"]) + len(message.get("context") or ""))

    def summary(self) -> dict[str, Summary]:
        """Both sides in a few numbers."""
        return {"question": _summary(self.questions), "answer": _summary(self.answers)}


def _summary(lengths: array[int]) -> Summary:
    values = sorted(lengths)

    def at(share: float) -> int:
        return values[min(len(values) - 1, math.ceil(share * len(values)) - 1)]

    mean = round(sum(values) / len(values), 1)
    return Summary(len(values), values[0], at(0.5), at(0.9), values[-1], mean)


class Lost(NamedTuple):
    """A row that was set aside."""

    origin: str
    what: str
    row: Any


@dataclass(slots=True)
class Found:
    """One signal over all kept records.

    Attributes:
        hit: records in which it found something.
        bins: of a share, records in each of `BINS` bins; of a speech level, records of each level.
        examples: (origin, what set it off) of the first records that have one.
    """

    hit: int = 0
    bins: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Survey:
    """Adds up records as they are written.

    Attributes:
        lengths: source -> lengths.
        signals: name -> what was found.
        kept: the first records.
        lost: code -> the first rows set aside for it.
        kept_of: input -> records kept.
        lost_of: input -> code -> records that comparison with the others set aside.
    """

    lengths: dict[str, Lengths] = field(default_factory=dict)
    signals: dict[str, Found] = field(default_factory=lambda: {name: Found() for name in SIGNALS})
    kept: list[dict[str, Any]] = field(default_factory=list)
    lost: dict[str, list[Lost]] = field(default_factory=dict)
    kept_of: Counter[int] = field(default_factory=Counter)
    lost_of: dict[int, Counter[str]] = field(default_factory=dict)

    def add(self, input: int, record: dict[str, Any], measured: dict[str, Any]) -> None:
        """Counts a record of train or valid."""
        self.kept_of[input] += 1
        self.lengths.setdefault(record["source"], Lengths()).add(record["messages"])
        if len(self.kept) < EXAMPLES:
            self.kept.append(record)
        examples = measured.get("examples", {})
        for name, value in measured["signals"].items():
            found = self.signals[name]
            found.hit += 1
            if isinstance(value, str):
                found.bins[value] += 1
            elif isinstance(value, float) and SIGNALS[name].kind == "share":
                found.bins[str(min(BINS - 1, int(value * BINS)))] += 1
            if name in examples and len(found.examples) < EXAMPLES:
                found.examples.append((record["origin"], examples[name]))

    def lose(self, input: int, origin: str, problem: Problem, row: Any) -> None:
        """Counts a record that comparison with the others set aside."""
        self.lost_of.setdefault(input, Counter())[problem.code] += 1
        self.example(origin, problem.code, problem.what, row)

    def example(self, origin: str, code: str, what: str, row: Any) -> None:
        """Keeps the first rows of each reason."""
        kept = self.lost.setdefault(code, [])
        if len(kept) < EXAMPLES:
            kept.append(Lost(origin, what, row))
