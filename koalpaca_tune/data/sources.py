"""What we know about public data sets: one strict YAML file each, in data/sources.

A licence travels from here into the model card. What nobody could check says so: `licence: unknown`,
`revision: null`. `inputs` turns `source:NAME` into the files, or the parts on the Hub, that may be
trained on; what a set holds out for evaluation is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from koalpaca_tune import resources
from koalpaca_tune.config import load as config
from koalpaca_tune.config.check import Strict, check
from koalpaca_tune.config.preparation import Input
from koalpaca_tune.data import instructions
from koalpaca_tune.data.instructions import Task
from koalpaca_tune.data.rows import Row, place
from koalpaca_tune.data.terms import Flag, Said, Terms, terms
from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.records import Conversation

FOLDER = resources.DATA / "sources"
PREFIX = "source:"

_SQUAD = ("title", "context", "question", "answer", "is_impossible")
"""Columns of a nested file once it is taken apart."""


class OnHub(Strict):
    """Where a part lies within the set's repository on the Hub."""

    config: str | None = Field(None, description="Configuration; null: the only one.")
    split: str = Field("train", description="Split, as the Hub calls it.")


class Part(Strict):
    """One file of a set, or one configuration and split of it on the Hub."""

    file: str | None = Field(None, description="Path below the set's folder; null: the part is on the Hub.")
    hub: OnHub | None = Field(None, description="Place on the Hub; null: the part is a file.")
    format: Literal["csv", "tsv", "json", "jsonl", "parquet"] | None = Field(
        None, description="Of the file, as it is published."
    )
    split: Literal["train", "valid", "test"] = Field("train", description="Only train may be trained on.")
    rows: int | None = Field(None, description="Rows; null: not counted, and not stated by its makers.")
    columns: Annotated[list[str], Field(min_length=1)] = Field(description="Column names, in their order.")
    shape: str | None = Field(None, description="Record shape; null: guessed. Only without a task.")
    task: str | None = Field(None, description="Its task; null: the rows are instructions already.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is None) == (self.hub is None):
            raise ValueError("a part has either a file or a place on the Hub. | Give one of file and hub.")
        if (self.file is None) != (self.format is None):
            raise ValueError("a file needs a format, and only a file has one. | Give both, or neither.")
        return self


class Source(Strict):
    """One set: where it lives, under which terms, and how its rows become instructions."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")] = Field(description="The file's name too.")
    title: str = Field(description="As its makers call it.")
    url: str | None = Field(description="Home page; null: it ships with this package.")
    hub: str | None = Field(None, description="Repository on the Hub: user/name.")
    folder: str | None = Field(None, description="Folder of its files below the data root; null: there are none.")
    revision: str | None = Field(
        description="Commit of the repository on the Hub, or of the home page's; null: not pinned."
    )
    licence: str = Field(description="SPDX name, or as published; 'unknown'.")
    noncommercial: Flag = Field(description="Commercial use is not allowed.")
    sharealike: Flag = Field(description="What is made from it comes under the same licence.")
    noderivatives: Flag = Field(description="Changed copies may not be passed on.")
    obligations: list[Said] = Field(
        default_factory=list, description="What it asks beyond the licence's own terms (`terms`)."
    )
    made_with: list[str] = Field(default_factory=list, description="Models whose output it holds.")
    translated: Literal["no", "machine", "people", "mixed", "unknown"] = Field(
        description="Whether its texts are translations, and by whom."
    )
    problems: list[Said] = Field(default_factory=list, description="What is known to be wrong with it.")
    overlaps: list[str] = Field(default_factory=list, description="Other sets here that share records with it.")
    parts: Annotated[list[Part], Field(min_length=1)] = Field(description="What it consists of.")
    tasks: dict[str, Task] = Field(default_factory=dict, description="How rows become instructions.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Each part has its task, and the task its columns.

        Raises:
            ValueError: `what | what to do`.
        """
        if self.revision is not None and (len(self.revision) != 40 or set(self.revision) - set("0123456789abcdef")):
            raise ValueError(f"the revision '{self.revision}' is no full commit. | Write all 40 digits, or null.")
        if any(part.hub for part in self.parts) and self.hub is None:
            raise ValueError("a part is on the Hub, but there is no repository. | Give hub: user/name.")
        for part in self.parts:
            if part.task is None:
                continue
            if part.task not in self.tasks:
                raise ValueError(
                    f"'{part.task}' is none of the tasks. | {did_you_mean(part.task, list(self.tasks))}"
                )
            task = self.tasks[part.task]
            unnested = part.file is not None and task.nested == "squad"
            try:
                instructions.columns(task, _SQUAD if unnested else part.columns)
            except ValueError as error:
                raise ValueError(f"{part.file or part.hub}: {error}") from error
        return self

    @property
    def terms(self) -> Terms:
        """Its conditions, with the obligations of the licence and its own."""
        return Terms(
            self.noncommercial,
            self.sharealike,
            self.noderivatives,
            (*terms(self.licence).obligations, *self.obligations),
        )

    @property
    def records(self) -> int | None:
        """Rows to train on, where they are known; the larger of its files and its parts on the Hub."""
        counts = [
            [part.rows for part in self.parts if part.split == "train" and (part.hub is not None) == on_hub]
            for on_hub in (False, True)
        ]
        known = [sum(count for count in rows if count is not None) for rows in counts if rows and None not in rows]
        return max(known, default=None)


def names() -> list[str]:
    """Names of the sets that are described."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def load(name: str) -> Source:
    """The description of a set.

    Raises:
        KoalpacaError: none of that name (source-missing), or a file that is not as it should be (config-*).
    """
    if name not in names():
        raise KoalpacaError(
            "source-missing", f"no data source is called '{name}'.", where="source", fix=did_you_mean(name, names())
        )
    return check(Source, config.read(FOLDER / f"{name}.yaml"))


def of_hub(repository: str) -> Source | None:
    """The set that is described as lying there (`user/name`), or None."""
    return next((source for source in map(load, names()) if source.hub == repository), None)


@dataclass(frozen=True, slots=True)
class Use:
    """One part of a set, ready to be read.

    Attributes:
        given: the preparation's input, with the part's own file or place on the Hub as its path.
        source: name of the set.
        task: its task (`shaper`, `unnest`); None: the rows are instructions, of the shape that `given` says.
    """

    given: Input
    source: str
    task: str | None


def inputs(given: Input, root: Path | None) -> list[Use]:
    """What `source:NAME` or `source:NAME/TASK` stands for: every part of the set that may be trained on.

    Files are taken when the set has any and their folder is known; else the parts on the Hub. Weight and
    cap hold for each part.

    Args:
        given: an input whose path begins with `PREFIX`.
        root: folder that holds the sets' folders (`--data-root`), or None.

    Raises:
        KoalpacaError: no such set (source-missing) or task (source-task), a split that is held out for
            evaluation (source-evaluation), an option that a described set has already (source-option), no
            folder given (source-folder), or a file that is not in it (source-file).
    """
    name, _, task = given.path.removeprefix(PREFIX).partition("/")
    source = load(name)
    _check_options(given)
    parts = _trainable(source, task or None, given)
    shipped = source.url is None
    folder = FOLDER.parent if shipped else root
    files = [part for part in parts if part.file is not None]
    if files and folder is not None:
        found = [(part, folder / (source.folder or "") / (part.file or "")) for part in files]
        missing = [path for _, path in found if not path.is_file()]
        if missing:
            raise KoalpacaError(
                "source-file",
                "it is not there.",
                where=place(missing[0]),
                fix=f"Get {source.title} from {source.url} and put its files there.",
            )
        return [_use(source, part, given, str(path), None) for part, path in found]
    on_hub = [part for part in parts if part.hub is not None]
    if not on_hub:
        raise KoalpacaError(
            "source-folder",
            "its files must be on this machine, and no folder is given.",
            where=given.path,
            fix=f"Get it from {source.url}, put it under FOLDER/{source.folder}, and give --data-root FOLDER.",
        )
    revision = given.revision or source.revision
    return [_use(source, part, given, f"hf:{source.hub}", revision) for part in on_hub]


def _check_options(given: Input) -> None:
    for option in ("shape", "columns", "encoding", "sheet", "config"):
        if getattr(given, option) is not None:
            raise KoalpacaError(
                "source-option",
                f"'{option}' is given, but the description of the set says it already.",
                where=given.path,
                fix="Leave it out; one task of a set is source:NAME/TASK.",
            )


def _trainable(source: Source, task: str | None, given: Input) -> list[Part]:
    known = list(dict.fromkeys(part.task for part in source.parts if part.task is not None))
    if task is not None and task not in known:
        fix = did_you_mean(task, known) or "It has none: leave the task out."
        raise KoalpacaError("source-task", f"'{source.name}' has no task '{task}'.", where=given.path, fix=fix)
    mine = [part for part in source.parts if task is None or part.task == task]
    wanted = given.split or "train"
    if wanted != "train" or not any(part.split == "train" for part in mine):
        held = wanted if wanted != "train" else ", ".join(sorted({part.split for part in mine}))
        raise KoalpacaError(
            "source-evaluation",
            f"its split '{held}' is held out for evaluation; a model trained on it cannot be judged by it.",
            where=given.path,
            fix="Leave split out, or take a set that has a training split (koalpaca data sources).",
        )
    return [part for part in mine if part.split == "train"]


def _use(source: Source, part: Part, given: Input, path: str, revision: str | None) -> Use:
    where = {
        "path": path,
        "name": given.name or source.name,
        "shape": part.shape,
        "config": part.hub.config if part.hub else None,
        "split": part.hub.split if part.hub else None,
        "revision": revision,
    }
    return Use(given.model_copy(update=where), source.name, part.task)


def task(source: str, name: str) -> Task:
    """A task of a set: `instructions.rows` takes the rows of its files apart."""
    return load(source).tasks[name]


def shaper(source: str, name: str) -> Callable[[Row], Conversation]:
    """What makes conversations of the rows of a set's task."""
    return partial(instructions.conversation, task=task(source, name), source=source)
