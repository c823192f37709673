"""One item of a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Example:
    """An example in front of an item: a question with its right answer, as the answer is scored or written."""

    prompt: str
    context: str | None
    answer: str

    @property
    def said(self) -> list[str | None]:
        """What it says, for a digest."""
        return [self.prompt, self.context, self.answer]


@dataclass(frozen=True, slots=True)
class Item:
    """One question, conversation or stretch of text.

    Attributes:
        id: unique in its task.
        prompt: the question, its pattern filled in; of running text, what is read before the part that is scored.
        context: material that comes with the question; None in most tasks.
        choices: the answers as they are scored; empty unless the task has choices.
        answer: index of the right one; -1 without choices.
        origin: `file:line`.
        material: the item's own texts, without what the task's patterns say around them.
        category: what its results are also told by.
        unconditional: the prompt without its question, for PMI.
        golds: right answers, where one is written.
        instructions: (id, arguments) of what the answer must obey.
        turns: (question, reference) of a conversation.
        text: the part of running text that is scored.
        examples: questions with answers in front of it.
        ambiguous: its right option stands under a second letter or number too: both are right, one counts.
        biased: index of the stereotyped choice; None where bias is not scored.
        unclear: whether the text decides nothing, so that only "unknown" is right; of a task whose bias is scored.
    """

    id: str
    prompt: str
    context: str | None
    choices: tuple[str, ...]
    answer: int
    origin: str
    material: tuple[str, ...] = ()
    category: str | None = None
    unconditional: str | None = None
    golds: tuple[str, ...] = ()
    instructions: tuple[tuple[str, Any], ...] = ()
    turns: tuple[tuple[str, str | None], ...] = ()
    text: str = ""
    examples: tuple[Example, ...] = ()
    ambiguous: bool = False
    biased: int | None = None
    unclear: bool = False
