"""Speech levels (하십시오체, 해요체, 해체, 해라체): of sentences and turns, mixed in an answer, filtered, labelled.

Most endings show in the last two syllables; Kiwi is asked only about the rest, and about three words of
each. Quoted speech, lists, titles and nominal endings (-음, -기, a noun) have no level.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from koalpaca_tune import korean
from koalpaca_tune.config.quality import Speech
from koalpaca_tune.errors import Problem
from koalpaca_tune.korean import SpeechLevel, final_consonant
from koalpaca_tune.records import Conversation, Turn

if TYPE_CHECKING:
    from koalpaca_tune.data.quality.signals import Signals

_FENCE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_QUOTED = re.compile(
    r"“[^”\n]*”|\"[^\"\n]*\"|‘[^’\n]*’|(?<![\w])'[^'\n]*'(?![A-Za-z])|「[^」\n]*」|『[^』\n]*』|《[^》\n]*》"
)
_WHOLE_QUOTE = re.compile(r"\s*[\"“'‘「『]([^\"“”'‘’「」『』]*)[\"”'’」』][\s.]*")
_LISTED = re.compile(r"\s*(?:[-*•·▶►○●■□◆▪※#>|+]|\(?(?:\d{1,3}|[가-하a-zA-Z]|[①-⑳ⅰ-ⅹⅠ-Ⅹ])[.)\]:]\s|[①-⑳]|\[\d+\])")
_QUOTE = re.compile("[\"“‘'「『《]")
_SENTENCE_END = re.compile(r"[.!?…。~][\"'”’)\]]*(?=\s|[가-힣])")

_TAIL_WORDS = 3
_REMEMBERED = 1 << 16
"""Sentence ends of which a process remembers the level: many come again, and Kiwi is slow. About 20 MiB."""


class Ending(NamedTuple):
    """How one sentence ends.

    Attributes:
        tail: its last words, as shown and as Kiwi is asked.
        level: None when it has none, or when `asked`.
        asked: only Kiwi can tell.
        listed: it stands in a list, which keeps its own style.
    """

    tail: str
    level: SpeechLevel | None
    asked: bool
    listed: bool


def endings(text: str) -> list[Ending]:
    """The endings of a text's sentences that have, or may have, a level; text in NFC."""
    if "`" in text:
        text = _FENCE.sub(" ", text)
    if _QUOTE.search(text):
        whole = _WHOLE_QUOTE.fullmatch(text)
        text = whole[1] if whole else _QUOTED.sub("", text)
    found: list[Ending] = []
    for line in text.split("\n"):
        listed = None
        for sentence in _sentences(line):
            bare = _bare(sentence)
            if not bare or bare[-1] not in _POSSIBLE:
                continue
            level = quick_level(last_word(bare))
            if level is None:
                continue
            if listed is None:
                listed = _LISTED.match(line) is not None or line.rstrip().endswith(":")
            tail = " ".join(bare.rsplit(None, _TAIL_WORDS)[-_TAIL_WORDS:])
            found.append(Ending(tail, None if level == UNSURE else level, level == UNSURE, listed))
    return found


def _sentences(line: str) -> list[str]:
    start, found = 0, []
    for end in _SENTENCE_END.finditer(line):
        found.append(line[start : end.start() + 1])
        start = end.end()
    found.append(line[start:] if start else line)
    return found


def last_word(text: str) -> str:
    """The Hangul syllables that a text ends in."""
    start = len(text)
    while start and "가" <= text[start - 1] <= "힣":
        start -= 1
    return text[start:]


_BRACKETS = {")": "(", "]": "["}


def _bare(sentence: str) -> str:
    """A sentence without what follows its last word: marks, ㅋㅋ, ㅠㅠ, an aside in brackets."""
    end = len(sentence)
    while end:
        char = sentence[end - 1]
        if char.isalnum() and not "ㄱ" <= char <= "ㅣ":
            break
        opening = sentence.rfind(_BRACKETS[char], 0, end) if char in _BRACKETS else -1
        end = opening if opening >= 0 else end - 1
    return sentence[:end]


UNSURE: Literal["unsure"] = "unsure"

_NOT_VERBS = frozenset(
    {"람다", "판다", "사이다", "고다", "르완다", "우간다", "베란다", "완다", "린다", "혼다", "아만다"}
)
_NOT_POLITE = frozenset("필중주수강동소민개도서긴비교부")
_SURE: dict[str, tuple[SpeechLevel, frozenset[str]]] = {
    "네": ("해체", frozenset("이하있없좋같싶많크되겠드나오지프않리가르주보기")),
    "지": ("해체", frozenset("하있없좋같싶많않야건")),
    "데": ("해체", frozenset("는은인한던텐닌건")),
    "아": ("해체", frozenset("잖찮같좋않많받")),
    "야": ("해체", frozenset("거이뭐니")),
    "나": ("해체", frozenset("있없되")),
    "가": ("해체", frozenset("는은인한던건닌")),
    "어": ("해체", frozenset("없싶들싫")),
    "때": ("해체", frozenset("어")),
    "해": ("해체", frozenset("아어떡")),
    "워": ("해체", frozenset("려러서까여로")),
    "군": ("해체", frozenset("는하")),
    "냐": ("해라체", frozenset("이하있없같좋으느거뭐화")),
    "라": ("해라체", frozenset("더")),
    "자": ("해라체", frozenset("하말")),
}
"""Last syllable -> level, when the syllable before it is one of these or ends in ㅆ."""

