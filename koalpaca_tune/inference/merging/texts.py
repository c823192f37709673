"""Korean text on which logits are compared: from the package's samples, of several kinds."""

from __future__ import annotations

from functools import cache

from koalpaca_tune import jsonl, resources

COUNT = 8
"""Rows taken, evenly from the whole file: about 400 tokens, with something of every kind of task."""


@cache
def texts() -> tuple[str, ...]:
    """Tasks with their answers, as running text."""
    rows = [row for _, row in jsonl.read(resources.DATA / "samples" / "tasks.jsonl")]
    chosen = [rows[n * len(rows) // COUNT] for n in range(COUNT)]
    return tuple(
        "\n".join(row[key] for key in ("instruction", "input", "output") if row.get(key)) for row in chosen
    )
