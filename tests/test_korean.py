from __future__ import annotations

import unicodedata

import pytest

from koalpaca_tune import korean

NSMC = [
    "아 더빙.. 진짜 짜증나네요 목소리",
    "흠...포스터보고 초딩영화줄....오버연기조차 가볍지 않구나",
    "너무재밓었다그래서보는것을추천한다",
    "ㅋㅋㅋㅋ",
    "^^",
    "!!!",
    "",
    "   ",
    "\n\n",
    "10점",
    "👍👍",
    "ㅠㅠ 뿌엥",
    "nice",
    "\ud7a3\u1100\u3131\u0000",
]


@pytest.mark.parametrize("text", NSMC)
def test_fragments_do_not_crash(text: str) -> None:
    korean.speech_levels(text)
    korean.speech_level(text)
    korean.speech_consistent(text)
    korean.morphemes(text)
    korean.has_final_consonant(text)
    korean.hangul_share(text)
    assert 0 <= korean.repetition(text) <= 1
    assert 0 <= sum(korean.script_shares(text).values()) <= 1.000001
    assert korean.morpheme_f1(text, text) == 1.0


@pytest.mark.parametrize(
    ("sentence", "level"),
    [
        ("내일은 전국에 비가 옵니다.", "하십시오체"),
        ("어디로 가십니까?", "하십시오체"),
        ("창문을 닫아 주십시오.", "하십시오체"),
        ("같이 생각해 봅시다.", "하십시오체"),
        ("밥 먹었어요?", "해요체"),
        ("제 책이에요.", "해요체"),
        ("그렇죠.", "해요체"),
        ("비가 오더라고요.", "해요체"),
        ("아 더빙.. 진짜 짜증나네요 목소리", "해요체"),
        ("괜찮아 보여요 ㅎㅎ", "해요체"),
        ("밥 먹었어?", "해체"),
        ("이거 뭐야?", "해체"),
        ("내가 할게.", "해체"),
        ("비가 온대.", "해체"),
        ("하지 마.", "해체"),
        ("그럴걸.", "해체"),
        ("어제 왔는데.", "해체"),
        ("나는 학교에 간다.", "해라체"),
        ("세종대왕은 한글을 만들었다.", "해라체"),
        ("뭐 하니?", "해라체"),
        ("밥 먹었니?", "해라체"),
        ("참 예쁘구나!", "해라체"),
        ("빨리 가라.", "해라체"),
        ("같이 가자.", "해라체"),
        ("그가 온다고 했습니다.", "하십시오체"),
        ("완전 최고임", None),
        ("한국의 수도는 서울", None),
        ("뭘 하오.", None),
        ("비가 와서", None),
        ("ㅋㅋㅋㅋ", None),
    ],
)
def test_speech_level(sentence: str, level: str | None) -> None:
    assert korean.speech_level(sentence) == level


def test_speech_levels_of_a_text() -> None:
    text = "안녕하세요. 저는 학생입니다!\n반가워요"
    assert korean.speech_levels(text) == ["해요체", "하십시오체", "해요체"]
    assert korean.speech_consistent(text) is True
    assert korean.speech_consistent("안녕하세요. 밥 먹었니?") is False
    assert korean.speech_consistent("서울, 부산, 대구") is None


@pytest.mark.parametrize(
    ("word", "pair", "expected"),
    [
        ("사과", "이/가", "가"),
        ("수박", "이/가", "이"),
        ("서울", "으로/로", "로"),
        ("부산", "으로/로", "으로"),
        ("제주", "으로/로", "로"),
        ("'물'", "을/를", "을"),
        ("2024", "은/는", "는"),
        ("3", "은/는", "은"),
        ("KBS", "은/는", "는"),
        ("LLM", "이/가", "이"),
        ("apple", "이/가", "이(가)"),
        ("ㅋㅋ", "이/가", "이(가)"),
        ("", "이/가", "이(가)"),
        (unicodedata.normalize("NFD", "수박"), "이/가", "이"),
    ],
)
def test_particle(word: str, pair: str, expected: str) -> None:
    assert korean.particle(word, pair) == expected


def test_script_shares() -> None:
    shares = korean.script_shares("한글 AB 漢 かカ 12 д!?")
    assert shares == pytest.approx(
        {"hangul": 0.2, "latin": 0.2, "hanja": 0.1, "kana": 0.2, "digit": 0.2, "other": 0.1}
    )
    assert sum(korean.script_shares("... !").values()) == 0
    assert korean.hangul_share("1995년") == 1.0
    assert korean.hangul_share("1995") is None
    assert korean.script_shares(unicodedata.normalize("NFD", "한글"))["hangul"] == 1.0


def test_repetition_tells_a_loop_from_prose() -> None:
    assert korean.repetition("가") == 0
    assert korean.repetition("나는 간다. " * 20) > 0.9
    assert korean.repetition("ㅋ" * 40) > 0.9
    prose = "세종대왕은 1443년에 한글을 만들었습니다. 한글은 소리를 적는 글자이며 배우기 쉽습니다."
    assert korean.repetition(prose) < 0.1


def test_morpheme_f1_sees_through_particles() -> None:
    assert korean.morphemes("학교에 가요") == ["학교/NNG", "에/JKB", "가/VV", "어요/EF"]
    assert korean.morpheme_f1("임수경이", "임수경") == pytest.approx(2 / 3)
    assert korean.morpheme_f1("서울입니다.", "서울입니다") == 1.0
    assert korean.morpheme_f1("", "서울") == 0.0
    assert korean.morpheme_f1("", "") == 1.0


def test_final_consonant_and_common_syllables() -> None:
    assert [korean.final_consonant(char) for char in "가각간갈갑갔a"] == [0, 1, 4, 8, 17, 20, 0]
    assert len(korean.COMMON_SYLLABLES) == 2350
    assert {"가", "힣", "똥"} <= korean.COMMON_SYLLABLES | {"힣"}
    assert not {"뷁", "햏", "갂갃"} & korean.COMMON_SYLLABLES


def test_analyse_reads_a_batch_as_single_texts() -> None:
    texts = ["나는 학교에 간다.", "", "비가 옵니다."]
    together = korean.analyse(texts)
    assert [one.score for one in together] == [korean.analyse([text])[0].score for text in texts]
    assert [korean.level_of(one.morphemes) for one in together] == ["해라체", None, "하십시오체"]
    assert korean.analyse([]) == []
    one, other = korean.analyse(["나무는 크다.", "나무은 크다."])
    assert one.score > other.score


def test_hangul_share_leaves_digits_and_marks_out() -> None:
    assert korean.hangul_share("가나 ab 12!") == 0.5
    assert korean.hangul_share("ㅋㅋ") == 1.0
    assert korean.hangul_share("漢字 가나") == 0.5
    assert korean.hangul_share("... 12") is None
