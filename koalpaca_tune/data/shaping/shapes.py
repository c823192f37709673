"""The shapes by name, and the guess from a file's columns and first rows.

A shape is recognised by its column names and can be set by name. To add one, write a `Shape` and enter
it in `SHAPES`, the more particular first.
"""

from __future__ import annotations

from collections.abc import Sequence

from koalpaca_tune.data.rows import Row
from koalpaca_tune.data.shaping import preferences, rag
from koalpaca_tune.data.shaping.columns import ANSWERS, CONTEXTS, INPUTS, OUTPUTS, QUESTIONS, SYSTEMS, Columns, fold
from koalpaca_tune.data.shaping.dialogues import MESSAGES, SHAREGPT, ignored_keys, messages, sharegpt
from koalpaca_tune.data.shaping.mapped import MEANINGS, Mapped, mapped
from koalpaca_tune.data.shaping.pairs import alpaca, koalpaca, qa
from koalpaca_tune.data.shaping.preferences import preference
from koalpaca_tune.data.shaping.shape import SAMPLE, Made, Shape
from koalpaca_tune.data.shaping.squad import squad
from koalpaca_tune.data.shaping.texts import FORMATS, TEXTS, text
from koalpaca_tune.data.shaping.values import short
from koalpaca_tune.errors import KoalpacaError, did_you_mean

__all__ = [
    "FORMATS",
    "MEANINGS",
    "SAMPLE",
    "SHAPES",
    "WANTED",
    "Columns",
    "Made",
    "Mapped",
    "Shape",
    "find",
    "fold",
    "guess",
    "mapped",
    "recognises",
    "unused",
]

SHAPES: dict[str, Shape] = {
    shape.name: shape for shape in (preference, messages, sharegpt, squad, rag.rag, alpaca, koalpaca, qa, text)
}
"""Shape name -> how a row becomes conversations, in the order of the guess: the more particular first."""

WANTED = {name: shape.wanted for name, shape in SHAPES.items()}
"""What each shape looks for, for messages and the report."""

_ALSO_CALLED = {
    **dict.fromkeys(("kullm", "kullm-v2", "koalpaca-v1.0", "instruction"), "alpaca"),
    **dict.fromkeys(("koalpaca-v1.1", "koalpaca-v1.1a"), "koalpaca"),
    **dict.fromkeys(("openai", "chat", "conversation"), "messages"),
    **dict.fromkeys(("guanaco", "llama2", "chatml", "llama3", "prompt"), "text"),
    **dict.fromkeys(("dpo", "pairs", "hh", "ultrafeedback"), "preference"),
    **dict.fromkeys(("korquad", "klue-mrc", "mrc"), "squad"),
}


def find(shape: str, names: Sequence[str]) -> Columns | None:
    """The columns that a shape uses among these names; None when they do not make this shape.

    Raises:
        KoalpacaError: there is more than one way to choose them (shape-ambiguous).
    """
    return SHAPES[shape].find(names)


def recognises(names: Sequence[str]) -> bool:
    """Whether some shape can be made of these columns (in one way or in several)."""
    try:
        return any(shape.find(names) for shape in SHAPES.values())
    except KoalpacaError:
        return True


def guess(
    names: Sequence[str], where: str, shape: str | None = None, rows: Sequence[Row] = ()
) -> tuple[str, Columns]:
    """The shape of rows with these columns, and the columns that it uses.

    Args:
        names: column names of the file.
        where: the file, for errors.
        shape: the shape that the user named; None guesses.
        rows: the first rows, if there are any at hand (`SAMPLE` are looked at). They tell a list of
            messages from a number of them, and a column `text` of dialogues from one of articles.

    Raises:
        KoalpacaError: no such shape (shape-name), the columns make none (shape-unknown), or several
            choices (shape-ambiguous).
    """
    if shape is not None:
        return shape, _held_to(shape, names, where)
    fallback: tuple[str, Columns] | None = None
    unread = ""
    for candidate in SHAPES.values():
        try:
            columns = candidate.find(names)
        except KoalpacaError as error:
            if fallback is not None:
                break
            raise _at(error, where) from error
        if columns is None:
            continue
        if candidate.fits(rows):
            return candidate.name, columns
        if candidate.proof == "most rows":
            unread = f" Most of the first rows hold no dialogue in '{short(columns.text)}'."
        elif fallback is None:
            # its rows cannot be read, and each will say why
            fallback = candidate.name, columns
    if fallback is not None:
        return fallback
    raise KoalpacaError("shape-unknown", _unknown(names) + unread, where=where, fix=_advice(names))


def unused(names: Sequence[str], columns: Columns, rows: Sequence[Row] = ()) -> tuple[str, ...]:
    """What is not used: columns, and keys of messages in the first rows (`messages[].time`)."""
    keys = {
        f"{columns.messages}[].{key}"
        for row in rows[:SAMPLE]
        if columns.messages
        for key in ignored_keys(row.values.get(columns.messages))
    }
    return (*(name for name in names if name not in columns.used), *sorted(keys))


def _held_to(shape: str, names: Sequence[str], where: str) -> Columns:
    if shape not in SHAPES:
        other = _ALSO_CALLED.get(fold(shape))
        fix = f"It is called '{other}' here." if other else did_you_mean(shape, list(SHAPES))
        raise KoalpacaError("shape-name", f"'{shape}' is not a shape.", where="shape", fix=fix)
    try:
        columns = SHAPES[shape].find(names, named=True)
    except KoalpacaError as error:
        raise _at(error, where) from error
    if columns is None:
        what = f"the columns {_listed(names)} are not those of the shape '{shape}' ({WANTED[shape]})."
        raise KoalpacaError("shape-unknown", what, where=where, fix=_advice(names))
    return columns


def _at(error: KoalpacaError, where: str) -> KoalpacaError:
    problem = error.problems[0]
    return KoalpacaError("shape-ambiguous", problem.what, where=where, fix=problem.fix)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(short(name)) for name in names[:12]) + (", ..." if len(names) > 12 else "")


def _unknown(names: Sequence[str]) -> str:
    known = "; ".join(f"{name}: {wanted}" for name, wanted in WANTED.items())
    return f"the columns {_listed(names)} make no known shape. Shapes known: {known}."


def _advice(names: Sequence[str]) -> str:
    known = sorted({*QUESTIONS, *ANSWERS, *INPUTS, *OUTPUTS, *MESSAGES, *preferences.CHOSEN, *preferences.REJECTED})
    right = {*known, *SHAREGPT, *TEXTS, *CONTEXTS, *SYSTEMS, *rag.DOCUMENTS}
    for name in names:
        meant = did_you_mean(fold(name), known)
        if fold(name) not in right and meant.startswith("Did you mean"):
            return f"'{short(name)}': {meant}"
    return (
        "Say what the columns mean (--column question=... --column answer=...) or rename them in the header line; "
        "a file without one needs one, such as 질문,답변."
    )
