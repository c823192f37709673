"""Answers that stop before their end: an open bracket, quote or code block, a comma, a sentence without its ending.

The last words go to Kiwi only when nothing cheaper told: no closing mark, no final ending in the last syllables.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from koalpaca_tune import korean
from koalpaca_tune.data.quality.speech import UNSURE, last_word, quick_level

_CLOSING = frozenset(".!?…。~\"'”’)）]}>」』》〉*`|♡♥★☆^%;-_=+/")
_HANGING = frozenset(",，·(（[{〈《「『“‘:")
_EMOTICON = re.compile(r"[:;=ㅠㅜTㅋㅎ^][-^]?[(（]$")
_PAIRS = ("()", "（）", "「」", "『』", "《》", "“”")
_STOP = re.compile(r"[가-힣][\"'”’)]*[.!?…]+[\"'”’)\]]*(?=\s)")
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


class Tail(NamedTuple):
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
    level = quick_level(last_word(text))
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
    word = last_word(text[:-1].rstrip())
    return not word or quick_level(word) not in (None, UNSURE)


def truncated(end: Tail) -> str:
    """The last words of a truncated answer, of which `tail` gave the end; empty when it is whole."""
    if not end.asked:
        return end.shown
    form, tag = read(end.asked)
    if not tag:
        return ""
    if tag in _ALWAYS_OPEN_TAGS:
        return end.asked
    if tag == "EC" and (not end.prose or form.endswith(_SPOKEN_ENDINGS)):
        return ""
    if end.prose:
        return "" if tag in _FINAL_TAGS or (tag.startswith("NN") and not end.follows) else end.asked
    return end.asked if end.follows and tag in _OPEN_TAGS else ""


@lru_cache(maxsize=1 << 14)
def read(words: str) -> tuple[str, str]:
    """Form and tag of the last morpheme, as Kiwi reads it; empty when there is none."""
    morphemes = korean.analyse([words])[0].morphemes
    return (morphemes[-1].form, morphemes[-1].tag.split("-")[0]) if morphemes else ("", "")


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
