"""Characters that should have been others: line ends, invisible ones, widths, jamo typed apart.

NFKC would do much of this at once and too much besides: it turns ㎏ into kg, ² into 2, ① into 1 and each
ㅋ into a conjoining letter that no tokenizer knows.
"""

from __future__ import annotations

import re
import unicodedata

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


def line_ends(text: str) -> str:
    """Every kind of line end becomes a line feed."""
    return _LINE_END.sub("\n", text)


# A syllable that KS X 1001 does not have is spelled there as a filler and three letters: ㅤㅅㅞㅅ is 쉣
_SPELLED = re.compile("\u3164([ㄱ-ㅎ])([ㅏ-ㅣ])([ㄱ-ㅎ\u3164])")
# cp949's hyphen (0xA1A9) is read as a soft hyphen; between Latin letters it is one
_HYPHEN = re.compile("(?<![A-Za-z\u00c0-\u024f])\u00ad|\u00ad(?![A-Za-z\u00c0-\u024f])")


def invisible(text: str) -> str:
    """Removes what nobody sees: control characters, zero-width characters, fillers."""
    if not _INVISIBLE.search(text):
        return text
    if "\u3164" in text:
        text = _SPELLED.sub(lambda match: _compose(*match.groups()), text)
    if "\u00ad" in text:
        text = _HYPHEN.sub("-", text)
    return _INVISIBLE.sub("", text)


def nfc(text: str) -> str:
    """Decomposed Hangul (macOS file names) becomes syllables."""
    return unicodedata.normalize("NFC", text)


_LETTERS = "０-９Ａ-Ｚａ-ｚ"
_MARKS = "！-／：-＠［-｀｛-～￦"
# in Chinese and Japanese the wide marks are the right ones
_CJK = "\u2e80-\u2fff\u3001-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WIDE_LETTER = re.compile(f"[{_LETTERS}]")
_WIDE_MARKS = re.compile(f"(?<![{_CJK}{_MARKS}])[{_MARKS}]+(?![{_CJK}{_MARKS}])")
_ASCII = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {ord("￦"): ord("₩")}


def width(text: str) -> str:
    """Full-width letters, digits and marks (Ａ１！) become ASCII; marks beside Hanja or kana stay."""
    if _WIDE_LETTER.search(text):
        text = _WIDE_LETTER.sub(lambda match: match[0].translate(_ASCII), text)
    return _WIDE_MARKS.sub(lambda match: match[0].translate(_ASCII), text)


_INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
_FINALS = "ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"

LETTERS = {
    **{0x1100 + n: jamo for n, jamo in enumerate(_INITIALS)},
    **{0x1161 + n: jamo for n, jamo in enumerate(_VOWELS)},
    **{0x11A8 + n: jamo for n, jamo in enumerate(_FINALS)},
}
"""Code point of a modern conjoining letter -> the letter that stands alone."""

_HALF = {
    code: unicodedata.lookup(name.removeprefix("HALFWIDTH "))
    for code in range(0xFFA1, 0xFFDD)
    if (name := unicodedata.name(chr(code), ""))
}
_HALF_RUN = re.compile("[ﾡ-ￜ]+")
# a letter that found no partner in NFC; beside old letters (U+113C, U+119E) it belongs to them
_ALONE = re.compile("(?<![\u1100-\u11ff])(?:[\u1100-\u1112]+|[\u1161-\u1175]+)(?![\u1100-\u11ff])")
_SIGN_OF_APART = re.compile("[ㄱ-ㅎ][ㅏ-ㅣ]")
_APART = re.compile("[ㄱ-ㅎㅏ-ㅣ]{2,}")
# a syllable takes a final consonant only if no vowel follows that could claim it
_SYLLABLE = re.compile(f"([{_INITIALS}])([{_VOWELS}])([{_FINALS}](?![{_VOWELS}]))?")
_QUOTES = "\"'‘’“”`「」『』<>"
_FACES = frozenset("ㅇㅋㅎㅗㅛㅜㅠㅡ")


def jamo(text: str) -> str:
    """Half-width letters and syllables typed apart (ㅎㅏㄴㄱㅡㄹ) become syllables; ㅋㅋ, ㅠㅠ, ㄱㄱ stay.

    A run is composed only if it reads as syllables from end to end, if it is two syllables or touches a
    whole one, and if it has a letter beyond those of faces (ㅇㅡㅇ, ㅋㅠㅋ). So ㄱㅏ on its own stays: it is
    more often about the letters.
    """
    if _HALF_RUN.search(text):
        text = _HALF_RUN.sub(_half, text)
    if _ALONE.search(text):
        text = _ALONE.sub(lambda match: match[0].translate(LETTERS), text)
    return _APART.sub(_together, text) if _SIGN_OF_APART.search(text) else text


def _half(match: re.Match[str]) -> str:
    return _SYLLABLE.sub(_composed, match[0].translate(_HALF))


def _together(match: re.Match[str]) -> str:
    run = match[0]
    composed, count = _SYLLABLE.subn(_composed, run)
    before = match.string[match.start() - 1 : match.start()]
    after = match.string[match.end() : match.end() + 1]
    touches = "가" <= before <= "힣" or "가" <= after <= "힣"
    # beside a quote it is about the letters: '한글'을 'ㅎㅏㄴㄱㅡㄹ'처럼
    quoted = before in _QUOTES and after in _QUOTES and before and after
    if quoted or len(composed) != count or _FACES.issuperset(run):
        return run
    return composed if count > 1 or touches else run


def _composed(match: re.Match[str]) -> str:
    return _compose(match[1], match[2], match[3] or "")


def _compose(initial: str, vowel: str, final: str) -> str:
    if initial not in _INITIALS:
        return initial + vowel + final
    n = _FINALS.find(final) + 1 if final else 0
    after = final if final and not n and final != "\u3164" else ""
    return chr(0xAC00 + (_INITIALS.index(initial) * 21 + _VOWELS.index(vowel)) * 28 + n) + after
