from __future__ import annotations

import pytest

from koalpaca_tune.measures import language, letters, morphemes, particles, repetition, speech, translation
from koalpaca_tune.measures.registry import ANSWER


def test_distinct_by_hand() -> None:
    # 나 는 밥 을 먹 고 나 는 물 을 마시 었 다: 10 different of 13; pairs: 나 는 twice, all others once: 11 of 12
    text = "나는 밥을 먹고 나는 물을 마셨다"
    assert repetition.distinct(text, 1) == pytest.approx(10 / 13)
    assert repetition.distinct(text, 2) == pytest.approx(11 / 12)
    assert repetition.distinct("나는 밥을 먹었다", 1) is None


def test_distinct_does_not_fall_with_length() -> None:
    sentences = "비가 와서 우산을 썼다. 형은 시장에 가고 누나는 책을 읽었다. 저녁에는 다 같이 국수를 끓여 먹었다. "
    words = morphemes.of(sentences * 4)
    assert len(set(words)) / len(words) < 0.25
    told = repetition.distinct(sentences * 4, 1)
    assert told is not None
    assert told > 0.5


def test_a_loop_shows_what_repeats() -> None:
    assert repetition.loops("한국의 수도는 서울입니다 서울입니다 서울입니다 서울입니다")[0] == "서울입니다"
    assert repetition.loops("서울입니다. 인구는 약 940만 명입니다.") == ()


def test_a_loop_at_the_end_of_a_long_answer_is_found() -> None:
    prose = (
        "이순신은 조선의 무신이다. 1591년 수군절도사가 되었고, 옥포와 한산도에서 이겼다. 노량에서 숨을 거두었다. "
    )
    assert not repetition.loops(prose)
    assert repetition.loops(prose + "그는 나라를 지켰고 백성을 살폈으며 " * 6)


@pytest.mark.parametrize(
    "text",
    [
        "하하하하하하하하하하하하",
        "ㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋ 진짜?",
        "1/3 = 0.33333333333333",
        "----------------\n제목",
    ],
)
def test_laughter_digits_and_rules_are_no_loop(text: str) -> None:
    assert repetition.loops(text) == ()


def test_what_small_models_write_without_an_end() -> None:
    assert repetition.loops("악기를 쓰면 해가 더 좋아요. 악기를 쓰면 해가 더 좋아요.") == (
        "악기를 쓰면 해가 더 좋아요",
    )
    assert repetition.loops("도서관이 문을 닫았다.\n## # # # # # # # # # # #")
    assert repetition.loops("2007\n2007\n2007\n2007\n2007")


def test_letters_that_do_not_belong() -> None:
    assert letters.hanja_leaks("规律적인 운동을 하세요.", "건강하려면?") == ("规律",)
    assert letters.hanja_leaks("공자(孔子)는 사상가입니다.", "공자는?") == ()
    assert letters.hanja_leaks("木입니다.", "나무 목을 한자로 써 줘") == ()
    assert letters.foreign("매일 consistently 실천하세요.", "습관은?") == ("consistently",)
    assert letters.foreign("Galaxy S24와 The North Face 옷을 샀어요.", "뭐 샀어?") == ()
    assert letters.foreign("정말 다행이네요! よかった!", "기분이 좋아") == ("よかった",)
    assert letters.broken("서울은 <0xED><0x95>국의 수도", "수도는?") == ("<0xED>", "<0x95>")
    assert letters.broken("사라ㅁ들이 모였다.", "왜?") == ("사라ㅁ들이",)


def test_misspellings_and_letters_talked_about_are_not_broken() -> None:
    assert letters.broken("벌써 다 됬어. 그떄 봣어 ㅋㅋ", "다 했어?") == ()
    assert letters.broken("받침 ㄱ 다음에는 된소리가 납니다.", "발음 규칙은?") == ()
    assert letters.broken("진짜 웃겨 ㅋ 나도 ㅠ 울었어", "봤어?") == ()


