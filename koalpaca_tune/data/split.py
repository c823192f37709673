"""Duplicates, and the division into training and validation by a stable hash of the question.

A record's side depends on its own question only: neither the order of the rows nor rows added later
move it, and one question never stands on both sides.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation

_SPACE = 2**64


def question_key(conversation: Conversation) -> int:
    """64 bits of the first question and its context, blind to spacing and letter case; uniform.

    The first question only: a longer version of the same talk belongs to the same side.
    """
    first = next(turn for turn in conversation.turns if turn.role == "user")
    text = "\x1f".join("".join(part.split()).casefold() for part in (first.content, first.context or ""))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def record_key(conversation: Conversation) -> bytes:
    """16 bytes of all turns, blind only to how much space stands between words."""
    parts = (part for turn in conversation.turns for part in (turn.role, turn.content, turn.context or ""))
    text = "\x1f".join(" ".join(part.split()) for part in parts)
    return hashlib.sha256(text.encode()).digest()[:16]


@dataclass(slots=True)
class Seen:
    """The records so far: what is a duplicate, and which questions have several answers."""

    _records: set[bytes] = field(default_factory=set)
    _questions: Counter[int] = field(default_factory=Counter)

    def add(self, conversation: Conversation) -> int | None:
        """The record's question key, or None when the same record was there before."""
        record = record_key(conversation)
        if record in self._records:
            return None
        self._records.add(record)
        question = question_key(conversation)
        self._questions[question] += 1
        return question

    @property
    def questions(self) -> int:
        """How many different questions there are."""
        return len(self._questions)

    @property
    def conflicts(self) -> tuple[int, int]:
        """Questions that have more than one answer, and the records that share them."""
        several = [count for count in self._questions.values() if count > 1]
        return len(several), sum(several)

    def cut(self, valid_share: float) -> tuple[int, str]:
        """Records with a question key below the cut are for validation.

        Returns:
            The cut, and which side would have been empty ("valid", "train" or ""): then the question
            with the smallest (largest) key goes there.

        Raises:
            KoalpacaError: too few records to have both sides (split-too-few).
        """
        if len(self._questions) < 2:
            count = len(self._records)
            what = f"there are {count} usable records" + (", all with one question." if count > 1 else ".")
            raise KoalpacaError(
                "split-too-few",
                what.replace("are 1 usable records", "is 1 usable record"),
                fix="Training and validation need at least 2 different questions.",
            )
        cut = round(valid_share * _SPACE)
        smallest, largest = min(self._questions), max(self._questions)
        if smallest >= cut:
            return smallest + 1, "valid"
        if largest < cut:
            return largest, "train"
        return cut, ""


def check_share(valid_share: float) -> None:
    """Refuses a share that leaves one side empty.

    Raises:
        KoalpacaError: not between 0 and 1 (split-share).
    """
    if not 0 < valid_share < 1:
        raise KoalpacaError(
            "split-share",
            f"the share for validation is {valid_share}.",
            where="valid_share",
            fix="It lies between 0 and 1, such as 0.1.",
        )
