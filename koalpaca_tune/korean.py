"""Korean text: scripts, final consonants, repetition, speech levels, morphemes.

Morphology is Kiwi's (kiwipiepy, the Sejong tag set). The analyser loads on first use, once for the
process. Text is put into NFC first: decomposed Hangul (macOS file names) is not words to Kiwi.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple, Protocol, get_args

Script = Literal["hangul", "latin", "hanja", "kana", "digit", "other"]
SCRIPTS: tuple[Script, ...] = ("hangul", "latin", "hanja", "kana", "digit", "other")

SpeechLevel = Literal["하십시오체", "해요체", "해체", "해라체"]
SPEECH_LEVELS: tuple[SpeechLevel, ...] = get_args(SpeechLevel)
POLITE: frozenset[SpeechLevel] = frozenset({"하십시오체", "해요체"})
"""존댓말; the other two levels are 반말."""


def script_shares(text: str) -> dict[Script, float]:
    """Share of each script among the letters and digits of a text; all zero when it has none.

    Spaces, punctuation, symbols and emoji are not counted.
    """
    counts = Counter(_script(char) for char in unicodedata.normalize("NFC", text) if char.isalnum())
    total = sum(counts.values())
    return {script: counts[script] / total if total else 0.0 for script in SCRIPTS}


def hangul_share(text: str) -> float | None:
    """Share of Hangul among the letters, digits left out; None for a text without letters."""
    if _PLAIN_HANGUL.fullmatch(text):
        return 1.0
    plain = unicodedata.normalize("NFC", text)
    letters = sum(map(len, _LETTERS.findall(plain)))
    return sum(map(len, _HANGUL.findall(plain))) / letters if letters else None


# most texts: no need to count
_PLAIN_HANGUL = re.compile("[ -@\\n…]*[가-힣][ -@\\n…가-힣]*")
_LETTERS = re.compile(r"[^\W\d_]+")
_HANGUL = re.compile("[가-힣ㄱ-ㆎ\u1100-\u11ff\ua960-\ua97c\ud7b0-\ud7fb\uffa1-\uffdc]+")


def _script(char: str) -> Script:
    if char.isdigit():
        return "digit"
    name = unicodedata.name(char, "")
    if name.startswith(("HANGUL", "HALFWIDTH HANGUL")):
        return "hangul"
    if name.startswith(("LATIN", "FULLWIDTH LATIN")):
        return "latin"
    if name.startswith("CJK"):
        return "hanja"
    if name.startswith(("HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA")):
        return "kana"
    return "other"


# 영 일 이 삼 사 오 육 칠 팔 구: which end in a consonant
_DIGITS = {digit: digit in "013678" for digit in "0123456789"}
# names of capital letters: 엘 엠 엔 알 end in a consonant
_CAPITALS = {chr(code): chr(code) in "LMNR" for code in range(ord("A"), ord("Z") + 1)}
_RIEUL = 8

_SYLLABLES = [chr(code) for code in range(ord("가"), ord("힣") + 1)]
COMMON_SYLLABLES: frozenset[str] = frozenset(char for char in _SYLLABLES if len(char.encode("euc-kr")) == 2)
"""The 2,350 syllables of KS X 1001; of the other 8,822 hardly any is written, save by damage and in slang."""


def final_consonant(syllable: str) -> int:
    """Number of a syllable's final consonant, 0 for none (4 ㄴ, 8 ㄹ, 17 ㅂ, 20 ㅆ: the order of Unicode)."""
    return (ord(syllable) - ord("가")) % 28 if "가" <= syllable <= "힣" else 0


def has_final_consonant(word: str) -> bool | None:
    """Whether a word, as read aloud, ends in a consonant (받침): it decides 이/가, 을/를, 은/는.

    Hangul by its last syllable, digits by their Sino-Korean names, abbreviations in capitals by the name of
    the last letter. None when the spelling does not tell (a foreign word in small letters, other scripts).
    """
    last = _last_letter(word)
    if "가" <= last <= "힣":
        return (ord(last) - ord("가")) % 28 != 0
    return _DIGITS.get(last, _CAPITALS.get(last))


def particle(word: str, pair: str) -> str:
    """The particle of a pair that fits a word; both, as `이(가)`, when its spelling does not tell.

    Args:
        word: what the particle follows.
        pair: `after a consonant/after a vowel`, such as `이/가`; with `으로/로`, ㄹ counts as a vowel.
    """
    with_final, without = pair.split("/")
    final = has_final_consonant(word)
    if final is None:
        return f"{with_final}({without})"
    if with_final.startswith("으로") and _ends_in_rieul(word):
        return without
    return with_final if final else without


def _ends_in_rieul(word: str) -> bool:
    last = _last_letter(word)
    return last in "178LR" or ("가" <= last <= "힣" and (ord(last) - ord("가")) % 28 == _RIEUL)


def _last_letter(word: str) -> str:
    letters = [char for char in unicodedata.normalize("NFC", word) if char.isalnum()]
    return letters[-1] if letters else ""


