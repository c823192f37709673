r"""Numbers as models and data sets write them, in one spelling: 1{,}234 is 1234, \frac{1}{2} and 50/100 are 0.5.

What is no number stays what it is, less the white space and the LaTeX that only dresses it. A percent sign and a
unit at the end go, as they do in lm-evaluation-harness's answers to HRM8K: 50% is 50, not 0.5.
"""

from __future__ import annotations

import re
from fractions import Fraction

LONGEST = 100
"""Characters of the longest text that is read as a number."""
_MOST_POWER = 30

_SAME = str.maketrans(
    {
        **{chr(0xFF10 + n): str(n) for n in range(10)},
        **{chr(0x2460 + n): str(n + 1) for n in range(9)},
        **dict.fromkeys("−–－﹣", "-"),
        **{
            "，": ",",
            "．": ".",
            "／": "/",
            "⁄": "/",
            "％": "%",
            "＝": "=",
            "½": "\\frac{1}{2}",
            "¼": "\\frac{1}{4}",
        },
        **{"¾": "\\frac{3}{4}", "⅓": "\\frac{1}{3}", "⅔": "\\frac{2}{3}"},
    }
)
_SPACES = re.compile(r"\\[,;:!> ]|~|\\q?quad(?![a-zA-Z])")
_DRESS = re.compile(r"\\(?:left|right|displaystyle|big|Big|bigl|bigr)(?![a-zA-Z])|\\[$]|[$]|\\[()\[\]]")
_FRAC = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_FRAC_BARE = re.compile(r"\\frac\s*(\d)\s*(\d)")
_WRAP = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_DEGREE = re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})|°|\\degree")

_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+"
_UNIT = r"%|\\%|(?![만억조천백십])[가-힣]{1,4}|[cmk]m(?:\^?[23²³])?|km/h|m/s|[km]g|m[lL]"
_UNITS = re.compile(rf"(?<=[\d}}%만억조천백십])(?:{_UNIT})+$")
_NUMBER = re.compile(rf"([+-]?)({_PLAIN})")
_QUOTIENT = re.compile(rf"([+-]?)({_PLAIN})/({_PLAIN})")
_FRACTION = re.compile(rf"([+-]?)(\d*)\\frac\{{([+-]?(?:{_PLAIN}))\}}\{{({_PLAIN})\}}")
_KOREAN_FRACTION = re.compile(r"([+-]?)(\d+)분의(\d+)")
_POWER = re.compile(rf"([+-]?(?:{_PLAIN}))(?:\\times|\\cdot|×|·)10\^\{{?([+-]?\d+)\}}?")
_KOREAN = re.compile(r"(\d[\d,.]*[만억조천백](?:\d[\d,.]*[만억천백십]?)*)")

_SHOWN = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_SIGN = r"(?:(?<![\w)\]}])-)?"
_LAST = re.compile(
    # 5-3 and 2024-2025 hold no minus, `3,` and 10,20 no thousands
    rf"{_SIGN}\d{{0,15}}\\frac\{{-?{_SHOWN}\}}\{{{_SHOWN}\}}"
    rf"|{_SIGN}\d+분의 ?\d+"
    rf"|{_SIGN}{_SHOWN} ?(?:\\times|×) ?10\^\{{?-?\d+\}}?"
    # 3만큼 and `3만 남는다` are no 30000: a unit must follow
    # (?<!\d) and the bounds: what is no such number is given up at once, however long it is
    r"|(?<![\d,])\d[\d,]{0,15}(?:\.\d{1,9})? ?[만억천백](?: ?\d[\d,]{0,9} ?[만억천백십]?){0,6} ?"
    r"(?=원|명|개|권|대|마리|톤|달러|장|병|그루|km|kg)"
    # 2024/3/1 is no fraction
    rf"|{_SIGN}(?<!/){_SHOWN}/\d+(?![\d/])|{_SIGN}{_SHOWN}"
)


def canonical(text: str) -> str:
    """A number in one spelling: whole, or with its decimals where they end, else as p/q; any other text bare."""
    bare = _bare(text)
    if len(bare) > LONGEST:
        return bare
    for one in (bare, _UNITS.sub("", bare)):
        value = _value(one)
        if value is not None:
            return _spelled(value)
    return bare


def last(text: str) -> str:
    """The last number in a text, in one spelling; empty without one."""
    plain = text.translate(_SAME).replace("{,}", ",")
    plain = re.sub(r"(?<=\d)\\[,!](?=,?\d)|(?<=\d,)\\!(?=\d)", "", plain)
    plain = _FRAC_BARE.sub(r"\\frac{\1}{\2}", _FRAC.sub(r"\\frac", plain))
    found = _LAST.findall(plain)
    return canonical(found[-1]) if found else ""


def _bare(text: str) -> str:
    plain = text.translate(_SAME).strip().replace("{,}", ",")
    plain = _FRAC.sub(r"\\frac", _DRESS.sub("", _SPACES.sub("", plain)))
    plain = _FRAC_BARE.sub(r"\\frac{\1}{\2}", plain)
    without = _WRAP.sub("", plain)
    # \text{cm} behind a number is its unit; \text{A} alone, \mathbf{12} and (\text{B}) are the answer
    plain = without if re.search(r"\w", without) else _WRAP.sub(r"\1", plain)
    plain = _DEGREE.sub("", plain).rstrip(".。 ")
    if plain.count("=") == 1 or "," not in plain:
        # `x = 3` is 3; `x = 1, y = 2` is both
        plain = plain.rsplit("=", 1)[-1]
    plain = "".join(plain.split()).removeprefix("약")
    return plain[1:-1] if re.fullmatch(r"\{[^{}]*\}", plain) else plain


def _value(text: str) -> Fraction | None:
    if found := _NUMBER.fullmatch(text):
        return _signed(found[1], _read(found[2]))
    if found := _FRACTION.fullmatch(text):
        upper, lower = _read(found[3].lstrip("+-")), _read(found[4])
        if not lower:
            return None
        part = _signed("-" if found[3].startswith("-") else "", upper / lower)
        return _signed(found[1], Fraction(int(found[2] or 0)) + part)
    if found := _QUOTIENT.fullmatch(text):
        lower = _read(found[3])
        return _signed(found[1], _read(found[2]) / lower) if lower else None
    if found := _KOREAN_FRACTION.fullmatch(text):
        return _signed(found[1], Fraction(int(found[3]), int(found[2]))) if int(found[2]) else None
    if found := _POWER.fullmatch(text):
        power = int(found[2])
        if abs(power) > _MOST_POWER:
            return None
        sign = "-" if found[1].startswith("-") else ""
        return _signed(sign, _read(found[1].lstrip("+-"))) * Fraction(10) ** power
    if _KOREAN.fullmatch(text):
        from koalpaca_tune.measures import numerals

        known = numerals.value(text)
        return None if known is None else Fraction(known)
    return None


def _read(digits: str) -> Fraction:
    plain = digits.replace(",", "")
    return Fraction(f"0{plain}0" if plain.endswith(".") else f"0{plain}")


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


def _spelled(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    twos = fives = 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
