"""How long a run's documents are and how many tokens its steps have: all that a plan needs of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from koalpaca_tune.records import Encoded


@dataclass(frozen=True)
class Lengths:
    """Tokens of documents, rows and steps.

    Attributes:
        step_tokens: of the largest step on one GPU.
        document_tokens: mean length of the document that a token stands in (sum of squares over sum), which
            is what attention works on; the common length where all are equal.
        longest_document, longest_row: a row holds one document, or several when packed.
        learned_share: learned tokens over all tokens.
        steps, tokens: of the whole run; None where that is not known.
    """

    step_tokens: int
    document_tokens: float
    longest_document: int
    longest_row: int
    learned_share: float
    steps: int | None = None
    tokens: int | None = None


def of_steps(examples: Sequence[Encoded], steps: Sequence[Sequence[Sequence[int]]]) -> Lengths:
    """Measures a run.

    Args:
        examples: all of them.
        steps: of each step its rows (on one GPU), of each row the indices of its examples; at least one.
    """
    sizes = [len(one.ids) for one in examples]
    learned = [one.learned for one in examples]
    rows = [row for step in steps for row in step]
    used = [index for row in rows for index in row]
    tokens = sum(sizes[index] for index in used)
    return Lengths(
        step_tokens=max(sum(sizes[index] for row in step for index in row) for step in steps),
        document_tokens=sum(sizes[index] ** 2 for index in used) / tokens,
        longest_document=max(sizes[index] for index in used),
        longest_row=max(sum(sizes[index] for index in row) for row in rows),
        learned_share=sum(learned[index] for index in used) / tokens,
        steps=len(steps),
        tokens=tokens,
    )


def full_rows(batch_size: int, max_length: int) -> Lengths:
    """Without data: every row is one document of `max_length` tokens, all of them learned. The most it can be."""
    return Lengths(
        step_tokens=batch_size * max_length,
        document_tokens=float(max_length),
        longest_document=max_length,
        longest_row=max_length,
        learned_share=1.0,
    )
