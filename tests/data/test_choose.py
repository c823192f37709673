from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from koalpaca_tune.config.overlap import Duplicates
from koalpaca_tune.config.preparation import Input
from koalpaca_tune.data.choose import Chosen, State, choose
from koalpaca_tune.data.overlap import minhash, text
from koalpaca_tune.data.split import question_key
from koalpaca_tune.data.spool import Keys
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn

LONG = (
    "우리 회사의 연차 휴가는 입사일을 기준으로 매년 새로 생기고, 쓰지 않은 휴가는 다음 해 삼월까지 쓸 수 있습니다"
)


def pair(question: str, answer: str = "답", context: str | None = None) -> Conversation:
    return Conversation((Turn("user", question, context), Turn("assistant", answer)))


def chosen(
    talks: Sequence[Conversation],
    *,
    inputs: Sequence[Input] = (Input(path="a.csv"),),
    of_input: Sequence[int] | None = None,
    drop: str = "near",
    share: float = 0.3,
) -> Chosen:
    near = [text.near_text(talk) for talk in talks]
    asked = [text.question_text(talk) for talk in talks]

    def some(texts: list[str], indices: NDArray[np.int64]) -> list[str]:
        return [texts[n] for n in indices]

    keys = Keys(
        orders=np.arange(len(talks), dtype=np.int64) << 16,
        inputs=np.array(of_input if of_input is not None else [0] * len(talks), np.int32),
        at=np.zeros(len(talks), np.int64),
        questions=np.array([question_key(talk) for talk in talks], np.uint64),
        near=minhash.sign(near),
        asked=minhash.sign(asked),
        exact=np.frombuffer(b"".join(map(text.exact_key, talks)), "V16"),
        normalised=np.frombuffer(b"".join(map(text.normalised_key, talks)), "V16"),
    )
    duplicates = Duplicates.model_validate({"drop": drop})
    return choose(keys, inputs, duplicates, share, lambda n: some(near, n), lambda n: some(asked, n))


def states(made: Chosen) -> list[State]:
    return [State(state) for state in made.states]


REPEATED = [
    pair("연차는 며칠인가요?", LONG),
    pair("연차는  며칠인가요?", LONG),
    pair("연차는 며칠인가요", LONG + "!"),
    pair("연차는 며칠인가요?", LONG.replace("매년", "해마다")),
    pair("점심은 언제인가요?", "열두 시입니다."),
    pair("주차장은 어디인가요?", "지하에 있습니다."),
]


@pytest.mark.parametrize(
    ("drop", "expected"),
    [
        ("none", {}),
        ("exact", {1: State.EXACT}),
        ("normalised", {1: State.EXACT, 2: State.NORMALISED}),
        ("near", {1: State.EXACT, 2: State.NORMALISED, 3: State.NEAR}),
    ],
)
def test_each_sense_of_the_same_includes_the_ones_before_it(drop: str, expected: dict[int, State]) -> None:
    made = chosen(REPEATED, drop=drop)
    out = {n: state for n, state in enumerate(states(made)) if state > State.VALID}
    assert out == expected
    assert [int(made.of[n]) for n in range(6)] == [0 if n in expected else n for n in range(6)]


def test_near_texts_and_near_questions_stay_on_one_side_when_nothing_is_dropped() -> None:
    # three records of the same talk; and one question in two spellings with different answers
    talks = [
        *REPEATED,
        pair("서울에서 부산까지 기차로 얼마나 걸리는지 알려 주세요", "두 시간 반쯤 걸려요."),
        pair("서울에서 부산까지 기차로 얼마나 걸리는지 알려주세요.", "빠르면 150분이면 갑니다."),
    ]
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        sides = states(chosen(talks, drop="none", share=share))
        assert len(set(sides[:4])) == 1
        assert sides[6] == sides[7]


def test_one_conversation_is_not_cut_in_two_by_its_length() -> None:
    short = pair("이사 준비를 도와줘", "먼저 짐을 나누세요.")
    longer = Conversation((*short.turns, Turn("user", "그다음은?"), Turn("assistant", "상자를 모으세요.")))
    others = [
        pair(f"{word}에 대해 알려줘", f"{word}입니다.") for word in ("강", "산맥", "바닷가", "들판", "호숫가")
    ]
    for share in (0.2, 0.4, 0.6, 0.8):
        made = states(chosen([short, longer, *others], share=share))
        assert made[0] == made[1]


