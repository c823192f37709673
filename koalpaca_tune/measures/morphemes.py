"""A text's morphemes, read once: every measure of an answer asks for the same ones."""

from __future__ import annotations

from functools import lru_cache

from koalpaca_tune import korean
from koalpaca_tune.measures.text import composed

_REMEMBERED = 1 << 12
"""Texts whose morphemes are kept. About 10 KB for an answer of 300 characters."""

_SYMBOLS = ("/SF", "/SP", "/SS", "/SSO", "/SSC", "/SE", "/SO", "/SW")


@lru_cache(maxsize=_REMEMBERED)
def of(text: str) -> tuple[str, ...]:
    """Morphemes as `form/TAG` (Kiwi, Sejong tags), without punctuation and symbols."""
    return tuple(morpheme for morpheme in korean.morphemes(composed(text)) if not morpheme.endswith(_SYMBOLS))
