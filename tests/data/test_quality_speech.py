from __future__ import annotations

import pytest

from koalpaca_tune import korean
from koalpaca_tune.config.quality import Speech
from koalpaca_tune.data.quality import signals, speech
from koalpaca_tune.records import Conversation, Turn


def talk(*texts: str, system: str | None = None) -> Conversation:
    turns = [Turn("user" if n % 2 == 0 else "assistant", text) for n, text in enumerate(texts)]
    return Conversation((*([Turn("system", system)] if system is not None else []), *turns))


def spoken(text: str) -> speech.Spoken:
    return speech.spoken(speech.endings(text))


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("내일은 비가 옵니다.", "하십시오체"),
        ("어디로 가십니까?", "하십시오체"),
        ("같이 갑시다", "하십시오체"),
        ("밥 먹었어요? ㅎㅎ", "해요체"),
        ("그렇죠!!", "해요체"),
        ("좋네요~ (웃음)", "해요체"),
        ("밥 먹었어?", "해체"),
        ("그럴 것 같아", "해체"),
        ("그래서 봤는데", "해체"),
        ("같이 밥 먹자.", "해라체"),
        ("세종대왕은 한글을 만들었다.", "해라체"),
        ("그게 뭐냐?", "해라체"),
        ("꽃이 참 예쁘구나", "해라체"),
        ("한국의 수도는 서울", None),
        ("정말 필요", None),
        ("아주 재미있음", None),
        ("바다", None),
        ("캐나다", None),
        ("123", None),
        ("", None),
    ],
)
def test_the_level_of_a_turn(text: str, level: str | None) -> None:
    assert spoken(text).level == level


@pytest.mark.parametrize(
    "word", ["합니다", "했어요", "그렇죠", "갔어", "같아", "하는데", "한다", "있다", "좋으냐", "할까"]
)
def test_the_quick_level_is_kiwis(word: str) -> None:
    assert speech.quick_level(word) == korean.speech_level(f"나도 그게 참 {word}.")


@pytest.mark.parametrize("word", ["필요", "중요", "남자", "미래", "바다", "나가"])
def test_words_that_end_like_verbs_are_asked(word: str) -> None:
    assert speech.quick_level(word) == speech.UNSURE


def test_words_that_end_in_no_ending_are_not_asked() -> None:
    assert [speech.quick_level(word) for word in ("서울", "영화관", "재미있음", "먹기")] == [None] * 4


@pytest.mark.parametrize(
    "text",
    [
        "안녕하세요. 밥 먹었니?",
        "비가 옵니다. 우산 꼭 챙겨라.",
        "정말 그렇지요? 그건 나도 잘 몰라.",
    ],
)
def test_polite_and_plain_mixed(text: str) -> None:
    assert spoken(text).mixed


@pytest.mark.parametrize(
    "text",
    [
        "안녕하세요. 비가 옵니다. 우산을 챙기세요.",
        '그는 "밥 먹었니? 나도 간다."라고 말했습니다. 참 다정하죠.',
        "순서는 이렇습니다.\n1. 물을 끓인다.\n2. 면을 넣는다.\n맛있게 드세요.",
        "# 라면은 언제 먹는가\n밤에 먹으면 더 맛있습니다.",
        "한국의 수도는 서울. 인구는 약 천만입니다.",
        "`나는 간다.`라는 문장입니다.",
    ],
)
def test_quotes_lists_titles_and_nouns_do_not_mix(text: str) -> None:
    assert spoken(text).mixed is None


def test_a_long_tail_of_marks_takes_no_time() -> None:
    assert spoken("좋아요" + "!ㅋ(^" * 20_000).level == "해요체"


def test_label_writes_the_level_into_the_system_turn() -> None:
    plain = talk("배고파", "밥을 먹어 봐요.")
    (measured,) = signals.measure([plain])
    labelled = speech.label(plain, measured)
    assert labelled.turns == (Turn("system", "해요체로 답하세요."), *plain.turns)
    assert speech.label(labelled, measured) == labelled
    long = talk("언제 엽니까?", "아홉 시에 엽니다.", system="당신은 직원입니다.")
    (measured,) = signals.measure([long])
    assert speech.label(long, measured).turns[0].content == "당신은 직원입니다. 하십시오체로 답하세요."


@pytest.mark.parametrize(
    "answers",
    [("밥을 드세요. 얼른 먹어.",), ("서울",), ("밥을 드세요.", "얼른 먹어.")],
    ids=["mixed", "none", "differ"],
)
def test_no_label_where_the_level_is_not_one(answers: tuple[str, ...]) -> None:
    turns = [text for answer in answers for text in ("질문이 있어요.", answer)]
    conversation = talk(*turns)
    (measured,) = signals.measure([conversation])
    assert speech.label(conversation, measured) == conversation


def test_keep_speaks_of_every_sentence() -> None:
    polite, plain, mixed, none = signals.measure(
        [talk("뭐 해?", text) for text in ("밥을 먹어요.", "밥을 먹어.", "밥을 먹어요. 너도 먹어.", "밥")]
    )
    keep = Speech(keep=["해요체", "하십시오체"])
    assert speech.unwanted(polite, keep) is None
    assert speech.unwanted(none, keep) is None
    problem = speech.unwanted(plain, keep)
    assert problem is not None
    assert problem.code == "quality-speech"
    assert "해체" in problem.what
    assert speech.unwanted(mixed, keep) is not None
    assert speech.unwanted(plain, Speech()) is None
