"""The results of a comparison in the card's head, where the Hub's own pages read them (`model-index`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DIGITS = 4


def results(comparison: Mapping[str, Any]) -> list[Any]:
    """One entry for each tested measure: the tuned model's value, with what tells whether it means anything.

    Beside the value stand the base's, the difference with its interval, p and the verdict, so that a number
    cannot be read without them; a run of a few items of a task says so in the data set's arguments.

    Args:
        comparison: comparison.json, read and checked.

    Returns:
        huggingface_hub's EvalResult objects.
    """
    from huggingface_hub import EvalResult

    suite = comparison["suite"]
    tasks = {task["name"]: task for task in comparison["after"].get("tasks", []) if "name" in task}
    made = []
    for row in comparison["rows"]:
        paired, task = row["paired"], tasks.get(row["task"], {})
        asked = {
            "suite": suite.get("name", suite["title"]),
            "suite_version": suite["version"],
            "items": paired["n"],
        }
        for key in ("version", "limit"):
            if task.get(key) is not None:
                asked[f"task_{key}"] = task[key]
        made.append(
            EvalResult(
                task_type="text-generation",
                task_name=row["title_en"],
                dataset_type=row["task"],
                dataset_name=task.get("title_en") or row["title_en"],
                dataset_args=asked,
                metric_type=row["measure"],
                metric_name=f"{row['measure']} ({'lower' if row['lower_is_better'] else 'higher'} is better)",
                metric_value=_short(paired["after"]),
                metric_args={
                    "base": _short(paired["before"]),
                    "difference": _short(paired["difference"]),
                    "interval_95": [_short(paired["low"]), _short(paired["high"])],
                    "p_holm": _short(row["p_holm"]),
                    "verdict": row["verdict"],
                },
            )
        )
    return made


def _short(value: float | None) -> float | None:
    return None if value is None else round(float(value), _DIGITS)
