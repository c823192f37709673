"""Characters that do not belong in a Korean answer: Hanja, other scripts and languages, broken syllables.

Hanja, kana, other scripts and garbled text are those of `data.quality.scripts`. English is judged anew: a training
record may keep one word of it, and names with a `the` in them (The North Face) should not count against an answer.
Broken syllables leave misspellings out (됬, 떄), which people write and no decoder makes, and add byte tokens,
syllables typed apart and letters that stand for nothing.
"""

from __future__ import annotations

import re

from koalpaca_tune.data.cleaning import characters
from koalpaca_tune.data.quality import scripts
from koalpaca_tune.data.quality.scripts import ANOTHER_LANGUAGE
from koalpaca_tune.korean import final_consonant
from koalpaca_tune.measures.text import composed

CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|\$[^$\n]+\$", re.DOTALL)
# each begins where no letter stands before it: else every letter of a long run would be tried
ADDRESS = re.compile(
    r"(?:https?://|www\.)\S+|(?<![A-Za-z0-9_.+@/\\-])(?:[A-Za-z0-9_.+-]+@[\w-]+\.\w+|(?:[A-Za-z]:)?[A-Za-z0-9_.-]*[/\\][\w./\\-]+"
    r"|[A-Za-z0-9_-]+\.[a-z]{2,5}\b)"
)
GLOSS = re.compile(
    r"\([^()\n]*\)|\{[^{}\n]*\}|\[[^\[\]\n]*\]|<[^<>\n]*>|“[^”\n]*”|‘[^’\n]*’|\"[^\"\n]*\"|'[^'\n]*'|《[^》\n]*》|〈[^〉\n]*〉|「[^」\n]*」|『[^』\n]*』"
)
TECHNICAL = re.compile(
    r"코드|코딩|프로그램|함수|스크립트|명령|파이썬|자바|쿼리|정규식|수식|공식|리눅스|터미널|서버|변수|배열|라이브러리"
    r"|(?<![a-z])(?:html|css|sql|json|xml|yaml|api|python|java|javascript|linux|code|regex)(?![a-z])",
    re.IGNORECASE,
)
"""A question that matches may be answered with words of a program."""


def prose(text: str) -> str:
    """A text without code, addresses, brackets, quotes and titles of works, a space for each."""
    # twice: brackets stand in brackets
    return GLOSS.sub(" ", GLOSS.sub(" ", ADDRESS.sub(" ", CODE.sub(" ", text))))


def hanja_leaks(answer: str, question: str) -> tuple[str, ...]:
    """Hanja that nobody asked for, outside brackets, quotes and titles: 规律적인; not 공자(孔子), 美 정부."""
    return scripts.strange(composed(answer), composed(question)).hanja


LATIN = "A-Za-z\u00c0-\u024f\u1e00-\u1eff"
_HANGUL = re.compile("[가-힣]")
_RUN = re.compile(rf"[{LATIN}][{LATIN}'’-]*(?:[ ,;:]{{1,2}}[{LATIN}'’-]+)*")
_GREEK_RUN = re.compile("[\u0370-\u03ff\u1f00-\u1fff]{3,}")
# small words inside names: Lord of the Rings, Vincent van Gogh
_IN_NAMES = frozenset(
    re.findall(r"\S+", "of the and in on at a an to for by with de la le du des von van der den di da et y el n o'")
)
_OPENER = re.compile(
    r"^\W*(?:Of course|Sure|Certainly|Absolutely|Here(?:'s| is| are)|Yes|Great question|However|Thank you)\b"
    r"[^가-힣]*[!,.:]"
)
# a word amid Korean: helpful합니다, 매일 consistently 실천
_WORD = re.compile(r"(?<![\w.'’&/+#-])(?<![A-Za-z] )[a-z]{4,}(?:ly|[a-z])(?=[가-힣]|[ ,.]+[가-힣])")
_JOINING = re.compile(
    r"(?<=[가-힣.,!?] )(?:and|or|but|the|is|are|was|with|because|which|so|very|also|then)(?= [가-힣])"
)