_CONTRACTED = frozenset("돼봐줘져둬")
_ONE_SYLLABLE = frozenset("나해커써꿔와가자마")
# The last syllables of a sentence that Kiwi found to have a level; all others end in a noun, a particle, a
# connective or nominal ending (51,703 sentences of chatbot_data, NSMC, KoBEST and kowiki).
_POSSIBLE = frozenset(
    "다요어까네지죠데해아나야가라냐니워돼봐자려줘와래군대져때파여짜용마당게내싸걸혀쳐써빠넹뻐타켜셔레러오"
    "닷커펴껴퍼꿔쪄궈든놔세껄둬"
)
_RIEUL, _BIEUP, _SSANG_SIOT = 8, 17, 20


def quick_level(word: str) -> SpeechLevel | Literal["unsure"] | None:
    """The level that the last word of a sentence shows; None for no level, UNSURE when Kiwi must be asked."""
    last = word[-1]
    if last not in _POSSIBLE:
        return None
    if len(word) == 1:
        return "해체" if last in _CONTRACTED else UNSURE if last in _ONE_SYLLABLE else None
    before = word[-2]
    final = final_consonant(before)
    if last in "다까오":
        if len(word) > 2 and before in "니시디" and final_consonant(word[-3]) == _BIEUP:
            return "하십시오체"
        if last == "다" and (final or before in "이하되화프기고거쁘르니"):
            return UNSURE if word in _NOT_VERBS else "해라체"
        return "해체" if last == "까" and final == _RIEUL else UNSURE
    if last == "죠":
        return "해요체"
    if last == "요":
        return UNSURE if before in _NOT_POLITE or (before in "가고구" and len(word) == 2) else "해요체"
    if last in _CONTRACTED:
        return "해체"
    if word.endswith("구나"):
        return "해라체"
    if last in _SURE:
        level, sure = _SURE[last]
        if final == _SSANG_SIOT or before in sure:
            return level
    return UNSURE


@lru_cache(maxsize=_REMEMBERED)
def read(tail: str) -> SpeechLevel | None:
    """The level of a sentence that ends so, as Kiwi reads it."""
    # the full stop tells Kiwi that the sentence ends here
    return korean.level_of(korean.analyse([f"{tail}."])[0].morphemes)


def _level(ending: Ending) -> SpeechLevel | None:
    return read(ending.tail) if ending.asked else ending.level


@dataclass(frozen=True, slots=True)
class Spoken:
    """The speech of one turn.

    Attributes:
        level: the level of most of its sentences; None when none is decided.
        levels: of all its decided sentences outside lists.
        mixed: one polite and one plain sentence end, when it mixes 존댓말 and 반말.
    """

    level: SpeechLevel | None
    levels: frozenset[SpeechLevel]
    mixed: tuple[str, str] | None


SILENT = Spoken(None, frozenset(), None)
"""A turn without any decided sentence."""

_ALONE = {level: Spoken(level, frozenset((level,)), None) for level in korean.SPEECH_LEVELS}

# -는데, -고 and their kin end a sentence only in passing
_PASSING = frozenset("데고서")


def spoken(found: Sequence[Ending]) -> Spoken:
    """Puts a turn's endings, as `endings` finds them, together; asks Kiwi where they leave the level open."""
    if not found:
        return SILENT
    if len(found) == 1 and not found[0].listed:
        only = _level(found[0])
        return SILENT if only is None else _ALONE[only]
    counts: Counter[SpeechLevel] = Counter()
    in_lists: Counter[SpeechLevel] = Counter()
    polite = plain = ""
    for ending in found:
        level = _level(ending)
        if level is None:
            continue
        if ending.listed:
            in_lists[level] += 1
            continue
        counts[level] += 1
        if level in korean.POLITE:
            polite = polite or ending.tail
        elif ending.tail[-1] not in _PASSING:
            plain = plain or ending.tail
    most = (counts or in_lists).most_common(1)
    return Spoken(most[0][0] if most else None, frozenset(counts), (polite, plain) if polite and plain else None)


def unwanted(signals: Signals, speech: Speech) -> Problem | None:
    """Why a record's speech level keeps it out; None when it may stay. An undecided level may stay."""
    if speech.keep is None:
        return None
    others = [level for level in signals.spoken if level not in speech.keep]
    if not others:
        return None
    return Problem(
        "quality-speech",
        f"the answer speaks {', '.join(sorted(others))}; speech.keep is {', '.join(speech.keep) or 'empty'}.",
    )


def label(conversation: Conversation, signals: Signals) -> Conversation:
    """Writes the answers' speech level into the system turn, such as `해요체로 답하세요.`

    An existing system turn keeps its text and gets the sentence at its end. Nothing is written when no level is
    decided, when answers differ, or when one mixes 존댓말 and 반말.
    """
    if signals.answer_level is None or signals.values["mixed-speech"]:
        return conversation
    request = f"{signals.answer_level}로 답하세요."
    first = conversation.turns[0]
    if first.role != "system":
        return replace(conversation, turns=(Turn("system", request), *conversation.turns))
    if request in first.content:
        return conversation
    joined = Turn("system", f"{first.content} {request}".lstrip(), first.context)
    return replace(conversation, turns=(joined, *conversation.turns[1:]))
