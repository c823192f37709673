"""Plots as self-contained SVG: text stays text, the same input gives the same bytes on every machine.

Text is measured with the font that matplotlib ships and named, in the file, with the Korean fonts that
readers have: no font needs to be installed where a report is made. Ink is `currentColor`, so a plot
inside a page follows its light or dark scheme.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

FONTS = "NanumGothic, 'Noto Sans CJK KR', 'Noto Sans KR', 'Malgun Gothic', 'Apple SD Gothic Neo', sans-serif"
COLOURS = ("#3b82c4", "#d9822b", "#4a9c6d", "#a667b5", "#8a8f98", "#c4504b")
GOOD, BAD, NEUTRAL = "#3a9a68", "#cf5248", "#8a8f98"

# matplotlib has no currentColor: this colour stands for it and is replaced in the file
_INK = "#010203"
_RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


class Interval(NamedTuple):
    """One row of a forest plot: a difference, its interval, and how to colour it."""

    label: str
    value: float
    low: float
    high: float
    colour: str = NEUTRAL


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    xlabel: str,
    ylabel: str,
    *,
    width: float = 7.2,
    height: float = 3.2,
) -> str:
    """Curves over a common axis, one for each name (the loss curve).

    Args:
        series: name -> (x, y) points in order of x; a name with one point is drawn as a dot.
        width, height: inches.
    """
    with _figure(title, width, height, left=0.75) as page:
        for n, (name, points) in enumerate(series.items()):
            x, y = [p[0] for p in points], [p[1] for p in points]
            marker = "o" if len(points) < 12 else None
            page.axes.plot(x, y, label=name, color=COLOURS[n % len(COLOURS)], lw=1.6, marker=marker, ms=3.5)
        page.axes.set_xlabel(xlabel)
        page.axes.set_ylabel(ylabel)
        if len(series) > 1:
            page.axes.legend(loc="best", fontsize=9)
    return page.svg


def bars(
    values: Mapping[str, float],
    title: str,
    xlabel: str,
    *,
    width: float = 7.2,
    text: str = "{:g}",
    colour: str = COLOURS[0],
) -> str:
    """One horizontal bar for each label, first on top, with its value written at the end.

    Args:
        text: format of the written value.
    """
    labels, numbers = list(values), list(values.values())
    with _figure(title, width, _rows(len(labels)), left=_inches(labels)) as page:
        axes = page.axes
        axes.barh(range(len(labels)), numbers, color=colour, height=0.62)
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.12)
        for row, number in enumerate(numbers):
            axes.annotate(text.format(number), (number, row), (4, 0), textcoords="offset points", va="center")
        axes.set_xlabel(xlabel)
    return page.svg


def histogram(
    values: Sequence[float],
    title: str,
    xlabel: str,
    ylabel: str,
    *,
    bins: int = 30,
    weights: Sequence[float] | None = None,
    mark: tuple[float, str] | None = None,
    width: float = 7.2,
    height: float = 2.8,
) -> str:
    """How often each range of values occurs.

    Args:
        weights: how often each value stands for, when values are given once each.
        mark: a value that is marked by a line, and what to write beside it.
    """
    with _figure(title, width, height, left=0.75) as page:
        page.axes.hist(list(values), bins=bins, weights=weights, color=COLOURS[0], alpha=0.9)
        if mark:
            page.axes.axvline(mark[0], color=BAD, lw=1.4)
            page.axes.margins(y=0.18)  # room for the words
            at = page.axes.get_xaxis_transform()
            page.axes.annotate(
                mark[1], (mark[0], 1), (-4, -2), at, "offset points", color=BAD, ha="right", va="top", size=9
            )
        page.axes.set_xlabel(xlabel)
        page.axes.set_ylabel(ylabel)
    return page.svg


def intervals(rows: Sequence[Interval], title: str, xlabel: str, *, width: float = 7.2) -> str:
    """A forest plot: differences with their intervals around a line at zero, first row on top."""
    labels = [row.label for row in rows]
    with _figure(title, width, _rows(len(rows)), left=_inches(labels)) as page:
        axes = page.axes
        axes.axvline(0, color=_INK, lw=1.0)
        for y, row in enumerate(rows):
            axes.plot([row.low, row.high], [y, y], color=row.colour, lw=2.4, solid_capstyle="butt")
            axes.plot([row.value], [y], "o", color=row.colour, ms=6.5)
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(xlabel)
    return page.svg


def diverging(
    rows: Mapping[str, tuple[int, int]],
    title: str,
    names: tuple[str, str],
    xlabel: str,
    *,
    width: float = 7.2,
) -> str:
    """Counts that pull two ways from zero: what was lost to the left, what was won to the right.

    Args:
        rows: label -> (lost, won).
        names: what left and right mean, for the legend.
    """
    labels = list(rows)
    widest = max((max(pair) for pair in rows.values()), default=0) or 1
    with _figure(title, width, _rows(len(rows)) + 0.2, left=_inches(labels)) as page:
        axes = page.axes
        left, right = [-lost for lost, _ in rows.values()], [won for _, won in rows.values()]
        axes.barh(range(len(rows)), left, color=BAD, height=0.62, label=names[0])
        axes.barh(range(len(rows)), right, color=GOOD, height=0.62, label=names[1])
        for y, (lost, won) in enumerate(rows.values()):
            axes.annotate(str(lost), (-lost, y), (-4, 0), textcoords="offset points", va="center", ha="right")
            axes.annotate(str(won), (won, y), (4, 0), textcoords="offset points", va="center")
        axes.axvline(0, color=_INK, lw=1.0)
        axes.set_xlim(-widest * 1.25, widest * 1.25)
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel(xlabel)
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=9, borderaxespad=0.2)
    return page.svg


class _figure:  # noqa: N801 - reads as a verb in `with`
    """A figure with fixed margins that is an SVG string after the `with` block."""

    def __init__(self, title: str, width: float, height: float, left: float) -> None:
        self.title, self.width, self.height = title, width, height
        self.left = min(left, width * 0.5)
        self.svg = ""

    def __enter__(self) -> _figure:
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        self._rc = rc_context(_RC | {"svg.hashsalt": self.title})
        self._rc.__enter__()
        self.figure = Figure(figsize=(self.width, self.height))
        left, bottom, top, right = self.left / self.width, 0.55 / self.height, 0.38 / self.height, 0.2 / self.width
        self.axes: Any = self.figure.add_axes((left, bottom, 1 - left - right, 1 - bottom - top))
        self.figure.text(0.1 / self.width, 1 - 0.1 / self.height, self.title, va="top", weight="bold", size=11)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        try:
            if kind is None:
                out = io.StringIO()
                with warnings.catch_warnings():
                    # only measuring lacks the Hangul glyphs; the reader's browser draws them
                    warnings.filterwarnings("ignore", message="Glyph .* missing from")
                    FigureCanvasSVG(self.figure).print_svg(
                        out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
                    )
                self.svg = _finished(out.getvalue(), self.title)
        finally:
            self._rc.__exit__(None, None, None)


def _finished(text: str, title: str) -> str:
    svg = text[text.index("<svg") :].rstrip() + "\n"
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace(_INK, "currentColor").replace("'DejaVu Sans'", FONTS).replace("DejaVu Sans", FONTS)
    # an opaque white page behind the plot would break a dark scheme
    svg = re.sub(r"fill: #ffffff(?=[;\"])", "fill: none", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)


def _inches(labels: Sequence[str]) -> float:
    """Room that the widest label needs at 10 points: an East Asian character is one em wide, others 0.6."""
    ems = [sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.6 for c in label) for label in labels]
    return 0.25 + max(ems, default=0.0) * 10 / 72


def _rows(count: int) -> float:
    return 1.0 + 0.34 * max(count, 1)
