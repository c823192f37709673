from __future__ import annotations

import json
import pickle
import random
import unicodedata
from typing import Any

import pytest

from koalpaca_tune.config.quality import Quality
from koalpaca_tune.data.quality import limits, signals
from koalpaca_tune.data.quality.signals import SIGNALS, Signals
from koalpaca_tune.records import Conversation, Turn


def one(question: str, answer: str, context: str | None = None) -> Signals:
    return signals.measure([Conversation((Turn("user", question, context), Turn("assistant", answer)))])[0]


def values(answer: str, question: str = "이것에 대해 알려 주세요.", context: str | None = None) -> Any:
    return one(question, answer, context).values


CLEAN = [
    ("부산은 어떤 도시예요?", "부산은 바다를 끼고 있는 항구 도시예요. 여름에는 해운대에 사람이 많이 모여요."),
    ("광합성이 무엇입니까?", "광합성은 식물이 빛으로 양분을 만드는 과정입니다. 이때 산소가 나옵니다."),
    ("안녕", "안녕!"),
    ("한자로 어떻게 써요?", "나라 국은 國이라고 씁니다."),
    ("'감사합니다'를 영어로 번역해 주세요.", "Thank you very much for your help."),
    ("파이썬으로 합을 구하는 코드를 써 주세요.", "```python\nprint(sum(range(10)))\n```"),
    ("백범이 누구죠?", "김구(金九)는 독립운동가입니다. 호는 '白凡'입니다."),
    ("도플러 효과가 뭐야?", "소리를 내는 물체가 움직이면 소리 높이가 달라지는 현상이야."),
]


@pytest.mark.parametrize(("question", "answer"), CLEAN)
def test_nothing_is_found_in_clean_records(question: str, answer: str) -> None:
    found = one(question, answer)
    assert not found.examples, found.examples
    assert limits.beyond(found, Quality()) is None


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("garbled", "서울은 \ufffd\ufffd 도시입니다."),
        ("garbled", "안녕하세요 반갑습니다".encode().decode("latin-1")),
        ("garbled", "안녕하세요 반갑습니다".encode("cp949").decode("latin-1")),
        ("broken-jamo", "안녀ㅇ하세요. 반가워요."),
        ("broken-jamo", "영호ㅏ를 보았습니다."),
        ("rare-syllables", "오늘은 날씨갃 좋아요."),
        ("hanja", "이것은 매우 重要합니다."),
        ("foreign-hanja", "이 문제를 解决해야 합니다."),
        ("kana", "그것은 テスト입니다."),
        ("other-scripts", "그것은 это 입니다."),
        ("truncated", "서울은 한국의 수도입니다. 부산은 남쪽에 있는 항구 도시로서 많은 사람이 여름에 바다를"),
        ("truncated", "재료는 다음과 같습니다:"),
        ("truncated", "코드는 이렇습니다.\n```python\nprint(1)"),
        ("truncated", "서울(한국의 수도이며 가장"),
        ("truncated", "한국의 수도는 서울("),
        ("mixed-speech", "비가 와요. 우산 챙겨라."),
        ("particle-errors", "나무은 크게 자라요."),
        ("english-words", "서울은 큰 도시입니다. It is the capital of the country. 인구가 많습니다."),
        ("wrong-language", "Seoul is the capital of Korea and it is very large."),
        ("literal-phrases", "이 일은 당신의 노력으로 되어졌습니다."),
        ("placeholders", "출력: 서울입니다."),
        ("placeholders", "<noinput>"),
        ("refusal", "저는 AI 언어 모델로서 감정이 없습니다."),
        ("repeated-sentences", "오늘은 날씨가 좋아요. 오늘은 날씨가 좋아요. 산책을 가요."),
        ("empty", "..."),
    ],
)
def test_a_damage_is_found_with_the_words(name: str, answer: str) -> None:
    found = one("한국의 도시에 대해 알려 주세요.", answer)
    assert found.values[name]
    assert found.examples[name]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("broken-jamo", "ㅋㅋ 진짜 좋아ㅠㅠ 대박ㅎㅎ 하ㅋㅋ하 ㄱ과 ㄴ을 배워요"),
        ("hanja", "한자(漢字)는 '漢字'라고 씁니다. 美 정부와 故 김 씨"),
        ("hanja", "두보의 시입니다.\n國破山河在"),
        ("english-share", "`print(x)`와 https://example.com/a 그리고 (the best one)"),
        ("english-words", "New York Times 기자가 Support Vector Machine을 설명했다."),
        ("truncated", "좋아요,"),
        ("truncated", "어제 놓쳤어요 :("),
        ("truncated", "비가 와서"),
        ("truncated", "긍정"),
        ("truncated", "서울, 부산, 대구"),
        ("wrong-language", "Yes"),
        ("repeated-sentences", "네. 네. 네."),
        ("repetition", "하하하하하하"),
        ("literal-phrases", "이 문제는 어렵지만 함께 풀 수 있어요."),
    ],
)
def test_what_only_looks_like_damage_is_let_pass(name: str, answer: str) -> None:
    assert not values(answer)[name]


