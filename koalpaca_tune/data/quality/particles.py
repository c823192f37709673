"""Particles that do not fit the word before them: 나무은 (나무는), 사람를 (사람을), 집로 (집으로).

은/는, 이/가, 을/를, 와/과 and 으로/로 (으로 is wrong after ㄹ too) go by the final consonant. Few words end so by
chance; but 먹는, 가을, 나이, 국가, 효과 and 경로 do. So each mismatch is only a candidate, and Kiwi decides by a
counterfactual: the phrase with the fitting particle must be much likelier than the phrase as written, and the
changed syllable must be a particle after a noun. Where no Hangul stands before the particle (numbers,
abbreviations in capitals, a closing bracket), the reading of the word decides, and doubt means no error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from koalpaca_tune import korean
from koalpaca_tune.korean import Analysis, final_consonant

_RIEUL = 8

_ENDING = re.compile(
    "(?:[은는이가을를]|[과와](?:의|는|도)?|으로(?:는|도|만|부터|서|써|서의)?|로(?:는|도|만|부터|서|써)?)(?![가-힣])"
)
_AFTER_VOWEL = frozenset("는가를와")

_FITTING = {"은": "는", "는": "은", "이": "가", "가": "이", "을": "를", "를": "을", "과": "와", "와": "과"}

# Stems before -는, by their last syllable, that are no nouns' last syllable (or hardly ever): not worth asking.
_STEMS = frozenset(
    "있없않받먹갖얻찾입잇잡짓넣컫돕믿맡놓듣겪붙굽묻맺잊웃찍닿덮읽뽑끓꼽앗묶앉잃닦짖늦낳닫쫓끊밟볶뚫얹긋뱉씻벗싣겠"
)
# Words that the mismatch finds by the thousand and that no particle ends.
_WORDS = frozenset(
    re.findall(
        "[가-힣]+",
        """사이 나이 아이 차이 누이 오이 가까이 높이 루이 레이 하이 상하이 하와이 마을 가을 노을 고을 나을
        지을 이을 모을
        국가 작가 평가 증가 참가 전문가 뭔가 누군가 무언가 언젠가 건가 인가 아닌가 그런가 것인가
        작곡가 평론가 소설가 건축가
        효과 사과 치과 초과 의과 외과 부과 경로 선로 통로 근로 원로 공로 지은 이은 나은 모은 보은 수은
        안와 중심와 관절와 견갑와 능형와 할와""",
    )
)
# Roads and ways: 경로, 을지로. A place that ends so and the error look alike to Kiwi.
_ROADS = re.compile(
    "[가-힣]*(?:경|통|근|원|난|판|진|항|육|향|장|종|폭|공|양|먼|멘|송|백|감|책|교역|무역|지선|등산|순환|테헤란|대학|세종|실증|수영)로"
)
_NAME = re.compile(
    r"[김이박최정강조윤장임한오서신권황안송류홍전고문양손배백허남심노곽성주우구민진지][태채예혜다희]은"
)
_TAXA = re.compile(r"(?:과|아과|목|속|종|식물|동물|공룡|나무|류)")

_GAIN = {
    "를": 4.0,
    "을": 5.0,
    "으로": 2.0,
    "은": 5.0,
    "는": 5.0,
    "와": 6.0,
    "과": 6.0,
    "이": 7.0,
    "가": 7.0,
    "로": 6.5,
}
"""Particle as written -> how many times likelier (natural logarithm) the fitting one must be.

