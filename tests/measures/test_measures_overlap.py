"""chrF and BLEU hold sacrebleu 2.6.0's values; ROUGE and F1 are counted by hand."""

from __future__ import annotations

import pytest

from koalpaca_tune import korean
from koalpaca_tune.measures import chrf, morphemes, overlap

PAIRS = [
    ("서울입니다", "서울은 대한민국의 수도입니다"),
    ("가", "가나"),
    ("나는 학교에 간다", "나는 어제 학교에 갔다"),
    ("고양이가 소파 위에서 잔다.", "고양이는 소파에서 자고 있다."),
    ("abc", "xyz"),
    ("오늘 비가 온다", "오늘은 비가 많이 온다고 한다"),
    ("한국의 수도는 서울입니다. 인구는 약 940만 명입니다.", "한국의 수도는 서울이며 인구는 940만 명쯤입니다."),
]
# sacrebleu 2.6.0: CHRF().sentence_score(answer, [gold]).score / 100, and
# BLEU(tokenize="none", effective_order=True).sentence_score over the morphemes joined by spaces
CHRF = [0.166854293985, 0.555555555556, 0.207343978221, 0.203241739677, 0.0, 0.1436417406, 0.49044779736]
BLEU = [0.166055791502, 0.0, 0.272223029830, 0.135403724573, 0.0, 0.106237274374, 0.481097729098]


@pytest.mark.parametrize(("pair", "value"), list(zip(PAIRS, CHRF, strict=True)))
def test_chrf_is_sacrebleus(pair: tuple[str, str], value: float) -> None:
    assert chrf.score(*pair) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(("pair", "value"), list(zip(PAIRS, BLEU, strict=True)))
def test_bleu_is_sacrebleus_over_morphemes(pair: tuple[str, str], value: float) -> None:
    assert overlap.bleu(*pair) == pytest.approx(value, abs=1e-9)


def test_installed_sacrebleu_agrees() -> None:
    metrics = pytest.importorskip("sacrebleu.metrics", reason="sacrebleu is not installed")
    character, words = metrics.CHRF(), metrics.BLEU(tokenize="none", effective_order=True)
    for answer, gold in PAIRS:
        assert chrf.score(answer, gold) == pytest.approx(character.sentence_score(answer, [gold]).score / 100)
        one, two = (" ".join(morphemes.of(text)) for text in (answer, gold))
        assert overlap.bleu(answer, gold) == pytest.approx(words.sentence_score(one, [two]).score / 100)


def test_chrf_by_hand() -> None:
    # 가 of 가나: length 1 only; precision 1, recall 1/2; 5 * 1 * 0.5 / (4 * 1 + 0.5)
    assert chrf.score("가", "가나") == pytest.approx(2.5 / 4.5)
    assert chrf.score("가 나 다", "가나다") == 1.0
    assert chrf.score("", "") == 1.0
    assert chrf.score("", "가") == 0.0


def test_morphemes_leave_punctuation_out() -> None:
    assert morphemes.of("학교에 가요!") == ("학교/NNG", "에/JKB", "가/VV", "어요/EF")
    assert morphemes.of("... !") == ()


def test_rouge_by_hand() -> None:
    # 임수경/NNP 이/JKS against 임수경/NNP
    assert overlap.morpheme_f1("임수경이", "임수경") == pytest.approx(2 / 3)
    assert overlap.rouge_l("임수경이", "임수경") == pytest.approx(2 / 3)
    # 학교 에 가 어요 against 학교 에 가 ᆫ다: 3 of 4 and 4 morphemes, 2 of 3 and 3 pairs
    assert overlap.morpheme_f1("학교에 가요", "학교에 간다") == pytest.approx(3 / 4)
    assert overlap.rouge_n("학교에 가요", "학교에 간다", 2) == pytest.approx(2 / 3)
    # order: the longest common subsequence of 밥 을 학교 에 and 학교 에 밥 을 is 2 of 4
    assert overlap.rouge_l("밥을 학교에", "학교에 밥을") == pytest.approx(1 / 2)
    assert overlap.morpheme_f1("밥을 학교에", "학교에 밥을") == 1.0


def test_identical_korean_sentences_score_one() -> None:
    """What `rouge_score` gives 0.0 with its default tokenizer."""
    text = "세종대왕이 한글을 만들었습니다."
    assert overlap.rouge_n(text, text, 1) == overlap.rouge_n(text, text, 2) == overlap.rouge_l(text, text) == 1.0


def test_too_short_for_the_ngram() -> None:
    assert overlap.rouge_n("서울", "서울", 2) == 1.0
    assert overlap.rouge_n("서울", "부산", 2) == 0.0
    assert overlap.rouge_n("서울", "서울 시청", 2) == 0.0
    assert overlap.bleu("서울", "부산") == 0.0
    assert overlap.bleu("", "부산") == 0.0


def test_brevity_lowers_bleu() -> None:
    gold = "나는 어제 학교에 걸어서 갔다"
    assert overlap.bleu("나는 어제", gold) < overlap.bleu("나는 어제 학교에 걸어서", gold) < 1.0


@pytest.mark.parametrize(("answer", "gold"), PAIRS)
def test_morpheme_f1_is_the_one_of_the_generation_task(answer: str, gold: str) -> None:
    assert overlap.morpheme_f1(answer, gold) == pytest.approx(korean.morpheme_f1(answer, gold))
