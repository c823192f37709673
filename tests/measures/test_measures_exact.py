from __future__ import annotations

import unicodedata

import pytest

from koalpaca_tune.measures import exact, numerals


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("삼백이십", "320"),
        ("3백20", "320"),
        ("천구백구십", "1990"),
        ("만", "10000"),
        ("1억 2천만", "120000000"),
        ("일억이천삼백사십오만 육천칠백팔십구", "123456789"),
        ("3만5천", "35000"),
        ("2.5억", "250000000.0"),
        ("1,234.5", "1234.5"),
        ("이공이사", "2024"),
        ("영", "0"),
        ("백천", None),
        ("만억만", None),
        ("이 이", None),
    ],
)
def test_value_of_a_numeral(text: str, value: str | None) -> None:
    assert numerals.value(text) == value


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("삼백이십 명", "320명"),
        ("스물다섯 살", "25세"),
        ("열두 시간", "12시간"),
        ("석 달", "3개월"),
        ("두 사람", "2명"),
        ("한명", "1명"),
        ("오십 프로", "50%"),
        ("3킬로미터", "3km"),
        ("$5", "5달러"),
        ("1만 원", "10000원"),
        ("03월 01일", "3월 1일"),
        ("2024-03-01", "2024년 3월 1일"),
        ("2024. 3. 1.", "2024년 3월 1일"),
        ("고양이 두 마리", "고양이 2마리"),
        ("다섯", "5"),
        ("일", "1"),
        # words that only look like numerals
        ("세대", "세대"),
        ("한국", "한국"),
        ("이 사과", "이 사과"),
        ("오이", "오이"),
        ("삼성전자", "삼성전자"),
        ("사람 이 셋", "사람 이 셋"),
        ("두부", "두부"),
        ("007", "007"),
    ],
)
def test_numbers_in_a_text(text: str, digits: str) -> None:
    assert numerals.digits(text) == digits


EQUAL = [
    ("삼백이십", "320"),
    ("320개", "320"),
    ("삼백이십 개입니다.", "320"),
    ("320 개", "삼백이십개"),
    ("스물다섯 살", "25세"),
    ("5천만 명을", "50,000,000명"),
    ("50 퍼센트", "50%"),
    ("1만 원", "10,000원"),
    ("3.0", "3"),
    ("2024.3.1", "2024년 3월 1일"),
    ("임수경이", "임수경"),
    ("서울입니다.", "서울"),
    ("서울이에요", "서울"),
    ("커피예요", "커피"),
    ("1592년에", "1592년"),
    ("이순신 장군", "이순신장군"),
    ("'기생충'", "기생충"),
    ("Ａｐｐｌｅ", "apple"),
    ("10㎏", "10킬로그램"),
    ("나이로비가", "나이로비"),
    ("조선의 네 번째 왕 세종입니다", "조선의 4번째 왕 세종"),
]
DIFFERENT = [
    ("320개", "320명"),
    ("3년", "3개월"),
    ("3km", "3m"),
    ("3.5", "35"),
    ("-3", "3"),
    ("고양이", "고양"),
    ("하와이", "하와"),
    ("서울", "부산"),
    ("정답은 320입니다", "320"),
    ("삼성", "3성"),
    ("", "320"),
    ("이십", "삼십"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_after_korean_normalisation(one: str, other: str) -> None:
    assert exact.exact_korean(one, other) == exact.exact_korean(other, one) == 1.0
    assert exact.exact_korean(unicodedata.normalize("NFD", one), other) == 1.0
    assert exact.exact(one, other) == 0.0


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_still_different(one: str, other: str) -> None:
    assert exact.exact_korean(one, other) == exact.exact_korean(other, one) == 0.0


def test_exact_ignores_only_unicode_form_and_outer_space() -> None:
    assert exact.exact(f" {unicodedata.normalize('NFD', '서울')}\n", "서울") == 1.0
    assert exact.exact("서울.", "서울") == 0.0
    assert exact.exact("서 울", "서울") == 0.0
