"""What machine translation leaves behind: English, literal phrases, another language, lost numbers and code."""

from __future__ import annotations

import re
from dataclasses import dataclass

from koalpaca_tune import korean
from koalpaca_tune.data.quality.scripts import ANOTHER_LANGUAGE
from koalpaca_tune.records import Turn

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|\$[^$\n]+\$|<[^<>\n]{1,200}>", re.DOTALL)
_ADDRESS = re.compile(
    r"(?:https?://|www\.)\S+|\S+@\S+\.\w+|(?:[A-Za-z]:)?[\w.-]*[/\\][\w./\\-]+|\b[\w-]+\.[a-z]{2,4}\b"
)
_GLOSS = re.compile(
    r"\([^()\n]*\)|\[[^\[\]\n]*\]|“[^”\n]*”|‘[^’\n]*’|\"[^\"\n]*\"|'[^'\n]*'|《[^》\n]*》|〈[^〉\n]*〉|「[^」\n]*」|『[^』\n]*』"
)
_LATIN_RUN = re.compile(r"[A-Za-z][A-Za-z'’]*(?:[ ,;:-]{1,2}[A-Za-z][A-Za-z'’]*)*")
_LATIN = re.compile("[A-Za-z]")
_HANGUL = re.compile("[가-힣]")
# English grammar: names and terms (New York Times, support vector machine) have none of these words.
_GRAMMAR = re.compile(
    r"\b(?:the|an|of|to|is|are|was|were|be|been|has|have|had|will|would|can|could|should|that|this|these|it|its"
    r"|you|your|we|our|they|their|he|she|his|her|with|for|from|by|as|on|at|which|who|not|do|does|did|but|because"
    r"|and|or|if|when|how|what|there|here|please|sure|following)\b",
    re.IGNORECASE,
)