def test_an_answer_that_is_the_question_again() -> None:
    question = "오늘은 하늘이 왜 이렇게 파란가요?"
    assert values("오늘은 하늘이 왜 이렇게 파란가요", question)["echo"] == 1.0
    assert 0.5 < values("오늘은 하늘이 왜 파란가요?", question)["echo"] < 1.0
    assert values("햇빛이 흩어지기 때문이에요.", question)["echo"] < 0.3
    assert values("따라 말하기 안녕하세요", "따라 말하기 안녕하세요")["echo"] == 0.0


def test_a_loop_is_told_from_a_long_text() -> None:
    prose = " ".join(f"{n}번째 문장에서는 {n * 7}개의 사과와 {n * 3}명의 아이를 이야기한다." for n in range(60))
    assert values("맛있어요. 또 갈게요. " * 20)["repetition"] > 0.8
    assert values(f"{prose} {'정말 그렇다. ' * 80}")["repetition"] > 0.8
    assert values(prose)["repetition"] < 0.8


REWRITE = "다음 글의 맞춤법을 고쳐 쓰세요."


def test_numbers_and_code_that_a_rewriting_loses() -> None:
    text = "1998년에 25명이 모였다. 값은 3,000원이다."
    assert values(text, REWRITE, text)["lost-numbers"] == 0.0
    assert values("1998년에 스물다섯 명이 모였다. 값은 3000원이다.", REWRITE, text)[
        "lost-numbers"
    ] == pytest.approx(1 / 3)
    changed = values("1998년에 26명이 모였다. 값은 3,000원이다.", REWRITE, text)
    assert (changed["lost-numbers"], changed["new-numbers"]) == pytest.approx((1 / 3, 1 / 3))
    code = f"{text}\n```\nx = 1\n```"
    assert values(text, REWRITE, code)["lost-code"] == 1
    assert values(code, REWRITE, code)["lost-code"] == 0


def test_a_summary_may_leave_numbers_out_but_not_make_them_up() -> None:
    text = "1998년에 25명이 모였고 2003년에는 41명이 모였다."
    short = values("2003년에는 41명이 모였다.", "다음 글을 요약하세요.", text)
    assert (short["lost-numbers"], short["new-numbers"]) == (0.0, 0.0)
    assert values("2004년에는 41명이 모였다.", "다음 글을 요약하세요.", text)["new-numbers"] == 0.5


def test_other_tasks_may_change_numbers() -> None:
    assert values("35", "두 수를 더하세요.", "12와 23")["lost-numbers"] == 0.0
    assert values("280.15", "섭씨를 절대 온도로 바꿔 쓰세요.", "7도")["new-numbers"] == 0.0


def test_material_that_is_not_there() -> None:
    assert values("긍정", "다음 문장을 읽고 감정을 답하세요.")["missing-input"]
    assert not values("긍정", "다음 문장을 읽고 감정을 답하세요.", "정말 좋았다.")["missing-input"]
    assert not values("긍정", "다음 문장의 감정을 답하세요: 정말 좋았다.")["missing-input"]
    assert not values("네", "다음 주에 비가 와요?")["missing-input"]


def test_several_turns_count_the_worst() -> None:
    turns = ("안녕하세요?", "안녕하세요. 나무은 커요.", "그래요?", "사람를 봤어요.")
    conversation = Conversation(tuple(Turn("user" if n % 2 == 0 else "assistant", t) for n, t in enumerate(turns)))
    (found,) = signals.measure([conversation])
    assert found.values["particle-errors"] == 2
    assert found.values["question-chars"] == 4
    assert (found.values["shortest-answer-chars"], found.values["answer-chars"]) == (8, 14)
    assert found.levels == ("해요체",) * 4
    assert found.answer_level == "해요체"


def test_values_do_not_depend_on_the_batch() -> None:
    conversations = [Conversation((Turn("user", q), Turn("assistant", a))) for q, a in CLEAN]
    together = signals.measure(conversations)
    assert together == [signals.measure([conversation])[0] for conversation in conversations]
    assert signals.measure([]) == []


def test_signals_travel_between_processes_and_into_json() -> None:
    found = one("나무은?", "나무은 크게 자라요. 너도 봐라.")
    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301
    assert set(found.values) == set(SIGNALS)
    assert json.loads(json.dumps(dict(found.values))) == dict(found.values)


def test_decomposed_text_is_measured_as_composed() -> None:
    question, answer = "나무가 뭐예요?", "나무은 크게 자라요."
    nfd = one(unicodedata.normalize("NFD", question), unicodedata.normalize("NFD", answer))
    assert nfd.values == one(question, answer).values


def test_fragments_do_not_crash() -> None:
    rng = random.Random(0)
    letters = "가나은를 이(으로)ㅋㅠa1.,\n\"'`[]<>【漢かд\ufffd\u1100👍:;-*"
    texts = ["".join(rng.choices(letters, k=rng.randint(1, 40))) for _ in range(300)]
    for found in signals.measure([Conversation((Turn("user", t, t), Turn("assistant", t[::-1]))) for t in texts]):
        limits.beyond(found, Quality(max_hanja=0, min_hangul=0.5))


