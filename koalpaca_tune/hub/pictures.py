"""The card's plots: files of their own beside it, readable on a light and on a dark page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from koalpaca_tune import jsonl, plots
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub.bundle import PICTURES

METRICS = "metrics.jsonl"
INK = "#1f2328"
_UNITS = {
    "share": (
        "comparison",
        "정답률과 비율의 변화 (change of shares, 95%)",
        "%p, 오른쪽이 좋음 (right is better)",
        100,
    ),
    "bits": ("likelihood", "글자당 비트의 변화 (change of bits, 95%)", "비트, 오른쪽이 좋음 (right is better)", 1),
}
_COLOURS = {"improved": plots.GOOD, "worse": plots.BAD}


class Picture(NamedTuple):
    """A plot of the card.

    Attributes:
        path: where it lies, from the card.
        ko, en: what it shows.
    """

    path: str
    ko: str
    en: str


def write(folder: Path, run: Path, comparison: Mapping[str, Any] | None) -> list[Picture]:
    """Draws what there is to draw into the card's folder, and takes away what an older card left there.

    Args:
        folder: the folder that gets the card.
        run: the run's folder, with its metrics.jsonl.
        comparison: comparison.json, read and checked, or None.
    """
    drawn: dict[str, tuple[Picture, str]] = {}
    loss = _loss(run / METRICS)
    if loss:
        picture = Picture(f"{PICTURES}/loss.svg", "학습과 검증의 손실", "Training and validation loss")
        drawn["loss"] = (picture, loss)
    for unit, (name, title, axis, scale) in _UNITS.items():
        rows = _intervals(comparison, unit, scale)
        if rows:
            picture = Picture(
                f"{PICTURES}/{name}.svg", "기반 모델과의 차이, 95% 구간", "Difference from the base, 95%"
            )
            drawn[name] = (picture, plots.intervals(rows, title, axis))
    for old in (folder / PICTURES).glob("*.svg"):
        old.unlink()
    for name, (_, svg) in drawn.items():
        jsonl.replace(folder / PICTURES / f"{name}.svg", [alone(svg)])
    return [picture for picture, _ in drawn.values()]


def alone(svg: str) -> str:
    """A plot as a file: an image takes no colour from its page, so it gets ink and paper of its own."""
    paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return re.sub(r"(<svg [^>]*>)", rf"\1{paper}", svg.replace("currentColor", INK), count=1)


def _loss(path: Path) -> str | None:
    """The loss curve of a run; None where there are not two points."""
    try:
        rows = [row for _, row in jsonl.read(path)] if path.is_file() else []
    except KoalpacaError:
        # a plot is not worth a card
        return None
    names = (("학습 (train)", "loss"), ("검증 (valid)", "valid_loss"))
    series = {
        name: [(float(row["step"]), float(row[key])) for row in rows if _number(row, key)] for name, key in names
    }
    series = {name: points for name, points in series.items() if points}
    if max((len(points) for points in series.values()), default=0) < 2:
        return None
    return plots.lines(series, "손실 (loss)", "단계 (step)", "nats/토큰 (token)")


def _number(row: Mapping[str, Any], key: str) -> bool:
    values = (row.get("step"), row.get(key))
    # NaN is no number either
    return all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e15 for v in values)


def _intervals(comparison: Mapping[str, Any] | None, unit: str, scale: int) -> list[plots.Interval]:
    made = []
    for row in (comparison or {}).get("rows", []):
        paired = row["paired"]
        if row["unit"] != unit or paired["low"] is None or paired["high"] is None:
            continue
        sign = -scale if row["lower_is_better"] else scale
        low, high = sorted((sign * paired["low"], sign * paired["high"]))
        colour = _COLOURS.get(row["verdict"], plots.NEUTRAL)
        made.append(plots.Interval(row["title"], sign * paired["difference"], low, high, colour))
    return made
