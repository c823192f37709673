"""Metrics over arrays; those that are bootstrapped take many resamples at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Lines = Sequence[Mapping[str, Any]]

CONSTANT_LIKE = 0.9
"""From this share of equal answers on, a macro-F1 no better than a constant's is a collapse."""


SCORINGS: dict[str, tuple[str, Callable[[Floats, Floats], Floats]]] = {
    "accuracy": ("logprobs", lambda logprobs, _: logprobs),
    "accuracy_norm": ("characters", lambda logprobs, characters: logprobs / np.maximum(characters, 1)),
    "accuracy_token": ("tokens", lambda logprobs, tokens: logprobs / np.maximum(tokens, 1)),
    "accuracy_pmi": ("unconditional", lambda logprobs, alone: logprobs - alone),
}
"""What the choices are ranked by, by the accuracy that picks the highest: what else of a line it needs, and how.

Summed log-likelihood; per character of the answer, its leading spaces not counted, as lm-evaluation-harness does
for acc_norm; per token; less the log-likelihood of the choice without its question (pointwise mutual information,
Holtzman et al. 2021)."""


def scores(lines: Lines, metric: str) -> Floats:
    """What the choices of lines are ranked by, shape [lines, choices]; macro_f1 ranks as accuracy does.

    Lines with fewer choices than others have -inf in place of those that they lack.
    """
    key, score = SCORINGS.get(metric, SCORINGS["accuracy"])
    most = max(len(line["logprobs"]) for line in lines)
    if all(len(line["logprobs"]) == most for line in lines):
        return score(*(np.asarray([line[name] for line in lines], dtype=np.float64) for name in ("logprobs", key)))
    found = np.full((len(lines), most), -np.inf)
    for row, line in zip(found, lines, strict=True):
        one = score(*(np.asarray(line[name], dtype=np.float64) for name in ("logprobs", key)))
        row[: len(one)] = one
    return found


def picks(lines: Lines, metric: str = "accuracy") -> Ints:
    """Index of each item's likeliest choice by a metric's scores, the first of equals."""
    return np.asarray(scores(lines, metric).argmax(-1), dtype=np.int64)


def answers(lines: Lines) -> Ints:
    """Index of each item's right choice."""
    return np.asarray([line["answer"] for line in lines], dtype=np.int64)


def right(lines: Lines, metric: str) -> NDArray[np.bool_]:
    """Which items an accuracy metric counts as right; shape [items]."""
    return np.asarray(picks(lines, metric) == answers(lines))


def accuracy(lines: Lines, metric: str) -> float:
    """Share of items that an accuracy metric counts as right."""
    return float(right(lines, metric).mean())


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
    **{name: partial(accuracy, metric=name) for name in SCORINGS},
    "macro_f1": lambda lines: float(macro_f1(answers(lines), picks(lines))),
}
"""Metrics of choice tasks, by the name that task files use."""


def constant_macro_f1(gold: Ints) -> float:
    """The best macro-F1 that answering the same to everything has."""
    return max(float(macro_f1(gold, np.full_like(gold, one))) for one in np.unique(gold))


def collapse(lines: Lines, metric: str, *, threshold: float = 0.95) -> dict[str, Any] | None:
    """Says when one answer is given to nearly all items: a constant answer looks like a score.

    Answers also count as collapsed when nine in ten are the same and their macro-F1 is that of a constant answer,
    to a hundredth.

    Returns:
        The answer's index, its text when all items share it, its share, and the macro-F1 of the answers and of the
        best constant; None when answers vary. Right answers that are themselves one-sided (no variety in the gold)
        are not a collapse.
    """
    chosen, gold = picks(lines, metric), answers(lines)
    values, counts = np.unique(chosen, return_counts=True)
    share = float(counts.max() / len(chosen))
    if share < CONSTANT_LIKE or len(np.unique(gold)) < 2 or len(chosen) < 4:
        return None
    seen, constant = float(macro_f1(gold, chosen)), constant_macro_f1(gold)
    if share < threshold and seen > constant + 0.01:
        return None
    index = int(values[counts.argmax()])
    texts = {line["choices"][index] for line in lines if index < len(line["choices"])}
    answer = texts.pop().strip() if len(texts) == 1 else None
    return {"index": index, "answer": answer, "share": share, "macro_f1": seen, "constant_macro_f1": constant}
