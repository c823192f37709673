"""KorQuAD 1.0's rule, with values worked out by hand from the published script."""

from __future__ import annotations

import unicodedata

import pytest

from koalpaca_tune.measures import korquad


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("임수경이", "임수경이"),
        ("《겨울 나그네》", "겨울 나그네"),
        ("〈관객〉 '모독'", "관객 모독"),
        ("1,500명", "1500명"),
        ("3.1 운동", "31 운동"),
        ("Apple Inc.", "apple inc"),
        ("서울(漢城)시", "서울 漢城 시"),
        ('<표> ‘가’ "나"', "표 가 나"),
        # these two pairs of quotes are not in the official list
        ("“가” 「나」", "“가” 「나」"),
        ("  여러   칸\n줄  ", "여러 칸 줄"),
        ("1989년 ~ 1991년", "1989년 1991년"),
    ],
)
def test_normalise(text: str, normalised: str) -> None:
    assert korquad.normalise(text) == normalised


@pytest.mark.parametrize(
    ("answer", "gold", "exact", "f1"),
    [
        # 3 shared characters of 4 and 3: precision 3/4, recall 1
        ("임수경이", "임수경", 0, 6 / 7),
        ("임수경", "임수경", 1, 1),
        ("'임수경'", "임수경.", 1, 1),
        ("서울", "부산", 0, 0),
        # 1989 and 년 of 5 + 8 characters
        ("1989년", "1989년 6월 30일", 0, 10 / 15),
        # spaces part words and count in exact match, not in F1
        ("국가 보안법", "국가보안법", 0, 1),
        # a bag: one 나 of two is shared
        ("나나", "나", 0, 2 / 3),
        ("ABC", "abc", 1, 1),
        # nothing is left of either
        ("...", "!", 1, 0),
        ("", "서울", 0, 0),
    ],
)
def test_scores(answer: str, gold: str, exact: float, f1: float) -> None:
    assert korquad.exact(answer, gold) == exact
    assert korquad.f1(answer, gold) == pytest.approx(f1)
    assert korquad.f1(gold, answer) == pytest.approx(f1)


def test_decomposed_hangul_scores_as_composed() -> None:
    assert korquad.f1(unicodedata.normalize("NFD", "임수경이"), "임수경") == pytest.approx(6 / 7)
