"""How written answers look, beside what is tested: loops, script, speech level, particles, tone, language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from koalpaca_tune.evaluation.job import mean_of
from koalpaca_tune.measures import registry


def of_answer(text: str, question: str) -> dict[str, float | None]:
    """Every measure of an answer that needs no right one; None where the text does not decide it."""
    return {name: measure(text, question) for name, measure in registry.ANSWER.items()}


def totals(answers: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Name -> mean over the answers that decide it, and how many do not."""
    return {
        name: {
            "mean": mean_of([one[name] for one in answers]),
            "undecided": sum(one[name] is None for one in answers),
        }
        for name in registry.ANSWER
    }
