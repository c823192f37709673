"""Names of measures for readers, Korean and English."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koalpaca_tune.measures import registry

TITLES: dict[str, tuple[str, str]] = {
    "accuracy": ("정확도", "accuracy"),
    "accuracy_norm": ("글자당 정확도", "accuracy per character"),
    "accuracy_token": ("토큰당 정확도", "accuracy per token"),
    "accuracy_pmi": ("PMI 정확도", "accuracy by PMI"),
    "macro_f1": ("매크로 F1", "macro-F1"),
    "bits_per_character": ("글자당 비트", "bits per character"),
    "score": ("심사 점수", "judge's score"),
    "prompt_strict": ("지시를 모두 지킨 답 (엄격)", "prompts followed (strict)"),
    "prompt_loose": ("지시를 모두 지킨 답 (느슨)", "prompts followed (loose)"),
    "instruction_strict": ("지킨 지시 (엄격)", "instructions followed (strict)"),
    "instruction_loose": ("지킨 지시 (느슨)", "instructions followed (loose)"),
}

HELDOUT: dict[str, tuple[str, str]] = {
    "bits_per_character": ("검증 답변의 글자당 비트", "Bits per character of the answers"),
    "stop_rate": ("스스로 끝맺은 비율", "Answers that end by themselves"),
    "repetition": ("되풀이", "Repetition"),
    "hangul_share": ("한글 비율", "Share of Hangul"),
    "speech_consistency": ("높임 수준의 일관성", "Consistent speech level"),
    "morpheme_f1": ("기준 답과의 형태소 일치", "Morpheme F1 with the reference"),
}
"""Measures of the held-out conversations, which stand without their task's name."""


def of_measure(measure: str) -> tuple[str, str]:
    """A measure alone; its own name where nobody gave it another."""
    if measure.startswith("score_"):
        return f"{measure[6:]}번째 답의 심사 점수", f"judge's score of answer {measure[6:]}"
    return TITLES.get(measure) or registry.TITLES.get(measure) or (measure, measure)


def of_row(task: Mapping[str, Any], measure: str) -> tuple[str, str]:
    """A tested row: the task, and the measure where the task's name does not tell."""
    if is_heldout(task) and measure in HELDOUT:
        return HELDOUT[measure]
    title, title_en = str(task["title"]), str(task["title_en"])
    if task["kind"] == "choice" and measure in ("accuracy", "accuracy_norm"):
        return title, title_en
    korean, english = of_measure(measure)
    return f"{title}: {korean}", f"{title_en}: {english}"


def is_heldout(task: Mapping[str, Any]) -> bool:
    """Whether a task is of the held-out conversations: fit to data like the training data, no skill."""
    return task["kind"] == "generation" or str(task["name"]).startswith("heldout-")
