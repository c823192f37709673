"""Which columns mean what: a row becomes a conversation.

A shape is recognised by its column names (in any case, NFC or NFD) and can be set by name. To add one,
write a function from `Row` to `Conversation` and enter it in `SHAPES` and in `_FINDERS`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from koalpaca_tune.data.rows import Row, readable
from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.records import Conversation, Role, Turn, check_order

PAIRS = (
    ("질문", "답변"),
    ("질문", "응답"),
    ("질문", "대답"),
    ("문의", "답변"),
    ("명령어", "응답"),
    ("명령어", "답변"),
    ("명령", "응답"),
    ("지시", "응답"),
    ("지시문", "응답"),
    ("question", "answer"),
    ("question", "response"),
    ("q", "a"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("query", "answer"),
    ("query", "response"),
    ("instruction", "response"),
    ("instruction", "answer"),
)
"""Columns of a question and its answer (shape qa)."""

ALPACA_PAIRS = (
    ("instruction", "output"),
    ("instruction", "response"),
    ("명령어", "응답"),
    ("명령어", "출력"),
    ("지시", "출력"),
    ("지시문", "출력"),
)
INPUTS = ("input", "입력")
CONTEXTS = ("context", "맥락", "문맥", "지문", *INPUTS)
SYSTEMS = ("system", "system_prompt", "시스템")
MESSAGES = ("messages", "conversations", "conversation", "대화")
ROLE_KEYS = ("role", "from", "역할", "화자")
CONTENT_KEYS = ("content", "value", "내용", "발화")
ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "사용자": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "챗봇": "assistant",
}


@lru_cache(maxsize=4096)
def fold(name: str) -> str:
    """A column name as it is compared: NFC, small letters, no outer space."""
    return unicodedata.normalize("NFC", name).strip().casefold()


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of one row (or file) that a shape uses, under the names they have there."""

    question: str = ""
    answer: str = ""
    context: str | None = None
    system: str | None = None
    messages: str = ""

    @property
    def used(self) -> tuple[str, ...]:
        """The names, without the empty ones."""
        parts = (self.system, self.question, self.context, self.answer, self.messages)
        return tuple(part for part in parts if part)


Names = tuple[str, ...]


def _single(names: Mapping[str, str], known: Sequence[str], meaning: str) -> str | None:
    found = [names[name] for name in known if name in names]
    if len(found) > 1:
        raise _ambiguous(meaning, found)
    return found[0] if found else None