def repetition(text: str) -> float:
    """Share of character 4-grams that occurred before in the same text: 0 nothing repeats, near 1 a loop.

    Characters, not words: a loop inside one word shows too, and Korean spacing does not matter (runs of
    white space count as one space). A few sentences of ordinary prose reach about 0.05, by their endings.
    """
    plain = " ".join(unicodedata.normalize("NFC", text).split())
    grams = [plain[n : n + 4] for n in range(len(plain) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


class Morpheme(Protocol):
    """One of Kiwi's tokens; `start` and `len` are in characters of the text."""

    form: str
    tag: str
    start: int
    len: int


class Analysis(NamedTuple):
    """The likeliest reading of a text; `score` is its log probability (natural logarithm)."""

    morphemes: Sequence[Morpheme]
    score: float


def analyse(texts: Sequence[str]) -> list[Analysis]:
    """Kiwi's likeliest reading of each text; texts are in NFC.

    One by one: a list goes through a thread of Kiwi's own, which takes longer than reading a short text.
    """
    read = _kiwi().analyze
    return [Analysis(*read(text, top_n=1)[0]) for text in texts]


def speech_level(sentence: str) -> SpeechLevel | None:
    """The speech level of one sentence by its last final ending (EF); None when none decides it.

    하오체 and 하게체 are out of use and stay undecided, as do nominal endings (-음, -기) and fragments.
    """
    return level_of(_tokens(sentence))


def speech_levels(text: str) -> list[SpeechLevel | None]:
    """The speech level of each sentence, in order; a line break ends a sentence."""
    levels = []
    for line in unicodedata.normalize("NFC", text).splitlines():
        if line.strip():
            levels += [level_of(sentence.tokens) for sentence in _kiwi().split_into_sents(line, return_tokens=True)]
    return levels


def speech_consistent(text: str) -> bool | None:
    """Whether all decided sentences are 존댓말, or all 반말; None when no sentence is decided."""
    polite = {level in POLITE for level in speech_levels(text) if level is not None}
    return len(polite) == 1 if polite else None


# Kiwi writes a final consonant that joins the stem as a conjoining jamo
_FORMAL = ("ᆸ니다", "습니다", "ᆸ니까", "습니까", "ᆸ시오", "ᆸ시다", "ᆸ디다", "습디다", "ᆸ디까", "습디까")
_PLAIN = ("다", "라", "자", "니", "냐", "구나", "으마")
_INTIMATE = (
    *("어", "아", "야", "지", "네", "까", "래", "거든", "데", "대", "군", "나", "가", "ᆯ걸", "을걸", "ᆯ게", "을게"),
    *("다고", "라고", "냐고", "자고"),
)


def level_of(tokens: Sequence[Morpheme]) -> SpeechLevel | None:
    """The speech level of one analysed sentence, as `speech_level`."""
    for n in range(len(tokens) - 1, -1, -1):
        form, tag = tokens[n].form, tokens[n].tag
        after, after_tag = (tokens[n + 1].form, tokens[n + 1].tag) if n + 1 < len(tokens) else ("", "")
        # "간다고 했다": the ending before a quoting particle is the quoted sentence's.
        # Kiwi reads 먹었니? as a connective ending (EC); full stop or question mark after it say otherwise.
        if after_tag == "JKQ" or not (tag == "EF" or (tag == "EC" and after_tag == "SF")):
            continue
        if form.endswith(_FORMAL):
            return "하십시오체"
        if form.endswith(("요", "죠")) or (after, after_tag) == ("요", "JX"):
            return "해요체"
        if form.endswith(_PLAIN):
            return "해라체"
        return "해체" if form.endswith(_INTIMATE) else None
    return None


def morphemes(text: str) -> list[str]:
    """Morphemes as `form/TAG` (Sejong tags), punctuation and symbols included."""
    return [f"{token.form}/{token.tag}" for token in _tokens(text)]


_SYMBOLS = ("/SF", "/SP", "/SS", "/SSO", "/SSC", "/SE", "/SO", "/SW")


def morpheme_f1(answer: str, gold: str) -> float:
    """Overlap of two texts: F1 over bags of morphemes without punctuation, 0..1.

    Rajpurkar et al. (2016) count words; Korean words carry particles and endings, so that 임수경이 and
    임수경 share no word but do share a morpheme. Two empty texts agree; one empty text scores 0.
    """
    one, two = _bag(morphemes(answer)), _bag(morphemes(gold))
    if not one or not two:
        return float(one == two)
    shared = (one & two).total()
    return 2 * shared / (one.total() + two.total())


def _bag(words: Iterable[str]) -> Counter[str]:
    return Counter(word for word in words if not word.endswith(_SYMBOLS))


def _tokens(text: str) -> Sequence[Any]:
    tokens: Sequence[Any] = _kiwi().tokenize(unicodedata.normalize("NFC", text))
    return tokens


@cache
def _kiwi() -> Any:
    from kiwipiepy import Kiwi

    return Kiwi(num_workers=1)
