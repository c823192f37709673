"""Words that must, or must not, be in an answer.

A Korean word carries its particles and endings, so that no boundary stands behind it: 사과 is in 사과를. It is
therefore looked for as a part, letter case aside; the price is that 청사진 counts as 사진.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from koalpaca_tune.instructions.text import folded


def occurrences(text: str, word: str) -> int:
    """How often a word is part of a text, without overlaps."""
    return folded(text).count(folded(word).strip())


def uses(text: str, word: str) -> bool:
    """Whether a text uses a word that is forbidden.

    Where the word begins or ends in a Latin letter or a digit, none may go before or after: `art` is not in
    `start`, but is in `art를`. (The published checker wants such a boundary for Hangul too, and so lets every
    noun with a particle pass.)
    """
    wanted = folded(word).strip()
    before = "(?<![a-z0-9])" if wanted[:1].isascii() and wanted[:1].isalnum() else ""
    after = "(?![a-z0-9])" if wanted[-1:].isascii() and wanted[-1:].isalnum() else ""
    return re.search(before + re.escape(wanted) + after, folded(text)) is not None


def uses_none(text: str, words: Sequence[str]) -> bool:
    """Whether none of the forbidden words is used."""
    return not any(uses(text, word) for word in words)


def has_all(text: str, words: Sequence[str]) -> bool:
    """Whether every word is there."""
    return all(occurrences(text, word) for word in words)
