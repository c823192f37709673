"""The language of an answer.

Where a language has a script of its own, the script tells. Hindi, Marathi and Nepali share one, as do Arabic,
Persian and Urdu, and most of Europe: for these langdetect decides, as in IFEval, with a fixed seed.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

from koalpaca_tune import korean
from koalpaca_tune.instructions.text import HANGUL, plain

OWN_SCRIPT = {
    "ko": "HANGUL",
    "bn": "BENGALI",
    "gu": "GUJARATI",
    "he": "HEBREW",
    "kn": "KANNADA",
    "ml": "MALAYALAM",
    "pa": "GURMUKHI",
    "ta": "TAMIL",
    "te": "TELUGU",
    "th": "THAI",
}
SHARED = ("ar", "bg", "de", "en", "es", "fa", "fi", "fr", "hi", "it", "ja", "mr", "ne", "pl", "pt", "ru", "sw")
LANGUAGES: tuple[str, ...] = tuple(sorted({*OWN_SCRIPT, *SHARED, "uk", "ur", "vi", "zh"}))
"""ISO 639-1 codes that may be asked for."""

KOREAN = 0.5
"""Share of words holding Hangul from which a text counts as Korean."""

STRAY = 0.1
"""Share of Hangul letters above which an answer in another language is not only in it."""


def is_in(text: str, language: str) -> bool:
    """Whether an answer is written in a language; one without letters is in none.

    In another language than Korean at most a tenth of its letters is Hangul: what Korean models do wrong is to
    explain themselves in Korean.
    """
    if language == "ko":
        return is_korean(text) is True
    hangul = korean.hangul_share(text)
    if hangul is None or hangul > STRAY:
        return False
    if language in OWN_SCRIPT:
        return _share(text, OWN_SCRIPT[language]) > 0.5
    return _detected(text) == language


def is_korean(text: str) -> bool | None:
    """Whether at least half of the words hold Hangul; None for a text without letters.

    Words, not letters: `resource를 가져오는 request입니다` is Korean, though two thirds of its letters are Latin,
    because what Korean adds to a foreign word is written in Hangul.
    """
    words = [word for word in plain(text).split() if any(char.isalpha() for char in word)]
    return sum(bool(HANGUL.search(word)) for word in words) / len(words) >= KOREAN if words else None


def _share(text: str, script: str) -> float:
    # vowel signs of the Indic scripts are marks, not letters
    letters = [char for char in text if unicodedata.category(char)[0] in "LM"]
    return sum(unicodedata.name(char, "").startswith(script) for char in letters) / len(letters)


def _detected(text: str) -> str:
    detector = _langdetect()
    try:
        code: str = detector.detect(text)
    except detector.LangDetectException:
        return ""
    # zh-cn, zh-tw
    return code.partition("-")[0]


@cache
def _langdetect() -> Any:
    import langdetect

    langdetect.DetectorFactory.seed = 0
    return langdetect
