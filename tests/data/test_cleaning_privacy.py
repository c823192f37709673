from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koalpaca_tune.config.cleaning import KINDS, Kind
from koalpaca_tune.data.cleaning import privacy
from koalpaca_tune.data.cleaning.privacy import mask
from koalpaca_tune.records import Conversation, Turn


def masked(text: str, *kinds: Kind) -> str:
    return (
        mask(Conversation((Turn("user", "질문"), Turn("assistant", text))), kinds or KINDS)
        .conversation.turns[1]
        .content
    )


@pytest.mark.parametrize(
    ("text", "after"),
    [
        # made up, with a check digit that is right
        ("주민번호는 900101-1234568입니다.", "주민번호는 [주민등록번호]입니다."),
        ("9001011234568", "[주민등록번호]"),
        ("900101 1234568 맞나요?", "[주민등록번호] 맞나요?"),
        # born after October 2020: no check digit
        ("아이는 211105-3000001이에요.", "아이는 [주민등록번호]이에요."),
        ("외국인등록번호 850320-5123457", "외국인등록번호 [주민등록번호]"),
        ("900101-1******", "[주민등록번호]"),
        ("제 번호는 010-1234-5678이에요", "제 번호는 [전화번호]이에요"),
        ("01012345678로 연락 주세요", "[전화번호]로 연락 주세요"),
        ("010.1234.5678 / 010 1234 5679", "[전화번호] / [전화번호 2]"),
        ("010) 1234-5678", "[전화번호]"),
        ("(010)1234-5678", "[전화번호]"),
        ("010 - 1234 - 5678", "[전화번호]"),
        ("+82 10-1234-5678", "[전화번호]"),
        ("+821012345678", "[전화번호]"),
        ("+82-2-312-3456", "[전화번호]"),
        ("016-312-3456", "[전화번호]"),
        ("02)312-3456", "[전화번호]"),
        ("(031) 312-3456", "[전화번호]"),
        ("집은 053-312-3456, 인터넷 전화는 070-1234-5678", "집은 [전화번호], 인터넷 전화는 [전화번호 2]"),
        ("0507-1234-5678", "[전화번호]"),
        ("hong.gildong+test@naver.com으로", "[이메일]으로"),
        ("메일: a_b-c@mail.korea.ac.kr.", "메일: [이메일]."),
        ("4111-1111-1111-1111", "[카드번호]"),
        ("카드 5555555555554444 결제", "카드 [카드번호] 결제"),
        ("3782 822463 10005", "[카드번호]"),
        ("국민은행 123456-01-123456 홍길동", "국민은행 [계좌번호] 홍길동"),
        ("110-123-456789 (신한은행)", "[계좌번호] (신한은행)"),
        ("신한 110-123-456789로 보내", "신한 [계좌번호]로 보내"),
        ("계좌번호: 11012345678901", "계좌번호: [계좌번호]"),
        ("카카오뱅크 3333-01-1234567", "카카오뱅크 [계좌번호]"),
        ("서울특별시 강남구 테헤란로 123, 101동 1203호입니다", "[주소]입니다"),
        ("저는 경기도 성남시 분당구 판교역로 235에 살아요", "저는 [주소]에 살아요"),
        ("서울 마포구 월드컵북로54길 12로 보내 주세요", "[주소]로 보내 주세요"),
        ("대구 수성구 범어동 123-4", "[주소]"),
        ("강원도 춘천시 남산면 강촌리 산 12번지", "[주소]"),
        ("수원시 영통구 봉영로 1612번길 10", "[주소]"),
        ("서울시 노원구 상계동 721 주공아파트 101동 203호", "[주소]"),
        ("래미안아파트 103동 502호 사는데요", "[주소] 사는데요"),
    ],
)
def test_personal_data_is_masked(text: str, after: str) -> None:
    assert masked(text) == after
    assert masked(after) == after


