"""Items: what a task asks, read from shipped JSONL or from the KoBEST files as published."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl, patterns
from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.evaluation import kobest
from koalpaca_tune.evaluation.tasks import SCORING, Task


@dataclass(frozen=True, slots=True)
class Item:
    """One question with one right answer.

    Attributes:
        id: unique in its task.
        prompt: the question, its pattern filled in.
        context: material that comes with the question; None in most tasks.
        choices: the answers as they are scored, at least two.
        answer: index of the right one.
        origin: `file:line`.
        material: the item's own texts, without what the task's patterns say around them.
    """

    id: str
    prompt: str
    context: str | None
    choices: tuple[str, ...]
    answer: int
    origin: str
    material: tuple[str, ...] = ()


@dataclass(frozen=True)
class ItemSet:
    """The items of a task, and a digest of all that decides them: task file, items file, which were taken."""

    items: tuple[Item, ...]
    digest: str


def load(task: Task, data_root: Path | None) -> ItemSet:
    """Reads and checks all items of a task.

    Args:
        task: what to read.
        data_root: the folder of local data sets; only tasks with `source.local` need it.

    Raises:
        KoalpacaError: a local file without --data-root (data-root), a missing file (file-missing), a row that is
            not of the task's format, at its line (item-*), a pattern that names an unknown field (task-field).
    """
    path = _path(task, data_root)
    rows = _json_rows(path) if task.file.source.items else kobest.rows(path, str(task.file.source.format))
    items: list[Item] = []
    seen: dict[str, str] = {}
    for origin, id, fields, own, answer in rows:
        if id in seen:
            raise KoalpacaError(
                "item-twice", f"the id '{id}' was seen before, at {seen[id]}.", where=origin, fix="Give another."
            )
        seen[id] = origin
        items.append(_item(task, origin, id, fields, own, answer))
    if not items:
        raise KoalpacaError("items-none", "there is no item in it.", where=str(path))
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    whole = f"{SCORING} {task.digest} {content} {task.every}"
    return ItemSet(tuple(items[:: task.every]), hashlib.sha256(whole.encode()).hexdigest()[:16])


def _path(task: Task, data_root: Path | None) -> Path:
    if task.file.source.items:
        return task.folder / task.file.source.items
    local = str(task.file.source.local)
    if data_root is None:
        raise KoalpacaError(
            "data-root",
            f"task '{task.name}' reads '{local}', which is not shipped.",
            where="--data-root",
            fix=f"Give --data-root, the folder that holds {local.split('/')[0]}/.",
        )
    return data_root / local


Row = tuple[str, str, Mapping[str, str], Sequence[str], int | str]
"""(origin, id, fields, the item's own choices or none, answer: an index, or the text of a label)"""


def _json_rows(path: Path) -> list[Row]:
    rows: list[Row] = []
    for line, row in jsonl.read(path):
        origin = f"{path}:{line}"
        id = row.get("id")
        if not isinstance(id, str) or not id:
            raise KoalpacaError("item-shape", f"'id' is {id!r}, not text.", where=origin, fix="Give it an id.")
        fields = {key: value for key, value in row.items() if isinstance(value, str)}
        rows.append((origin, id, fields, _own_choices(row, origin), _answer(row, origin)))
    return rows


def _own_choices(row: Mapping[str, Any], origin: str) -> Sequence[str]:
    own = row.get("choices", row.get("alternatives", []))
    if not isinstance(own, list) or not all(isinstance(choice, str) and choice for choice in own):
        raise KoalpacaError("item-shape", "its choices are not a list of texts.", where=origin)
    if len(set(own)) != len(own):
        raise KoalpacaError("item-shape", "two of its choices are the same.", where=origin)
    return own


def _answer(row: Mapping[str, Any], origin: str) -> int | str:
    answer = row.get("answer", row.get("label"))
    if isinstance(answer, bool) or not isinstance(answer, int | str):
        raise KoalpacaError(
            "item-shape",
            f"its answer is {answer!r}.",
            where=origin,
            fix="Give `answer`, an index from 0, or `label`, one of the task's labels.",
        )
    return answer


def _item(
    task: Task, origin: str, id: str, fields: Mapping[str, str], own: Sequence[str], answer: int | str
) -> Item:
    file = task.file
    prompt = _fill(task, "prompt", file.prompt, fields, origin)
    context = None if file.context is None else _fill(task, "context", file.context, fields, origin)
    if isinstance(file.choices, str):
        pattern = file.choices
        choices = tuple(_fill(task, "choices", pattern, {**fields, "choice": choice}, origin) for choice in own)
    else:
        choices = tuple(_fill(task, "choices", pattern, fields, origin) for pattern in file.choices)
    if len(choices) < 2:
        raise KoalpacaError("item-shape", f"it has {len(choices)} choices; two are the least.", where=origin)
    if isinstance(answer, str):
        labels = file.labels or []
        if answer not in labels:
            raise KoalpacaError(
                "item-answer",
                f"the label '{answer}' is none of the task's labels.",
                where=origin,
                fix=did_you_mean(answer, labels) or f"List them under labels ({task.places['labels']}).",
            )
        answer = labels.index(answer)
    if not 0 <= answer < len(choices):
        raise KoalpacaError(
            "item-answer", f"the answer is {answer}, but there are {len(choices)} choices, from 0.", where=origin
        )
    return Item(id, prompt, context, choices, answer, origin, _material(file.prompt, file.context, fields))


def _material(prompt: str, context: str | None, fields: Mapping[str, str]) -> tuple[str, ...]:
    named = dict.fromkeys([*patterns.fields(prompt), *patterns.fields(context or "")])
    return tuple(fields[name] for name in named if fields[name].strip())


def _fill(task: Task, key: str, pattern: str, fields: Mapping[str, str], origin: str) -> str:
    for name in patterns.fields(pattern):
        if name not in fields:
            raise KoalpacaError(
                "task-field",
                f"the pattern names '{{{name}}}', which the item at {origin} does not have.",
                where=task.places[key],
                fix=did_you_mean(name, sorted(fields)),
            )
    return patterns.fill(pattern, fields)
