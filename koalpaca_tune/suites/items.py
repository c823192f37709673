"""Items: what a task asks, with the examples in front, and a digest of all that decides them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl, patterns
from koalpaca_tune.data.rows import Row
from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.suites import fields as columns
from koalpaca_tune.suites import rows, sampling, shots, texts
from koalpaca_tune.suites.asking import ChoiceProfile, Prompt, When, written
from koalpaca_tune.suites.fields import Fields
from koalpaca_tune.suites.item import Item
from koalpaca_tune.suites.rows import Place, Rows
from koalpaca_tune.suites.schema import Answer, AnswerTask, ChoiceTask, InstructionTask, JudgedTask, TextTask
from koalpaca_tune.suites.tasks import SCORING, Task, examples, scored

__all__ = ["Item", "ItemSet", "load"]

ROW = "row"
"""In place of a column, under `id`: the row's number, from 1."""


@dataclass(frozen=True)
class ItemSet:
    """The items of a task.

    Attributes:
        items: those that are asked.
        digest: of all that decides a score: task file, profile, examples, and every item as it is asked.
        origin, revision: where they are from (see `rows.Rows`).
        total: items of the split, before any are left out.
        examples: what the result says of the examples; None without any.
        decided_by: package and version of what decides a score besides this package.
    """

    items: tuple[Item, ...]
    digest: str
    origin: str = ""
    revision: str | None = None
    total: int = 0
    examples: dict[str, Any] | None = None
    decided_by: tuple[str, ...] = ()

    @property
    def ambiguous(self) -> tuple[str, ...]:
        """`file:line` of the items whose right option stands under two letters, of which one counts."""
        return tuple(item.origin for item in self.items if item.ambiguous)


def load(task: Task, data_root: Path | None) -> ItemSet:
    """Reads and checks all items of a task, and chooses those that are asked.

    Args:
        task: what to read, and how it is asked.
        data_root: the folder of local data sets.

    Raises:
        KoalpacaError: data that is neither under --data-root nor on a Hub that answers (data-root, task-data), a
            missing file (file-missing), a row that is not of the task's columns, at its line (item-*), a pattern
            that names an unknown field (task-field), examples that would be scored (shots-scored).
    """
    place = scored(task, data_root)
    found = _read(task, place)
    whole = tuple(_items(task, found, unique=True, several=place.several))
    if not whole:
        raise KoalpacaError("items-none", "there is no item in it.", where=found.origin)
    told = None
    if task.shots:
        shown = examples(task, data_root)
        pool_rows = _read(task, shown)
        pool = tuple(_items(task, pool_rows, unique=False, several=shown.several))
        if pool_rows.revision == found.revision and str(found.revision).startswith("sha256:"):
            raise shots.same_file(task, pool_rows.origin)
        whole, told = shots.give(task, whole, pool)
        told |= {"origin": pool_rows.origin, "revision": pool_rows.revision}
    chosen = sampling.chosen(task, whole)
    said = [[item.id, item.prompt, item.context, item.choices, item.answer, item.unconditional] for item in chosen]
    rest = [
        [item.category, item.golds, item.instructions, item.turns, item.text, [one.said for one in item.examples]]
        for item in chosen
    ]
    tools = _tools(chosen)
    decides = [SCORING, task.digest, task.profile, task.shots, said, rest, *tools]
    decides += [[item.biased, item.unclear] for item in chosen if item.biased is not None]
    whole_text = json.dumps(decides, ensure_ascii=False)
    if not jsonl.is_utf8(whole_text):
        raise _half(chosen)
    digest = hashlib.sha256(whole_text.encode()).hexdigest()[:16]
    return ItemSet(chosen, digest, found.origin, found.revision, len(whole), told, tools)


def _tools(chosen: Sequence[Item]) -> tuple[str, ...]:
    """What decides whether instructions were followed: another version of it may decide otherwise."""
    asked = {id for item in chosen for id, _ in item.instructions}
    if not asked:
        return ()
    from koalpaca_tune.instructions import registry

    return registry.decided_by(asked)


def _half(chosen: Sequence[Item]) -> KoalpacaError:
    """The error for a lone surrogate, which JSON may escape and no tokenizer reads."""
    broken = (one.origin for one in chosen if not jsonl.is_utf8(json.dumps(asdict(one), ensure_ascii=False)))
    what, fix = "it holds half a character (a lone surrogate).", "Write the whole character, or take it out."
    return KoalpacaError("item-encoding", what, where=next(broken), fix=fix)


