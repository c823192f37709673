"""Metrics over arrays; those that are bootstrapped take many resamples at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Lines = Sequence[Mapping[str, Any]]


def picks(lines: Lines, *, per_character: bool = False) -> Ints:
    """Index of each item's likeliest choice, the first of equals.

    Args:
        lines: choice lines with `logprobs` and `characters`.
        per_character: log-likelihood divided by the answer's characters, its leading spaces not counted, as
            lm-evaluation-harness does for acc_norm.
    """
    chosen = []
    for line in lines:
        scores = np.asarray(line["logprobs"], dtype=np.float64)
        if per_character:
            scores = scores / np.maximum(np.asarray(line["characters"], dtype=np.float64), 1)
        chosen.append(int(np.argmax(scores)))
    return np.asarray(chosen, dtype=np.int64)


def answers(lines: Lines) -> Ints:
    """Index of each item's right choice."""
    return np.asarray([line["answer"] for line in lines], dtype=np.int64)


def right(lines: Lines, metric: str) -> NDArray[np.bool_]:
    """Which items an accuracy metric counts as right; shape [items]."""
    return np.asarray(picks(lines, per_character=metric == "accuracy_norm") == answers(lines))


def macro_f1(gold: Ints, pick: Ints) -> Floats:
    """Mean F1 over the classes that are right or picked at least once (scikit-learn's macro average).

    Args:
        gold, pick: class indices, shape [..., items]; leading dimensions are resamples.

    Returns:
        Shape [...], in 0..1. A class with no true positive has F1 0.
    """
    classes = np.union1d(gold, pick)
    total = np.zeros(gold.shape[:-1])
    count = np.zeros(gold.shape[:-1])
    for one in classes:
        is_gold, is_pick = gold == one, pick == one
        both = (is_gold & is_pick).sum(-1)
        either = is_gold.sum(-1) + is_pick.sum(-1)
        total += np.where(either > 0, 2 * both / np.maximum(either, 1), 0.0)
        count += either > 0
    return np.asarray(total / np.maximum(count, 1))


def bits_per_character(nats: Floats, characters: Floats) -> float:
    """Negative log-likelihood in bits over all characters: long answers weigh as they are long."""
    return float(nats.sum() / characters.sum() / math.log(2))


CHOICE: dict[str, Callable[[Lines], float]] = {
    "accuracy": lambda lines: float(right(lines, "accuracy").mean()),
    "accuracy_norm": lambda lines: float(right(lines, "accuracy_norm").mean()),
    "macro_f1": lambda lines: float(macro_f1(answers(lines), picks(lines))),
}
"""Metrics of choice tasks, by the name that task files use."""


def collapse(lines: Lines, metric: str, *, threshold: float = 0.95) -> dict[str, Any] | None:
    """Says when one answer is given to nearly all items: a constant answer looks like a score.

    Returns:
        The answer's index, its text when all items share it, and its share; None when answers vary. Right answers
        that are themselves one-sided (no variety in the gold) are not a collapse.
    """
    chosen = picks(lines, per_character=metric == "accuracy_norm")
    values, counts = np.unique(chosen, return_counts=True)
    share = float(counts.max() / len(chosen))
    if share < threshold or len(np.unique(answers(lines))) < 2 or len(chosen) < 4:
        return None
    index = int(values[counts.argmax()])
    texts = {line["choices"][index] for line in lines if index < len(line["choices"])}
    return {"index": index, "answer": texts.pop().strip() if len(texts) == 1 else None, "share": share}
