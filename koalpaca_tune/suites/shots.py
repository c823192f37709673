"""Examples in front of items: never from what is scored, chosen by one of two rules."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.suites.item import Example, Item
from koalpaca_tune.suites.tasks import Task

SEED = 1234
"""lm-evaluation-harness' own seed of examples (the fourth number of its --seed)."""


def give(task: Task, asked: Sequence[Item], pool: Sequence[Item]) -> tuple[tuple[Item, ...], dict[str, Any]]:
    """All items of a split with examples, and what the result says of them.

    An item of the pool that equals a scored one (same question, same choices) is left out and counted.

    Raises:
        KoalpacaError: half of the pool or more is scored, so that it is the same split under another name
            (shots-scored), or it has too few items (shots-few).
    """
    scored = {_hash(item) for item in asked}
    clean = [item for item in pool if _hash(item) not in scored]
    twice = len(pool) - len(clean)
    if twice * 2 >= len(pool) > 0:
        raise KoalpacaError(
            "shots-scored",
            f"{twice} of the {len(pool)} examples are items that are scored.",
            where=task.place("shots"),
            fix="Take the examples from another split.",
        )
    if len(clean) < task.shots:
        raise KoalpacaError(
            "shots-few",
            f"there are {len(clean)} examples, but {task.shots} were asked for.",
            where=task.place("shots"),
            fix="Ask for fewer.",
        )
    drawn = RULES[task.asked.shots](clean, task.shots, len(asked))
    whole = tuple(
        replace(item, examples=tuple(_example(task, clean[n]) for n in numbers))
        for item, numbers in zip(asked, drawn, strict=True)
    )
    told: dict[str, Any] = {"count": task.shots, "rule": task.asked.shots, "pool": len(clean), "left_out": twice}
    if task.asked.shots == "fixed":
        told["ids"] = [clean[n].id for n in drawn[0]]
    return whole, told


def _lm_eval(pool: Sequence[Item], count: int, items: int) -> list[list[int]]:
    """As lm-evaluation-harness 0.4.13 draws: one generator for the task, drawn from once for each item in order."""
    draws = Random(SEED)
    return [draws.sample(range(len(pool)), count) for _ in range(items)]


def _fixed(pool: Sequence[Item], count: int, items: int) -> list[list[int]]:
    """The same examples for all items, so that a model reads them once."""
    return [Random(SEED).sample(range(len(pool)), count)] * items


RULES: dict[str, Callable[[Sequence[Item], int, int], list[list[int]]]] = {"lm-eval": _lm_eval, "fixed": _fixed}
"""Rule of a profile -> positions in the pool, for each item in order."""


def same_file(task: Task, origin: str) -> KoalpacaError:
    """The error for examples that would be read from the scored file."""
    return KoalpacaError(
        "shots-scored",
        f"the examples would come from the items that are scored ({origin}).",
        where=task.place("shots"),
        fix="Take them from another split.",
    )


def _example(task: Task, item: Item) -> Example:
    if item.choices:
        return Example(item.prompt, item.context, item.choices[item.answer])
    # in a completion the space belongs to the answer, and right answers come without it
    space = " " if task.asked.form == "completion" else ""
    return Example(item.prompt, item.context, space + item.golds[0])


def _hash(item: Item) -> bytes:
    said = [" ".join((text or "").split()) for text in (item.prompt, item.context, *item.choices)]
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode("utf-8", "surrogateescape")).digest()