def _read(task: Task, place: Place) -> Rows:
    try:
        found = rows.read(place)
    except KoalpacaError as error:
        if place.hub is None:
            raise
        local = task.file.source.local
        way = f"put the files under --data-root ({local})" if local else "copy a task file that reads local files"
        problem = error.problems[0]
        raise KoalpacaError(
            "task-data",
            f"the items of '{task.name}' are not here, and the Hub gives none: {problem.what}",
            where=place.name,
            fix=f"Either {way}, or reach the Hub: {problem.fix or 'check the name and the network.'}",
        ) from error
    only = task.file.only
    if not only:
        return found
    for row in found.rows[:1]:
        for name in only:
            columns.column(name, row.values, row.origin)
    return replace(found, rows=tuple(row for row in found.rows if rows.same(row.values, only)))


def _items(task: Task, found: Rows, *, unique: bool, several: bool) -> Iterator[Item]:
    seen: dict[str, str] = {}
    build = BUILD[task.file.kind]
    for number, row in enumerate(found.rows, 1):
        id = _id(task, row, number, several=several)
        if unique and id in seen:
            raise KoalpacaError(
                "item-twice",
                f"the id '{id}' was seen before, at {seen[id]}.",
                where=row.origin,
                fix="Give another.",
            )
        seen[id] = row.origin
        yield from build(task, row, id, columns.read(task.file.fields, row.values, row.origin))


def _id(task: Task, row: Row, number: int, *, several: bool) -> str:
    names = [task.file.id] if isinstance(task.file.id, str) else task.file.id
    name, value = (ROW, number) if names[0] == ROW else _first(names, row, number)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise KoalpacaError(
            "item-shape", f"'{name}' is {value!r}, not an id.", where=row.origin, fix="Give it one."
        )
    return f"{row.values[rows.CONFIG]}/{value}" if several else str(value)


def _first(names: list[str], row: Row, number: int) -> tuple[str, Any]:
    for name in names:
        if name == ROW or name in row.values:
            return name, number if name == ROW else row.values[name]
    return columns.column(names, row.values, row.origin)


def _choice(task: Task, row: Row, id: str, fields: Fields) -> Iterator[Item]:
    file, profile = task.file, task.asked
    assert isinstance(file, ChoiceTask)
    assert isinstance(profile, ChoiceProfile)
    options = columns.options(file.options, fields, row.origin)
    known = _texts(fields) | columns.of_options(options, profile.listing)
    item = _asked(task, row, id, fields, known)
    if isinstance(profile.choices, str):
        pattern = profile.choices
        choices = tuple(_fill(task, "choices", pattern, known | one, row.origin) for one in columns.each(options))
    else:
        choices = tuple(_fill(task, "choices", pattern, known, row.origin) for pattern in profile.choices)
    if len(choices) < 2:
        raise KoalpacaError("item-shape", f"it has {len(choices)} choices; two are the least.", where=row.origin)
    if len(set(choices)) != len(choices):
        raise KoalpacaError("item-shape", "two of its choices are the same.", where=row.origin)
    answer = columns.answer(file.answer, row.values, options, row.origin)
    if not 0 <= answer < len(choices):
        raise KoalpacaError(
            "item-answer", f"the answer is choice {answer + 1}, but there are {len(choices)}.", where=row.origin
        )
    alone = profile.unconditional
    told = None if alone is None else _fill(task, "unconditional", alone, known, row.origin)
    # of choices that are letters, equal options make no equal choices
    said = [" ".join(option.split()) for option in options]
    twin = profile.own and said.count(said[answer]) > 1
    found = replace(item, choices=choices, answer=answer, unconditional=told, ambiguous=twin)
    if file.bias is not None:
        rule = Answer(column=file.bias.column, read="choice")
        biased = columns.answer(rule, row.values, options, row.origin)
        found = replace(found, biased=biased, unclear=file.bias.ambiguous in id)
    yield found


def _answer(task: Task, row: Row, id: str, fields: Fields) -> Iterator[Item]:
    assert isinstance(task.file, AnswerTask)
    golds = tuple(dict.fromkeys(gold for gold in _list(task.file.golds, fields, row.origin) if gold.strip()))
    if not golds:
        raise KoalpacaError("item-answer", "it has no right answer.", where=row.origin)
    yield replace(_asked(task, row, id, fields, _texts(fields)), golds=golds)


def _instruction(task: Task, row: Row, id: str, fields: Fields) -> Iterator[Item]:
    from koalpaca_tune.instructions import follow

    file = task.file
    assert isinstance(file, InstructionTask)
    ids = _list(file.instructions, fields, row.origin)
    _, arguments = columns.column(file.arguments, row.values, row.origin)
    follow.read(ids, arguments, row.origin)
    item = _asked(task, row, id, fields, _texts(fields))
    yield replace(item, instructions=tuple(zip(ids, arguments, strict=True)))


