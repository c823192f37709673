"""One question and its answer: qa, alpaca (KULLM v2 and KoAlpaca v1.0 too), koalpaca."""

from __future__ import annotations

from dataclasses import replace

from koalpaca_tune.data.rows import Row
from koalpaca_tune.data.shaping.columns import (
    ANSWERS,
    COMMANDS,
    INPUTS,
    OUTPUTS,
    QUESTIONS,
    Columns,
    Index,
    context,
    pair,
    present,
    single,
    system,
)
from koalpaca_tune.data.shaping.shape import Shape
from koalpaca_tune.data.shaping.values import cell, short
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn

_ASKED = tuple(name for name in QUESTIONS if name not in COMMANDS)
# "a" and "q" only together: with other questions, A is the first of several choices
_FAMILIES = ((QUESTIONS, ANSWERS), (("q",), ("a",)), (_ASKED, OUTPUTS))
_INPUT_FAMILIES = ((INPUTS, (*OUTPUTS, *ANSWERS)),)
_ALPACA_ANSWERS = ("output", "response", "응답", "출력")


def find_question(names: Index) -> str | None:
    """The one column of the question, or None.

    Raises:
        KoalpacaError: there are several (shape-ambiguous).
    """
    return single(names, QUESTIONS, "question")


def _find_qa(names: Index) -> Columns | None:
    found = pair(names, _FAMILIES)
    if found is None and not present(names, QUESTIONS):
        # an input beside an instruction is context; alone it is what was asked
        found = pair(names, _INPUT_FAMILIES)
    if found is None:
        return None
    question, answer = found
    return Columns(question=question, answer=answer, context=context(names, question), system=system(names))


def _find_alpaca(names: Index) -> Columns | None:
    given = single(names, INPUTS, "input")
    found = _command(names) if given is not None else None
    if found is None:
        return None
    return Columns(question=found[0], answer=found[1], context=given, system=system(names))


def _find_alpaca_row(names: Index) -> Columns | None:
    found = _command(names)
    if found is None:
        return None
    given = single(names, INPUTS, "input")
    return Columns(question=found[0], answer=found[1], context=given, system=system(names))


def _command(names: Index) -> tuple[str, str] | None:
    return pair(names, ((COMMANDS, _ALPACA_ANSWERS),))


def _find_koalpaca(names: Index) -> Columns | None:
    question, answer = single(names, ("instruction",), "question"), single(names, ("output",), "answer")
    if question is None or answer is None:
        return None
    return Columns(question=question, answer=answer, system=system(names))


def _find_koalpaca_row(names: Index) -> Columns | None:
    found = _find_koalpaca(names)
    # an input among the first rows would have made the file alpaca; one further down must not be lost
    return found and replace(found, context=single(names, INPUTS, "input"))


def _instructed(row: Row, columns: Columns) -> Conversation:
    if columns.context and cell(row, columns.context).strip():
        raise KoalpacaError(
            "row-shape",
            f"the row has an '{short(columns.context)}', which the shape koalpaca does not use.",
            where=row.origin,
            fix="The shape alpaca takes it as context.",
        )
    return asked_and_answered(row, replace(columns, context=None) if columns.context else columns)


def asked_and_answered(row: Row, columns: Columns) -> Conversation:
    """A question and its answer, perhaps with a context and a system text.

    Raises:
        KoalpacaError: a value that is no text (row-type).
    """
    turns = (
        Turn("user", cell(row, columns.question), cell(row, columns.context) or None),
        Turn("assistant", cell(row, columns.answer)),
    )
    given = cell(row, columns.system)
    return Conversation((Turn("system", given), *turns) if given.strip() else turns, row.origin)


qa = Shape(
    "qa",
    "질문/답변, 문의내용/답변내용, question/answer, Q/A, prompt/completion, 명령어/응답 or input/output",
    asked_and_answered,
    _find_qa,
)
"""A question and its answer, perhaps with a context and a system text."""

alpaca = Shape(
    "alpaca", "instruction/input/output or 명령어/입력/응답", asked_and_answered, _find_alpaca, _find_alpaca_row
)
"""Alpaca, KULLM v2 and KoAlpaca v1.0: instruction, input (it becomes the context), output."""

koalpaca = Shape("koalpaca", "instruction/output", _instructed, _find_koalpaca, _find_koalpaca_row)
"""KoAlpaca v1.1: instruction and output; other columns (url) are not used, and an input is an error."""
