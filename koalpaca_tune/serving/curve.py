"""A run's loss as it is now, for a page that looks again and again while the run writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl, plots
from koalpaca_tune.errors import KoalpacaError

NOTHING_YET = "아직 적힌 손실이 없습니다 (nothing logged yet)"


def rows(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last one that is half written is left out."""
    path = run / "metrics.jsonl"
    if not path.is_file():
        return []
    found = []
    for number, text in jsonl.lines(path):
        try:
            row = jsonl.parse(text, f"{path}:{number}")
        except KoalpacaError:
            continue
        if _number(row.get("step")):
            found.append(row)
    return found


def svg(run: Path) -> str | None:
    """Training and validation loss in nats per learned token, as SVG; None while there is none."""
    logged = rows(run)
    series = {
        name: [(row["step"], row[key]) for row in logged if _number(row.get(key))]
        for name, key in (("학습 (train)", "loss"), ("검증 (valid)", "valid_loss"))
    }
    series = {name: points for name, points in series.items() if points}
    if not series:
        return None
    return plots.lines(series, title="손실 곡선 (loss)", xlabel="단계 (step)", ylabel="손실, nats/토큰")


def told(run: Path) -> str:
    """The last line in words."""
    logged = rows(run)
    if not logged:
        return NOTHING_YET
    last = logged[-1]
    parts = [f"단계 (step) {last['step']:,}"]
    for label, key in (("손실 (loss)", "loss"), ("검증 (valid)", "valid_loss")):
        value = next((row[key] for row in reversed(logged) if _number(row.get(key))), None)
        if value is not None:
            parts.append(f"{label} {value:.4f}")
    if _number(last.get("tokens_per_second")):
        parts.append(f"{last['tokens_per_second']:,.0f} tokens/s")
    return " · ".join(parts)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