LIMITS = {
    "min_question_chars": (4, "quality-question-short", ("뭐?", "그건 나무예요.")),
    "min_answer_chars": (4, "quality-answer-short", ("이게 뭐예요?", "나무")),
    "max_answer_chars": (4, "quality-answer-long", ("이게 뭐예요?", "나무입니다.")),
    "max_length_ratio": (1.0, "quality-length-ratio", ("뭐예요?", "그것은 아주 큰 나무예요.")),
    "drop_empty": (True, "quality-empty", ("이게 뭐예요?", "...")),
    "min_hangul": (0.5, "quality-hangul", ("이게 뭐예요?", "a tree 나무")),
    "min_question_hangul": (0.5, "quality-question-hangul", ("what is it 뭐", "나무예요.")),
    "max_garbled": (0, "quality-garbled", ("이게 뭐예요?", "나\ufffd예요.")),
    "max_broken_jamo": (0, "quality-broken-jamo", ("이게 뭐예요?", "안녀ㅇ하세요.")),
    "max_rare_syllables": (0, "quality-rare-syllables", ("이게 뭐예요?", "날씨갃 좋아요.")),
    "max_hanja": (1, "quality-hanja", ("이게 뭐예요?", "아주 重要해요.")),
    "max_foreign_hanja": (1, "quality-foreign-hanja", ("이게 뭐예요?", "问题예요.")),
    "max_kana": (1, "quality-kana", ("이게 뭐예요?", "これ예요.")),
    "max_other_scripts": (1, "quality-other-scripts", ("이게 뭐예요?", "это 예요.")),
    "max_repetition": (0.8, "quality-repetition", ("이게 뭐예요?", "정말 그래요. " * 20)),
    "max_repeated_sentences": (
        0.2,
        "quality-repeated-sentences",
        ("뭐예요?", "아주 큰 나무예요. 아주 큰 나무예요."),
    ),
    "max_echo": (0.99, "quality-echo", ("이게 도대체 뭐예요?", "이게 도대체 뭐예요.")),
    "drop_truncated": (True, "quality-truncated", ("이게 뭐예요?", "재료는 이렇습니다:")),
    "drop_mixed_speech": (True, "quality-mixed-speech", ("이게 뭐예요?", "나무예요. 너도 봐라.")),
    "max_particle_errors": (0, "quality-particle-errors", ("이게 뭐예요?", "나무은 커요.")),
    "max_english_share": (0.3, "quality-english-share", ("이게 뭐예요?", "beautiful 나무예요.")),
    "max_english_words": (3, "quality-english-words", ("이게 뭐예요?", "나무예요. It is the best of all. 네.")),
    "drop_wrong_language": (True, "quality-wrong-language", ("이게 뭐예요?", "It is a very old tree.")),
    "max_literal_phrases": (0, "quality-literal-phrases", ("이게 뭐예요?", "당신은 나무를 봅니다.")),
    "max_placeholders": (0, "quality-placeholders", ("이게 뭐예요?", "출력: 나무")),
    "drop_refusal": (True, "quality-refusal", ("이게 뭐예요?", "죄송하지만 답할 수 없습니다.")),
    "drop_missing_input": (True, "quality-missing-input", ("다음 문장을 고치세요.", "나무예요.")),
    "max_lost_numbers": (0.1, "quality-lost-numbers", (f"{REWRITE}\n25명이 왔다.", "명이 왔다.")),
    "max_new_numbers": (0.1, "quality-new-numbers", (f"{REWRITE}\n사람이 왔다.", "25명이 왔다.")),
    "max_lost_code": (0, "quality-lost-code", (f"{REWRITE}\n이렇다.\n```\nx\n```", "이렇다.")),
}


def test_every_limit_is_tried() -> None:
    assert set(LIMITS) == set(Quality.model_fields) == set(limits.LIMITS)
    assert {name for name, _ in limits.LIMITS.values()} <= set(SIGNALS)


@pytest.mark.parametrize("key", LIMITS)
def test_a_limit_takes_effect(key: str) -> None:
    limit, code, (question, answer) = LIMITS[key]
    found = one(question, answer)
    off: dict[str, Any] = {"max_garbled": None, "max_repetition": None, "max_echo": None, "drop_empty": False}
    problem = limits.beyond(found, Quality(**{**off, key: limit}))
    assert problem is not None
    assert problem.code == code
    off.pop(key, None)
    assert limits.beyond(found, Quality(**{**off, key: False if limit is True else None})) is None


@pytest.mark.parametrize("text", ["목차 ······ 3쪽이다.", "값은 ±×÷° ±5이다.", "가··········나"])
def test_rows_of_dots_and_signs_are_not_garbled(text: str) -> None:
    talk = Conversation((Turn("user", text), Turn("assistant", text + " 그렇다.")))
    assert signals.measure([talk])[0].values["garbled"] == 0


def test_a_garbled_question_counts_too() -> None:
    talk = Conversation((Turn("user", "¾È³çÇÏ¼¼¿ä"), Turn("assistant", "네, 안녕하세요.")))
    assert signals.measure([talk])[0].values["garbled"] == 1
