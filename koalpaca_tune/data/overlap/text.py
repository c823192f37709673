"""What two texts are compared on: their letters, digits and signs that carry meaning, without dress.

A talk as one string (`near_text`, `question_text`) keeps its parts apart: TURN between turns, CONTEXT
before material that came with a question.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from koalpaca_tune.records import Conversation, Turn

TURN, CONTEXT = "\x1e", "\x1f"

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# A hyphen, a full stop, a colon ... between two operands says something (3.5, a-b, 1 / 2), and so does a
# minus before a number; elsewhere they are punctuation.
_SAYING = re.compile(
    r"[^\W_]+|[+=<>×÷√±≤≥≠%₩$€£¥]+|-(?=\d)"
    r"|(?<=[0-9a-z)])[-*/^.:](?=[0-9a-z(])|(?<=[0-9a-z)] )[-*/^.:](?= [0-9a-z(])"
)
_OPERAND = re.compile("[0-9a-z]")
_LETTERS = re.compile(r"[^\W_]+")
_GAP = re.compile(r"(?<!\d) | (?!\d)")
_LAUGHTER = re.compile(r"([ㄱ-ㅣ])\1+")
_BREAKS = str.maketrans("", "", TURN + CONTEXT)
_BREAK = re.compile(f"[{TURN}{CONTEXT}]")

_REMEMBERED_CHARS = 2_000
"""Characters of a text up to which its normalised form is remembered for a while: keys, signatures and the
evaluation's items all ask for those of one batch. At most about 30 MiB."""


def normalise(text: str) -> str:
    """A text without what does not make it another text.

    NFC, letter case folded, no white space but one between two numbers, no punctuation or emoji, ㅋㅋㅋ as ㅋ,
    1,000 as 1000. In a text with numbers or Latin letters, signs of arithmetic, percent and currency stay, and
    the point in 3.5: 3+4 is not 34. A text of nothing but punctuation and emoji stays, without white space.
    """
    return _remembered(text) if len(text) <= _REMEMBERED_CHARS else _normalised(text)


def _normalised(text: str) -> str:
    return bare(text) or "".join(unicodedata.normalize("NFC", text).casefold().split())


_remembered = lru_cache(maxsize=4096)(_normalised)


def bare(text: str) -> str:
    """As `normalise`; empty for a text of nothing but punctuation and emoji."""
    plain = unicodedata.normalize("NFC", text).casefold()
    if "," in plain:
        plain = _THOUSANDS.sub("", plain)
    if _OPERAND.search(plain):
        left = _GAP.sub("", " ".join(_SAYING.findall(plain)))
    else:
        left = "".join(_LETTERS.findall(plain))
    return _LAUGHTER.sub(r"\1", left)


def exact_key(conversation: Conversation) -> bytes:
    """16 bytes of all turns, blind only to how much space stands between words."""
    return _key(" ".join(part.split()) for part in _parts(conversation.turns))


def normalised_key(conversation: Conversation) -> bytes:
    """16 bytes of all turns, system turns included, each part as `normalise` leaves it."""
    return _key(normalise(part) for part in _parts(conversation.turns))


def near_text(conversation: Conversation) -> str:
    """All turns but system turns, with their contexts: an instruction that many records share is no likeness."""
    return TURN.join(_spoken(turn) for turn in conversation.turns if turn.role != "system")


def question_text(conversation: Conversation) -> str:
    """The first question with its context."""
    return _spoken(next(turn for turn in conversation.turns if turn.role == "user"))


def _spoken(turn: Turn) -> str:
    content = _unbroken(turn.content)
    return content if turn.context is None else content + CONTEXT + _unbroken(turn.context)


def _unbroken(text: str) -> str:
    return text.translate(_BREAKS) if _BREAK.search(text) else text


def _parts(turns: tuple[Turn, ...]) -> list[str]:
    return [part for turn in turns for part in (turn.role, turn.content, turn.context or "")]


def _key(parts: Iterable[str]) -> bytes:
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).digest()[:16]