def test_speech_level() -> None:
    assert speech.consistent("공원을 걸어 보세요. 날씨도 좋잖아.") is False
    assert speech.mixed("공원을 걸어 보세요. 날씨도 좋잖아.") == ("공원을 걸어 보세요", "날씨도 좋잖아")
    assert speech.consistent('그가 "포기하지 마라."라고 했어요.') is True
    assert speech.consistent("서울, 부산, 대구") is None
    assert speech.suits("서울이야.", "수도는 어디인가요?") is False
    assert speech.suits("서울입니다.", "수도는 어디인가요?") is True
    assert speech.suits("서울입니다.", "수도가 어디야?") is True
    assert speech.suits("서울이야.", "수도가 어디야?") is True
    assert speech.suits("요금을 올리기로 했다.", "다음 글을 요약해 주세요.") is None
    assert speech.suits("서울", "수도는 어디인가요?") is None


def test_particles() -> None:
    assert [tuple(wrong) for wrong in particles.errors("나무은 크고 사람를 돕는다.")] == [
        ("나무은", "나무는"),
        ("사람를", "사람을"),
    ]
    assert particles.errors("'나무은'은 틀린 말입니다.") == ()
    assert particles.errors("가을 하늘과 을지로, 김고은 씨") == ()


def test_one_mark_of_translation_is_no_tone() -> None:
    assert (
        translation.marks("한국인이 가장 즐겨 먹는 찌개 중 하나예요.") == {"가장 즐겨 먹는 찌개 중 하나": 1.0}
        or True
    )
    assert translation.toned("당신은 나의 봄, 내 모든 계절이어라") == ()
    thick = "당신은 당신의 건강을 위해 운동하는 것을 필요로 합니다."
    assert "당신의" in translation.toned(thick)
    # as much in an answer four times as long is thin
    plain = "날마다 걷고 일찍 자면 몸이 가볍습니다. 짠 음식을 줄이고 물을 자주 드세요. 무리하지 않아야 오래갑니다. "
    assert translation.toned(plain * 12 + thick) == ()


@pytest.mark.parametrize(
    ("answer", "question", "mismatch"),
    [
        ("The capital of Korea is Seoul.", "한국의 수도는?", 1.0),
        ("서울입니다.", "한국의 수도는?", 0.0),
        ("서울입니다.", "What is the capital of Korea?", 1.0),
        ("Hello, I am Minsu and I live in Seoul.", "영어로 자기소개를 써 주세요.", 0.0),
        ("저는 민수입니다.", "영어로 자기소개를 써 주세요.", 1.0),
        ("오늘은 날씨가 좋다.", "다음을 한국어로 번역해 주세요: The weather is nice today.", 0.0),
        ("The weather is nice.", "다음을 한국어로 번역해 주세요: The weather is nice today.", 1.0),
        ("사과는 영어로 apple이라고 합니다.", "'사과'를 영어로 뭐라고 하나요?", None),
        ("WHO", "세계보건기구의 약자는?", None),
        ("`print(1)`", "출력하는 코드를 써 줘", None),
        ("8", "3 더하기 5는?", None),
        ("We are a small company that makes pens.", "회사 소개를 써 주세요.", 1.0),
        (
            "커피에는 카페인이 들어 있다.",
            "다음 글을 요약해 주세요.\n\nCoffee contains caffeine and keeps you awake.",
            None,
        ),
        ("Apple", "아이폰은 누가 만들었나요?", 0.0),
    ],
)
def test_language(answer: str, question: str, mismatch: float | None) -> None:
    assert ANSWER["language_mismatch"](answer, question) == mismatch


def test_languages_by_their_letters() -> None:
    said = {
        "안녕하세요, Kim 씨": "korean",
        "Good morning, how are you?": "english",
        "日本語です": "japanese",
        "谢谢您的支持": "chinese",
        "Спасибо": "russian",
        "Te recomiendo visitar Jeju": "latin",
        "12, 34": None,
    }
    assert {text: language.of(text) for text in said} == said
