"""Repairs that change no meaning, each counted.

The order of the steps matters, and the result is stable: the steps run until nothing changes, so that
cleaning a second time changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from operator import is_

from koalpaca_tune.config.cleaning import STEPS as DEFAULT
from koalpaca_tune.config.cleaning import Step
from koalpaca_tune.data.cleaning import characters, laughter, markup, mojibake, spaces, special_tokens
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn

STEPS: dict[Step, Callable[[str], str]] = {
    "mojibake": mojibake.repair,
    "line-ends": characters.line_ends,
    "markup": markup.strip,
    "invisible": characters.invisible,
    "nfc": characters.nfc,
    "width": characters.width,
    "jamo": characters.jamo,
    "special-tokens": special_tokens.neutralise,
    "laughter": laughter.shorten,
    "spaces": spaces.tidy,
    "outer-space": str.strip,
}
"""Step -> what it does to a text."""

TRIMMED = "trailing-question"
"""The step that cuts a last question without an answer off a longer conversation; it always runs, first."""

DESCRIPTIONS: dict[str, str] = {
    TRIMMED: "답 없는 마지막 질문을 잘라냄",
    "mojibake": "인코딩이 틀려 깨진 글자를 되돌림(증명될 때만)",
    "line-ends": "줄바꿈을 LF로 통일",
    "markup": "HTML 태그와 엔티티 찌꺼기 제거",
    "invisible": "보이지 않는 문자·제어 문자 제거",
    "nfc": "자모로 풀린 글자를 NFC로 합침",
    "width": "전각 영문·숫자·기호를 보통 글자로",
    "jamo": "반각 자모와 낱자로 친 음절을 합침",
    "special-tokens": "글 속의 특수 토큰을 띄어 써서 무해하게",
    "laughter": "길게 늘인 ㅋㅋ·ㅠㅠ·!!를 짧게",
    "spaces": "겹친 공백과 빈 줄 정리",
    "outer-space": "앞뒤 공백 제거",
}
"""Step -> Korean, in the order in which they run by default."""

DESCRIPTIONS_EN: dict[str, str] = {
    TRIMMED: "a last question without an answer cut off",
    "mojibake": "text read in the wrong encoding repaired (only where proved)",
    "line-ends": "line ends made LF",
    "markup": "remains of HTML tags and entities removed",
    "invisible": "invisible and control characters removed",
    "nfc": "decomposed letters composed (NFC)",
    "width": "full-width letters, digits and marks made plain",
    "jamo": "half-width jamo and syllables typed apart composed",
    "special-tokens": "literal special tokens made harmless by a space",
    "laughter": "long runs of ㅋㅋ, ㅠㅠ, !! shortened",
    "spaces": "repeated spaces and empty lines tidied",
    "outer-space": "space around the text removed",
}
"""Step -> English."""


@dataclass(frozen=True, slots=True)
class Change:
    """The first place that a step changed, in at most 80 characters; hidden characters are spelled out.

    Runs of three digits or more are hidden: nothing personal is shown, and examples are taken before
    personal data is masked.
    """

    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A conversation after cleaning, and for each step that changed it the first change, in the order run."""

    conversation: Conversation
    changes: Mapping[str, Change]


_LOST = re.compile("[\ud800-\udfff\ufffd]")
# Text of nothing but these needs no step that looks at single characters.
_UNUSUAL = re.compile(f"[^\n -~{mojibake.KS_X_1001}‘’“”…·→※○●◎◇◆□■△▲▽▼☆★♡♥♪《》「」『』【】〈〉∼×÷±°℃㎏㎡]")
_FOR_UNUSUAL: frozenset[str] = frozenset(("mojibake", "line-ends", "invisible", "nfc", "width", "jamo"))
_ROUNDS = 8


def clean(conversation: Conversation, steps: Sequence[Step] = DEFAULT) -> Cleaned:
    """Cleans every turn, context and the answer that lost.

    Args:
        conversation: it need not be complete; a last question without an answer is cut off.
        steps: keys of `STEPS`, in the order in which they run.

    Raises:
        KoalpacaError: characters that are already lost (row-encoding), or a question or answer that is
            empty (row-empty).
    """
    changes: dict[str, Change] = {}
    turns = conversation.turns
    if len(turns) > 2 and turns[-1].role == "user" and turns[-2].role == "assistant":
        changes[TRIMMED] = Change(_shown(turns[-1].content, 0), "")
        turns = turns[:-1]
    texts = _Texts(turns, conversation.origin, tuple(steps), changes)
    made = tuple([texts.turn(turn) for turn in turns])
    if made and made[0].role == "system" and not made[0].content:
        made = made[1:]
    dispreferred = texts.text(conversation.dispreferred) if conversation.dispreferred is not None else None
    _check(made, dispreferred, conversation.origin)
    if not changes and len(made) == len(conversation.turns) and all(map(is_, made, conversation.turns)):
        return Cleaned(conversation, changes)
    order = {step: n for n, step in enumerate((TRIMMED, *steps))}
    return Cleaned(
        replace(conversation, turns=made, dispreferred=dispreferred),
        dict(sorted(changes.items(), key=lambda item: order[item[0]])),
    )


