"""What a task file and a suite file may say: strict models, no Python in them, no default that changes a score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from koalpaca_tune import patterns
from koalpaca_tune.config.check import Strict
from koalpaca_tune.suites.asking import AnswerProfile, ChoiceProfile, Positive, Text, Texts

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Metric = Literal["accuracy", "accuracy_norm", "accuracy_pmi", "macro_f1"]
Kind = Literal["choice", "answer", "text", "instruction", "judged"]
KINDS: tuple[str, ...] = get_args(Kind)
Reader = Literal["auto", "tsv", "tsv-plain", "squad", "text"]
Extract = Literal["whole", "first-line", "boxed", "number", "letter"]


class Hub(Strict):
    """A set on the Hugging Face Hub."""

    repo: Text = Field(description="user/name.")
    config: Texts | None = Field(None, description="Configuration; several are read one after the other.")
    split: Text = Field(description="Split that is scored.")
    revision: str | None = Field(description="Commit that is read; null where none could be known, newest then.")


class Source(Strict):
    """Where the items come from: a file that is shipped, a file under --data-root, or the Hub."""

    items: str | None = Field(None, description="File under eval/items (or beside a task file of one's own).")
    local: str | None = Field(None, description="File under --data-root; {config} stands for the configuration.")
    hub: Hub | None = Field(None, description="Where the set is fetched when the local file is not there.")
    reader: Reader = Field(
        "auto",
        description="auto: by suffix. tsv: each cell read as CSV reads it. tsv-plain: quotes are text. squad: "
        "SQuAD's nested JSON, one row for each question. text: the whole file is one row, `text`.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.items is not None and (self.local is not None or self.hub is not None):
            raise ValueError("items are shipped: local and hub do not go with them. | Set items alone.")
        if self.items is None and self.local is None and self.hub is None:
            raise ValueError("nothing says where the items are. | Set items, local, hub, or local and hub.")
        for named in (self.items, self.local):
            below(named)
        if self.local is not None and patterns.fields(self.local) not in ([], ["config"]):
            raise ValueError(f"'{self.local}' names more than {{config}}. | Only {{config}} is filled in.")
        if self.local is not None and "config" in patterns.fields(self.local) and not self.configs:
            raise ValueError("{config} stands for the configurations of hub, and there are none. | Set hub.config.")
        return self

    @property
    def configs(self) -> list[str]:
        """The configurations, in order; none for a set without any."""
        config = self.hub.config if self.hub else None
        return [] if config is None else [config] if isinstance(config, str) else config


def below(named: str | None) -> None:
    """Refuses a path that leaves its folder.

    Raises:
        ValueError: absolute, or with '..'.
    """
    path = Path(named or "")
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"'{named}' must be a path below its folder. | Leave out '/' at the start and '..'.")


class Shots(Strict):
    """Where examples come from: another file or split of the same set, never what is scored."""

    items: str | None = Field(None, description="File beside the one of source.items.")
    local: str | None = Field(None, description="File under --data-root.")
    split: str | None = Field(None, description="Split on the Hub.")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.items is None and self.local is None and self.split is None:
            raise ValueError("nothing says where the examples are. | Set items, local or split.")
        for named in (self.items, self.local):
            below(named)
        return self


class Rule(Strict):
    """How a field is made of a column."""

    column: Texts = Field(description="Column, or those of which the first that is there is taken.")
    strip: bool = Field(False, description="Take white space off both ends.")
    table: dict[str, str] | None = Field(None, description="Value -> text; any other value is an error.")
    parse: Literal["python", "lines"] | None = Field(
        None, description="A list written as text. python: ['a', 'b']; lines: one a line."
    )


def _rule_shape(value: object) -> str:
    return "mapping" if isinstance(value, dict | Rule) else "list" if isinstance(value, list) else "text"


FieldRule = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[str], Tag("list")] | Annotated[Rule, Tag("mapping")],
    Discriminator(_rule_shape),
]
"""A column, columns, or a rule."""


class Answer(Strict):
    """How a column says which choice is right."""

    column: Texts = Field(description="Column, or those of which the first that is there is taken.")
    read: Literal["index", "number", "letter", "choice"] | None = Field(
        None, description="index: from 0. number: from 1. letter: A, B, ... choice: the text of one of the options."
    )
    labels: dict[str, int] | None = Field(None, description="Value -> index of the choice; case does not count.")
    at_least: float | None = Field(None, description="A number: choice 1 from here on, choice 0 below.")
    otherwise: Answer | None = Field(None, description="Another rule, for rows that have none of the columns.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(way is not None for way in (self.read, self.labels, self.at_least)) != 1:
            raise ValueError("exactly one of read, labels and at_least says what the column holds. | Set one.")
        return self


class TaskFile(Strict):
    """What all kinds of task have in common."""

    kind: Kind = Field(description="choice, answer, text, instruction or judged.")
    name: Name = Field(description="The file's own name.")
    version: int = Field(ge=1, description="Raised with every change that can change a score.")
    title: Text = Field(description="Korean name for reports.")
    title_en: Text = Field(description="English name for reports.")
    skill: Name = Field(description="What it measures.")
    licence: Text = Field(description="Licence of the items, as SPDX spells it; unknown where it is not stated.")
    source: Source
    shots: Shots | None = Field(None, description="Where examples come from; null: there are none to take.")
    id: Texts = Field(
        default_factory=lambda: ["id", "row"],
        description="Column of the id, the first that is there; row: its number.",
    )
    category: str | None = Field(None, description="Field that names the item's category.")
    only: dict[str, list[str]] = Field(default_factory=dict, description="Column -> values of the rows to keep.")
    fields: dict[str, FieldRule] = Field(
        default_factory=dict, description="Field -> column, columns, or a rule. Every column is a field as it is."
    )

    @model_validator(mode="after")
    def _shots_of_the_source(self) -> Self:
        given, source = self.shots, self.source
        if given is not None:
            if given.items is not None and source.items is None:
                raise ValueError("shots.items goes with source.items. | Set shots.local or shots.split.")
            if given.split is not None and source.hub is None:
                raise ValueError("shots.split needs source.hub. | Set shots.local.")
            same = (
                (given.items is not None and given.items == source.items)
                or (given.local is not None and given.local == source.local)
                or (given.split is not None and source.hub is not None and given.split == source.hub.split)
            )
            if same:
                raise ValueError(
                    "examples would come from the items that are scored. | Name another file or split."
                )
        return self


class Bias(Strict):
    """Which choice is the stereotyped one, and in which items nothing in the text decides (BBQ, KoBBQ)."""

    column: Texts = Field(description="Column of the stereotyped option's text.")
    ambiguous: Text = Field(description="Part of the ids of items whose context decides nothing.")


class ChoiceTask(TaskFile):
    """A question with choices, judged by the likelihood of each choice."""

    options: Texts | None = Field(None, description="The item's options: a field that is a list, or fields.")
    answer: Answer = Field(description="Which choice is right.")
    metrics: list[Metric] = Field(
        min_length=1, description="The first is the one tested. accuracy_norm: likelihood per character."
    )
    bias: Bias | None = Field(None, description="Where the stereotyped choice stands; null: no bias is scored.")
    profiles: dict[Name, ChoiceProfile] = Field(
        min_length=1, description="Ways to ask; the first unless one is named."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.metrics[0] == "macro_f1":
            raise ValueError("macro_f1 has no exact test, so it cannot be first. | Put accuracy first.")
        for name, profile in self.profiles.items():
            if (profile.own or profile.listing) and self.options is None:
                raise ValueError(f"profile {name} needs the item's options. | Set options.")
            if "accuracy_pmi" in self.metrics and profile.unconditional is None:
                raise ValueError(f"accuracy_pmi needs unconditional in profile {name}. | Add it.")
        return self


class AnswerTask(TaskFile):
    """A question whose written answer is held against right answers."""

    golds: str = Field(description="Field of the right answers: a text, or a list of texts.")
    extract: Extract = Field(
        "whole", description="What of the answer is held against them: all, its first line, \\boxed{}, last number."
    )
    metrics: list[Text] = Field(min_length=1, description="Measures by name; the first is the one tested.")
    profiles: dict[Name, AnswerProfile] = Field(min_length=1, description="Ways to ask; the first unless named.")

    @field_validator("metrics")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        from koalpaca_tune.errors import did_you_mean
        from koalpaca_tune.measures import registry

        for name in value:
            if name not in registry.REFERENCE:
                fix = did_you_mean(name, sorted(registry.REFERENCE))
                raise ValueError(f"'{name}' is no measure of an answer against right ones. | {fix}")
        return value


class Window(Strict):
    """How a long text is cut, at white space."""

    characters: Positive = Field(description="Most characters that are scored at once.")
    before: Annotated[int, Field(ge=0)] = Field(
        description="Characters in front of them that are read, not scored."
    )


class TextTask(TaskFile):
    """Running text: bits per character and perplexity."""

    text: Text = Field(description="Pattern of the text.")
    window: Window


class InstructionTask(TaskFile):
    """A prompt with instructions that a program can check."""

    instructions: Text = Field(description="Field of the instructions' ids, a list.")
    arguments: Text = Field(description="Column of their arguments, a list as long.")
    profiles: dict[Name, AnswerProfile] = Field(min_length=1, description="Ways to ask; the first unless named.")


class JudgedTask(TaskFile):
    """A conversation of one turn or more, judged by a model behind an endpoint."""

    turns: Text = Field(description="Field of the user's turns, a list.")
    references: str | None = Field(None, description="Field of the reference answers, a list; empty where none.")
    most_turns: Positive = Field(2, description="Turns that are asked; a set may hold more by mistake.")
    judge: Text = Field(description="Name of a shipped judge (eval/judges), or a .yaml file of one's own.")
    max_new_tokens: Positive = Field(description="Longest answer, in tokens.")


MODELS: dict[str, type[TaskFile]] = {
    "choice": ChoiceTask,
    "answer": AnswerTask,
    "text": TextTask,
    "instruction": InstructionTask,
    "judged": JudgedTask,
}
"""Kind -> model of its file."""


class Entry(Strict):
    """A task of a suite with settings of its own."""

    task: Text = Field(description="Name of a shipped task, or a .yaml file beside the suite.")
    profile: str | None = Field(None, description="Way to ask.")
    shots: Annotated[int, Field(ge=0)] | None = Field(None, description="Examples in front of each item.")
    items: Positive | None = Field(None, description="That many items, chosen by their ids.")


Listed = Annotated[
    Annotated[str, Tag("text")] | Annotated[Entry, Tag("mapping")],
    Discriminator(lambda value: "mapping" if isinstance(value, dict | Entry) else "text"),
]


class SuiteFile(Strict):
    """Tasks that are judged together."""

    name: Name = Field(description="The file's own name.")
    version: int = Field(ge=1, description="Raised when the list changes.")
    title: Text = Field(description="Korean name for reports.")
    title_en: Text = Field(description="English name for reports.")
    tasks: list[Listed] = Field(min_length=1, description="Names of shipped tasks, .yaml files, or entries.")
    every: Positive = Field(1, description="1: all items; n: each n-th item, from the first.")
    items: Positive | None = Field(None, description="At most that many items of each task, chosen by their ids.")
    shots: Annotated[int, Field(ge=0)] = Field(
        0, description="Examples in front of each item, where a task has any."
    )
