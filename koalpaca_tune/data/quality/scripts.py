"""Characters that do not belong: leaked Hanja, kana and other scripts, broken jamo, garbled text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from koalpaca_tune.korean import COMMON_SYLLABLES

_ORDINARY = (
    COMMON_SYLLABLES | frozenset(chr(code) for code in range(0x20, 0x7F)) | frozenset("\n\t…·“”‘’~※→℃％☆★♥♡")
)
_ODD = re.compile(f"[^{re.escape(''.join(sorted(_ORDINARY)))}]")
_HANJA = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_ANY_HANJA = re.compile(f"[{_HANJA}]")
_HANJA_RUN = re.compile(f"[{_HANJA}]+")
_KANA_RUN = re.compile("[\u3041-\u3096\u30a1-\u30fa\uff66-\uff9d]+")
# Cyrillic, Armenian, Hebrew, Arabic, Indic, Thai, Lao, Georgian, Ethiopic, Khmer. Greek is mathematics.
_OTHER_RUN = re.compile("[\u0400-\u058f\u0590-\u06ff\u0900-\u0eff\u10a0-\u10ff\u1200-\u137f\u1780-\u17ff]+")
_GLOSS = re.compile(
    r"\([^()\n]*\)|（[^（）\n]*）|\[[^\[\]\n]*\]|「[^」\n]*」|『[^』\n]*』|《[^》\n]*》|〈[^〉\n]*〉|<[^<>\n]*>"
    r"|“[^”\n]*”|‘[^’\n]*’|\"[^\"\n]*\"|'[^'\n]*'|```.*?(?:```|\Z)|`[^`\n]*`",
    re.DOTALL,
)
# What newspapers and statutes write for a word: 美 정부, 甲은, 故 김 씨, 大·中·小
_ABBREVIATIONS = frozenset(
    "美中日韓北南英佛獨露蘇伊印臺甲乙丙丁戊己庚辛壬癸故前現新舊反非親對男女社黨年月火水木金土大小上下左右內外東西人株無有"
)

_CHAT = "ㅋㅎㅠㅜㅡㅣ"
_BROKEN = re.compile(
    f"[가-힣]+(?![{_CHAT}])(?:[ㄱ-ㅎ]|[ㅏ-ㅣ])[가-힣]+|[가-힣]+(?![ㅠㅜㅡㅣ])[ㅏ-ㅣ](?![ㄱ-ㅎㅏ-ㅣ])|[\u1100-\u11ff\ua960-\ua97c\ud7b0-\ud7fb]+"
)
_LATIN1_UTF8 = re.compile("(?:[ìíëêãäåæçèé][\u0080-\u00bf‚„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸƒ€]{1,2}){2,}")
_LATIN1_CP949 = re.compile("[\u00a1-\u00fe]{2}(?:[\u00a1-\u00fe ]{2,})[\u00a1-\u00fe]")
# a row of dots (·····), or of signs of arithmetic, is nothing decoded wrongly
_MARKS = re.compile("[\u00a1-\u00bf×÷ ]+")
_GARBLED = re.compile(f"[\ufffd\ue000-\uf8ff]+|{_LATIN1_UTF8.pattern}|{_LATIN1_CP949.pattern}")


@dataclass(frozen=True, slots=True)
class Strange:
    """Characters that do not belong, by kind; each a run as it stands in the text."""

    hanja: tuple[str, ...] = ()
    foreign_hanja: tuple[str, ...] = ()
    kana: tuple[str, ...] = ()
    other_scripts: tuple[str, ...] = ()
    broken_jamo: tuple[str, ...] = ()
    rare_syllables: tuple[str, ...] = ()
    garbled: tuple[str, ...] = ()


NOTHING = Strange()
"""What most texts have."""

ANOTHER_LANGUAGE = re.compile(
    r"영어|영문|영작|영단어|영한|한영|번역|통역|일본어|일어|중국어|한자|한문|사자성어|성어|히라가나|가타카나|프랑스어|불어|독일어|"
    r"스페인어|러시아어|라틴어|아랍어|외국어|원어|영국식|미국식|단어|철자|스펠링|알파벳|발음|"
    r"translat|english|japanese|chinese|spanish|french|german|language",
    re.IGNORECASE,
)
"""A question that matches wants, or may want, something else than Korean in the answer."""


def strange(text: str, asked: str) -> Strange:
    """What does not belong in a Korean text; text in NFC.

    Scripts in brackets, quotes and titles of works are glosses and do not count, nor does a line without any
    Hangul (a quoted poem, a sentence in another language).

    Args:
        text: an answer.
        asked: its question and context. Other scripts are wanted when it asks for another language, or shows
            letters of the same script.
    """
    if not _ODD.search(text):
        return NOTHING
    odd = set(text) - _ORDINARY
    joined = "".join(odd)
    hanja: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    kana: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    found = [run for run in (_ANY_HANJA, _KANA_RUN, _OTHER_RUN) if run.search(joined)]
    if found and not ANOTHER_LANGUAGE.search(asked) and not any(run.search(asked) for run in found):
        body = _korean_lines(_GLOSS.sub(" ", text))
        hanja = tuple(run for run in _HANJA_RUN.findall(body) if run not in _ABBREVIATIONS)
        foreign = tuple(run for run in hanja if not _in_korean_use(run))
        kana = tuple(_KANA_RUN.findall(body))
        other = tuple(_OTHER_RUN.findall(body))
    return Strange(
        hanja,
        foreign,
        kana,
        other,
        tuple(_BROKEN.findall(text)),
        tuple(sorted(char for char in odd if "가" <= char <= "힣" and char not in _WRITTEN)),
        tuple(found[0] for found in _GARBLED.finditer(text) if not _MARKS.fullmatch(found[0])),
    )


# Outside KS X 1001 and yet written on purpose: spoken forms, sounds and loan words (counted in kowiki and NSMC).
_WRITTEN = frozenset("왤뭥쵝앜닼얔잌쉣쒯읎횽핳뷁짴똠슌")


def _korean_lines(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if any("가" <= char <= "힣" for char in line))


def _in_korean_use(run: str) -> bool:
    """Whether all are among the 4,888 Hanja of KS X 1001: simplified and Japanese forms are not."""
    try:
        run.encode("euc-kr")
    except UnicodeEncodeError:
        return False
    return True
