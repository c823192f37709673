"""What a template is: a name, the special tokens it needs, and a function from conversation to pieces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from koalpaca_tune.records import Conversation, Piece, Rendered


@dataclass(frozen=True, slots=True)
class Markers:
    """The tokenizer's own begin and end tokens, as text; `bos` is None when it has none."""

    bos: str | None
    eos: str


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt format.

    Attributes:
        name: what recipes, adapters and commands call it.
        render: conversation -> pieces. One that ends with a user turn ends in the generation prompt;
            one that ends with an assistant turn has every answer, its end token included, marked as learned.
        needs: special tokens that the tokenizer must have.
        stops: special tokens that end an answer, besides the tokenizer's EOS.
        source: where the format is written down.
    """

    name: str
    render: Callable[[Conversation, Markers], Rendered]
    needs: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()
    source: str = ""


def frame(text: str, *, learn: bool = False) -> Piece:
    """The template's own text."""
    return Piece(text, "frame", learn)


def content(text: str, *, learn: bool = False) -> Piece:
    """The user's text."""
    return Piece(text, "content", learn)


def special(text: str, *, learn: bool = False) -> Piece:
    """One special token."""
    return Piece(text, "special", learn)
