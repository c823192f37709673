"""Small repairs that change no meaning, each counted: line ends, invisible characters, NFC, outer space.

The order matters and the result is stable: cleaning a second time changes nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn

_LINE_END = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")

# A joiner belongs to what it joins: emoji families, and the letters of Arabic and Indic scripts.
_JOINER = "(?<![\u0600-\u109f\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff])[\u200c\u200d]"
# Control characters (tab and line feed stay), soft hyphen, zero-width space, directional marks, word
# joiner and its kin, byte order mark, and the Hangul fillers, which look like nothing and are letters.
_HIDDEN = (
    "[\0-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\u00ad\u115f\u1160\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u2069\u3164\ufeff\uffa0\ufff9-\ufffb]"
)
_INVISIBLE = re.compile(f"{_HIDDEN}|{_JOINER}")
_LOST = re.compile("[\ud800-\udfff\ufffd]")


def _line_ends(text: str) -> str:
    return _LINE_END.sub("\n", text)


def _invisible(text: str) -> str:
    return _INVISIBLE.sub("", text)


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


STEPS: dict[str, Callable[[str], str]] = {
    "line-ends": _line_ends,
    "invisible": _invisible,
    "nfc": _nfc,
    "outer-space": str.strip,
}
"""Step -> what it does to a text, in the order in which they run."""

TRIMMED = "trailing-question"
"""The step that cuts a last question without an answer off a longer conversation."""


def clean(conversation: Conversation) -> tuple[Conversation, tuple[str, ...]]:
    """A cleaned conversation and the names of the steps that changed it.

    Raises:
        KoalpacaError: characters that are already lost (row-encoding), or a question or answer that is
            empty (row-empty).
    """
    changed: set[str] = set()
    turns = [_turn(turn, changed, conversation.origin) for turn in conversation.turns]
    if turns[0].role == "system" and not turns[0].content:
        del turns[0]
    if turns[-1].role == "user" and len(turns) > 2 and turns[-2].role == "assistant":
        del turns[-1]
        changed.add(TRIMMED)
    for turn in turns:
        if not turn.content:
            which = "question" if turn.role == "user" else "answer"
            raise KoalpacaError("row-empty", f"the {which} is empty.", where=conversation.origin)
    if turns[-1].role != "assistant":
        raise KoalpacaError("row-empty", "there is no answer.", where=conversation.origin)
    steps = tuple(step for step in (*STEPS, TRIMMED) if step in changed)
    return replace(conversation, turns=tuple(turns)), steps


def _turn(turn: Turn, changed: set[str], origin: str) -> Turn:
    context = _text(turn.context, changed, origin) if turn.context is not None else None
    return Turn(turn.role, _text(turn.content, changed, origin), context or None)


def _text(text: str, changed: set[str], origin: str) -> str:
    if lost := _LOST.search(text):
        raise KoalpacaError(
            "row-encoding",
            f"character {lost.start() + 1:,} of the text is lost: it could not be decoded.",
            where=origin,
            fix="Export the file again, as UTF-8.",
        )
    for name, step in STEPS.items():
        before, text = text, step(text)
        if text != before:
            changed.add(name)
    return text