_TECHNICAL = re.compile(
    r"코드|프로그램|함수|스크립트|명령|파이썬|자바|쿼리|정규식|수식|공식|방정식|html|css|sql|json|xml|yaml|api|python|java|code|regex"
    r"|약어|약자|기호|제목|브랜드|노래|도메인|url|이메일|주소|식을|계산",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class English:
    """English in an answer outside code, addresses, brackets and quotes, and not taken from the question.

    Attributes:
        share: of Latin letters among Latin letters and Hangul.
        words: of the longest run that is English by its grammar, not a name.
        run: that run.
    """

    share: float = 0.0
    words: int = 0
    run: str = ""


_NO_ENGLISH = English()


def english(question: str, answer: str) -> English:
    """English left in a Korean answer to a Korean question that asks for no other language."""
    if not _LATIN.search(answer) or not _HANGUL.search(answer) or ANOTHER_LANGUAGE.search(question):
        return _NO_ENGLISH
    body = _GLOSS.sub(" ", _ADDRESS.sub(" ", _CODE.sub(" ", answer)))
    latin = len(_LATIN.findall(body))
    hangul = len(_HANGUL.findall(body))
    if not latin or not hangul:
        return _NO_ENGLISH
    words, run = 0, ""
    for found in _LATIN_RUN.findall(body):
        count = len(found.split())
        if count >= _SHORTEST_RUN and count > words and _GRAMMAR.search(found) and found not in question:
            words, run = count, found
    return English(latin / (latin + hangul), words, run)


_SHORTEST_RUN = 3


def wrong_language(question: str, answer: str, asked: float | None, given: float | None) -> bool:
    """Whether a Korean question got an answer in another language, or the other way round, without being asked.

    Args:
        question: the question, with its context.
        answer: the answer.
        asked, given: the share of Hangul in each.
    """
    if asked is None or given is None or (asked > _FOREIGN_SHARE and given >= _KOREAN):
        return False
    if ANOTHER_LANGUAGE.search(question) or _TECHNICAL.search(question):
        return False
    body = _ADDRESS.sub(" ", _CODE.sub(" ", answer))
    share = korean.hangul_share(body)
    if share is None or sum(map(str.isalpha, body)) < _ENOUGH_LETTERS or len(body.split()) < _ENOUGH_WORDS:
        return False
    return (asked >= _KOREAN and share <= _FOREIGN_SHARE) or (
        asked <= _FOREIGN_SHARE and share >= _KOREAN and len(question.split()) >= _ENOUGH_WORDS
    )


_ENOUGH_LETTERS, _ENOUGH_WORDS = 12, 3
_KOREAN, _FOREIGN_SHARE = 0.6, 0.1

_DOUBLED = r"(?:지[는다고며면]|진[다 ]|졌|집니다|질)"
_MARKERS = re.compile(
    rf"(?:되어|보여|불려|쓰여|잊혀|믿겨|나뉘어|읽혀|찢겨|담겨){_DOUBLED}"
    r"|(?:^|[.!?]\s+|\n)(?:그것(?:은|들은|이|의)|이것들은|그들은|그녀는)\s"
    r"|당신(?:은|의|이|을|에게|들)\s?"
    r"|하나의\s[가-힣]+(?:이다|입니다)|가장\s[가-힣]+\s[가-힣]+\s중\s하나"
    r"|그럼에도\s불구하고|에\s다름\s?아니|을\s필요로\s(?:한|하)"
    r"|에\s의(?:해|하여)서?\s[가-힣]+(?:되|어지|아지|여지)|아무리\s강조해도\s지나치지\s않"
    r"|(?:많은|여러|수많은|다양한)\s[가-힣]+들(?:은|이|을|의|과|에)"
    r"|(?:하는|되는|있는)\s것이\s가능(?:하|합)|할\s수\s있게\s?(?:해|합니)\s?(?:줍|준|니)"
    r"|(?:물론입니다|물론이죠|확실히|확실합니다)[!.,]\s*(?:여기|다음|아래)"
    r"|^\s*여기(?:에)?\s[^\n.]{0,40}(?:있습니다|입니다)[.:!]"
    r"|홀수\s중\s하나|홀수를\s찾|단일\s항목을\s식별|다음\s중\s홀수|이상한\s것을\s하나"
)
"""Phrases of translated English: double passives, 당신은, `가장 ... 중 하나`, odd one out as 홀수."""


# what one of them begins with, or holds: found in a fraction of the time
_SIGN_OF_MARKER = re.compile(
    r"되어|보여|불려|쓰여|잊혀|믿겨|나뉘어|읽혀|찢겨|담겨|그것|이것들|그들은|그녀는|당신|하나의|가장\s|그럼에도|다름|필요로|의해|의하여|아무리"
    r"|많은|여러|다양한|것이\s가능|수\s있게|물론|확실|여기|홀수|단일|다음\s중|이상한"
)


def literal_phrases(text: str) -> list[str]:
    """The translated phrases in a text. One or two happen in good Korean; the count per length tells."""
    if not _SIGN_OF_MARKER.search(text):
        return []
    return [found[0].strip() for found in _MARKERS.finditer(text)]


_ODD_ONE_OUT = re.compile(r"홀수\s중\s하나")
_ODD_AMONG = re.compile(r"(?:다음\s중\s)?홀수(?:를|는)\s?(?:찾|밝히|식별|고르|골라|선택|말하|말해)")
_NUMERIC = re.compile("[0-9]|숫자|정수|자연수|수열|함수")


def odd_one_out(turn: Turn) -> list[str]:
    """`홀수`, an odd number, where a question asks for the odd one of things that are no numbers: KoAlpaca v1.0."""
    text = f"{turn.content}\n{turn.context}" if turn.context else turn.content
    if "홀수" not in turn.content or _NUMERIC.search(text):
        return []
    listed = bool(turn.context) or "," in text or ":" in text
    found = _ODD_ONE_OUT.search(turn.content) or (_ODD_AMONG.search(turn.content) if listed else None)
    return [found[0]] if found else []


_PLACEHOLDER = re.compile(
    r"<\s*(?:no\s?input|noinput|input|입력|입력\s?없음|없음|출력|output)\s*>|\bno\s?input\b|^\s*\(?입력\s?없음\)?\s*$"
    r"|^\s*(?:출력|입력|응답|답변|대답|output|input|response|instruction)\s*:\s|###\s*(?:응답|명령어|지시|질문|답변|Response|Instruction|Input)",
    re.IGNORECASE,
)


_MARK_OF_FORMAT = re.compile("[<:]|###|[Ii]nput|INPUT|입력")


def placeholders(text: str) -> list[str]:
    """Remains of a prompt format: `<noinput>`, `출력:`, `### 응답`."""
    if not _MARK_OF_FORMAT.search(text):
        return []
    return [found[0].strip() for found in _PLACEHOLDER.finditer(text)]


_MACHINE = re.compile(
    r"(?:인공지능|AI|에이아이)\s?(?:언어)?\s?(?:모델|비서|어시스턴트|챗봇)(?:로서|이기\s때문|이므로|이라서|입니다|으로서)|언어\s모델로서"
    r"|저는\s(?:인공지능|AI)|as an AI|I'm sorry, but|I cannot"
    r"|(?:죄송하지만|죄송합니다만?|유감스럽게도|미안하지만)[^\n.]{0,60}(?:할\s수\s없|드릴\s수\s없|어렵습니다|못합니다|없습니다|모르겠)"
)


def refusal(text: str) -> str:
    """What shows that the answer speaks as a language model, or declines to answer; empty when nothing does."""
    found = _MACHINE.search(text)
    return found[0] if found else ""


_REWRITE = re.compile(
    r"번역|옮겨|교정|맞춤법|띄어쓰기|고쳐|바꿔|바꾸|다시\s?(?:쓰|써|작성)|재작성|말투|존댓말|반말|높임|문장\s?부호|"
    r"paraphrase|translate|rewrite|correct|변환|수정"
)
_SUMMARY = re.compile(r"요약|간추|줄여|핵심|정리|summar")
_WITH_NUMBERS = re.compile(r"암호|계산|숫자|단위|환산|더하|이진|진수|로마|섭씨|화씨|코드|몇")
_NUMBER = re.compile(r"\d+(?:[,.]\d+)*")
_LIST_NUMBER = re.compile(r"(?:^|\n)\s*[\[(]?\d{1,2}[\].)](?=\s|[가-힣])|\[\d{1,2}\]")
_KOREAN_DIGITS = ("영", "일", "이", "삼", "사", "오", "육", "칠", "팔", "구", "십")
_NATIVE = ("", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉", "열")


@dataclass(frozen=True, slots=True)
class Kept:
    """What a rewritten text kept of its input.

    Attributes:
        lost_numbers: share of the input's numbers that a translation or correction lacks.
        new_numbers: share of the answer's numbers that the input lacks, of summaries too.
        lost_code: code blocks fewer than in the input.
        lost, new: those numbers, the first of them.
    """

    lost_numbers: float = 0.0
    new_numbers: float = 0.0
    lost_code: int = 0
    lost: tuple[str, ...] = ()
    new: tuple[str, ...] = ()


ALL_KEPT = Kept()
"""Also where nothing had to be kept."""


def kept(turn: Turn, answer: str) -> Kept:
    """Compares an answer with the input it had to translate, correct, rephrase or summarise.

    Only where the request says so (번역, 교정, 바꿔 쓰기, 요약 ...) and the input came with it; a number may be
    written in words. Arithmetic, units and ciphers change numbers by right and are left out.
    """
    request, material = turn.content, turn.context
    if material is None:
        request, material = _request_and_material(turn.content)
    if not material:
        return ALL_KEPT
    rewrite = _REWRITE.search(request) is not None
    if not (rewrite or _SUMMARY.search(request)):
        return ALL_KEPT
    lost_code = max(0, material.count("```") // 2 - answer.count("```") // 2) if rewrite else 0
    if _WITH_NUMBERS.search(request):
        return Kept(lost_code=lost_code)
    given, written = _numbers(material), _numbers(answer)
    lost = [number for number in given if rewrite and not _said(number, written, answer)]
    new = [number for number in written if not _said(number, given, material)]
    return Kept(
        len(lost) / len(given) if given else 0.0,
        len(new) / len(written) if written else 0.0,
        lost_code,
        tuple(lost[:_EXAMPLES]),
        tuple(new[:_EXAMPLES]),
    )


_EXAMPLES = 4


def _request_and_material(text: str) -> tuple[str, str]:
    first, _, rest = text.partition("\n")
    if len(rest.strip()) >= 2:
        return first, rest
    request, colon, rest = text.partition(":")
    return (request, rest) if colon and len(rest.strip()) >= 2 else (text, "")


def _numbers(text: str) -> dict[str, None]:
    body = _LIST_NUMBER.sub(" ", text)
    return {_plain(number): None for number in _NUMBER.findall(body)}


def _plain(number: str) -> str:
    whole = number.replace(",", "")
    return whole.lstrip("0") or "0"


def _said(number: str, others: dict[str, None], text: str) -> bool:
    if number in others:
        return True
    if number.isdigit() and int(number) <= 10:
        return any(word and word in text for word in (_KOREAN_DIGITS[int(number)], _NATIVE[int(number)]))
    # 10000 as 1만, 2000000 as 200만, 50000 as 5만
    if number.isdigit():
        stem = number.rstrip("0")
        return len(number) - len(stem) >= 3 and any(other and stem.startswith(other) for other in others)
    return False


_REFERRING = re.compile("다음|아래|주어진|제시된|위")
_REFERS = re.compile(
    r"(?:^|\s)(?:다음|아래|주어진|제시된|위)(?:의|에|에\s있는|에\s제시된|에\s주어진)?\s(?:[가-힣]+[은는을를]?\s){0,2}?"
    r"(?:문장|글|지문|텍스트|단락|문단|기사|코드|목록|숫자|단어들?|이메일|편지|시|데이터|표|문서|리뷰|후기|대화|방정식|식|수식|함수|반말|존댓말|낱말|질문|문제|이야기|대본|사례)"
    r"(?:을|를|이|가|의|에서|은|는|에|들을|들)(?:\s|$)"
)


def missing_input(turn: Turn, answered_before: bool) -> bool:
    """Whether a question speaks of `the text below` and none is there.

    Args:
        turn: a user turn.
        answered_before: whether turns stand before it, which may hold what it refers to.
    """
    if turn.context or answered_before or not _REFERRING.search(turn.content):
        return False
    if not _REFERS.search(turn.content):
        return False
    text = turn.content.strip()
    if "\n" in text or "```" in text or len(text) > _LONG_REQUEST or _GIVEN_INSIDE.search(text):
        return False
    sentences = [part for part in re.split(r"[.?!]\s+", text) if part.strip()]
    return len(sentences) <= 2


_LONG_REQUEST = 80
_GIVEN_INSIDE = re.compile(r"[:<(\[]|[\"“'‘][^\"”'’]{12,}")
