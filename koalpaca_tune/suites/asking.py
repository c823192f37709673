"""Ways to ask: patterns of prompts, choices and examples, as a task file says them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from koalpaca_tune import patterns
from koalpaca_tune.config.check import Strict

Text = Annotated[str, Field(min_length=1)]


def _list_or_text(value: object) -> str:
    # so that a mistake is told by the shape that was meant, not by each that could be
    return "list" if isinstance(value, list) else "text"


Texts = Annotated[Annotated[str, Tag("text")] | Annotated[list[str], Tag("list")], Discriminator(_list_or_text)]
"""One text, or a list of them."""
Positive = Annotated[int, Field(ge=1)]
ShotRule = Literal["lm-eval", "fixed"]


class When(Strict):
    """Two patterns, by whether a field holds anything."""

    field: Text = Field(description="The field that is looked at.")
    then: Text = Field(description="Pattern where it holds text.")
    otherwise: Text = Field(description="Pattern where it is empty.")


Prompt = Annotated[
    Annotated[str, Tag("text")] | Annotated[When, Tag("mapping")],
    Discriminator(lambda value: "mapping" if isinstance(value, dict | When) else "text"),
]


def written(prompt: Prompt | None) -> list[str]:
    """The patterns of a prompt."""
    if prompt is None:
        return []
    return [prompt] if isinstance(prompt, str) else [prompt.then, prompt.otherwise]


class Listing(Strict):
    """How the field {listing} is made of the options."""

    each: Text = Field(description="Pattern over {letter}, {number} and {option}.")
    join: str = Field(description="What stands between them.")


class Profile(Strict):
    """One way to ask."""

    form: Literal["completion", "question"] = Field(
        description="completion: plain text. question: a user turn through the training template."
    )
    prompt: Prompt = Field(description="Pattern over the item's fields.")
    context: str | None = Field(None, description="Pattern of the question's context (맥락); form question only.")
    listing: Listing | None = Field(None, description="Makes {listing} of the options.")
    shots: ShotRule = Field(
        "fixed",
        description="fixed: the same examples for all items. lm-eval: drawn for each item, as "
        "lm-evaluation-harness draws them.",
    )
    separator: str = Field("\n\n", description="Between examples, in a completion.")

    @model_validator(mode="after")
    def _readable(self) -> Self:
        each = [self.listing.each] if self.listing else []
        for pattern in [*written(self.prompt), self.context or "", *each]:
            patterns.fields(pattern)
        if self.form == "completion" and self.context is not None:
            raise ValueError("context belongs to form: question. | Put it into the prompt.")
        return self


class ChoiceProfile(Profile):
    """One way to ask a question with fixed choices."""

    choices: Texts = Field(
        description="Patterns of the answers; or one with {choice} or {letter}, for the item's own options. "
        "In a completion the space between prompt and answer belongs to the answer."
    )
    score: Literal["answer", "whole"] = Field(
        "answer", description="whole: likelihood of prompt and answer together, where a token may join the two."
    )
    unconditional: str | None = Field(
        None, description="The prompt without its question, for PMI: each choice is scored after it too."
    )
    too_long: Literal["error", "cut"] = Field(
        "error", description="cut: a text too long for the base loses its beginning, as in lm-evaluation-harness."
    )

    @property
    def own(self) -> bool:
        """Whether the choices are the item's own."""
        return isinstance(self.choices, str)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        listed = [self.choices] if isinstance(self.choices, str) else self.choices
        for pattern in [*listed, self.unconditional or ""]:
            patterns.fields(pattern)
        if self.own and not {"choice", "letter", "number"} & set(patterns.fields(listed[0])):
            raise ValueError(
                "a single pattern under choices must name {choice} or {letter}. | Or list every choice."
            )
        if not self.own and len(listed) < 2:
            raise ValueError("there are fewer than two choices. | List them all.")
        if self.form == "question" and self.score == "whole":
            raise ValueError("score: whole needs form: completion. | A template's answer begins on a token.")
        if self.unconditional is not None and self.score == "whole":
            raise ValueError("unconditional does not go with score: whole. | Leave one out.")
        return self


class AnswerProfile(Profile):
    """One way to ask for a written answer."""

    max_new_tokens: Positive = Field(description="Longest answer, in tokens.")
    until: list[Text] = Field(default_factory=list, description="The answer ends before the first of these.")
