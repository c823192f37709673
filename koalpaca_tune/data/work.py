"""What happens to each row on its own: shape, clean, mask, measure, limit, hold against the evaluation, keys.

A worker keeps nothing from one batch to the next, so that the same rows give the same result in one
process, in several, or on several machines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koalpaca_tune import jsonl
from koalpaca_tune.config.preparation import Preparation
from koalpaca_tune.data import split
from koalpaca_tune.data.cleaning import privacy
from koalpaca_tune.data.cleaning.clean import Change, clean
from koalpaca_tune.data.overlap import minhash, text
from koalpaca_tune.data.overlap.contamination import Protected
from koalpaca_tune.data.quality import limits, signals, speech
from koalpaca_tune.data.quality.signals import Signals
from koalpaca_tune.data.rows import Rejected, Row
from koalpaca_tune.data.shaping.shape import Made
from koalpaca_tune.errors import KoalpacaError, Problem
from koalpaca_tune.records import Conversation

BATCH = 512
"""Rows that a worker takes at once."""

BATCH_CHARACTERS = 2_000_000
"""Characters after which a batch ends: a worker needs about 45 bytes for each."""

ORDER_BITS = 16
"""A row may hold many conversations (SQuAD): the record's order is the row's number and its place within."""

Shaper = Callable[[Row], Made]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one input, in order; `start` is the first one's number over all inputs."""

    start: int
    input: int
    rows: tuple[Row | Rejected, ...]


@dataclass(slots=True)
class Tally:
    """Counts that add up over batches.

    Attributes:
        cleaned: step -> records that it changed.
        changes: step -> the first changes, with their records' orders and origins.
        masked: kind of personal data -> values masked.
        masked_records: records with any.
        leaks: task -> records that overlap with its items.
    """

    cleaned: Counter[str] = field(default_factory=Counter)
    changes: dict[str, list[tuple[int, str, str, str]]] = field(default_factory=dict)
    masked: Counter[str] = field(default_factory=Counter)
    masked_records: int = 0
    leaks: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Adds another's counts; of the examples, those that come first."""
        self.cleaned += other.cleaned
        self.masked += other.masked
        self.masked_records += other.masked_records
        self.leaks += other.leaks
        for step, found in other.changes.items():
            self.changes[step] = sorted(self.changes.get(step, []) + found)[:EXAMPLES]

    def change(self, order: int, origin: str, changes: Mapping[str, Change]) -> None:
        """Counts what cleaning changed in one record."""
        for step, change in changes.items():
            self.cleaned[step] += 1
            kept = self.changes.setdefault(step, [])
            if len(kept) < EXAMPLES:
                kept.append((order, origin, change.before, change.after))


TOLD = ("hangul", "question-hangul")
"""Signals of which zero says something: no Hangul at all."""

EXAMPLES = 3
"""Examples of each kind in the report."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a batch.

    Attributes:
        input, rows: the batch's.
        records: JSON lines of the records, without a line end.
        measured: JSON lines of their quality signals.
        orders: int64 [n], increasing.
        exact, normalised: 16 bytes a record.
        questions: uint64 [n], `split.question_key`.
        near, asked: MinHash signatures, uint32 [n, K], of the record and of its question.
        rejected: (order, rejected row), in order.
    """

    input: int
    rows: int
    records: list[str]
    measured: list[str]
    orders: NDArray[np.int64]
    exact: list[bytes]
    normalised: list[bytes]
    questions: NDArray[np.uint64]
    near: NDArray[np.uint32]
    asked: NDArray[np.uint32]
    rejected: list[tuple[int, Rejected]]
    tally: Tally


