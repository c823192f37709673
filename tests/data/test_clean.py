from __future__ import annotations

import csv
import json
import unicodedata
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koalpaca_tune.config import cleaning
from koalpaca_tune.data.cleaning.clean import DESCRIPTIONS, DESCRIPTIONS_EN, STEPS, TRIMMED, Change, clean
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.resources import DATA


def pair(question: str, answer: str = "답", context: str | None = None) -> Conversation:
    return Conversation((Turn("user", question, context), Turn("assistant", answer)), "f.csv:2")


def test_nfd_becomes_nfc_with_the_same_id() -> None:
    cleaned = clean(pair(unicodedata.normalize("NFD", "맥에서 쓴 글"), unicodedata.normalize("NFD", "답")))
    assert cleaned.conversation == pair("맥에서 쓴 글")
    assert cleaned.conversation.id == pair("맥에서 쓴 글").id
    assert list(cleaned.changes) == ["nfc"]


@pytest.mark.parametrize(
    ("before", "after", "steps"),
    [
        ("가\r\n나\r다\v라\u2028마", "가\n나\n다\n라\n마", ["line-ends"]),
        ("가\u200b나\ufeff다\x07라\u3164마", "가나다라마", ["invisible"]),
        ("가\u200d나 👩\u200d🚀 나\u200cم\u200cي", "가나 👩\u200d🚀 나م\u200cي", ["invisible"]),
        ("  가 나\t\u3000\n", "가 나", ["spaces", "outer-space"]),
        ("ᄒ\u200bᅡᆫ글", "한글", ["invisible", "nfc"]),
        ("def f():\n\treturn 1", "def f():\n\treturn 1", []),
        # one step uncovers work for another, before it or after it
        ("&amp;lt;br&amp;gt;가", "가", ["markup"]),
        ("가&#8203;나&nbsp; 다", "가나 다", ["markup", "invisible", "spaces"]),
        ("＜｜eot_id｜＞", "< |eot_id|>", ["width", "special-tokens"]),
        ("<|im\u200b_start|>", "< |im_start|>", ["invisible", "special-tokens"]),
        ("ㅋ\u200bㅋㅋㅋㅋ", "ㅋㅋㅋ", ["invisible", "laughter"]),
    ],
)
def test_steps(before: str, after: str, steps: list[str]) -> None:
    for damaged, sound in (
        (pair(before), pair(after)),
        (pair("질문", before), pair("질문", after)),
        (pair("질문", context=before), pair("질문", context=after)),
        (replace(pair("질문"), dispreferred=before), replace(pair("질문"), dispreferred=after)),
    ):
        cleaned = clean(damaged)
        assert cleaned.conversation == sound
        assert list(cleaned.changes) == steps


def test_only_the_steps_asked_for_run_in_their_order() -> None:
    text = "가<br>나ㅋㅋㅋㅋ\u200bㅋ  다"
    assert clean(pair(text), []).conversation == pair(text)
    assert clean(pair(text), ["laughter"]).conversation == pair("가<br>나ㅋㅋㅋ\u200bㅋ  다")
    assert list(clean(pair(text), ["spaces", "markup"]).changes) == ["spaces", "markup"]


def test_a_conversation_without_damage_is_handed_back_as_it_is() -> None:
    sound = pair("안녕? (오늘은) 3월 1일", "네, “반가워요”. ㅋㅋ")
    assert clean(sound).conversation is sound


def test_a_change_shows_the_first_place_with_hidden_characters_spelled_out() -> None:
    before = "앞말이 아주 길어서 다 보이지는 않는 글이에요. 여기\u200b에 숨은 글자" + " 뒷말" * 30
    change = clean(pair(before)).changes["invisible"]
    assert "여기<U+200B>에 숨은" in change.before
    assert "여기에 숨은" in change.after
    assert max(len(change.before), len(change.after)) <= 80
    assert clean(pair(unicodedata.normalize("NFD", "한"))).changes["nfc"] == Change("ㅎㅏㄴ", "한")
    assert clean(pair("가\r\n나")).changes["line-ends"] == Change("가<U+000D>⏎나", "가⏎나")


def test_a_change_shows_nothing_personal() -> None:
    changes = clean(pair("번호는 010-1234-5678\u200b, kim@naver.com 900101-1234568이에요.")).changes
    shown = str(changes)
    for secret in ("1234", "5678", "kim", "900101"):
        assert secret not in shown


def test_an_empty_context_is_none() -> None:
    assert clean(pair("질문", context=" \u200b")).conversation == pair("질문")
    assert clean(pair("질문", context="")).conversation == pair("질문")


@pytest.mark.parametrize("blank", ["", " \n", "\u200b\u3164", "<br>"])
def test_an_empty_question_or_answer_is_refused(blank: str) -> None:
    for conversation, what in (
        (pair(blank), "the question is empty"),
        (pair("질문", blank), "the answer is empty"),
        (replace(pair("질문"), dispreferred=blank), "the answer that lost is empty"),
    ):
        with pytest.raises(KoalpacaError, match=what) as caught:
            clean(conversation)
        assert caught.value.problems[0].code == "row-empty"
        assert caught.value.problems[0].where == "f.csv:2"


