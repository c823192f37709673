"""Two finished evaluations as pairs of lines, refused when they did not do the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError, Problem
from koalpaca_tune.evaluation import lines
from koalpaca_tune.evaluation.run import Result
from koalpaca_tune.evaluation.store import ITEMS, Line


@dataclass(frozen=True)
class TaskPair:
    """One task before and after: what the results say of it, and its lines in the same order."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    lines_before: Sequence[Line]
    lines_after: Sequence[Line]

    @property
    def name(self) -> str:
        """The task's name."""
        return str(self.before["name"])


@dataclass(frozen=True)
class Pair:
    """Two evaluations that may be compared."""

    before: Result
    after: Result
    tasks: tuple[TaskPair, ...]


def pair(before: Path, after: Path) -> Pair:
    """Reads two folders.

    Raises:
        KoalpacaError: all that forbids the comparison, at once: an unfinished evaluation (eval-unfinished), another
            base (compare-base), template (compare-template), tasks (compare-tasks), version or items of a task
            (compare-task-version), lines that are missing (compare-items).
    """
    one, two = Result.read(before), Result.read(after)
    problems = list(_differences(one, two))
    if problems:
        raise KoalpacaError.of(problems)
    lines_one, lines_two = _lines(one), _lines(two)
    tasks = []
    for told, other in zip(one.tasks, _in_order(one, two), strict=True):
        here, there = lines_one[told["name"]], lines_two[told["name"]]
        if here.keys() != there.keys() or len(here) != told["items"]:
            raise KoalpacaError(
                "compare-items",
                f"task '{told['name']}' has {len(here)} items before and {len(there)} after, not the same "
                f"{told['items']}.",
                where=f"{before / ITEMS}, {after / ITEMS}",
                fix="Run `koalpaca eval` again for both; what is done is kept.",
            )
        for id, line in here.items():
            if told["kind"] == "choice" and any(line[key] != there[id][key] for key in ("choices", "answer")):
                raise KoalpacaError(
                    "compare-items",
                    f"item '{id}' of '{told['name']}' has not the same choices and answer before and after.",
                    where=f"{before / ITEMS}, {after / ITEMS}",
                    fix="Take both lines out and run `koalpaca eval` again for both; what is done is kept.",
                )
        tasks.append(TaskPair(told, other, list(here.values()), [there[id] for id in here]))
    return Pair(one, two, tuple(tasks))


def _differences(one: Result, two: Result) -> list[Problem]:
    where = f"{one.folder}, {two.folder}"
    problems = []
    base_one, base_two = _base(one), _base(two)
    if not base_one or base_one != base_two:
        problems.append(
            Problem(
                "compare-base",
                f"the bases differ: {_short(base_one)} before, {_short(base_two)} after.",
                where,
                "Compare an adapter with the base that it was trained on.",
            )
        )
    if one.template != two.template:
        problems.append(
            Problem(
                "compare-template",
                f"the templates differ: {one.template} before, {two.template} after.",
                where,
                "Evaluate both with the adapter's template.",
            )
        )
    told, other = {task["name"]: task for task in one.tasks}, {task["name"]: task for task in two.tasks}
    if told.keys() != other.keys():
        only = sorted(told.keys() ^ other.keys())
        problems.append(
            Problem(
                "compare-tasks",
                f"not both have the tasks {', '.join(only)}.",
                where,
                "Evaluate both with the same suite and the same held-out file.",
            )
        )
    problems += [
        Problem(
            "compare-task-version",
            f"task '{name}' is not the same: version {told[name]['version']} with items and settings "
            f"{told[name]['hash']} before, version {other[name]['version']} with {other[name]['hash']} after.",
            where,
            "Evaluate both with the same version of the toolkit, the same files and the same options.",
        )
        for name in told
        if name in other and told[name]["hash"] != other[name]["hash"]
    ]
    return problems


def _base(result: Result) -> dict[str, Any]:
    """What an identity says of its base: `base`, `base_fingerprint`, whatever begins so."""
    return {key: value for key, value in result.identity.items() if key.split("_")[0] == "base"}


def _in_order(one: Result, two: Result) -> list[Mapping[str, Any]]:
    other = {task["name"]: task for task in two.tasks}
    return [other[task["name"]] for task in one.tasks]


def _lines(result: Result) -> dict[str, dict[str, Line]]:
    """Lines of the result's tasks by item id, in the order of ids, whatever the order they were written in.

    Raises:
        KoalpacaError: a line that is not as it was written (eval-shape).
    """
    by_name = {task["name"]: task for task in result.tasks}
    hashes = {task["name"]: task["hash"] for task in result.tasks}
    found: dict[str, dict[str, Line]] = {name: {} for name in hashes}
    for number, line in jsonl.read(result.folder / ITEMS):
        name, hash, id = (line.get(key) for key in ("task", "hash", "id"))
        if not isinstance(id, str):
            raise KoalpacaError("eval-shape", "the line has no id.", where=f"{result.folder / ITEMS}:{number}")
        if isinstance(name, str) and hashes.get(name) == hash:
            _check(line, by_name[name], f"{result.folder / ITEMS}:{number}")
            found[name][id] = line
    return {name: dict(sorted(lines.items())) for name, lines in found.items()}


def _check(line: Line, task: Mapping[str, Any], where: str) -> None:
    lines.check(line, str(task["kind"]), where)
    if task["kind"] == "answer":
        lines.check_scores(line, [str(task["primary"])], where)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
