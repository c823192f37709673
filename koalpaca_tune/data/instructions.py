"""Rows of a task set as instructions: one of several phrasings, chosen by the row itself.

After FLAN (Wei et al. 2022, "Finetuned Language Models Are Zero-Shot Learners"): every task is asked in
several ways, with different words for the same answer, so that a model learns the task and not one
prompt. A task is described in YAML (data/sources); `{word:이/가}` adds the particle that fits.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from koalpaca_tune import patterns
from koalpaca_tune.config.check import Strict
from koalpaca_tune.data.rows import Rejected, Row, readable
from koalpaca_tune.errors import KoalpacaError, Problem, did_you_mean
from koalpaca_tune.records import Conversation, Turn

FEWEST = 4
"""Phrasings that a task needs."""


class Phrasing(Strict):
    """One way to ask."""

    ask: str = Field(description="The question, a pattern.")
    context: str | None = Field(None, description="Material beside the question, a pattern.")
    answer: str | dict[str, str] = Field(description="The answer, a pattern; or one for each label.")

    def patterns(self) -> list[str]:
        """All its patterns."""
        answers = list(self.answer.values()) if isinstance(self.answer, dict) else [self.answer]
        return [self.ask, *([self.context] if self.context is not None else []), *answers]


class Bin(Strict):
    """A stretch of a score that one label stands for."""

    below: float = Field(description="Scores up to here, itself not included.")
    label: str = Field(description="The label of these scores.")


class Task(Strict):
    """How the rows of a set are asked and answered."""

    title: str = Field(description="What is asked, in Korean.")
    fields: Annotated[dict[str, Annotated[list[str], Field(min_length=1)]], Field(min_length=1)] = Field(
        description="Field of the patterns -> its column; of several, the one that the file has (a.b: within)."
    )
    label: str | None = Field(None, description="The field that decides the answer.")
    labels: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="Column -> value as published (in small letters) -> label."
    )
    bins: list[Bin] = Field(default_factory=list, description="Labels of a score, in place of `labels`.")
    numbers: list[str] = Field(default_factory=list, description="Fields that are numbers: shown as 3.8, 4.")
    nested: Literal["squad"] | None = Field(None, description="squad: a row of the file holds many questions.")
    phrasings: Annotated[list[Phrasing], Field(min_length=FEWEST)] = Field(description="Ways to ask.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Every pattern can be filled, and every label has an answer.

        Raises:
            ValueError: `what | what to do`.
        """
        known = list(self.fields)
        named = [
            name for phrasing in self.phrasings for text in phrasing.patterns() for name in patterns.fields(text)
        ]
        for name in [*named, *self.numbers, *([self.label] if self.label is not None else [])]:
            if name not in self.fields:
                raise ValueError(f"'{name}' is none of the fields. | {did_you_mean(name, known)}")
        expected = {bin.label for bin in self.bins}
        expected.update(label for names in self.labels.values() for label in names.values())
        if bool(expected) != (self.label is not None):
            raise ValueError("a label needs labels or bins, and they need a label. | Give both, or neither.")
        if (
            self.label is not None
            and not self.bins
            and (missing := set(self.fields[self.label]) - set(self.labels))
        ):
            raise ValueError(f"the column '{min(missing)}' has no labels. | Say what its values mean under labels.")
        for phrasing in self.phrasings:
            if isinstance(phrasing.answer, dict) and set(phrasing.answer) != expected:
                given, wanted = ", ".join(phrasing.answer), ", ".join(sorted(expected))
                raise ValueError(f"the answers are for {given}; the labels are {wanted}. | Give one for each.")
        return self


def columns(task: Task, names: Iterable[str]) -> dict[str, str]:
    """Field -> the column that it is read from, of a file with these columns.

    Raises:
        ValueError: `what | what to do`, for a field with no column, or with several.
    """
    known = set(names)
    found = {}
    for field, candidates in task.fields.items():
        here = [column for column in candidates if column in known or column.split(".")[0] in known]
        if len(here) != 1:
            what = "no column" if not here else f"several columns ({', '.join(here)})"
            raise ValueError(f"the field '{field}' has {what} here. | Candidates: {', '.join(candidates)}.")
        found[field] = here[0]
    return found


def rows(given: Iterable[Row | Rejected], task: Task) -> Iterator[Row | Rejected]:
    """The rows of a file, nested ones taken apart so that each question is a row with an origin of its own."""
    for row in given:
        if task.nested == "squad" and isinstance(row, Row) and "paragraphs" in row.values:
            yield from _squad(row)
        else:
            yield row


