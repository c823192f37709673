"""Which of two answers a person found better, one line a vote."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from koalpaca_tune import jsonl

Side = Literal["base", "tuned"]
Choice = Literal["base", "tuned", "same"]


@dataclass(frozen=True)
class Shown:
    """Two answers on the page.

    Attributes:
        question, system: as asked.
        answers: by side.
        order: which stood on the left, and which on the right.
        blind: whether the names were hidden.
        settings: how both were written.
        models: base, adapter and template.
    """

    question: str
    system: str
    answers: Mapping[Side, str]
    order: tuple[Side, Side]
    blind: bool
    settings: Mapping[str, Any]
    models: Mapping[str, str]


def save(path: Path, shown: Shown, choice: Choice) -> None:
    """Appends a vote and sees it onto the disk; the folder is made where it is missing."""
    row = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "vote": choice,
        "question": shown.question,
        "system": shown.system,
        "answers": dict(shown.answers),
        "order": list(shown.order),
        "blind": shown.blind,
        "settings": dict(shown.settings),
        **shown.models,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # one write of the whole line: two pages may vote at once
    with path.open("ab", buffering=0) as file:
        file.write((jsonl.dumps(row) + "\n").encode("utf-8", "replace"))
        os.fsync(file.fileno())
