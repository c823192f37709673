"""Korean numerals as digits: 삼백이십, 3백20 and 320 are one number, and so are 스물다섯 살 and 25세.

What is read as a number, in short:
- Sino-Korean (삼백이십, 1억 2천만, 3만5천): as a whole word, or before a unit (삼 년). A single syllable (일, 이,
  만) only before a unit, or as the whole text. Three and more bare digits are read one by one (이공이사).
- Native (하나 to 아흔아홉): before a counter, or as the whole text; 한, 두, 세 ... need a space before the counter,
  save before the commonest ones (한명, 두개).
- Commas between thousands, a fraction of zeros (3.0) and a leading zero of two digits (03월) go.
- 2024-03-01, 2024/3/1 and 2024.3.1 are 2024년3월1일.
Units have one spelling: 퍼센트 and 프로 are %, 킬로미터 is km, 살 is 세, 사람 and 인 are 명, 달 is 개월, $5 is
5달러.
"""

from __future__ import annotations

import re
from decimal import Decimal

_SINO = {char: n for n, char in enumerate("영일이삼사오육칠팔구")} | {"공": 0, "륙": 6}
_SMALL = {"십": 10, "백": 100, "천": 1000}
_BIG = {"만": 10**4, "억": 10**8, "조": 10**12, "경": 10**16}
_TENS = {
    **{word: 10 * n for n, word in enumerate(re.findall(r"\S+", "열 스물 서른 마흔 쉰 예순 일흔 여든 아흔"), 1)},
    "스무": 20,
}
_ONES = {
    word: n
    for n, words in enumerate(
        re.findall("[^|]+", "하나 한|둘 두|셋 세 석 서|넷 네 넉 너|다섯|여섯|일곱|여덟|아홉"), 1
    )
    for word in words.split()
}

_SPELLINGS = """
%: 퍼센트 프로; km: 킬로미터; cm: 센티미터 센티; mm: 밀리미터; m: 미터
kg: 킬로그램 킬로; g: 그램; ml: 밀리리터; l: 리터; 달러; 유로; 엔; 원
세: 살; 명: 사람 인; 개월: 달; 주: 주일; 년: 년도 해
"""
_UNITS = {
    spelling: unit.strip()
    for unit, _, others in (part.partition(":") for part in re.split("[;\n]", _SPELLINGS.strip()))
    for spelling in (unit.strip(), *others.split())
}
_COUNTERS = re.findall(
    r"\S+",
    """시간 가지 마리 번째 세기 학년 등 위 개 권 대 장 번 회 일 월 분 초 시 도 층 점 배 채 척 편 곡 잔 병 켤레 송이
    그루 자루 벌 쪽 호 차 군데 곳""",
)
_ANY_UNIT = "|".join(sorted({*_UNITS, *_COUNTERS}, key=len, reverse=True))
# a counter that may follow 한, 두, 세, 네 without a space: elsewhere they begin other words (한국, 두부, 세상)
_CLOSE = "개|명|살|마리|가지|시간|번|권|병|잔"

_SIGN = "영공일이삼사오육륙칠팔구십백천만억조경"
_AFTER = r"(?=$|[^가-힣]|(?:간|째|쯤|정도)(?![가-힣]))"
_LONGEST = 40
_RUN = re.compile(
    rf"(?<![가-힣A-Za-z\d.,-])(?P<run>[\d{_SIGN}](?:[\d,.{_SIGN}]| (?=[\d{_SIGN}])){{0,{_LONGEST}}}?)"
    rf"(?P<rest> ?(?:{_ANY_UNIT}){_AFTER}|(?![가-힣\d.,]))"
)
_KOREAN = re.compile(f"[{_SIGN}]")
_ONE_SYLLABLE = "한|두|세|석|서|네|넉|너"
_NATIVE = re.compile(
    rf"(?<![가-힣])(?P<tens>{'|'.join(_TENS)})?(?P<ones>{'|'.join(sorted(_ONES, key=len, reverse=True))})?"
    rf"(?:(?P<space> )?(?P<unit>{_ANY_UNIT}){_AFTER}|(?=$))"
)
_DATE = re.compile(r"(?<!\d)(\d{4}) ?[-./] ?(\d{1,2}) ?[-./] ?(\d{1,2})(?!\d)\.?")
_MONEY = re.compile(r"([$€₩¥]) ?([\d,]+(?:\.\d+)?)")
_CURRENCY = {"$": "달러", "€": "유로", "₩": "원", "¥": "엔"}
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NUMBER_AND_UNIT = re.compile(rf"(?<![\d.])(\d+(?:\.\d+)?) ?({_ANY_UNIT})(?![a-z])")
_ZEROS = re.compile(r"(?<![\d.])(\d+)\.0+(?!\d)")
_LEADING = re.compile(r"(?<![\d.])0(?=\d(?!\d))")
_QUANTITY = re.compile(rf"(-?\d+(?:\.\d+)?)({_ANY_UNIT})?")


