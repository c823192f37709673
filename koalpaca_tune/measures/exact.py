"""Exact match: to the letter, and after Korean normalisation.

The Korean one lets pass, and nothing else: Unicode forms and widths (NFKC), letter case, spaces, punctuation,
how numbers and units are spelled (`numerals`), and the particle or copula at the end (임수경이, 서울입니다; Kiwi
decides that 고양이 has none). A number without a unit equals the same with one (320 and 320개), two units do not
(3년 and 3개월). An answer inside a sentence is not looked for: 정답은 320입니다 is not 320.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from koalpaca_tune import korean
from koalpaca_tune.measures import numerals
from koalpaca_tune.measures.text import composed

_NOUNS = ("NN", "NP", "NR", "SN", "SL", "SH", "XSN", "W_", "SW", "SSC", "ETN")
_DRESS = ("J", "VCP", "EF", "SF", "SP", "SE", "EP")
# a minus before a number and the point inside one say something
_SAYING = re.compile(r"[^\W_]|(?<![\w.])-(?=\d)|(?<=\d)\.(?=\d)|%")


def exact(answer: str, gold: str) -> float:
    """1 for the same characters, save for NFC and white space at the ends; else 0."""
    one, two = (composed(text).strip() for text in (answer, gold))
    return float(one == two)


def exact_korean(answer: str, gold: str) -> float:
    """1 when both are equal after Korean normalisation, else 0."""
    one, two = forms(answer), forms(gold)
    if one & two:
        return 1.0
    given = {number for form in one if (number := numerals.quantity(form))}
    wanted = {number for form in two if (number := numerals.quantity(form))}
    return float(any(a == b and (not unit or not other) for a, unit in given for b, other in wanted))


@lru_cache(maxsize=1 << 12)
def forms(text: str) -> frozenset[str]:
    """A text normalised, as it is and without the particle or copula at its end."""
    plain = " ".join(unicodedata.normalize("NFKC", composed(text)).lower().split())
    return frozenset(_bare(numerals.digits(one)) or plain for one in {_unmarked(plain), _unmarked(_stem(plain))})


def _unmarked(text: str) -> str:
    return text.strip().rstrip(".!?。~,;: ").strip("'\"‘’“”")


def _bare(text: str) -> str:
    return "".join(_SAYING.findall(text))


def _stem(text: str) -> str:
    """A text without the particles, copula and ending after its last noun; as it is when none stands there."""
    tail = " ".join(text.split(" ")[-_TAIL_WORDS:])
    morphemes = korean.analyse([tail])[0].morphemes
    end = len(morphemes)
    while end and morphemes[end - 1].tag.startswith(_DRESS):
        end -= 1
    if not end or end == len(morphemes) or not morphemes[end - 1].tag.startswith(_NOUNS):
        return text
    return text[: len(text) - len(tail) + morphemes[end - 1].start + morphemes[end - 1].len]


_TAIL_WORDS = 3
