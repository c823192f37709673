"""Speech levels: whether an answer keeps to 존댓말 or 반말, and whether it suits the question.

The levels of sentences are those of `data.quality.speech`: quotes, code and lists are left out, Kiwi decides what
the last syllables leave open.
"""

from __future__ import annotations

import re
from functools import lru_cache

from koalpaca_tune import korean
from koalpaca_tune.data.quality import speech
from koalpaca_tune.data.quality.speech import Spoken
from koalpaca_tune.measures.text import composed


@lru_cache(maxsize=1 << 12)
def spoken(text: str) -> Spoken:
    """The speech of a text, read once."""
    return speech.spoken(speech.endings(composed(text)))


def mixed(answer: str) -> tuple[str, ...]:
    """One polite and one plain sentence end of an answer that mixes 존댓말 and 반말; empty when it does not."""
    return spoken(answer).mixed or ()


def consistent(answer: str) -> bool | None:
    """Whether all sentences of an answer are 존댓말, or all 반말; None when none has a level."""
    said = spoken(answer)
    return None if said.level is None else said.mixed is None


# A text that was asked for has its own level: a summary, an article, a poem, a translation, a dialogue
_TEXT_ASKED = re.compile(
    r"요약|간추|번역|교정|맞춤법|이어서? ?(?:써|쓰|쓸)|완성해|작성|지어|창작"
    r"|서술하|반말|존댓말|말투|사투리|문체|편하게 (?:말|답|대)"
    r"|(?:문장|글|말|표현|다음|아래)[^\n]{0,30}(?:바꿔|바꾸|고쳐|고치|옮겨|옮기)"
    r"|(?:(?<![가-힣])(?:시|글)|소설|기사|일기|편지|대본|가사|동화|이야기|수필|문단|문장|제목|표어|구호|문구|논설문|보고서|설명문|에세이|감상문"
    r"|줄거리|속담|명언|격언|판결|요지|초안)(?:[을를의 ])[^.?!\n]{0,12}(?:써|쓰|적|만들|알려|들려|해 ?주|보여|소개)"
    r"|(?:대화|대사)를|써 ?(?:주|줘|봐|보)|쓰(?:세요|시오|십시오)|적으(?:세요|시오|십시오)"
)


def suits(answer: str, question: str) -> bool | None:
    """Whether an answer is 존댓말 where the question is; an answer to 반말 may be either.

    None when either has no level, and when the question asks for a text, which has a level of its own. The level of
    most of its sentences counts: 해라체 (물은 100도에서 끓는다.) is 반말 as an answer to 끓나요?
    """
    asked, said = spoken(question).level, spoken(answer).level
    if asked is None or said is None or _TEXT_ASKED.search(question):
        return None
    return asked not in korean.POLITE or said in korean.POLITE
