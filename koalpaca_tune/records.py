"""The records that flow through the house: turns, conversations, rendered text, token ids.

row of a file -> Conversation -> Rendered (text, what to learn) -> Encoded (ids, labels)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from koalpaca_tune.errors import KoalpacaError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)

NOT_LEARNED = -100
"""Label of a position that the loss skips; torch's cross_entropy ignores it by default."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. `context` is material that comes with a question (맥락, 입력); only user turns have it."""

    role: Role
    content: str
    context: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order, with where they came from.

    Attributes:
        turns: an optional system turn, then user and assistant turns.
        id: stable hash of the turns: the same text has the same id in any file and order.
        origin: `file:row`, for every message about this record.
        source: the data set it belongs to (the file's name unless said otherwise).
        dispreferred: of a preference pair, the answer that lost against the last turn; it is kept and
            handed on, and not learned. Not part of the id.
    """

    turns: tuple[Turn, ...]
    origin: str = ""
    source: str = ""
    dispreferred: str | None = None

    @property
    def id(self) -> str:
        """16 hex digits of SHA-256 over roles, contents and contexts."""
        parts = (part for turn in self.turns for part in (turn.role, turn.content, turn.context or ""))
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """The shape written to train.jsonl: `messages` as other tools read it, plus id, origin, source."""
        messages = []
        for turn in self.turns:
            message = {"role": turn.role, "content": turn.content}
            if turn.context is not None:
                message["context"] = turn.context
            messages.append(message)
        row: dict[str, Any] = {"id": self.id, "origin": self.origin, "source": self.source, "messages": messages}
        if self.dispreferred is not None:
            row["dispreferred"] = self.dispreferred
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], origin: str) -> Conversation:
        """Reads `{"messages": [{"role", "content"[, "context"]}, ...]}`.

        Raises:
            KoalpacaError: a message that is not of this shape (row-shape), or turns out of order (row-turns).
        """
        messages = row.get("messages")
        if not isinstance(messages, list) or not messages:
            raise KoalpacaError(
                "row-shape", f"'messages' is {_short(messages)}, not a list of messages.", where=origin
            )
        turns = []
        for n, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("content"), str):
                raise KoalpacaError(
                    "row-shape", f"messages[{n}] is {_short(message)}; it needs role and content.", where=origin
                )
            role = message.get("role")
            if role not in ROLES:
                raise KoalpacaError(
                    "row-shape",
                    f"messages[{n}].role is {_short(role)}.",
                    where=origin,
                    fix=f"Known roles: {', '.join(ROLES)}.",
                )
            context = message.get("context")
            if context is not None and not isinstance(context, str):
                raise KoalpacaError(
                    "row-shape", f"messages[{n}].context is {_short(context)}, not text.", where=origin
                )
            turns.append(Turn(role, message["content"], context))
        stored, lost = row.get("origin"), row.get("dispreferred")
        conversation = cls(
            tuple(turns),
            stored if isinstance(stored, str) and stored else origin,
            str(row.get("source") or ""),
            lost if isinstance(lost, str) else None,
        )
        check_order(conversation)
        return conversation


def check_order(conversation: Conversation) -> None:
    """A system turn only first; then user and assistant in alternation, user first.

    Raises:
        KoalpacaError: with the first turn that breaks the order (row-turns).
    """
    turns = conversation.turns
    body = turns[1:] if turns and turns[0].role == "system" else turns
    if not body:
        raise KoalpacaError("row-turns", "there is no user turn.", where=conversation.origin)
    for n, turn in enumerate(body):
        expected = "user" if n % 2 == 0 else "assistant"
        if turn.role != expected:
            raise KoalpacaError(
                "row-turns",
                f"turn {n + 1} is '{turn.role}', expected '{expected}'.",
                where=conversation.origin,
                fix="Turns alternate: user, assistant, user, ...; a system turn only at the start.",
            )


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of rendered text.

    `frame` is the template's own text, `content` is the user's, `special` is one special token.
    Content is never read as a special token, whatever it spells.
    """

    text: str
    kind: Literal["frame", "content", "special"]
    learn: bool = False


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text, cut into pieces; `spans` are the character ranges to learn."""

    pieces: tuple[Piece, ...]
    origin: str = ""

    @property
    def text(self) -> str:
        """The whole text, special tokens spelt out."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Learned [start, end) ranges in characters, neighbours joined, in order."""
        spans: list[tuple[int, int]] = []
        start = 0
        for piece in self.pieces:
            end = start + len(piece.text)
            if piece.learn and piece.text:
                if spans and spans[-1][1] == start:
                    spans[-1] = (spans[-1][0], end)
                else:
                    spans.append((start, end))
            start = end
        return tuple(spans)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids and labels of one example, equally long; a label is the id itself or NOT_LEARNED.

    Labels stand at the position of their own token; the shift by one happens in the loss.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    origin: str = ""

    @property
    def learned(self) -> int:
        """How many tokens the loss counts (the first position has nothing before it to predict it from)."""
        return sum(label != NOT_LEARNED for label in self.labels[1:])


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