WORDS = (
    "사과",
    "기차",
    "바다",
    "연필",
    "구름",
    "시계",
    "창문",
    "고양이",
    "라디오",
    "우산",
    "달력",
    "냄비",
    "장갑",
    "편지",
)
MANY = [pair(f"{one}와 {two} 가운데 무엇이 좋아?", f"{two}") for one in WORDS for two in WORDS if one != two]


def test_a_cap_takes_the_same_records_whatever_the_order() -> None:
    inputs = [Input(path="a.csv", cap=50)]
    kept = []
    for talks in (MANY, MANY[::-1]):
        made = chosen(talks, inputs=inputs, drop="none")
        kept.append({talk.id for talk, state in zip(talks, states(made), strict=True) if state != State.CAP})
    assert kept[0] == kept[1]
    assert len(kept[0]) == 50


def test_a_weight_below_one_takes_that_share_and_above_one_repeats() -> None:
    half = states(chosen(MANY, inputs=[Input(path="a.csv", weight=0.5)], drop="none"))
    assert 0.35 < sum(state != State.WEIGHT for state in half) / len(MANY) < 0.65
    made = chosen(MANY, inputs=[Input(path="a.csv", weight=2.25)], drop="none")
    assert set(made.times.tolist()) == {2, 3}
    assert 0.1 < np.mean(made.times == 3) < 0.4


def test_weights_and_caps_are_each_inputs_own() -> None:
    inputs = [Input(path="a.csv", cap=10), Input(path="b.csv")]
    of_input = [n % 2 for n in range(len(MANY))]
    made = states(chosen(MANY, inputs=inputs, of_input=of_input, drop="none"))
    assert sum(state == State.CAP for state in made) == len(MANY) // 2 - 10
    assert all(state != State.CAP for state, input in zip(made, of_input, strict=True) if input == 1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(MANY), min_size=4, max_size=40, unique=True), st.randoms(use_true_random=False))
def test_the_order_of_records_moves_none_to_the_other_side(talks: list[Conversation], random: object) -> None:
    shuffled = sorted(talks, key=lambda talk: hash((talk.id, str(random))))
    try:
        one = dict(zip([talk.id for talk in talks], states(chosen(talks)), strict=True))
    except KoalpacaError:
        return
    other = dict(zip([talk.id for talk in shuffled], states(chosen(shuffled)), strict=True))
    kept = {id for id in one if one[id] <= State.VALID and other[id] <= State.VALID}
    assert {id: one[id] for id in kept} == {id: other[id] for id in kept}


def test_the_share_is_kept() -> None:
    talks = [pair(f"{n}번 문의: {one} {n * 7919 % 1000}") for n in range(300) for one in WORDS]
    made = states(chosen(talks, drop="none", share=0.1))
    assert 0.08 < made.count(State.VALID) / len(talks) < 0.12


def test_a_small_set_has_both_sides() -> None:
    talks = [pair("하나"), pair("둘"), pair("셋")]
    made = chosen(talks, share=1e-9)
    assert (made.moved, states(made).count(State.VALID)) == ("valid", 1)
    made = chosen(talks, share=1 - 1e-9)
    assert (made.moved, states(made).count(State.TRAIN)) == ("train", 1)


@pytest.mark.parametrize(
    ("talks", "what"),
    [
        ([], "there are 0 usable records."),
        ([pair("하나")], "there is 1 usable record."),
        (
            [pair("하나", "가나다"), pair("하나", "라마바")],
            "there are 2 usable records, all with one question, or nearly the same one.",
        ),
    ],
)
def test_too_few(talks: list[Conversation], what: str) -> None:
    with pytest.raises(KoalpacaError) as caught:
        chosen(talks)
    assert (caught.value.problems[0].code, caught.value.problems[0].what) == ("split-too-few", what)


def test_questions_with_several_answers_are_counted() -> None:
    made = chosen(
        [pair("뭐 해?", "밥 먹어요."), pair("뭐 해?", "놀아요."), pair("어디 가?", "집에요."), pair("왜?")]
    )
    assert made.conflicts == (1, 2)
    assert made.questions == 3
