"""What holds for every measure, whatever the text."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koalpaca_tune.measures.registry import ANSWER, EVIDENCE, LOWER_IS_BETTER, REFERENCE, TITLES, YES_NO

WORDS = (
    *(
        "서울은",
        "나무를",
        "학교에",
        "갑니다.",
        "먹었어?",
        "삼백이십",
        "320개",
        "한강(漢江)은",
        "ㅋㅋㅋ",
        "Kim",
        "the",
        "2024년",
    ),
    *(
        "물은",
        "100도에서",
        "끓는다.",
        "“좋아요”",
        "당신은",
        "\n",
        "😀",
        "그것은",
        "3.5",
        "각",
        "问题",
        "です",
        "�",
        "- ",
        "두 명",
    ),
)
texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=30)
spoken = texts.filter(lambda text: any(map(str.isalnum, text)))


def test_every_measure_is_described() -> None:
    assert not REFERENCE.keys() & ANSWER.keys()
    assert TITLES.keys() == REFERENCE.keys() | ANSWER.keys()
    assert not YES_NO - TITLES.keys()
    assert not LOWER_IS_BETTER - ANSWER.keys()
    assert EVIDENCE.keys() <= ANSWER.keys() & YES_NO & LOWER_IS_BETTER
    assert all(korean and english for korean, english in TITLES.values())


@given(texts, texts)
def test_references_score_between_nothing_and_one(answer: str, gold: str) -> None:
    for name, measure in REFERENCE.items():
        value = measure(answer, [gold])
        assert 0 <= value <= 1 + 1e-12, name
        assert name not in YES_NO or value in (0, 1)


@given(texts, texts)
def test_f_measures_are_symmetric(answer: str, gold: str) -> None:
    for name in ("korquad_f1", "morpheme_f1", "rouge_1", "rouge_2", "rouge_l", "exact_korean", "korquad_exact"):
        assert REFERENCE[name](answer, [gold]) == pytest.approx(REFERENCE[name](gold, [answer])), name


@given(spoken, st.lists(texts, max_size=3))
def test_an_exact_answer_is_right_by_every_measure(answer: str, others: list[str]) -> None:
    for name, measure in REFERENCE.items():
        if name.startswith("korquad") and not REFERENCE["korquad_f1"](answer, [answer]):
            continue  # nothing is left of it after the official normalisation: 0 by the rule
        assert measure(answer, [*others, answer]) == pytest.approx(1.0), name


@given(texts, st.lists(texts, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_the_best_reference_counts_wherever_it_stands(answer: str, golds: list[str], random: object) -> None:
    for name, measure in REFERENCE.items():
        best = max(measure(answer, [gold]) for gold in golds)
        assert measure(answer, golds) == measure(answer, golds[::-1]) == best, name


@given(texts, texts)
def test_unicode_forms_are_one_text(answer: str, other: str) -> None:
    one, two = (unicodedata.normalize(form, answer) for form in ("NFC", "NFD"))
    for name, measure in REFERENCE.items():
        assert measure(one, [other]) == measure(two, [other]), name
        assert measure(other, [one]) == measure(other, [two]), name
    for name, look in ANSWER.items():
        assert look(one, other) == look(two, other), name
        assert look(other, one) == look(other, two), name


@given(texts, texts)
def test_values_of_an_answer_are_in_range_and_agree_with_their_evidence(answer: str, question: str) -> None:
    for name, look in ANSWER.items():
        value = look(answer, question)
        assert value is None or 0 <= value <= 1, name
        assert name not in YES_NO or value in (None, 0, 1)
        if name in EVIDENCE and value is not None:
            assert bool(EVIDENCE[name](answer, question)) == bool(value), name


@pytest.mark.parametrize("answer", ["", "  \n", "...", "👍👍"])
def test_an_answer_without_letters_decides_nothing(answer: str) -> None:
    assert {look(answer, "오늘 날씨 어때요?") for look in ANSWER.values()} == {None}


def test_half_a_character_does_not_stop_a_measure() -> None:
    for measure in REFERENCE.values():
        assert measure("\ud800 서울", ["\ud800 서울"]) == 1.0
    assert ANSWER["broken_syllable"]("서울\ud83d입니다", "수도는?") == 1.0
