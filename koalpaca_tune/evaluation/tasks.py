"""Tasks and suites: reviewed YAML files with a version. No Python in them, no defaults hidden in code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from koalpaca_tune import patterns, resources
from koalpaca_tune.config import load as config_load
from koalpaca_tune.config.check import Strict, check
from koalpaca_tune.errors import KoalpacaError, did_you_mean

SCORING = 2
"""Version of the way requests are built and scored; part of every task's hash. Raise it when that changes."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Metric = Literal["accuracy", "accuracy_norm", "macro_f1"]
RowFormat = Literal["kobest-boolq", "kobest-copa", "kobest-wic", "kobest-hellaswag", "kobest-sentineg"]


class Source(Strict):
    """Where the items come from."""

    items: str | None = Field(None, description="JSONL under eval/items (or beside a task file of one's own).")
    local: str | None = Field(None, description="File under --data-root, not shipped.")
    format: RowFormat | None = Field(None, description="Row format of a local file.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.items is None) == (self.local is None):
            raise ValueError("exactly one of items and local says where the items are. | Set one of them.")
        if (self.local is None) != (self.format is None):
            raise ValueError("format belongs to local, and local needs it. | Set both, or items alone.")
        named = Path(self.items or self.local or "")
        if named.is_absolute() or ".." in named.parts:
            raise ValueError(f"'{named}' must be a path below its folder. | Leave out '/' at the start and '..'.")
        return self


class TaskFile(Strict):
    """One kind of question with fixed choices, judged by the likelihood of each choice."""

    name: Name = Field(description="The file's own name.")
    version: int = Field(ge=1, description="Raised with every change that can change a score.")
    title: str = Field(min_length=1, description="Korean name for reports.")
    title_en: str = Field(min_length=1, description="English name for reports.")
    skill: Name = Field(description="What it measures.")
    profile: Literal["koalpaca", "lm-eval"] = Field("koalpaca", description="Whose prompt: ours, or as published.")
    source: Source
    form: Literal["completion", "question"] = Field(
        description="completion: plain text. question: a user turn through the training template."
    )
    prompt: str = Field(min_length=1, description="Pattern over the item's fields.")
    context: str | None = Field(None, description="Pattern of the question's context (맥락); form question only.")
    choices: str | list[str] = Field(
        description="Patterns of the answers; or one pattern with {choice}, for the item's own choices. In a "
        "completion the space between prompt and answer belongs to the answer."
    )
    labels: list[str] | None = Field(None, description="Values of the items' `label`, in the order of `choices`.")
    score: Literal["answer", "whole"] = Field(
        "answer", description="whole: likelihood of prompt and answer together, where a token may join the two."
    )
    metrics: list[Metric] = Field(
        min_length=1, description="The first is the one tested. accuracy_norm: likelihood per character."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        own = isinstance(self.choices, str)
        listed = [self.choices] if isinstance(self.choices, str) else self.choices
        for pattern in (self.prompt, self.context or "", *listed):
            patterns.fields(pattern)
        if own and "choice" not in patterns.fields(listed[0]):
            raise ValueError("a single pattern under choices must name {choice}. | Or list every choice.")
        if not own and len(listed) < 2:
            raise ValueError("there are fewer than two choices. | List them all.")
        if self.labels is not None and (own or len(self.labels) != len(listed)):
            raise ValueError("labels and choices must be lists of the same length. | One label for each choice.")
        if self.form == "question" and self.score == "whole":
            raise ValueError("score: whole needs form: completion. | A template's answer begins on a token.")
        if self.form == "completion" and self.context is not None:
            raise ValueError("context belongs to form: question. | Put it into the prompt.")
        if self.metrics[0] == "macro_f1":
            raise ValueError("macro_f1 has no exact test, so it cannot be first. | Put accuracy first.")
        return self


class SuiteFile(Strict):
    """Tasks that are judged together."""

    name: Name = Field(description="The file's own name.")
    version: int = Field(ge=1, description="Raised when the list changes.")
    title: str = Field(min_length=1, description="Korean name for reports.")
    title_en: str = Field(min_length=1, description="English name for reports.")
    tasks: list[str] = Field(min_length=1, description="Names of shipped tasks, or .yaml files beside this one.")
    every: int = Field(1, ge=1, description="1: all items; n: each n-th item, from the first.")


@dataclass(frozen=True)
class Task:
    """A task file that was read and checked.

    Attributes:
        file: its contents.
        path: where it lies.
        every: each n-th item is asked (from the suite).
        places: `file:line:column: key` of its patterns, for messages about its items.
        digest: SHA-256 of the file's text.
    """

    file: TaskFile
    path: Path
    every: int = 1
    places: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    @property
    def name(self) -> str:
        """The task's name."""
        return self.file.name

    @property
    def folder(self) -> Path:
        """Where `source.items` begins: eval/items for shipped tasks, else the task file's folder."""
        shipped = self.path.resolve().is_relative_to(resources.EVAL.resolve())
        return resources.EVAL / "items" if shipped else self.path.parent


@dataclass(frozen=True)
class Suite:
    """Tasks, in order."""

    name: str
    version: int
    title: str
    title_en: str
    tasks: tuple[Task, ...]


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
    path = Path(name) if name.endswith((".yaml", ".yml")) else resources.EVAL / "suites" / f"{name}.yaml"
    if not path.is_file():
        raise KoalpacaError(
            "suite-missing",
            f"there is no suite '{name}'.",
            where="suite",
            fix=did_you_mean(name, suite_names()),
        )
    document = config_load.read(path)
    file = check(SuiteFile, document)
    _own_name(file.name, path, document.where(("name",)))
    if len(set(file.tasks)) != len(file.tasks):
        raise KoalpacaError(
            "suite-twice", "a task is listed twice.", where=document.where(("tasks",)), fix="List it once."
        )
    tasks = tuple(
        load_task(_task_path(entry, path, document.where(("tasks", n))), file.every)
        for n, entry in enumerate(file.tasks)
    )
    return Suite(file.name, file.version, file.title, file.title_en, tasks)


def load_task(path: Path, every: int = 1) -> Task:
    """One task file.

    Raises:
        KoalpacaError: every problem of the file at once.
    """
    document = config_load.read(path)
    file = check(TaskFile, document)
    _own_name(file.name, path, document.where(("name",)))
    keys = ("prompt", "context", "choices", "labels", "metrics", "source")
    places = {key: document.where((key,)) for key in keys}
    digest = hashlib.sha256(path.read_text(encoding="utf-8-sig").encode()).hexdigest()
    return Task(file, path, every, places, digest)


def shipped() -> dict[str, Path]:
    """The shipped task files by name, sorted."""
    return {path.stem: path for path in sorted((resources.EVAL / "tasks").rglob("*.yaml"))}


def _task_path(entry: str, suite: Path, where: str) -> Path:
    known = shipped()
    if entry in known:
        return known[entry]
    beside = suite.parent / entry
    if entry.endswith((".yaml", ".yml")) and beside.is_file():
        return beside
    raise KoalpacaError(
        "task-missing", f"there is no task '{entry}'.", where=where, fix=did_you_mean(entry, list(known))
    )


def _own_name(name: str, path: Path, where: str) -> None:
    if name != path.stem:
        raise KoalpacaError(
            "task-name", f"'{name}' is not the file's name '{path.stem}'.", where=where, fix="Make them the same."
        )
