"""Tasks and suites: reviewed YAML files with a version, and how a run asks them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from koalpaca_tune import patterns, resources
from koalpaca_tune.config import load as config_load
from koalpaca_tune.config.check import check
from koalpaca_tune.config.document import Document
from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.suites import kinds
from koalpaca_tune.suites.asking import Profile
from koalpaca_tune.suites.rows import Place
from koalpaca_tune.suites.schema import (
    AnswerTask,
    ChoiceTask,
    Entry,
    InstructionTask,
    SuiteFile,
    TaskFile,
)

YAML = (".yaml", ".yml")
_LONGEST = 200
SCORING = 4
"""Version of the way requests are built and scored; part of every task's hash. Raise it when that changes."""


@dataclass(frozen=True)
class Task:
    """A task file that was read and checked, and how it is asked.

    Attributes:
        file: its contents.
        path: where it lies.
        places: `file:line:column: key` of its keys, for messages about its items.
        digest: SHA-256 of the file's text.
        profile: name of the way to ask; "" where the kind has only one.
        shots: examples in front of each item.
        every: each n-th item is asked.
        sample: at most that many items, chosen by their ids.
        limit: at most that many, the first.
    """

    file: TaskFile
    path: Path
    places: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""
    profile: str = ""
    shots: int = 0
    every: int = 1
    sample: int | None = None
    limit: int | None = None

    @property
    def name(self) -> str:
        """The task's name."""
        return self.file.name

    @property
    def folder(self) -> Path:
        """Where `source.items` begins: eval/items for shipped tasks, else the task file's folder."""
        shipped = self.path.resolve().is_relative_to(resources.EVAL.resolve())
        return resources.EVAL / "items" if shipped else self.path.parent

    @property
    def asked(self) -> Profile:
        """The way to ask."""
        return profiles(self.file)[self.profile]

    def place(self, key: str) -> str:
        """Where a key of the chosen profile, or of the file, stands."""
        return self.places.get(f"{self.profile}.{key}") or self.places.get(key) or str(self.path)


@dataclass(frozen=True)
class Suite:
    """Tasks, in order."""

    name: str
    version: int
    title: str
    title_en: str
    tasks: tuple[Task, ...]


def profiles(file: TaskFile) -> Mapping[str, Profile]:
    """The ways to ask a task, the first by default; none for kinds that have one."""
    return file.profiles if isinstance(file, ChoiceTask | AnswerTask | InstructionTask) else {}


def suite_names() -> list[str]:
    """Names of the shipped suites."""
    return sorted(path.stem for path in (resources.EVAL / "suites").glob("*.yaml"))


def task_names() -> list[str]:
    """Names of the shipped tasks."""
    return sorted(shipped())


def load_suite(name: str) -> Suite:
    """A suite by shipped name or by file, with its tasks.

    Raises:
        KoalpacaError: unknown suite or task (suite-missing, task-missing), or problems in a file (config-*).
    """
    path = Path(name) if name.endswith(YAML) else resources.EVAL / "suites" / f"{name}.yaml"
    if not path.is_file():
        what = f"there is no suite '{name}'."
        raise KoalpacaError("suite-missing", what, where="suite", fix=_fix(name, suite_names(), "task", shipped()))
    document = config_load.read(path)
    kinds.suite(document)
    file = check(SuiteFile, document)
    _own_name(file.name, path, document.where(("name",)))
    names = [entry if isinstance(entry, str) else entry.task for entry in file.tasks]
    if len(set(names)) != len(names):
        raise KoalpacaError(
            "suite-twice", "a task is listed twice.", where=document.where(("tasks",)), fix="List it once."
        )
    tasks = tuple(_listed(file, n, path, document) for n in range(len(file.tasks)))
    return Suite(file.name, file.version, file.title, file.title_en, tasks)


def _listed(file: SuiteFile, n: int, path: Path, document: Document) -> Task:
    given = file.tasks[n]
    entry = given if isinstance(given, Entry) else Entry(task=given)
    where = document.where(("tasks", n))
    task = load_task(_task_path(entry.task, path, where))
    shots = file.shots if task.file.shots is not None else 0
    if entry.profile is not None:
        task = asked_by(task, entry.profile, where)
    task = replace(task, every=file.every, sample=entry.items or file.items, shots=shots)
    return with_shots(task, entry.shots, where) if entry.shots is not None else task


def load_task(path: Path) -> Task:
    """One task file, asked by its first profile.

    Raises:
        KoalpacaError: every problem of the file at once.
    """
    document = config_load.read(path)
    file = check(kinds.of_task(document), document)
    _own_name(file.name, path, document.where(("name",)))
    names = list(profiles(file))
    keys = ("source", "fields", "options", "answer", "golds", "text", "shots")
    places = {key: document.where((key,)) for key in keys}
    for name in names:
        for key in type(profiles(file)[name]).model_fields:
            places[f"{name}.{key}"] = document.where(("profiles", name, key))
    digest = hashlib.sha256(path.read_text(encoding="utf-8-sig").encode()).hexdigest()
    return Task(file, path, places, digest, names[0] if names else "")


