"""Plots: text stays text, same bytes each time, nothing on stderr; pages: escaped, strict."""

from __future__ import annotations

import warnings
import xml.etree.ElementTree as ET

import jinja2
import pytest

from koalpaca_tune import html, plots

DRAWN = {
    "lines": lambda: plots.lines({"학습": [(1, 3.0), (2, 2.5)], "검증": [(2, 2.7)]}, "손실 $곡선$", "스텝", "손실"),
    "bars": lambda: plots.bars({"가 <b>": 3, "나": 1.5}, "막대", "개"),
    "histogram": lambda: plots.histogram([1, 2, 2, 3], "길이", "글자", "개"),
    "intervals": lambda: plots.intervals([plots.Interval("감정", 0.1, -0.1, 0.3)], "차이", "%p"),
    "diverging": lambda: plots.diverging({"감정": (3, 5), "조사": (0, 0)}, "바뀐 문항", ("잃음", "얻음"), "문항"),
    "nothing": lambda: plots.lines({}, "없음", "", ""),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_plot_is_svg_with_text_and_always_the_same(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = DRAWN[name]()
    assert svg == DRAWN[name]()
    ET.fromstring(svg)
    assert capfd.readouterr() == ("", "")
    assert "currentColor" in svg
    assert "NanumGothic" in svg
    assert "DejaVu" not in svg
    assert "<metadata" not in svg


def test_labels_stay_text() -> None:
    assert ">손실 $곡선$</text>" in DRAWN["lines"]()
    assert "가 &lt;b&gt;" in DRAWN["bars"]()


def test_a_value_that_a_page_names_and_nobody_gave_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        html.render("comparison.html.j2")
