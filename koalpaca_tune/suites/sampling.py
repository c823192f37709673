"""Which items of a split are asked."""

from __future__ import annotations

import hashlib

from koalpaca_tune.suites.item import Item
from koalpaca_tune.suites.tasks import Task


def chosen(task: Task, whole: tuple[Item, ...]) -> tuple[Item, ...]:
    """Each n-th item, of these a sample, of these the first, as the task says; in the order of the file."""
    asked = whole[:: task.every]
    if task.sample is not None and len(asked) > task.sample:
        # by a hash of the id: the same items whatever else the file holds, in the file's order
        key = {item.id: hashlib.sha256(f"{task.name}:{item.id}".encode()).digest() for item in asked}
        taken = set(sorted(key, key=key.__getitem__)[: task.sample])
        asked = tuple(item for item in asked if item.id in taken)
    return asked if task.limit is None else asked[: task.limit]