def find_task(name: str) -> Task:
    """A task by shipped name, or a .yaml file.

    Raises:
        KoalpacaError: neither (task-missing), or problems in the file (config-*).
    """
    return load_task(_task_path(name, Path("suite"), "--task"))


def asked_by(task: Task, profile: str, where: str) -> Task:
    """The task asked by another profile.

    Raises:
        KoalpacaError: the task has none of that name (task-profile).
    """
    known = list(profiles(task.file))
    if profile not in known:
        raise KoalpacaError(
            "task-profile",
            f"task '{task.name}' has no profile '{profile}'.",
            where=where,
            fix=did_you_mean(profile, known) or "Leave it out: the task is asked in one way only.",
        )
    return replace(task, profile=profile)


def with_shots(task: Task, shots: int, where: str) -> Task:
    """The task with examples in front of its items.

    Raises:
        KoalpacaError: the task file names no source of examples (task-shots).
    """
    if shots and task.file.shots is None:
        raise KoalpacaError(
            "task-shots",
            f"task '{task.name}' names no split to take examples from.",
            where=where,
            fix="Ask it without examples, or add `shots` to a task file of your own.",
        )
    return replace(task, shots=shots)


def scored(task: Task, data_root: Path | None) -> Place:
    """Where the items are: the local file if it is there, else the Hub.

    Raises:
        KoalpacaError: they are only under --data-root, and that was not given (data-root).
    """
    source = task.file.source
    if source.items is not None:
        return Place((("", task.folder / source.items),), None, source.reader)
    files = _files(task, source.local, data_root)
    if files and (source.hub is None or all(path.is_file() for _, path in files)):
        return Place(files, None, source.reader)
    if source.hub is None:
        raise _data_root(task, str(source.local))
    return Place((), source.hub)


def examples(task: Task, data_root: Path | None) -> Place:
    """Where the examples are, as `scored`.

    Raises:
        KoalpacaError: as `scored`.
    """
    source, shots = task.file.source, task.file.shots
    assert shots is not None
    if shots.items is not None:
        return Place((("", task.folder / shots.items),), None, source.reader)
    files = _files(task, shots.local, data_root)
    if files and (shots.split is None or all(path.is_file() for _, path in files)):
        return Place(files, None, source.reader)
    if shots.split is None or source.hub is None:
        raise _data_root(task, str(shots.local))
    return Place((), source.hub.model_copy(update={"split": shots.split}))


def here(task: Task, data_root: Path | None) -> bool:
    """Whether the items can be read without the network."""
    source = task.file.source
    files = _files(task, source.local, data_root)
    return source.items is not None or (bool(files) and all(path.is_file() for _, path in files))


def _files(task: Task, local: str | None, data_root: Path | None) -> tuple[tuple[str, Path], ...]:
    if local is None or data_root is None:
        return ()
    if "config" in patterns.fields(local):
        return tuple(
            (config, data_root / patterns.fill(local, {"config": config})) for config in task.file.source.configs
        )
    return (("", data_root / local),)


def _data_root(task: Task, local: str) -> KoalpacaError:
    return KoalpacaError(
        "data-root",
        f"task '{task.name}' reads '{local}', which is not shipped.",
        where="--data-root",
        fix=f"Give --data-root, the folder that holds {local.split('/')[0]}{'/' if '/' in local else ''}.",
    )


def shipped() -> dict[str, Path]:
    """The shipped task files by name, sorted."""
    return {path.stem: path for path in sorted((resources.EVAL / "tasks").rglob("*.yaml"))}


def _task_path(entry: str, suite: Path, where: str) -> Path:
    known = shipped()
    if entry in known:
        return known[entry]
    beside = suite.parent / entry
    # a longer name is none that a file can have, and asking for it is an error of the system
    if entry.endswith(YAML) and len(entry) <= _LONGEST and beside.is_file():
        return beside
    fix = _fix(entry, list(known), "suite", suite_names())
    said = entry if len(entry) <= _LONGEST else entry[:_LONGEST] + "..."
    raise KoalpacaError("task-missing", f"there is no task '{said}'.", where=where, fix=fix)


def _fix(name: str, known: Collection[str], other: str, others: Collection[str]) -> str:
    """What to do about a name that is not known."""
    if name in others:
        return f"It is a {other}: name it with --{other}."
    if Path(name).suffix or "/" in name:
        return "Check the path: a file of your own ends in .yaml." if not name.endswith(YAML) else "Check the path."
    return did_you_mean(name, list(known))


def _own_name(name: str, path: Path, where: str) -> None:
    if name != path.stem:
        raise KoalpacaError(
            "task-name", f"'{name}' is not the file's name '{path.stem}'.", where=where, fix="Make them the same."
        )
