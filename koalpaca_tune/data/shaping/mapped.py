"""Columns whose meaning the user tells: {question: 문의내용, answer: 답글}."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from koalpaca_tune.data.rows import Row
from koalpaca_tune.data.shaping import dialogues, pairs, preferences, rag, texts
from koalpaca_tune.data.shaping.columns import Columns, Names, fold
from koalpaca_tune.data.shaping.shape import Made
from koalpaca_tune.data.shaping.values import short
from koalpaca_tune.errors import KoalpacaError, Problem, did_you_mean

MEANINGS = (
    *("question", "answer", "context", "system", "text", "messages"),
    *("documents", "citations", "rejected"),
)
"""What a column can be said to mean."""

_NEEDED = {
    "messages": ("messages",),
    "text": ("text",),
    "preference": ("question", "answer", "rejected"),
    "rag": ("question", "answer", "documents"),
    "qa": ("question", "answer"),
}
_ALLOWED = {
    "messages": ("system",),
    "text": ("system",),
    "preference": ("system", "context"),
    "rag": ("system", "citations"),
    "qa": ("system", "context"),
}
_MAKE: dict[str, Callable[[Row, Columns], Made]] = {
    "messages": dialogues.dialogue,
    "text": texts.written,
    "preference": preferences.preferred,
    "rag": rag.grounded,
    "qa": pairs.asked_and_answered,
}


@dataclass(frozen=True, slots=True)
class Mapped:
    """A shape with columns that the user named. Called with a row, like any shape.

    Attributes:
        name: of the shape that these columns make: messages, text, preference, rag or qa.
        columns: under the names that they have in the file.
    """

    name: str
    columns: Columns

    def __call__(self, row: Row) -> Made:
        """The row's conversations.

        Raises:
            KoalpacaError: the row lacks a column (row-shape), or as the shape does.
        """
        columns = _respelt(self.columns, tuple(row.values))
        for meaning in _NEEDED[self.name]:
            if getattr(columns, meaning) not in row.values:
                there = ", ".join(repr(short(name)) for name in list(row.values)[:12]) or "no columns"
                raise KoalpacaError(
                    "row-shape",
                    f"the row has {there}, and no '{short(getattr(columns, meaning))}' (the {meaning}).",
                    where=row.origin,
                )
        return _MAKE[self.name](row, columns)


def mapped(columns: Mapping[str, str], names: Sequence[str], where: str) -> Mapped:
    """The shape that the named columns make.

    Args:
        columns: meaning (of `MEANINGS`) -> the file's column, in any case, NFC or NFD.
        names: the file's columns.
        where: the file, for errors.

    Raises:
        KoalpacaError: all problems at once: no such meaning, or they make no conversation together
            (columns-meaning); the file has no such column (columns-missing).
    """
    problems: list[Problem] = []
    for meaning, column in columns.items():
        if meaning not in MEANINGS:
            what = f"columns.{short(meaning)}: a column cannot mean '{short(meaning)}'."
            problems.append(Problem("columns-meaning", what, where, did_you_mean(meaning, MEANINGS)))
        there = len(_there(column, names))
        if there != 1:
            what = f"columns.{short(meaning)}: there {'is no' if not there else f'are {there}'} '{short(column)}'."
            fix = _nearest(column, names) if not there else "Write it as it stands in the file."
            problems.append(Problem("columns-missing", what, where, fix))
    twice = sorted({column for column in columns.values() if list(columns.values()).count(column) > 1})
    if twice:
        what = f"columns: '{short(twice[0])}' has two meanings."
        problems.append(Problem("columns-meaning", what, where, "Give each column one."))
    if problems:
        raise KoalpacaError.of(problems)
    shape = next((shape for shape, needed in _NEEDED.items() if set(needed) <= set(columns)), None)
    too_many = sorted(set(columns) - {*_NEEDED[shape], *_ALLOWED[shape]}) if shape else []
    if shape is None or too_many:
        what = (
            f"columns: {', '.join(too_many)} cannot stand beside {', '.join(_NEEDED[shape])}."
            if shape
            else f"columns: {', '.join(columns) or 'nothing'} alone makes no conversation."
        )
        fix = "Name question and answer (with context, or documents, or rejected), or messages, or text."
        raise KoalpacaError("columns-meaning", what, where=where, fix=fix)
    return Mapped(shape, Columns(**{meaning: _there(column, names)[0] for meaning, column in columns.items()}))


def _nearest(column: str, names: Sequence[str]) -> str:
    meant = did_you_mean(fold(column), [fold(name) for name in names])
    return meant if len(meant) <= 300 else meant[:297] + "..."


@lru_cache(maxsize=1024)
def _respelt(columns: Columns, names: Names) -> Columns:
    """The columns under the names of one row of JSON, which may be in another case or in NFD."""
    found = {meaning: getattr(columns, meaning) for meaning in MEANINGS}
    return replace(
        columns, **{meaning: (_there(name, names) or [name])[0] for meaning, name in found.items() if name}
    )


def _there(column: str, names: Sequence[str]) -> list[str]:
    """The names that a column goes by: it itself, or all that differ in case or composition only."""
    return [column] if column in names else [name for name in names if fold(name) == fold(column)]