def _check(turns: tuple[Turn, ...], dispreferred: str | None, origin: str) -> None:
    for turn in turns:
        if not turn.content:
            which = "question" if turn.role == "user" else "answer"
            raise KoalpacaError("row-empty", f"the {which} is empty.", where=origin)
    if dispreferred == "":
        raise KoalpacaError("row-empty", "the answer that lost is empty.", where=origin)
    if not turns or turns[-1].role != "assistant":
        raise KoalpacaError("row-empty", "there is no answer.", where=origin)


class _Texts:
    """Cleans the texts of one conversation and notes the first change of each step."""

    __slots__ = ("_about_markup", "_changes", "_origin", "_steps", "_turns")

    def __init__(
        self, turns: tuple[Turn, ...], origin: str, steps: tuple[Step, ...], changes: dict[str, Change]
    ) -> None:
        self._turns = turns
        self._origin = origin
        self._steps = steps
        self._changes = changes
        self._about_markup: bool | None = None

    def turn(self, turn: Turn) -> Turn:
        content = self.text(turn.content)
        context = self.text(turn.context) if turn.context is not None else None
        if content is turn.content and context is turn.context and context != "":
            return turn
        return Turn(turn.role, content, context or None)

    def text(self, text: str) -> str:
        for _ in range(_ROUNDS):
            before, text = text, self._once(text)
            if text is before:
                break
        return text

    def _once(self, text: str) -> str:
        unusual = _UNUSUAL.search(text) is not None
        if unusual and (at := _LOST.search(text)):
            raise self._lost(f"character {at.start() + 1:,} of the text is lost: it could not be decoded.")
        for name, step in _plan(self._steps, unusual, ("<" in text or "&" in text) and not self._about()):
            after = step(text)
            if after != text:
                if name not in self._changes:
                    self._changes[name] = _change(text, after)
                text = after
        if unusual and "mojibake" in self._steps and (what := mojibake.lost(text)):
            raise self._lost(what)
        return text

    def _lost(self, what: str) -> KoalpacaError:
        return KoalpacaError("row-encoding", what, where=self._origin, fix="Export the file again, as UTF-8.")

    def _about(self) -> bool:
        """Whether any turn talks about markup or code."""
        if self._about_markup is None:
            self._about_markup = any(
                markup.subject(turn.content) or (turn.context is not None and markup.subject(turn.context))
                for turn in self._turns
            )
        return self._about_markup


@cache
def _plan(
    steps: tuple[Step, ...], unusual: bool, markup_signs: bool
) -> tuple[tuple[Step, Callable[[str], str]], ...]:
    return tuple(
        (step, STEPS[step])
        for step in steps
        if (unusual or step not in _FOR_UNUSUAL) and (markup_signs or step != "markup")
    )


_SHOWN = 80
_AROUND = 16
_HIDDEN = re.compile("[0-9]{3,}|[^\\s@]+@[^\\s@]+")


def _change(before: str, after: str) -> Change:
    pairs = enumerate(zip(before, after, strict=False))
    at = next((n for n, (one, other) in pairs if one != other), min(len(before), len(after)))
    return Change(_shown(before, at), _shown(after, at))


def _shown(text: str, at: int) -> str:
    """A piece of text around a place, with what cannot be seen spelled out and long numbers hidden."""
    start = max(0, at - _AROUND)
    piece = _HIDDEN.sub(lambda match: "#" * len(match[0]), text[start : at + 2 * _AROUND])
    shown = "".join(map(_visible, piece))
    return f"{'…' * (start > 0)}{shown}{'…' * (at + 2 * _AROUND < len(text))}"[:_SHOWN]


def _visible(char: str) -> str:
    if char == "\n":
        return "⏎"
    if ord(char) in characters.LETTERS:
        return characters.LETTERS[ord(char)]
    if char.isprintable():
        return char
    return f"<U+{ord(char):04X}>"
