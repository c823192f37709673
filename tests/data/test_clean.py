from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koalpaca_tune.data import report
from koalpaca_tune.data.cleaning.clean import STEPS, TRIMMED, clean
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn


def pair(question: str, answer: str = "답", context: str | None = None) -> Conversation:
    return Conversation((Turn("user", question, context), Turn("assistant", answer)), "f.csv:2")


def test_nfd_becomes_nfc_with_the_same_id() -> None:
    cleaned, steps = clean(pair(unicodedata.normalize("NFD", "맥에서 쓴 글"), unicodedata.normalize("NFD", "답")))
    assert cleaned == pair("맥에서 쓴 글")
    assert cleaned.id == pair("맥에서 쓴 글").id
    assert steps == ("nfc",)


@pytest.mark.parametrize(
    ("before", "after", "steps"),
    [
        ("가\r\n나\r다\v라\u2028마", "가\n나\n다\n라\n마", ("line-ends",)),
        ("가\u200b나\ufeff다\x07라\u3164마", "가나다라마", ("invisible",)),
        ("가\u200d나 👩\u200d🚀 나\u200cم\u200cي", "가나 👩\u200d🚀 나م\u200cي", ("invisible",)),
        ("  가 나\t\u3000\n", "가 나", ("outer-space",)),
        ("ᄒ\u200bᅡᆫ글", "한글", ("invisible", "nfc")),
        ("def f():\n\treturn 1", "def f():\n\treturn 1", ()),
    ],
)
def test_steps(before: str, after: str, steps: tuple[str, ...]) -> None:
    assert clean(pair(before)) == (pair(after), steps)
    assert clean(pair("질문", before)) == (pair("질문", after), steps)
    assert clean(pair("질문", context=before)) == (pair("질문", context=after), steps)


def test_an_empty_context_is_none() -> None:
    assert clean(pair("질문", context=" \u200b"))[0] == pair("질문")


@pytest.mark.parametrize("blank", ["", " \n", "\u200b\u3164"])
def test_an_empty_question_or_answer_is_refused(blank: str) -> None:
    for conversation, what in (
        (pair(blank), "the question is empty"),
        (pair("질문", blank), "the answer is empty"),
    ):
        with pytest.raises(KoalpacaError, match=what) as caught:
            clean(conversation)
        assert caught.value.problems[0].code == "row-empty"
        assert caught.value.problems[0].where == "f.csv:2"


def test_a_question_alone_is_refused() -> None:
    with pytest.raises(KoalpacaError, match="no answer"):
        clean(Conversation((Turn("user", "질문"),), "f:1"))


def test_a_last_question_without_an_answer_is_cut_and_counted() -> None:
    longer = Conversation((*pair("하나").turns, Turn("user", "둘")), "f.csv:2")
    assert clean(longer) == (pair("하나"), (TRIMMED,))


def test_an_empty_system_turn_goes() -> None:
    assert clean(Conversation((Turn("system", " "), *pair("하나").turns), "f.csv:2"))[0] == pair("하나")


@pytest.mark.parametrize("code", [0xDCFF, 0xFFFD, 0xD83D])
def test_lost_characters_are_refused(code: int) -> None:
    with pytest.raises(KoalpacaError, match="character 2 ") as caught:
        clean(pair(f"가{chr(code)}"))
    assert caught.value.problems[0].code == "row-encoding"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_cleaning_is_stable(text: str) -> None:
    try:
        once, _ = clean(pair(text))
    except KoalpacaError:
        return
    assert clean(once) == (once, ())


def test_every_step_has_a_korean_name() -> None:
    assert list(report.STEPS) == [*STEPS, TRIMMED]