@pytest.mark.parametrize("turns", [(), (Turn("user", "질문"),), (Turn("system", "너는 비서야"),)])
def test_a_conversation_without_an_answer_is_refused(turns: tuple[Turn, ...]) -> None:
    with pytest.raises(KoalpacaError, match="no answer"):
        clean(Conversation(turns, "f:1"))


def test_a_last_question_without_an_answer_is_cut_and_counted() -> None:
    longer = Conversation((*pair("하나").turns, Turn("user", "둘")), "f.csv:2")
    cleaned = clean(longer)
    assert cleaned.conversation == pair("하나")
    assert cleaned.changes == {TRIMMED: Change("둘", "")}


def test_an_empty_system_turn_goes() -> None:
    assert clean(Conversation((Turn("system", " "), *pair("하나").turns), "f.csv:2")).conversation == pair("하나")


@pytest.mark.parametrize("code", [0xDCFF, 0xFFFD, 0xD83D])
def test_lost_characters_are_refused(code: int) -> None:
    with pytest.raises(KoalpacaError, match="character 2 ") as caught:
        clean(pair(f"가{chr(code)}"))
    assert caught.value.problems[0].code == "row-encoding"


@pytest.mark.parametrize(
    "text",
    [
        "占쏙옙占쏙옙 占쏙옙占시요",
        "占쌍곤옙占쌉니댐옙",
        "?븞?뀞?븯?꽭?슂 諛섍컩?뒿?땲?떎",
        "?덈뀞?섏꽭?? 諛섍컩?듬땲??",
    ],
)
def test_text_lost_in_a_wrong_encoding_is_refused(text: str) -> None:
    with pytest.raises(KoalpacaError, match="lost") as caught:
        clean(pair("질문", text))
    assert caught.value.problems[0].code == "row-encoding"


def test_text_about_lost_text_stays() -> None:
    about = pair("'占쏙옙'은 왜 나와요?", "U+FFFD를 cp949로 읽으면 “占쏙옙”이 돼요. 뷁, 햏, 쀍 같은 글자도 있어요.")
    assert clean(about).conversation == about


ODD = st.sampled_from(
    [
        *(
            "<br>",
            "</b>",
            "<b>",
            "<a href=b>",
            "&lt;",
            "&amp;",
            "&nbsp;",
            "&#48;",
            "&#x1F600;",
            "gt;",
            "<!--",
            "-->",
        ),
        *(
            "`",
            "```\n",
            "|",
            "<|",
            "|>",
            "[",
            "INST",
            "]",
            "###",
            " 답변",
            ":",
            "</s>",
            "＜",
            "｜",
            "！",
            "Ａ",
            "e",
            "1",
        ),
        *(
            "ㅋ",
            "ㅠ",
            "!",
            "?",
            "...",
            "  ",
            "\n",
            "\t",
            "\r",
            "\x85",
            "\u200b",
            "\u3164",
            "\xad",
            "\u3000",
            "\xa0",
        ),
        *("ㅎ", "ㅏ", "ᄒ", "ᅡ", "ᆫ", "\uffa1", "\uffc2", "가", "나", "漢", "\u0301"),
        *("Ã", "©", "ì", "\x95", "\x88", "ë", "°¡", "³ª", "媛", "꾩", "占", "쏙옙"),
    ]
)


@given(st.lists(ODD, max_size=16).map("".join), st.permutations(cleaning.STEPS), st.integers(0, 11))
def test_cleaning_odd_text_is_stable_in_any_order(text: str, order: list[cleaning.Step], count: int) -> None:
    for steps in (cleaning.STEPS, order[:count]):
        try:
            once = clean(pair("질문", text), steps).conversation
        except KoalpacaError:
            continue
        again = clean(once, steps)
        assert again.conversation == once
        assert not again.changes


@given(st.text())
def test_cleaning_any_text_is_stable(text: str) -> None:
    try:
        once = clean(pair(text)).conversation
    except KoalpacaError:
        return
    assert clean(once).conversation is once


def test_our_own_samples_are_not_changed() -> None:
    folder = DATA / "samples"
    with (folder / "chat.csv").open(encoding="utf-8-sig", newline="") as file:
        conversations = [pair(row["질문"], row["답변"]) for row in csv.DictReader(file)]
    with (folder / "dialogues.jsonl").open(encoding="utf-8") as file:
        conversations += [Conversation.from_dict(json.loads(line), "f:1") for line in file]
    with (folder / "tasks.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    conversations += [pair(row["instruction"], row["output"], row["input"] or None) for row in rows]
    assert len(conversations) >= 700
    for conversation in conversations:
        assert clean(conversation).conversation is conversation


def test_every_step_has_a_name_in_both_languages() -> None:
    assert set(STEPS) == set(get_args(cleaning.Step)) == set(cleaning.STEPS)
    assert list(DESCRIPTIONS) == list(DESCRIPTIONS_EN) == [TRIMMED, *cleaning.STEPS]
