"""Finished evaluations written by hand: one line per item, one mapping per task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Lines = list[dict[str, Any]]
BASE = {"base": "tiny", "base_fingerprint": "1234"}


def choice(id: str, answer: int, logprobs: Sequence[float], **more: Any) -> dict[str, Any]:
    """A line of a choice task; two labels of one and two tokens where `more` does not say otherwise."""
    labels = {"choices": [" 예", " 아니오"], "characters": [1, 3], "tokens": [1, 2]}
    if len(logprobs) > 2:
        count = len(logprobs)
        labels = {"choices": [f" {n}번" for n in range(count)], "characters": [2] * count, "tokens": [2] * count}
    return {"id": id, "prompt": f"문항 {id}", "answer": answer, "logprobs": list(logprobs)} | labels | more


def picked(id: str, answer: int, pick: int, **more: Any) -> dict[str, Any]:
    """A line whose pick is given, of two labels of equal length."""
    logprobs = [-1.0 if n == pick else -2.0 for n in (0, 1)]
    same = {"choices": [" 긍정", " 부정"], "characters": [2, 2], "tokens": [1, 1]}
    return choice(id, answer, logprobs, **(same | more))


def answer(id: str, scores: dict[str, float | None], text: str = "답", **more: Any) -> dict[str, Any]:
    """A line of a written answer."""
    line = {"id": id, "prompt": f"질문 {id}", "text": text, "golds": ["정답"], "tokens": 3, "stopped": True}
    return line | {"scores": scores} | more


def task(name: str, kind: str, lines: Lines, **more: Any) -> tuple[dict[str, Any], Lines]:
    """A task's mapping and its lines; the first metric is primary."""
    if kind == "choice":
        about: dict[str, Any] = {"primary": "accuracy", "metrics": {"accuracy": 0.5}}
    elif kind == "likelihood":
        about = {"primary": "bits_per_character", "metrics": {"bits_per_character": 1.0}}
    else:
        names = list(lines[0]["scores"])
        decided = {n: [line["scores"][n] for line in lines if line["scores"][n] is not None] for n in names}
        means = {n: sum(values) / len(values) if values else None for n, values in decided.items()}
        about = {"primary": names[0], "metrics": means, "yes_no": [], "lower_is_better": []}
    told = {"name": name, "title": name, "title_en": name, "kind": kind, "version": 1, "hash": "ab"}
    return told | {"items": len(lines)} | about | more, lines


def write(folder: Path, *tasks: tuple[dict[str, Any], Lines], adapter: str | None = None) -> Path:
    """A folder as `koalpaca eval` leaves it."""
    folder.mkdir(parents=True)
    suite = {"name": "test", "version": 1, "title": "시험", "title_en": "Test"}
    identity = BASE | {"adapter": adapter}
    result = {"suite": suite, "identity": identity, "template": "0" * 16, "tasks": [told for told, _ in tasks]}
    (folder / "result.json").write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
    rows = [{"task": told["name"], "hash": "ab"} | line for told, lines in tasks for line in lines]
    (folder / "items.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    return folder