def _judged(task: Task, row: Row, id: str, fields: Fields) -> Iterator[Item]:
    file = task.file
    assert isinstance(file, JudgedTask)
    turns = tuple(_list(file.turns, fields, row.origin))[: file.most_turns]
    if not turns or not all(turn.strip() for turn in turns):
        raise KoalpacaError("item-shape", "it has no question, or an empty one.", where=row.origin)
    given = _list(file.references, fields, row.origin, missing=True) if file.references else []
    references = tuple(one if one.strip() else None for one in given[: len(turns)])
    references += (None,) * (len(turns) - len(references))
    item = Item(id, turns[0], None, (), -1, row.origin, turns, _category(task, fields, row.origin))
    yield replace(item, turns=tuple(zip(turns, references, strict=True)))


def _text(task: Task, row: Row, id: str, fields: Fields) -> Iterator[Item]:
    file = task.file
    assert isinstance(file, TextTask)
    whole = _fill(task, "text", file.text, _texts(fields), row.origin)
    category = _category(task, fields, row.origin)
    for n, (before, text) in enumerate(texts.windows(whole, file.window.characters, file.window.before), 1):
        yield Item(f"{id}/{n}", before, None, (), -1, row.origin, (text,), category, text=text)


BUILD: dict[str, Callable[[Task, Row, str, Fields], Iterator[Item]]] = {
    "choice": _choice,
    "answer": _answer,
    "instruction": _instruction,
    "judged": _judged,
    "text": _text,
}
"""Kind of task -> a row as items."""


def _asked(task: Task, row: Row, id: str, fields: Fields, known: dict[str, str]) -> Item:
    profile = task.asked
    pattern = _pattern(task, profile.prompt, known, row.origin)
    prompt = _fill(task, "prompt", pattern, known, row.origin)
    context = None if profile.context is None else _fill(task, "context", profile.context, known, row.origin)
    material = _material(task, known, fields, row.origin)
    return Item(id, prompt, context, (), -1, row.origin, material, _category(task, fields, row.origin))


def _pattern(task: Task, prompt: Prompt, known: dict[str, str], origin: str) -> str:
    if not isinstance(prompt, When):
        return prompt
    if prompt.field not in known:
        raise _unknown(task, "prompt", prompt.field, known, origin)
    return prompt.then if known[prompt.field].strip() else prompt.otherwise


def _category(task: Task, fields: Fields, origin: str) -> str | None:
    if task.file.category is None:
        return None
    value = fields.get(task.file.category)
    if value is None:
        raise columns.missing(task.file.category, fields, origin)
    if not isinstance(value, str) or not value.strip():
        raise KoalpacaError("item-shape", f"its category ('{task.file.category}') is not a text.", where=origin)
    return value.strip()


def _texts(fields: Fields) -> dict[str, str]:
    return {name: value for name, value in fields.items() if isinstance(value, str)}


def _list(name: str, fields: Fields, origin: str, *, missing: bool = False) -> list[str]:
    value = fields.get(name)
    if value is None and not missing:
        raise columns.missing(name, fields, origin)
    return [] if value is None else [value] if isinstance(value, str) else value


def _material(task: Task, known: dict[str, str], fields: Fields, origin: str) -> tuple[str, ...]:
    """The item's own texts, without what the patterns say around them.

    Raises:
        KoalpacaError: there are fields in the patterns, and all are empty (item-shape).
    """
    profile = task.asked
    every = [*written(profile.prompt), profile.context or ""]
    named = dict.fromkeys(name for pattern in every for name in patterns.fields(pattern))
    own = [known[name] for name in named if isinstance(fields.get(name), str)]
    found = tuple(text for text in own if text.strip())
    if own and not found:
        what = f"all that its question is made of is empty ({', '.join(named)})."
        raise KoalpacaError("item-shape", what, where=origin, fix="Fill it in, or take the item out.")
    return found


def _fill(task: Task, key: str, pattern: str, known: dict[str, str], origin: str) -> str:
    for name in patterns.fields(pattern):
        if name not in known:
            raise _unknown(task, key, name, known, origin)
    return patterns.fill(pattern, known)


def _unknown(task: Task, key: str, name: str, known: Sequence[str] | dict[str, str], origin: str) -> KoalpacaError:
    return KoalpacaError(
        "task-field",
        f"the pattern names '{{{name}}}', which the item at {origin} does not have.",
        where=task.place(key),
        fix=did_you_mean(name, sorted(known)),
    )
