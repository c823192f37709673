"""How much of its suite a comparison asked, as the card says it: some items of a suite are not its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koalpaca_tune.comparison.scope import Scope


def said(comparison: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lines for the card, (Korean, English), the warning last; none where the whole suite was asked.

    Raises:
        KeyError, TypeError, ValueError: it is not what `koalpaca compare` writes there.
    """
    found = comparison.get("scope")
    if found is None:
        # written before there was any
        return []
    values: dict[str, Any] = {
        key: tuple(_pair(one) for one in value) if key in ("added", "chosen") else value
        for key, value in found.items()
    }
    scope = Scope(**values)
    if scope.limit is not None:
        _ = scope.limit + scope.asked + scope.there
    suite = comparison["suite"]
    lines = scope.heading()
    lines += [(one.korean, one.english) for one in scope.notices(str(suite["title"]), str(suite["title_en"]))]
    return lines


def _pair(titles: Any) -> tuple[str, str]:
    """A Korean title and an English one."""
    if not isinstance(titles, list):
        raise TypeError(f"no pair of titles: {titles!r:.40}")
    korean, english = titles
    return str(korean), str(english)