def _squad(row: Row) -> Iterator[Row | Rejected]:
    """An article of SQuAD's JSON (KorQuAD 1.0, KLUE-MRC): paragraphs with context and qas."""
    for p, paragraph in enumerate(_list(row.values["paragraphs"])):
        here = f"{row.origin}.paragraphs[{p}]"
        if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
            yield _misshapen(here, paragraph, "a paragraph needs context and qas")
            continue
        for q, asked in enumerate(paragraph["qas"]):
            origin = f"{here}.qas[{q}]"
            if not isinstance(asked, dict):
                yield _misshapen(origin, asked, "it needs question and answers")
                continue
            answers = [answer.get("text") for answer in _list(asked.get("answers")) if isinstance(answer, dict)]
            values = {
                "title": row.values.get("title"),
                "context": paragraph.get("context"),
                "question": asked.get("question"),
                "answer": answers[0] if answers else "",
                "is_impossible": asked.get("is_impossible", False),
            }
            yield Row(origin, values)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _misshapen(origin: str, value: Any, what: str) -> Rejected:
    return Rejected(origin, Problem("row-shape", f"{what}; it is a {type(value).__name__}.", origin), value)


def conversation(row: Row, task: Task, source: str) -> Conversation:
    """A row as a question and an answer.

    The phrasing follows from the texts of the row (SHA-256), among those whose fields are not empty: the
    same row is asked in the same way in any file, order and number of processes.

    Args:
        row: as the reader or `rows` gives it.
        task: how to ask.
        source: name of the set, part of the hash.

    Raises:
        KoalpacaError: a column is missing (row-shape), a value is not text (row-type), a label is none that
            the task knows (row-label), or no phrasing can be filled (row-empty).
    """
    try:
        found = columns(task, row.values)
    except ValueError as error:
        what, _, fix = str(error).partition(" | ")
        raise KoalpacaError("row-shape", what, where=row.origin, fix=fix) from error
    texts = {
        field: _text(row, column, number=field in task.numbers)
        for field, column in found.items()
        if field != task.label or field in task.numbers
    }
    label = None if task.label is None else _label(row, task, found[task.label])
    fitting = [phrasing for phrasing in task.phrasings if not _empty(phrasing, label, texts)]
    if not fitting:
        raise KoalpacaError(
            "row-empty", f"the {_empty(task.phrasings[0], label, texts)[0]} is empty.", where=row.origin
        )
    chosen = fitting[_number(source, texts, label) % len(fitting)]
    context = None if chosen.context is None else patterns.fill(chosen.context, texts)
    return Conversation(
        (
            Turn("user", patterns.fill(chosen.ask, texts), context),
            Turn("assistant", patterns.fill(_answer(chosen, label), texts)),
        ),
        row.origin,
        source,
    )


def _answer(phrasing: Phrasing, label: str | None) -> str:
    if isinstance(phrasing.answer, str):
        return phrasing.answer
    assert label is not None
    return phrasing.answer[label]


def _empty(phrasing: Phrasing, label: str | None, texts: Mapping[str, str]) -> list[str]:
    """Fields that the phrasing needs for this label, and that have no text."""
    used = [phrasing.ask, phrasing.context or "", _answer(phrasing, label)]
    return [name for text in used for name in patterns.fields(text) if not texts[name]]


def _number(source: str, texts: Mapping[str, str], label: str | None) -> int:
    parts = [source, label or "", *(f"{name}={texts[name]}" for name in sorted(texts))]
    return int.from_bytes(hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).digest()[:8])


def _value(row: Row, column: str) -> Any:
    value: Any = row.values
    for part in [column] if column in row.values else column.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value[0] if isinstance(value, list) and value else value


def _text(row: Row, column: str, *, number: bool) -> str:
    value = _value(row, column)
    if value is None or value == []:
        return ""
    if number:
        score = _score(row, column)
        return f"{score:.1f}".removesuffix(".0")
    if not isinstance(value, str):
        raise KoalpacaError("row-type", f"'{column}' is {_short(value)}, not text.", where=row.origin)
    return value.strip()


def _score(row: Row, column: str) -> float:
    value = _value(row, column)
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise KoalpacaError("row-type", f"'{column}' is {_short(value)}, not a number.", where=row.origin)
    return score


def _label(row: Row, task: Task, column: str) -> str:
    value = _value(row, column)
    if task.bins:
        score = _score(row, column)
        found = next((bin.label for bin in task.bins if score < bin.below), None)
        known = f"a score below {task.bins[-1].below:g}"
    else:
        found = task.labels[column].get(str(value).strip().casefold())
        known = ", ".join(task.labels[column])
    if found is None:
        raise KoalpacaError(
            "row-label",
            f"'{column}' is {_short(value)}, which is no label of this task.",
            where=row.origin,
            fix=f"Known: {known}.",
        )
    return found


def _short(value: Any) -> str:
    text = readable(repr(value))
    return text if len(text) <= 40 else text[:37] + "..."
