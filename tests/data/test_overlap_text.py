"""What makes two texts the same, and what does not."""

import unicodedata

import pytest

from koalpaca_tune.data.overlap.text import (
    CONTEXT,
    TURN,
    exact_key,
    near_text,
    normalise,
    normalised_key,
    question_text,
)
from koalpaca_tune.records import Conversation, Turn


def talk(question: str, answer: str, context: str | None = None, system: str | None = None) -> Conversation:
    first = (Turn("system", system),) if system else ()
    return Conversation((*first, Turn("user", question, context), Turn("assistant", answer)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("밥 먹었어?", "밥먹었어"),
        ("재밌다 ㅋㅋㅋㅋ!!", "재밌다ㅋㅋ"),
        ("Hello, World", "hello world"),
        ("가격은 1,000원", "가격은 1000원"),
        (unicodedata.normalize("NFD", "학교에 간다."), "학교에 간다"),
        ("좋아요 😊^^", "좋아요~~"),
        ("1. 사과 - 빨강", "1 사과: 빨강"),
        ("3 + 4 = ?", "3+4="),
    ],
)
def test_dress_is_left_out(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3+4", "3-4"),
        ("3 + 4", "34"),
        ("3.5점", "35점"),
        ("12 3", "1 23"),
        ("-5도", "5도"),
        ("답: -5", "답: 5"),
        ("1/2", "12"),
        ("1,2,3", "123"),
        ("x<3", "x>3"),
        ("50%", "50원"),
        ("!!!", "???"),
        ("😊", "😢"),
        ("a-b", "a+b"),
    ],
)
def test_signs_that_carry_meaning_stay(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


def test_normalising_twice_changes_nothing() -> None:
    for text in (
        "가 - 나 3 . 5 / 2!",
        "f(x) = x^2 - 1",
        "^^ :)",
        "2023-01-02 12:30",
        "A: 네, 1,000원이요 ㅎㅎㅎ",
        "",
    ):
        assert normalise(normalise(text)) == normalise(text)


def test_exact_is_blind_to_spacing_only_and_normalised_to_dress() -> None:
    one, spaced, dressed = talk("뭐 해?", "쉬어."), talk("뭐  해?", "쉬어.\n"), talk("뭐 해??", "쉬어~")
    assert exact_key(one) == exact_key(spaced) != exact_key(dressed)
    assert normalised_key(one) == normalised_key(spaced) == normalised_key(dressed)
    assert len(exact_key(one)) == len(normalised_key(one)) == 16


def test_keys_keep_parts_and_roles_apart() -> None:
    keys = {normalised_key(one) for one in (talk("가나", "다"), talk("가", "나다"), talk("가", "다", "나"))}
    assert len(keys) == 3
    assert normalised_key(talk("가", "나", system="다")) != normalised_key(talk("가", "나"))


def test_marks_alone_are_still_different_records() -> None:
    assert normalised_key(talk("어때?", "👍")) != normalised_key(talk("어때?", "👎"))


def test_a_shared_system_turn_is_no_likeness() -> None:
    conversation = talk("질문", "답", "글", system="당신은 친절한 챗봇입니다.")
    assert near_text(conversation) == f"질문{CONTEXT}글{TURN}답"
    assert question_text(conversation) == f"질문{CONTEXT}글"


def test_control_characters_in_a_text_do_not_make_turns() -> None:
    assert near_text(talk(f"가{TURN}나{CONTEXT}다", "라")) == f"가나다{TURN}라"
