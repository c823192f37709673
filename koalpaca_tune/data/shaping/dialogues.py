"""Lists of messages: role and content, or ShareGPT's from and value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from koalpaca_tune.data.rows import Row
from koalpaca_tune.data.shaping.columns import Columns, Index, key, single, system
from koalpaca_tune.data.shaping.roles import role_of, tool
from koalpaca_tune.data.shaping.shape import Shape
from koalpaca_tune.data.shaping.values import cell, listed, short, text, with_system
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn, check_order

MESSAGES = ("messages", "conversation", "대화")
SHAREGPT = ("conversations", "items")
ROLE_KEYS = ("role", "from", "speaker", "역할", "화자")
CONTENT_KEYS = ("content", "value", "text", "utterance", "내용", "발화")
CALLS = ("tool_calls", "function_call", "tool_call_id")
LEARN_FLAGS = ("weight", "train", "loss")
"""OpenAI's and axolotl's marks of answers that are not to be learned."""


def _find(names: Index, known: Sequence[str]) -> Columns | None:
    found = single(names, (*MESSAGES, *SHAREGPT), "list of messages")
    if found is None or key(found) not in known:
        return None
    lost = single(names, ("dispreferred",), "answer that lost")
    return Columns(messages=found, system=system(names), rejected=lost)


def _find_messages(names: Index) -> Columns | None:
    return _find(names, MESSAGES)


def _find_sharegpt(names: Index) -> Columns | None:
    return _find(names, SHAREGPT)


def _find_either(names: Index) -> Columns | None:
    return _find(names, (*MESSAGES, *SHAREGPT))


def dialogue(row: Row, columns: Columns) -> Conversation:
    """A list of messages; user turns may have a context.

    Raises:
        KoalpacaError: not such a list (row-shape, row-type, row-tool), or turns out of order (row-turns).
    """
    turns = with_system(
        cell(row, columns.system), turns_of(row.values.get(columns.messages), columns.messages, row)
    )
    lost = cell(row, columns.rejected)
    conversation = Conversation(turns, row.origin, dispreferred=lost or None)
    in_order(conversation)
    return conversation


def in_order(conversation: Conversation) -> None:
    """Like `check_order`, with a word for the old ShareGPT conversations that start with an answer.

    Raises:
        KoalpacaError: the first turn that breaks the order (row-turns).
    """
    first = next((turn for turn in conversation.turns if turn.role != "system"), None)
    if first is not None and first.role == "assistant":
        raise KoalpacaError(
            "row-turns",
            f"it starts with an answer ('{short(first.content)}'): the question is missing.",
            where=conversation.origin,
            fix="Put the question before it, or cut the answer off.",
        )
    check_order(conversation)


def turns_of(given: Any, name: str, row: Row) -> tuple[Turn, ...]:
    """The turns of a list of messages, in whatever order they are.

    Raises:
        KoalpacaError: not such a list (row-shape, row-type, row-tool).
    """
    messages = given if isinstance(given, list) else listed(given)
    if not messages:
        raise KoalpacaError(
            "row-shape",
            f"'{short(name)}' is {short(repr(given))}, not a list of messages.",
            where=row.origin,
        )
    return tuple(_turn(message, f"{short(name)}[{n}]", row.origin) for n, message in enumerate(messages))


def is_messages(value: Any) -> bool:
    """Whether this is meant as a list of messages, stored as one or as text."""
    found = listed(value)
    return bool(found) and all(isinstance(message, dict) for message in found or ())


def ignored_keys(given: Any) -> set[str]:
    """Keys of messages that are not used (ids, times, ...)."""
    used = {*ROLE_KEYS, *CONTENT_KEYS, *CALLS, "context"}
    messages = listed(given) or []
    return {str(name) for message in messages if isinstance(message, dict) for name in message if name not in used}


def _turn(message: Any, what: str, origin: str) -> Turn:
    if not isinstance(message, dict):
        raise KoalpacaError("row-shape", f"{what} is {short(repr(message))}, not a message.", where=origin)
    role_key, content_key = _one(message, ROLE_KEYS, what, origin), _one(message, CONTENT_KEYS, what, origin)
    for name in CALLS:
        if message.get(name):
            raise tool(f"{what} has '{name}'", origin)
    if role_key is None or content_key is None:
        raise KoalpacaError(
            "row-shape",
            f"{what} has {short(', '.join(map(repr, message))) or 'nothing'}.",
            where=origin,
            fix="A message needs role and content (or from and value).",
        )
    role = role_of(message[role_key], f"{what}.{role_key}", origin)
    if role == "assistant":
        _check_flags(message, what, origin)
    context = message.get("context") if role == "user" else None
    content = message[content_key]
    if not isinstance(content, str):
        content = _joined(content, f"{what}.{content_key}", origin)
    return Turn(role, content, text(context, f"{what}.context", origin) or None)


def _one(message: Mapping[Any, Any], known: Sequence[str], what: str, origin: str) -> str | None:
    found = [name for name in known if name in message]
    if len(found) > 1:
        # Arrow fills what a message lacks with null
        found = [name for name in found if message[name] is not None] or found[:1]
    if len(found) > 1 and any(message[name] != message[found[0]] for name in found):
        raise KoalpacaError(
            "row-shape",
            f"{what} has both {' and '.join(repr(name) for name in found)}, and they differ.",
            where=origin,
            fix="Keep one of them.",
        )
    return found[0] if found else None


def _check_flags(message: Mapping[Any, Any], what: str, origin: str) -> None:
    for name in LEARN_FLAGS:
        if message.get(name) in (0, False):
            raise KoalpacaError(
                "row-weight",
                f"{what}.{name} is {message[name]!r}: an answer cannot be kept out of learning here.",
                where=origin,
                fix="Take the mark out to learn every answer, or cut the conversation before it.",
            )


def _joined(content: Any, what: str, origin: str) -> str:
    if not isinstance(content, list):
        return text(content, what, origin)
    parts = []
    for n, part in enumerate(content):
        if isinstance(part, str):
            parts.append(part)
        elif isinstance(part, dict) and part.get("type") == "text":
            parts.append(text(part.get("text"), f"{what}[{n}].text", origin))
        else:
            kind = part.get("type") if isinstance(part, dict) else part
            raise KoalpacaError("row-type", f"{what}[{n}] is {short(repr(kind))}; only text is read.", where=origin)
    return "".join(parts)


messages = Shape(
    "messages",
    "messages [{role, content}]",
    dialogue,
    _find_messages,
    _find_either,
    proof="one row",
)
"""A list of messages: role and content; user turns may have a context."""

sharegpt = Shape(
    "sharegpt",
    "conversations [{from, value}] or items",
    dialogue,
    _find_sharegpt,
    _find_either,
    proof="one row",
)
"""ShareGPT: a list of messages, from and value."""
