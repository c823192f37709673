"""Answer language: whether an answer is in the language of its question, or in the one it asks for.

`data.quality.translation.wrong_language` lets every question pass that names a language, since a training record
may be about one. An answer to be measured must be in the language asked for, so that case is decided here.
"""

from __future__ import annotations

import re
from typing import Literal

from koalpaca_tune.measures.letters import ADDRESS, CODE, TECHNICAL
from koalpaca_tune.measures.text import composed

Language = Literal["korean", "english", "japanese", "chinese", "russian", "latin"]
"""`latin`: another language in Latin letters than English, or one that its letters do not tell."""

_KOREAN_NAMES: dict[str, Language] = {
    **dict.fromkeys(("한국어", "한국말", "우리말", "한글"), "korean"),
    **dict.fromkeys(("영어", "영문"), "english"),
    **dict.fromkeys(("일본어", "일어", "일본말"), "japanese"),
    **dict.fromkeys(("중국어", "중국말", "한문"), "chinese"),
    **dict.fromkeys(("러시아어", "노어"), "russian"),
    **dict.fromkeys(("프랑스어", "불어", "독일어", "스페인어", "이탈리아어", "베트남어"), "latin"),
}
_ENGLISH_NAMES: dict[str, Language] = {
    **{
        "korean": "korean",
        "english": "english",
        "japanese": "japanese",
        "chinese": "chinese",
        "russian": "russian",
    },
    **dict.fromkeys(("french", "german", "spanish"), "latin"),
}
_TO = re.compile(
    rf"({'|'.join(_KOREAN_NAMES)})(?:으)?로(?:만|도)?(?![가-힣])|(?:in|into|to) ({'|'.join(_ENGLISH_NAMES)})\b",
    re.IGNORECASE,
)
# the request is for a text in that language; 영어로 뭐라고 하나요 is answered in Korean as well
_WANTED = re.compile(
    r"번역|옮겨|옮기|답(?:해|하|변)|대답|작성|써|쓰|적어|말해|설명|요약|소개|바꿔|translate|answer|write|reply|respond|explain|summari[sz]e",
    re.IGNORECASE,
)
_ABOUT = re.compile(
    r"뭐라고|무엇이라고|어떻게 (?:말|읽|쓰|표현|발음)|무슨 뜻|[이가] 뭐|무엇인가요|무엇이|뭔가요|원문|제목"
    r"|가사|어원|철자|한자로"
)
# a question about a language may be answered in it
_OF_LANGUAGE = re.compile(
    r"번역|원문|영단어|단어|발음|철자|스펠링|영문|영어|일본어|일어|중국어|한자|한문|러시아어|프랑스어|불어|독일어|스페인어|라틴어|외국어|원어|로마자"
    r"|translat|correct|grammar|korean|mean",
    re.IGNORECASE,
)
# and one that asks for a name, a title or a formula with that alone
_OF_NAMES = re.compile(
    r"약어|약자|기호|제목|브랜드|상표|노래|도메인|주소|홈페이지|이메일|공식|식을|계산|화학식|회사|이름|모델|학명"
)

_HANGUL = re.compile("[가-힣ㄱ-ㅣ]")
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa]")
_HANJA = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_CYRILLIC = re.compile("[\u0400-\u04ff]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
_ENGLISH_WORDS = re.compile(
    r"\b(?:the|a|an|of|to|is|are|was|were|am|be|have|has|had|will|would|can|could|should|do|does|did|not|that|this|it|you|your|we|they|he|she|my|i"
    r"|with|for|from|by|at|and|or|but|in|on|if|when|how|what|there|here|please|thank|sorry|i'm|it's)\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|“[^”\n]*”|‘[^’\n]*’|:\s.*\Z", re.DOTALL)


def of(text: str) -> Language | None:
    """The language of most letters of a text, without code and addresses; None when it has no letter.

    A syllable counts as two and a half letters, so that names in Latin letters leave a text Korean. Hanja with kana
    are Japanese, without Chinese.
    """
    body = ADDRESS.sub(" ", CODE.sub(" ", composed(text)))
    counts: dict[Language, float] = {}
    kana, hanja = len(_KANA.findall(body)), len(_HANJA.findall(body))
    counts["japanese" if kana else "chinese"] = kana + hanja
    counts["russian"] = len(_CYRILLIC.findall(body))
    latin = len(_LATIN.findall(body))
    hangul = _SYLLABLE * len(_HANGUL.findall(body))
    english = len(_ENGLISH_WORDS.findall(body)) >= max(1, len(body.split()) // _EVERY)
    counts["english" if english else "latin"] = latin
    counts["korean"] = hangul
    name = max(counts, key=counts.__getitem__)
    return name if counts[name] else None


_SYLLABLE, _EVERY = 2.5, 8


def wanted(question: str) -> tuple[Language | None, bool]:
    """The language that an answer should have, and whether the question asks for it by name; None when open."""
    question = composed(question)
    frame = _QUOTED.sub(" ", question)
    asked = list(_TO.finditer(frame)) or list(_TO.finditer(question))
    if asked:
        if not _WANTED.search(frame) or _ABOUT.search(frame):
            return None, False
        name, other = asked[-1].groups()
        return _KOREAN_NAMES[name] if name else _ENGLISH_NAMES[other.lower()], True
    # an instruction in one language over material in another
    if len({of(line) for line in frame.splitlines() if len(line.split()) > 1} - {None}) > 1:
        return None, False
    return of(frame) or of(question), False


def mismatch(answer: str, question: str) -> bool | None:
    """Whether an answer is in another language than wanted; None when that is left open, or nothing tells.

    Code, formulas and names alone (WHO, Let It Be) have no language.
    """
    language, by_name = wanted(question)
    given = of(answer)
    if language is None or given is None:
        return None
    if given == language:
        return False
    if by_name:
        # English not told by its small words, a French answer that looks English
        return {given, language} != {"english", "latin"}
    if TECHNICAL.search(question) and not _is_talk(answer):
        return None
    if _OF_LANGUAGE.search(question) or {given, language} == {"english", "latin"}:
        return None
    if language == "korean" and given in ("english", "latin") and not _is_talk(answer):
        return None if _OF_NAMES.search(question) else len(answer.split()) >= _LONG
    return True


_LONG = 8


def _is_talk(answer: str) -> bool:
    """Whether a text in Latin letters is sentences: not code, a name or a title."""
    body = ADDRESS.sub(" ", CODE.sub(" ", answer))
    words = body.split()
    small = sum(word[0].islower() for word in words)
    marks = sum(body.count(mark) for mark in "(){}[]=;<>*")
    return len(words) >= 3 and small >= 2 and marks <= len(words) / 4