@pytest.mark.parametrize(
    "text",
    [
        "대법원 2012. 5. 24. 선고 2012다12345 판결",
        "91다42685, 2009도1234-1",
        "민법 제750조 제1항, 제756조",
        "1588-1234로 전화하세요. 1644-0000, 1800-1234, 080-123-4567, 060-700-1234",
        "112, 119, 1330",
        "2024-01-02 10:20:30, 2024.01.02, 20240102",
        "2024-01-02-12345678",
        "가격은 1,234,567,890원, 12345678원입니다.",
        "ISBN 978-89-01-23456-7, 9788901234567, 8801043015981",
        "우편번호 06236, 135-080",
        "3-2로 이겼다. 100-99",
        "사업자등록번호 123-45-67890",
        "원주율은 3.14159265358979323846",
        "모델명 KT-010-1234-5678A",
        "1234-5678-9012-3456",  # no card: Luhn
        "900230-1234567",  # no such day
        "900101-9234567",
        "991301-1234567",
        "9001011234567",  # no hyphen, and the check digit is wrong
        "800101-3234567",  # a man born in 2080
        "npm install react@18.2.0, @gildong, git@github.com:a/b.git",
        "user@example.com",
        "192.168.10.1:8080, 10.0.0.1",
        "은행 금리는 3.25%, 2024-01-02에 올랐다.",
        "우리 123-45 하나",
        "친구 어디로 2시에 갔어?",
        "서울 강남구 역삼동에 살아요.",
        "서울 중로 3류 143호선 도로",
        "경기력으로 2-0 승리",
        "종로 3가에서 만나요. 강남대로 8차선, 을지로 2개 노선",
        "본사는 서울특별시 서초구 강남대로 315에 있다.",
        "국회의사당은 서울특별시 영등포구 의사당대로 1에 위치한다.",
        "12동 305호 강의실",
        "0101-234-5678",
    ],
)
def test_numbers_that_are_nobodys_stay(text: str) -> None:
    assert masked(text) == text


def test_the_same_value_has_the_same_placeholder_in_every_turn() -> None:
    conversation = Conversation(
        (
            Turn("system", "담당자: 02-312-3456"),
            Turn("user", "010-1234-5678이 맞나요?", "연락처 010 1234 5678, A@naver.com"),
            Turn("assistant", "네, +82 10-1234-5678과 02-312-3456, a@naver.com이에요."),
        ),
        "f:1",
        dispreferred="010-9999-8888이에요.",
    )
    made = mask(conversation)
    assert made.conversation == Conversation(
        (
            Turn("system", "담당자: [전화번호]"),
            Turn("user", "[전화번호 2]이 맞나요?", "연락처 [전화번호 2], [이메일]"),
            Turn("assistant", "네, [전화번호 2]과 [전화번호], [이메일]이에요."),
        ),
        "f:1",
        dispreferred="[전화번호 3]이에요.",
    )
    assert made.counts == {"phone": 6, "email": 2}
    assert mask(made.conversation).conversation == made.conversation
    assert not mask(made.conversation).counts


def test_numbering_goes_on_after_placeholders_that_are_there() -> None:
    assert (
        masked("[전화번호]와 [전화번호 2], 그리고 010-1234-5678")
        == "[전화번호]와 [전화번호 2], 그리고 [전화번호 3]"
    )


def test_only_the_kinds_asked_for_are_masked() -> None:
    assert masked("010-1234-5678 a@naver.com", "email") == "010-1234-5678 [이메일]"
    untouched = Conversation((Turn("user", "질문"), Turn("assistant", "a@naver.com")))
    assert mask(untouched, []).conversation is untouched


def test_the_check_digit_of_a_resident_number_decides_without_a_hyphen() -> None:
    found = [last for last in range(10) if masked(f"900101123456{last}") == "[주민등록번호]"]
    assert found == [8]


def test_every_kind_has_a_placeholder_a_finder_and_two_descriptions() -> None:
    for registry in (privacy.PLACEHOLDERS, privacy.FINDERS, privacy.DESCRIPTIONS, privacy.DESCRIPTIONS_EN):
        assert set(registry) == set(KINDS)


PIECES = st.sampled_from(
    [
        *(
            "010",
            "02",
            "-",
            "1234",
            "5678",
            " ",
            ".",
            "@",
            "a",
            "naver.com",
            "900101",
            "1234568",
            "4111",
            "+82",
            "12",
        ),
        *("은행", "계좌 ", "서울 강남구 ", "로 ", "동 ", "호", "[전화번호 2]", "\n", "(", ")"),
    ]
)


@given(st.lists(PIECES, max_size=14).map("".join))
def test_masking_is_stable_and_leaves_nothing_behind(text: str) -> None:
    once = masked(text)
    assert masked(once) == once
    if once != text:
        assert re.search(r"\[(주민등록번호|전화번호|이메일|카드번호|계좌번호|주소)( [0-9]+)?\]", once)