def _pair(names: Mapping[str, str], pairs: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    found = [(names[q], names[a]) for q, a in pairs if q in names and a in names]
    if len(found) > 1:
        raise _ambiguous("question and answer", [f"{q}/{a}" for q, a in found])
    return found[0] if found else None


def _ambiguous(meaning: str, found: Sequence[str]) -> KoalpacaError:
    return KoalpacaError(
        "shape-ambiguous",
        f"more than one choice for the {meaning}: {', '.join(repr(readable(name)) for name in found)}.",
        fix="Remove or rename the columns that are not meant.",
    )


def _find_qa(names: Mapping[str, str]) -> Columns | None:
    pair = _pair(names, PAIRS)
    if pair is None:
        return None
    return Columns(*pair, _single(names, CONTEXTS, "context"), _single(names, SYSTEMS, "system text"))


def _find_alpaca(names: Mapping[str, str]) -> Columns | None:
    given = _single(names, INPUTS, "input")
    pair = _pair(names, ALPACA_PAIRS) if given is not None else None
    return Columns(*pair, given, _single(names, SYSTEMS, "system text")) if pair else None


def _find_koalpaca(names: Mapping[str, str]) -> Columns | None:
    if "instruction" not in names or "output" not in names:
        return None
    return Columns(names["instruction"], names["output"], system=_single(names, SYSTEMS, "system text"))


def _find_messages(names: Mapping[str, str]) -> Columns | None:
    found = _single(names, MESSAGES, "list of messages")
    return Columns(messages=found, system=_single(names, SYSTEMS, "system text")) if found else None


# in the order of the guess: the more particular first
_FINDERS: dict[str, Callable[[Mapping[str, str]], Columns | None]] = {
    "messages": _find_messages,
    "alpaca": _find_alpaca,
    "koalpaca": _find_koalpaca,
    "qa": _find_qa,
}

WANTED = {
    "messages": "messages [{role, content}] or conversations [{from, value}]",
    "alpaca": "instruction/input/output or 명령어/입력/응답",
    "koalpaca": "instruction/output",
    "qa": "질문/답변, question/answer, Q/A, prompt/completion or 명령어/응답",
}
"""What each shape looks for, for messages and the report."""


@lru_cache(maxsize=256)
def find(shape: str, names: Names) -> Columns | None:
    """The columns that a shape uses among these names; None when they do not make this shape.

    Raises:
        KoalpacaError: there is more than one way to choose them (shape-ambiguous).
    """
    return _FINDERS[shape]({fold(name): name for name in names})


def recognises(names: Sequence[str]) -> bool:
    """Whether some shape can be made of these columns (in one way or in several)."""
    try:
        return any(find(shape, tuple(names)) for shape in SHAPES)
    except KoalpacaError:
        return True


def guess(names: Sequence[str], where: str, shape: str | None = None) -> tuple[str, Columns]:
    """The shape of rows with these columns, and the columns that it uses.

    Args:
        names: column names of the file.
        where: the file, for errors.
        shape: the shape that the user named; None guesses.

    Raises:
        KoalpacaError: no such shape (shape-name), the columns make none (shape-unknown), or several
            choices (shape-ambiguous).
    """
    if shape is not None and shape not in SHAPES:
        raise KoalpacaError(
            "shape-name", f"'{shape}' is not a shape.", where="shape", fix=did_you_mean(shape, list(SHAPES))
        )
    for candidate in [shape] if shape else SHAPES:
        try:
            columns = find(candidate, tuple(names))
        except KoalpacaError as error:
            problem = error.problems[0]
            raise KoalpacaError("shape-ambiguous", problem.what, where=where, fix=problem.fix) from error
        if columns:
            return candidate, columns
    raise KoalpacaError("shape-unknown", _unknown(names, shape), where=where, fix=_advice(names))


def _unknown(names: Sequence[str], shape: str | None) -> str:
    found = ", ".join(repr(_short(name)) for name in names[:12]) + (", ..." if len(names) > 12 else "")
    if shape:
        return f"the columns {found} are not those of the shape '{shape}' ({WANTED[shape]})."
    known = "; ".join(f"{name}: {wanted}" for name, wanted in WANTED.items())
    return f"the columns {found} make no known shape. Shapes known: {known}."


def _advice(names: Sequence[str]) -> str:
    known = sorted({name for pair in PAIRS + ALPACA_PAIRS for name in pair} | {*INPUTS, *MESSAGES})
    for name in names:
        meant = did_you_mean(fold(name), known)
        if fold(name) not in known and meant.startswith("Did you mean"):
            return f"'{_short(name)}': {meant}"
    return "Rename the columns in the header line; a file without one needs one, such as 질문,답변."


def _short(text: str) -> str:
    text = readable(text)
    return text if len(text) <= 30 else text[:27] + "..."


def _columns(shape: str, row: Row) -> Columns:
    try:
        columns = find(shape, tuple(row.values))
    except KoalpacaError as error:
        problem = error.problems[0]
        raise KoalpacaError("row-shape", problem.what, where=row.origin, fix=problem.fix) from error
    if columns is None:
        names = ", ".join(repr(_short(name)) for name in row.values) or "no columns"
        raise KoalpacaError("row-shape", f"the row has {names}; it needs {WANTED[shape]}.", where=row.origin)
    return columns


def _text(value: Any, what: str, origin: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise KoalpacaError(
            "row-type", f"{what} is {_short(repr(value))}, not text.", where=origin, fix="Write it in quotes."
        )
    return value


def _asked_and_answered(row: Row, columns: Columns) -> Conversation:
    def text(name: str | None) -> str:
        return _text(row.values[name], f"'{_short(name)}'", row.origin) if name else ""

    turns = (
        Turn("user", text(columns.question), text(columns.context) or None),
        Turn("assistant", text(columns.answer)),
    )
    system = text(columns.system)
    return Conversation((Turn("system", system), *turns) if system.strip() else turns, row.origin)


def qa(row: Row) -> Conversation:
    """A question and its answer, perhaps with a context and a system text.

    Raises:
        KoalpacaError: columns missing (row-shape), a value that is no text (row-type).
    """
    return _asked_and_answered(row, _columns("qa", row))


def alpaca(row: Row) -> Conversation:
    """Alpaca and KoAlpaca v1.0: instruction, input (it becomes the context), output.

    Raises:
        KoalpacaError: columns missing (row-shape), a value that is no text (row-type).
    """
    if not any(fold(name) in INPUTS for name in row.values):
        # JSON writers leave an empty input out
        row = Row(row.origin, {**row.values, "input": ""})
    return _asked_and_answered(row, _columns("alpaca", row))


def koalpaca(row: Row) -> Conversation:
    """KoAlpaca v1.1: instruction and output; other columns (url) are not used.

    Raises:
        KoalpacaError: columns missing (row-shape), a value that is no text (row-type).
    """
    return _asked_and_answered(row, _columns("koalpaca", row))


def messages(row: Row) -> Conversation:
    """A list of messages: role and content, or ShareGPT's from and value; user turns may have a context.

    Raises:
        KoalpacaError: not such a list (row-shape, row-type), or turns out of order (row-turns).
    """
    columns = _columns("messages", row)
    given = row.values[columns.messages]
    if not isinstance(given, list) or not given:
        raise KoalpacaError(
            "row-shape", f"'{columns.messages}' is {_short(repr(given))}, not a list of messages.", where=row.origin
        )
    turns = [_turn(message, f"{columns.messages}[{n}]", row.origin) for n, message in enumerate(given)]
    system = _text(row.values[columns.system], f"'{columns.system}'", row.origin) if columns.system else ""
    if system.strip():
        # a second system turn is refused with the turns out of order
        turns.insert(0, Turn("system", system))
    conversation = Conversation(tuple(turns), row.origin)
    check_order(conversation)
    return conversation


def _turn(message: Any, what: str, origin: str) -> Turn:
    if not isinstance(message, dict):
        raise KoalpacaError("row-shape", f"{what} is {_short(repr(message))}, not a message.", where=origin)
    role_key = next((key for key in ROLE_KEYS if key in message), None)
    content_key = next((key for key in CONTENT_KEYS if key in message), None)
    if role_key is None or content_key is None:
        raise KoalpacaError(
            "row-shape",
            f"{what} has {_short(', '.join(map(repr, message)))}.",
            where=origin,
            fix="A message needs role and content (or from and value).",
        )
    said = message[role_key]
    role = ROLES.get(fold(said)) if isinstance(said, str) else None
    if role is None:
        raise KoalpacaError(
            "row-shape",
            f"{what}.{role_key} is {_short(repr(said))}.",
            where=origin,
            fix=f"Known roles: {', '.join(ROLES)}.",
        )
    context = message.get("context") if role == "user" else None
    return Turn(
        role,
        _text(message[content_key], f"{what}.{content_key}", origin),
        _text(context, f"{what}.context", origin) or None,
    )


SHAPES: dict[str, Callable[[Row], Conversation]] = {
    "messages": messages,
    "alpaca": alpaca,
    "koalpaca": koalpaca,
    "qa": qa,
}
"""Shape name -> how a row becomes a conversation."""
