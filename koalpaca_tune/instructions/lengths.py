"""How long an answer is, and in what parts."""

from __future__ import annotations

import re
from typing import Literal

from koalpaca_tune.instructions.text import begins_with, paragraphs

Relation = Literal["at least", "less than"]

# a divider stands apart: ***강조*** is bold italics, ****** parts two answers
_DIVIDER = re.compile(r"(?<!\S)\*{3}(?!\S)")


def compared(count: int, relation: Relation, threshold: int) -> bool:
    """`at least` includes the threshold, `less than` does not."""
    return count >= threshold if relation == "at least" else count < threshold


def divided(text: str, count: int) -> bool:
    """Exactly so many paragraphs between `***`; a divider may also open or close, but not stand twice."""
    parts = [part.strip() for part in _DIVIDER.split(text)]
    if len(parts) > 1:
        parts = parts[not parts[0] : len(parts) - (not parts[-1])]
    return len(parts) == count and all(parts)


def nth_begins(text: str, count: int, nth: int, word: str) -> bool:
    """Exactly so many paragraphs between blank lines, the nth (from 1) beginning with a word."""
    parts = paragraphs(text)
    return len(parts) == count and 1 <= nth <= count and begins_with(parts[nth - 1], word)
