"""metrics.jsonl: one line per logging interval, appended; what comes after a checkpoint is written again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl, plots
from koalpaca_tune.training import durable

ABANDONED = "abandoned.jsonl"
"""Beside metrics.jsonl: lines of steps that were taken back."""


def resident_gib() -> float | None:
    """What this process holds of the machine's memory now, in GiB; None where the system does not tell (/proc)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**30, 3)


class Metrics:
    """The trail of a run."""

    def __init__(self, path: Path, rows: Iterable[Mapping[str, Any]] | None = ()) -> None:
        """Begins with `rows`, whatever the file held: a line may be half written, or of steps to be taken again.

        None: nothing is written (another process does).
        """
        self.path = path
        self.rows: list[Mapping[str, Any]] = list(rows or ())
        if rows is not None:
            with durable.writing(path):
                jsonl.write(path, self.rows)

    def add(self, row: Mapping[str, Any]) -> None:
        """Appends one line and flushes it."""
        with durable.writing(self.path), self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(jsonl.dumps(row) + "\n")
        self.rows.append(row)

    def cut(self, step: int) -> None:
        """Takes the lines after a step out, to abandoned.jsonl."""
        kept = [row for row in self.rows if row["step"] <= step]
        gone = [row for row in self.rows if row["step"] > step]
        with durable.writing(self.path):
            with (self.path.parent / ABANDONED).open("a", encoding="utf-8", newline="\n") as file:
                file.writelines(jsonl.dumps(row) + "\n" for row in gone)
            jsonl.write(self.path, kept)
        self.rows = kept

    def plot(self, path: Path) -> None:
        """Writes the loss curve as SVG: training and validation loss in nats per learned token."""
        series = {
            name: [(row["step"], row[key]) for row in self.rows if key in row]
            for name, key in (("학습 (train)", "loss"), ("검증 (valid)", "valid_loss"))
        }
        series = {name: points for name, points in series.items() if points}
        svg = plots.lines(series, title="손실 곡선 (loss)", xlabel="단계 (step)", ylabel="손실, nats/토큰")
        with durable.writing(path):
            jsonl.replace(path, [svg])