From clean text (kowiki, KoBEST, chatbot_data, precedents); bench/detect_quality.py has the figures.
"""

_CONTEXT = 12


class Wrong(NamedTuple):
    """A particle that does not fit: `나무은` for `나무는`."""

    written: str
    fitting: str


class Candidate(NamedTuple):
    """A mismatch that Kiwi must judge.

    Attributes:
        word: what the particle follows.
        given, fitting: the particle as written, and the one that fits.
        phrase, changed: with the words around it, as written and changed.
        at: where the particle begins in `changed`.
    """

    word: str
    given: str
    fitting: str
    phrase: str
    changed: str
    at: int


def candidates(text: str) -> list[Candidate]:
    """Mismatches after Hangul; text in NFC."""
    return list(_candidates(text))


def _mismatched(before: str, particle: str) -> bool:
    """Whether the syllable before a particle wants the other one of its pair."""
    if not "가" <= before <= "힣":
        return False
    final = final_consonant(before)
    first = particle[0]
    if first == "으":
        return final in (0, _RIEUL)
    if first == "로":
        return final not in (0, _RIEUL)
    return (final != 0) == (first in _AFTER_VOWEL)


def _candidates(text: str) -> Iterator[Candidate]:
    for found in _ENDING.finditer(text):
        given, at = found[0], found.start()
        if not at or not _mismatched(text[at - 1], given):
            continue
        start = at
        while start and "가" <= text[start - 1] <= "힣":
            start -= 1
        word = text[start:at]
        if given == "는" and (word[-1] in _STEMS or final_consonant(word[-1]) in _STEM_FINALS):
            continue
        if (
            word + given in _WORDS
            or _NAME.fullmatch(word + given)
            or (given[0] == "과" and _is_taxon(word, text[found.end() :]))
        ):
            continue
        if given[0] == "로" and (given == "로만" or _ROADS.fullmatch(f"{word}로")):
            continue
        before = text[max(0, start - _CONTEXT - 1) : start].rstrip()
        before = before.rsplit(None, 1)[-1] if before else ""
        after = _next_word(text, found.end())
        lead = f"{before} " if before else ""
        fitting = _fitting(given)
        yield Candidate(
            word,
            given,
            fitting,
            f"{lead}{word}{given}{after}",
            f"{lead}{word}{fitting}{after}",
            len(lead) + len(word),
        )


# ㄶ ㅀ ㅄ ㅆ: no noun in use but 값 and 몫 ends in one
_STEM_FINALS = (6, 15, 20)


def _fitting(given: str) -> str:
    if given.startswith("으로"):
        return given[1:]
    if given[0] == "로":
        return f"으{given}"
    return _FITTING[given[0]] + given[1:]


def _next_word(text: str, end: int) -> str:
    if text[end : end + 1] != " ":
        return ""
    words = text[end : end + _CONTEXT + 2].split(None, 1)
    return f" {words[0]}" if words else ""


def _is_taxon(word: str, after: str) -> bool:
    """Whether 과 is the family of plants and animals, or a department: 장미과 식물, 피아노과."""
    nearby = after[: 2 * _CONTEXT]
    return word.endswith(("우스", "나무", "아", "쥐")) or any(_TAXA.search(part) for part in nearby.split()[:2])


def judge(found: Iterable[Candidate]) -> list[Wrong]:
    """The candidates that are errors, by Kiwi's reading of the phrases."""
    return [Wrong(one.word + one.given, one.word + one.fitting) for one in found if _errs(one)]


def _errs(one: Candidate) -> bool:
    if one.given[0] == "으" and final_consonant(one.word[-1]) == _RIEUL:
        # Kiwi takes 물으로 for as good as 물로; nothing else ends so
        return True
    changed = read(one.changed)
    if not _particle_at(changed, one.at):
        return False
    key = "으로" if one.given[0] == "으" else one.given[0]
    return changed.score - read(one.phrase).score >= _GAIN[key]


@lru_cache(maxsize=1 << 12)
def read(phrase: str) -> Analysis:
    """A phrase, as Kiwi reads it."""
    return korean.analyse([phrase])[0]


_NOUNS = ("NN", "NP", "NR", "XS", "SL", "SN")


def _particle_at(analysis: Analysis, at: int) -> bool:
    previous = None
    for morpheme in analysis.morphemes:
        if morpheme.start == at:
            return morpheme.tag.startswith("J") and previous is not None and previous.tag.startswith(_NOUNS)
        previous = morpheme
    return False


_AFTER_OTHER = re.compile(
    r"(?:(?<![\w.,:/~-])(?P<number>\d{1,3}(?:,\d{3})+|\d+)(?P<p1>은|는|을|를|으로)"
    r"|(?<![\w.&-])(?P<capitals>[B-DF-HJ-NP-TV-Z]{2,6})(?P<p2>은|는|이|가|을|를|과|와|으로|로)"
    r"|(?P<outer>[가-힣]+)\((?P<inner>[^()\n]{1,40})\)(?P<p3>은|는|이|가|을|를|과|와|으로|로))(?![가-힣A-Za-z0-9])"
)
_SIGN_OF_OTHER = re.compile(r"[\dB-Z)][은는이가을를과와으로]")
_PAIRS = {
    particle: pair for pair in ("은/는", "이/가", "을/를", "과/와", "으로/로") for particle in pair.split("/")
}


def after_other(text: str) -> list[Wrong]:
    """Errors after numbers (3를: 삼을), consonant-only abbreviations (KBS은) and glosses (`서울(Seoul)는`).

    After a bracket the particle follows the word before it; one that fits the word inside is let pass.
    """
    wrong: list[Wrong] = []
    if not _SIGN_OF_OTHER.search(text):
        return wrong
    for found in _AFTER_OTHER.finditer(text):
        word = found["number"] or found["capitals"] or found["outer"]
        given = found["p1"] or found["p2"] or found["p3"]
        fitting = korean.particle(word, _PAIRS[given])
        if fitting == given or "(" in fitting:
            continue
        if found["inner"] and _may_fit(found["inner"], given):
            continue
        end = found.end() - len(given)
        shown = text[found.start() : end]
        wrong.append(Wrong(shown + given, shown + fitting))
    return wrong


def _may_fit(inner: str, given: str) -> bool:
    return korean.particle(inner, _PAIRS[given]) == given
