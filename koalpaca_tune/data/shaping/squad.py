"""Questions on a passage with a list of answers: SQuAD, KorQuAD, KLUE-MRC, flat or nested.

Of several answers the first is taken. A question without one (SQuAD 2.0, KLUE-MRC) is set aside: what
stands there as an answer is only plausible.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koalpaca_tune.data.rows import Rejected, Row
from koalpaca_tune.data.shaping.columns import (
    ANSWERS,
    Columns,
    Index,
    ambiguous,
    context,
    present,
    single,
    system,
)
from koalpaca_tune.data.shaping.pairs import find_question
from koalpaca_tune.data.shaping.shape import Made, Shape
from koalpaca_tune.data.shaping.values import cell, listed, short, text, with_system
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn

MOST = 60_000
"""Questions in one row; the order of records has room for 2**16."""

_PARAGRAPHS, _QAS, _IMPOSSIBLE = ("paragraphs",), ("qas",), ("is_impossible",)


def _find(names: Index) -> Columns | None:
    nested = single(names, _PARAGRAPHS, "paragraphs") or single(names, _QAS, "questions")
    if nested is not None:
        return Columns(paragraphs=nested, context=context(names), system=system(names))
    question, answers = find_question(names), single(names, ("answers",), "answers")
    if question is None or answers is None:
        return None
    if others := present(names, ANSWERS):
        raise ambiguous("answer", [answers, *others])
    return Columns(
        question=question,
        answer=answers,
        context=context(names),
        system=system(names),
        impossible=single(names, _IMPOSSIBLE, "mark of a question without an answer"),
    )


def _questions(row: Row, columns: Columns) -> Made:
    if not columns.paragraphs:
        turns = (
            Turn("user", cell(row, columns.question), cell(row, columns.context) or None),
            Turn(
                "assistant",
                _answer(
                    row.values.get(columns.answer),
                    row.values.get(columns.impossible) if columns.impossible else None,
                    f"'{short(columns.answer)}'",
                    row.origin,
                ),
            ),
        )
        return Conversation(with_system(cell(row, columns.system), turns), row.origin)
    given = listed(row.values.get(columns.paragraphs))
    if not given:
        raise _not_nested(columns.paragraphs, row.values.get(columns.paragraphs), row.origin)
    lead = cell(row, columns.system)
    if any(isinstance(part, Mapping) and "qas" in part for part in given):
        made = [one for n, part in enumerate(given) for one in _paragraph(part, f"p{n + 1}", lead, row.origin)]
    else:
        whole = {"context": cell(row, columns.context), "qas": given}
        made = _paragraph(whole, "", lead, row.origin)
    if not made:
        raise _not_nested(columns.paragraphs, given, row.origin)
    if len(made) > MOST:
        raise KoalpacaError(
            "row-shape",
            f"{len(made):,} questions in one row are too many.",
            where=row.origin,
            fix=f"Write an article per row, of at most {MOST:,} questions.",
        )
    return tuple(made)


def _not_nested(name: str, given: Any, origin: str) -> KoalpacaError:
    return KoalpacaError(
        "row-shape",
        f"'{short(name)}' is {short(repr(given))}, not a list of questions.",
        where=origin,
        fix="It needs [{context, qas: [{id, question, answers: [{text}]}]}].",
    )


def _paragraph(part: Any, place: str, lead: str, origin: str) -> list[Conversation | Rejected]:
    questions = listed(part.get("qas")) if isinstance(part, Mapping) else None
    if questions is None:
        return [_set_aside(_not_nested("paragraphs", part, f"{origin}#{place}"), f"{origin}#{place}", part)]
    made: list[Conversation | Rejected] = []
    for n, question in enumerate(questions):
        name = question.get("id") if isinstance(question, Mapping) else None
        at = f"{origin}#{name}" if isinstance(name, str | int) else f"{origin}#{place}q{n + 1}"
        try:
            made.append(_one(part.get("context"), question, lead, at))
        except KoalpacaError as error:
            made.append(_set_aside(error, at, question))
    return made


def _set_aside(error: KoalpacaError, origin: str, given: Any) -> Rejected:
    return Rejected(origin, error.problems[0], given)


def _one(passage: Any, question: Any, lead: str, origin: str) -> Conversation:
    if not isinstance(question, Mapping) or "question" not in question or "answers" not in question:
        raise KoalpacaError(
            "row-shape",
            f"{short(repr(question))} is no question.",
            where=origin,
            fix="It needs question and answers.",
        )
    turns = (
        Turn("user", text(question["question"], "question", origin), text(passage, "context", origin) or None),
        Turn("assistant", _answer(question["answers"], question.get("is_impossible"), "answers", origin)),
    )
    return Conversation(with_system(lead, turns), origin)


def _answer(given: Any, impossible: Any, what: str, origin: str) -> str:
    if impossible is True or (isinstance(impossible, str) and impossible.strip().casefold() == "true"):
        raise KoalpacaError("row-empty", "the question is marked as one without an answer.", where=origin)
    if isinstance(given, Mapping):
        given = given.get("text")
    found = listed(given)
    if found is None and given is not None:
        # one answer may stand there as text
        return text(given, what, origin)
    if not found:
        raise KoalpacaError("row-empty", "there is no answer in the list.", where=origin)
    first = found[0]
    return text(first.get("text") if isinstance(first, Mapping) else first, f"{what}[0]", origin)


squad = Shape(
    "squad",
    "question/answers {text: [...]} (with context), or paragraphs [{context, qas}]",
    _questions,
    _find,
    proof="one row",
)
"""Questions on a passage with a list of answers, of which the first is taken."""
