"""The key that divides records into training and validation."""

from __future__ import annotations

import hashlib

from koalpaca_tune.records import Conversation


def question_key(conversation: Conversation) -> int:
    """64 bits of the first question and its context, blind to spacing and letter case; uniform.

    The first question only: a longer version of the same talk belongs to the same side.
    """
    first = next(turn for turn in conversation.turns if turn.role == "user")
    text = "\x1f".join("".join(part.split()).casefold() for part in (first.content, first.context or ""))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