def foreign(answer: str, question: str) -> tuple[str, ...]:
    """Kana, other scripts and English in a Korean answer that nobody asked for; names, terms and code are none."""
    answer, question = composed(answer), composed(question)
    if not _HANGUL.search(answer):
        return ()
    found = scripts.strange(answer, question)
    given = [*found.kana, *found.other_scripts]
    if not ANOTHER_LANGUAGE.search(question):
        body = prose(answer)
        given += _GREEK_RUN.findall(body)
        if opener := _OPENER.match(answer):
            given.append(opener[0].strip())
        if not TECHNICAL.search(question):
            given += [found[0] for found in _WORD.finditer(body) if found[0] not in question]
            given += _JOINING.findall(body)
        given += [run for run in _RUN.findall(body) if _is_sentence(run) and run not in question]
    return tuple(dict.fromkeys(given))


def _is_sentence(run: str) -> bool:
    """Whether a run of Latin letters is more than a name: three words and more, two of them small and no name's."""
    words = [word for word in re.findall(r"[^\s,;:]+", run) if len(word) > 1]
    return len(words) > 2 and sum(word[0].islower() and word not in _IN_NAMES for word in words) > 1


_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
# a letter on its own between words; laughter, Mr ㄱ and the letters of a lesson on letters are meant
_LONE = re.compile(
    r"(?<=[가-힣] )(?![ㅋㅎㅉㅠㅜㅡ])[ㄱ-ㅎㅏ-ㅣ](?= [가-힣])"
    r"(?! ?(?:씨|군|양|사|시|구|동|의원|교수|회사|학교|업체|모씨))"
)
_ABOUT_LETTERS = re.compile(
    "자음|모음|받침|초성|중성|종성|글자|자모|낱자|두음|키를|키는|발음|한글|어미|맞춤법|음운"
)


def broken(answer: str, question: str) -> tuple[str, ...]:
    """Syllables that fell apart: U+FFFD, wrong decoding, byte tokens, lone and stray jamo, syllables of no word."""
    answer = composed(answer)
    found = scripts.strange(answer, question)
    given = [*found.garbled, *found.broken_jamo, *(char for char in found.rare_syllables if not _misspelt(char))]
    given += _BYTE_TOKEN.findall(CODE.sub(" ", answer))
    if not _ABOUT_LETTERS.search(answer) and not _ABOUT_LETTERS.search(question):
        given += _LONE.findall(answer)
        if characters.jamo(answer) != answer:
            given += _APART.findall(answer)
    return tuple(dict.fromkeys(given))


_APART = re.compile("[가-힣]?[ㄱ-ㅎ][ㅏ-ㅣ][ㄱ-ㅎ]?[가-힣]?")


def _misspelt(syllable: str) -> bool:
    """Whether a hand wrote it: 됬, 봣 for 됐, 봤 (past tense), 떄 for 때 (the shift key held on), 됭케르크."""
    if syllable in _IN_NAMES_OF_PLACES:
        return True
    initial, vowel = divmod((ord(syllable) - ord("가")) // 28, 21)
    return (final_consonant(syllable) in _SIOTS and vowel in _PAST) or (vowel in _SHIFTED and initial in _DOUBLE)


_IN_NAMES_OF_PLACES = frozenset("됭솁")
# the order of Unicode: ㅅ ㅆ; ㅏ ㅐ ㅓ ㅔ ㅕ ㅗ ㅘ ㅙ ㅚ ㅝ; ㅒ ㅖ; ㄲ ㄸ ㅃ ㅆ ㅉ
_SIOTS, _PAST, _SHIFTED, _DOUBLE = (19, 20), (0, 1, 4, 5, 6, 8, 9, 10, 11, 14), (3, 7), (1, 4, 8, 10, 13)
