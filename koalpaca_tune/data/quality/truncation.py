"""Answers that stop before their end: an open bracket, quote or code block, a comma, a sentence without its ending.

The last words go to Kiwi only when nothing cheaper told: no closing mark, no final ending in the last syllables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from koalpaca_tune.data.quality.speech import UNSURE, quick_level
from koalpaca_tune.korean import Analysis

_CLOSING = frozenset(".!?…。~\"'”’)）]}>」』》〉*`|♡♥★☆^%;-_=+/")
_HANGING = frozenset(",，·(（[{〈《「『“‘:")
_EMOTICON = re.compile(r"[:;=ㅠㅜTㅋㅎ^][-^]?[(（]$")
_PAIRS = ("()", "（）", "「」", "『』", "《》", "“”")
_STOP = re.compile(r"[가-힣][\"'”’)]*[.!?…]+[\"'”’)\]]*(?=\s)")
_LAST_WORD = re.compile(r"[가-힣]+$")
_MARKER = re.compile(r"\s*(?:[-*•·▶●○■#]|\(?\d{1,3}[.)])\s")
_TAIL_WORDS = 4

# A sentence cannot end in these. -ㄴ, -는 (ETM) and -고, -며 (EC) want something after them.
_OPEN_TAGS = (
    "JKO",
    "JKG",
    "JKS",
    "JKC",
    "JC",
    "ETM",
    "EC",
    "MM",
    "MAJ",
    "XSV",
    "XSA",
    "VV",
    "VA",
    "VX",
    "VCP",
    "EP",
    "XPN",
)
# Alone in an answer, without sentences before it, these are colloquial endings or lists: 비가 와서, 그 영화는
_ALWAYS_OPEN_TAGS = ("JKO", "JKG", "ETM", "XSV", "EP")
_MAYBE_OPEN = frozenset("을를의은는이가와과고며서면지게어아여")


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of an answer.

    Attributes:
        shown: its last words when it is truncated for certain; empty when not, or when `asked`.
        asked: what Kiwi must tell the ending of; empty when nothing is open.
        follows: how many sentences with a full stop stand before it in the same line.
        prose: the line is written prose, long and with full stops: even a noun is no end there.
    """

    shown: str = ""
    asked: str = ""
    follows: int = 0
    prose: bool = False


_WHOLE = Tail()


def tail(text: str) -> Tail:
    """What the end of an answer shows; text in NFC."""
    text = text.rstrip()
    if not text:
        return _WHOLE
    last = text[-1]
    if last in _HANGING:
        return _WHOLE if _finished(text) else Tail(text[-20:])
    if "```" in text and text.count("```") % 2:
        return Tail(text[-20:])
    line = text[text.rfind("\n") + 1 :]
    if opened := _open_bracket(line):
        return Tail(opened)
    if last in _CLOSING or not "가" <= last <= "힣":
        return _WHOLE
    word = _LAST_WORD.search(text)
    level = quick_level(word[0]) if word else None
    if level is not None and level != UNSURE:
        return _WHOLE
    stops = list(_STOP.finditer(line))
    fragment = line[stops[-1].end() :].strip() if stops else line.strip()
    formal = [stop for stop in stops if stop[0][0] in "다요죠까"]
    prose = len(line) >= _PROSE and len(formal) == len(stops) and not _MARKER.match(line)
    if not stops and not prose and (last not in _MAYBE_OPEN or " " not in fragment or _MARKER.match(line)):
        return _WHOLE
    return Tail(asked=" ".join(fragment.split()[-_TAIL_WORDS:]), follows=len(stops), prose=prose)


_PROSE = 60


def _finished(text: str) -> bool:
    """Whether a hanging mark only decorates: an emoticon, `좋아요,` or `,,,`."""
    if text[-1] in "(（":
        return _EMOTICON.search(text) is not None
    if text[-1] not in ",，·":
        return False
    word = _LAST_WORD.search(text[:-1].rstrip())
    return word is None or quick_level(word[0]) not in (None, UNSURE)


def truncated(end: Tail, book: Mapping[str, Analysis]) -> str:
    """The last words of a truncated answer; empty when it is whole.

    Args:
        end: of `tail`.
        book: Kiwi's reading of `end.asked`.
    """
    if not end.asked:
        return end.shown
    morphemes = book[end.asked].morphemes
    if not morphemes:
        return ""
    form, tag = morphemes[-1].form, morphemes[-1].tag.split("-")[0]
    if tag in _ALWAYS_OPEN_TAGS:
        return end.asked
    if tag == "EC" and (not end.prose or form.endswith(_SPOKEN_ENDINGS)):
        return ""
    if end.prose:
        return "" if tag in _FINAL_TAGS or (tag.startswith("NN") and not end.follows) else end.asked
    return end.asked if end.follows and tag in _OPEN_TAGS else ""


# Connective endings that close a spoken sentence: 재밌는데, 좋으니까
_SPOKEN_ENDINGS = ("데", "까", "고", "든", "지", "나", "길", "걸", "야", "네", "라", "게", "서", "만", "니")
# Final endings, nominal endings (-음, -기, 것) and what stands after a sentence
_FINAL_TAGS = ("EF", "ETN", "IC", "JX", "W_EMOJI", "SW", "SF", "Z_CODA", "SL", "SN")


def _open_bracket(line: str) -> str:
    for pair in _PAIRS:
        opening, closing = pair[0], pair[1]
        if opening not in line:
            continue
        at = line.rfind(opening)
        if closing not in line[at:] and line.count(opening) > line.count(closing) and line[at + 1 :].strip():
            before = line[max(0, at - 2) : at + 1]
            if not (opening == "(" and _EMOTICON.search(before) and at):
                return line[at:][-20:]
    return ""