class Worker:
    """One preparation's per-row part. Make one per process.

    Args:
        preparation: its steps, kinds and limits.
        shapers: for each input, how a row becomes conversations.
        sources: for each input, the source name of its records.
        protected: the evaluation's items, or None.
    """

    def __init__(
        self,
        preparation: Preparation,
        shapers: Sequence[Shaper],
        sources: Sequence[str],
        protected: Protected | None,
    ) -> None:
        self._preparation = preparation
        self._shapers = shapers
        self._sources = sources
        self._protected = protected

    def __call__(self, batch: Batch) -> Done:
        """Takes a batch through all steps."""
        tally = Tally()
        rejected: list[tuple[int, Rejected]] = []
        shaped: list[tuple[int, Conversation, Counter[str]]] = []
        for number, row in enumerate(batch.rows, batch.start):
            for order, made in self._conversations(number << ORDER_BITS, batch.input, row):
                if isinstance(made, Rejected):
                    rejected.append((order, made))
                    continue
                cleaned = self._cleaned(order, made, tally)
                if isinstance(cleaned, Rejected):
                    rejected.append((order, replace(cleaned, row=row.values if isinstance(row, Row) else row.row)))
                else:
                    shaped.append((order, *cleaned))
        kept, measured = self._measured(shaped, rejected)
        kept, measured = self._unleaked(kept, measured, rejected, tally)
        rejected.sort(key=lambda pair: pair[0])
        return _done(batch, kept, measured, rejected, tally)

    def _conversations(
        self, order: int, input: int, row: Row | Rejected
    ) -> list[tuple[int, Conversation | Rejected]]:
        if isinstance(row, Rejected):
            return [(order, row)]
        try:
            made = self._shapers[input](row)
        except KoalpacaError as error:
            return [(order, Rejected(row.origin, error.problems[0], row.values))]
        several = made if isinstance(made, tuple) else (made,)
        source = self._sources[input]
        return [
            (order + n, one if isinstance(one, Rejected) or one.source else replace(one, source=source))
            for n, one in enumerate(several)
        ]

    def _cleaned(
        self, order: int, conversation: Conversation, tally: Tally
    ) -> tuple[Conversation, Counter[str]] | Rejected:
        try:
            cleaned = clean(conversation, self._preparation.clean)
        except KoalpacaError as error:
            return Rejected(conversation.origin, error.problems[0], None)
        if cleaned.conversation.dispreferred == cleaned.conversation.turns[-1].content:
            what = "without the blanks and marks that cleaning removes, both answers are the same."
            return Rejected(conversation.origin, Problem("row-preference", what), None)
        tally.change(order, conversation.origin, cleaned.changes)
        if not self._preparation.mask:
            return cleaned.conversation, Counter()
        masked = privacy.mask(cleaned.conversation, self._preparation.mask)
        if masked.counts:
            tally.masked.update(masked.counts)
            tally.masked_records += 1
        return masked.conversation, Counter(masked.counts)

    def _measured(
        self, shaped: list[tuple[int, Conversation, Counter[str]]], rejected: list[tuple[int, Rejected]]
    ) -> tuple[list[tuple[int, Conversation]], list[str]]:
        kept: list[tuple[int, Conversation]] = []
        lines: list[str] = []
        found = signals.measure([conversation for _, conversation, _ in shaped])
        for (order, conversation, masked), measured in zip(shaped, found, strict=True):
            problem = limits.beyond(measured, self._preparation.quality) or speech.unwanted(
                measured, self._preparation.speech
            )
            if problem:
                rejected.append((order, _set_aside(conversation, problem)))
                continue
            if self._preparation.speech.label:
                conversation = speech.label(conversation, measured)
            kept.append((order, conversation))
            lines.append(_signal_line(conversation, measured, masked))
        return kept, lines

    def _unleaked(
        self,
        kept: list[tuple[int, Conversation]],
        lines: list[str],
        rejected: list[tuple[int, Rejected]],
        tally: Tally,
    ) -> tuple[list[tuple[int, Conversation]], list[str]]:
        if self._protected is None:
            return kept, lines
        found = self._protected.hits([text.near_text(conversation) for _, conversation in kept])
        clean_kept, clean_lines = [], []
        for pair, line, leaks in zip(kept, lines, found, strict=True):
            tally.leaks.update({leak.task for leak in leaks})
            if leaks and self._preparation.contamination.drop:
                worst = max(leaks, key=lambda leak: leak.overlap)
                what = (
                    f"it overlaps with item {worst.item} of the evaluation task {worst.task} ({worst.overlap:.0%})."
                )
                rejected.append((pair[0], _set_aside(pair[1], Problem("contaminated", what))))
            else:
                clean_kept.append(pair)
                clean_lines.append(line)
        return clean_kept, clean_lines


def _set_aside(conversation: Conversation, problem: Problem) -> Rejected:
    return Rejected(conversation.origin, problem, conversation.as_dict())


def _signal_line(conversation: Conversation, measured: Signals, masked: Counter[str]) -> str:
    """A line of quality.jsonl. Signals that found nothing are left out: most find nothing in most records."""
    found = {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in measured.values.items()
        if value or (value is not None and name in TOLD)
    }
    row: dict[str, Any] = {"id": conversation.id, "signals": found}
    if measured.examples:
        row["examples"] = dict(measured.examples)
    if masked:
        row["masked"] = dict(masked)
    return jsonl.dumps(row)


def _done(
    batch: Batch,
    kept: list[tuple[int, Conversation]],
    measured: list[str],
    rejected: list[tuple[int, Rejected]],
    tally: Tally,
) -> Done:
    conversations = [conversation for _, conversation in kept]
    return Done(
        input=batch.input,
        rows=len(batch.rows),
        records=[jsonl.dumps(conversation.as_dict()) for conversation in conversations],
        measured=measured,
        orders=np.array([order for order, _ in kept], np.int64),
        exact=[text.exact_key(conversation) for conversation in conversations],
        normalised=[text.normalised_key(conversation) for conversation in conversations],
        questions=np.array([split.question_key(conversation) for conversation in conversations], np.uint64),
        near=minhash.sign([text.near_text(conversation) for conversation in conversations]),
        asked=minhash.sign([text.question_text(conversation) for conversation in conversations]),
        rejected=rejected,
        tally=tally,
    )
