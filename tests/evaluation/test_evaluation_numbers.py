r"""Answers to mathematics as they are written: fractions, percent, commas, \boxed and \frac, Korean numerals."""

from __future__ import annotations

import pytest

from koalpaca_tune.evaluation import numbers
from koalpaca_tune.evaluation.extract import EXTRACT, GOLD
from koalpaca_tune.measures import registry

SAME = [
    (
        "42",
        "42.0",
        "42.",
        "+42",
        " 42 ",
        "$42$",
        "\\(42\\)",
        "\\boxed{42}",
        "x = 42",
        "a = b = 42",
        "약 42",
        "４２",
    ),
    ("1234", "1,234", "1{,}234", "1{,}234.00", "1\\,234", "1,\\!234", "$1,234원$", "1234\\text{ 원}", "1,234개"),
    ("0.5", "1/2", "\\frac{1}{2}", "\\dfrac12", "\\tfrac{2}{4}", ".5", "0.50", "½", "2분의 1", "\\frac{1.5}{3}"),
    ("-0.75", "-\\frac{3}{4}", "\\frac{-3}{4}", "−3/4", "-0.750", "-\\frac34"),
    ("1/3", "\\frac{1}{3}", "\\frac{2}{6}", "3분의 1", "$\\displaystyle\\frac{1}{3}$"),
    ("1.5", "1\\frac{1}{2}", "\\frac{3}{2}", "1½", "3/2"),
    ("50", "50%", "50\\%", "50 %", "50％", "50퍼센트", "50.0\\%"),
    ("60", "60^\\circ", "60^{\\circ}", "60°", "60도"),
    ("300000", "3\\times10^5", "3 \\times 10^{5}", "30만", "30만 원", "300,000", "3×10^5"),
    ("25000", "2만 5천", "2만5천원", "25,000원", "2.5만"),
    ("0.003", "3\\times 10^{-3}", "0.0030"),
    ("12", "12cm", "12\\text{cm}", "12km", "12번", "\\mathbf{12}", "12개"),
    ("3", "③", "3번", "{3}"),
    ("A", "\\text{A}", "\\textbf{A}", "$A$"),
    ("2\\sqrt{3}", "2 \\sqrt{3}", "$2\\sqrt{3}$", "x=2\\sqrt{3}"),
    ("(1,2)", "(1, 2)", "\\left(1, 2\\right)", "$(1,\\,2)$"),
    ("x=1,y=2", "x = 1, y = 2"),
    ("10,20", "10, 20", "10,\\;20"),
]
DIFFERENT = [
    ("0.5", "50%"),
    ("1/3", "0.333"),
    ("10,20", "1020"),
    ("12x", "12"),
    ("\\frac{1}{0}", "0"),
    ("2\\sqrt{3}", "2\\sqrt{2}"),
    ("(1,2)", "(2,1)"),
    ("-3", "3"),
]


@pytest.mark.parametrize("spellings", SAME, ids=lambda spellings: spellings[0])
def test_spellings_of_one_number(spellings: tuple[str, ...]) -> None:
    boxed = {
        one: EXTRACT["boxed"](one if "\\boxed" in one else f"그러므로 $\\boxed{{{one}}}$이다.") for one in spellings
    }
    assert set(boxed.values()) == {spellings[0]}, boxed
    plain = [one for one in spellings if "\\boxed" not in one]
    assert {GOLD["boxed"](one) for one in plain} == {spellings[0]}
    assert registry.REFERENCE["exact"](boxed[spellings[-1]], [GOLD["boxed"](spellings[0])]) == 1.0


@pytest.mark.parametrize(("one", "two"), DIFFERENT)
def test_what_is_not_the_same_number(one: str, two: str) -> None:
    assert numbers.canonical(one) != numbers.canonical(two)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("따라서 답은 \\frac{3}{4}입니다.", "0.75"),
        ("답은 $-\\dfrac{3}{4}$", "-0.75"),
        ("전체의 3분의 2이다.", "2/3"),
        ("모두 합하면 2만 5천 원입니다.", "25000"),
        ("철수는 1만 2,500원을 냈다.", "12500"),
        ("3만큼 크다", "3"),
        ("사과는 3만 남는다", "3"),
        ("3조로 나누면", "3"),
        ("확률은 12.50%입니다.", "12.5"),
        ("넓이는 $1{,}250\\,\\text{cm}^2$가 아니라 1,250", "1250"),
        ("빛의 속력은 3 \\times 10^8", "300000000"),
        ("비율은 3/4", "0.75"),
        ("2024/3/1", "1"),
        ("4-3", "3"),
        ("답: −7", "-7"),
        ("f(x)=-7", "-7"),
        ("①과 ② 가운데 ②", "2"),
        ("수가 없다", ""),
    ],
)
def test_the_last_number_of_an_answer_without_a_box(text: str, taken: str) -> None:
    assert EXTRACT["boxed"](text) == taken
    assert EXTRACT["number"](text) == taken


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("$\\boxed{3}$이 아니라 $\\boxed{\\frac{a}{b}}$", "\\frac{a}{b}"),
        ("\\boxed {12}", "12"),
        ("\\fbox{7}", "7"),
        ("\\boxed{\\text{12}}", "12"),
        ("\\boxed{}", ""),
        ("\\boxed{7", ""),
    ],
)
def test_the_last_box_is_the_answer(text: str, taken: str) -> None:
    assert EXTRACT["boxed"](text) == taken


def test_a_wall_of_digits_is_no_error() -> None:
    wall = "9" * 10_000
    assert EXTRACT["boxed"](f"\\boxed{{{wall}}}") == wall
    assert EXTRACT["boxed"](f"답은 {wall}") == wall
    assert numbers.canonical("1\\times10^{999999999}") == "1\\times10^{999999999}"
