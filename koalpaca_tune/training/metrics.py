"""metrics.jsonl: one line per logging interval, appended; cut back to the checkpoint on resume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl, plots


class Metrics:
    """The trail of a run."""

    def __init__(self, path: Path, upto: int = 0) -> None:
        """Keeps the lines of steps up to `upto` (those after it will be written again)."""
        self.path = path
        kept = [row for _, row in jsonl.read(path) if row["step"] <= upto] if path.is_file() and upto else []
        jsonl.write(path, kept)
        self.rows: list[Mapping[str, Any]] = list(kept)

    def add(self, row: Mapping[str, Any]) -> None:
        """Appends one line and flushes it."""
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(jsonl.dumps(row) + "\n")
        self.rows.append(row)

    def plot(self, path: Path) -> None:
        """Writes the loss curve as SVG: training and validation loss in nats per learned token."""
        series = {
            name: [(row["step"], row[key]) for row in self.rows if key in row]
            for name, key in (("학습 (train)", "loss"), ("검증 (valid)", "valid_loss"))
        }
        series = {name: points for name, points in series.items() if points}
        svg = plots.lines(series, title="손실 곡선 (loss)", xlabel="단계 (step)", ylabel="손실, nats/토큰")
        jsonl.replace(path, [svg])