def value(text: str) -> str | None:
    """The number that a Sino-Korean numeral, also mixed with digits, stands for; None when it is none.

    일억 이천만, 3만5천, 320; 이공이사 digit by digit. Units must fall: 백천 is no number.
    """
    compact = _THOUSANDS.sub("", text.replace(" ", ""))
    if len(compact) >= 3 and all(char in _SINO for char in compact):
        return "".join(str(_SINO[char]) for char in compact)
    total, section, digit = Decimal(0), Decimal(0), None
    small, big = 10**4, 10**20
    for part in re.findall(r"\d+(?:\.\d+)?|.", compact):
        if part[0].isdigit() or part in _SINO:
            if digit is not None:
                return None
            digit = Decimal(part) if part[0].isdigit() else Decimal(_SINO[part])
        elif part in _SMALL and _SMALL[part] < small:
            small = _SMALL[part]
            section += (Decimal(1) if digit is None else digit) * small
            digit = None
        elif part in _BIG and _BIG[part] < big:
            big, small = _BIG[part], 10**4
            total += (section + (digit or 0) or Decimal(1)) * big
            section, digit = Decimal(0), None
        else:
            return None
    return f"{total + section + (digit or 0):f}"


def digits(text: str) -> str:
    """A text with its numbers in digits and its units in one spelling; text in NFKC and small letters."""
    text = _DATE.sub(r"\1년 \2월 \3일", text)
    text = _MONEY.sub(lambda found: f"{found[2]}{_CURRENCY[found[1]]}", text)
    whole = text.strip()
    text = _RUN.sub(lambda found: _sino(found, whole), text)
    text = _NATIVE.sub(lambda found: _native(found, whole), text)
    text = _LEADING.sub("", _ZEROS.sub(r"\1", _THOUSANDS.sub("", text)))
    return _NUMBER_AND_UNIT.sub(lambda found: found[1] + _UNITS.get(found[2], found[2]), text)


def _sino(found: re.Match[str], whole: str) -> str:
    run, rest = found["run"], found["rest"]
    if run[0].isdigit() and not _KOREAN.search(run):
        return f"{run}{rest}"
    if len(run) == 1 and not rest and run != whole:
        return found[0]
    number = value(run)
    return found[0] if number is None else number + rest


def _native(found: re.Match[str], whole: str) -> str:
    tens, ones, unit = found["tens"], found["ones"], found["unit"]
    if (not tens and not ones) or (not unit and found[0] != whole):
        return found[0]
    # 세대 is a generation, 세 대 three cars
    bare = not tens and re.fullmatch(_ONE_SYLLABLE, ones or "")
    if bare and ((unit and not found["space"] and not re.fullmatch(_CLOSE, unit)) or not unit):
        return found[0]
    return f"{_TENS.get(tens, 0) + _ONES.get(ones, 0)}{unit or ''}"


def quantity(text: str) -> tuple[str, str] | None:
    """Number and unit (empty for none) of a text, as `digits` left it, that is nothing else; None for any other."""
    found = _QUANTITY.fullmatch(text)
    return (found[1], found[2] or "") if found else None
