"""What stands in a cell: text, or a list that a CSV can only hold as text."""

from __future__ import annotations

import ast
import json
import warnings
from typing import Any

from koalpaca_tune.data.rows import Row, readable
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Turn


def short(value: object) -> str:
    """At most 30 characters of it, for a message."""
    text = readable(value if isinstance(value, str) else repr(value))
    return text if len(text) <= 30 else text[:27] + "..."


def text(value: Any, what: str, origin: str) -> str:
    """A text; null is the empty one.

    Raises:
        KoalpacaError: something else (row-type).
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    raise KoalpacaError(
        "row-type", f"{what} is {short(repr(value))}, not text.", where=origin, fix="Write it in quotes."
    )


def cell(row: Row, name: str | None) -> str:
    """The text of a column; the empty one when the row has no such column.

    Raises:
        KoalpacaError: it is not text (row-type).
    """
    if not name:
        return ""
    value = row.values.get(name)
    return value if isinstance(value, str) else text(value, f"'{short(name)}'", row.origin)


def with_system(system: str, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The turns, after a system turn unless its text is blank."""
    return (Turn("system", system), *turns) if system.strip() else turns


def listed(value: Any) -> list[Any] | None:
    """A list, however it was stored; None when it is none.

    A CSV holds a list as JSON or, from pandas, as Python writes it; Arrow holds a sequence of objects as
    one object of lists.
    """
    if isinstance(value, str):
        value = _decoded(value)
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, dict) and value and all(isinstance(inner, list) for inner in value.values()):
        if len({len(inner) for inner in value.values()}) > 1:
            return None
        return [dict(zip(value, parts, strict=True)) for parts in zip(*value.values(), strict=True)]
    return None


def _decoded(stored: str) -> Any:
    if not stored.lstrip().startswith(("[", "{")):
        return None
    try:
        return json.loads(stored)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            # "\d" in somebody's text is no concern of the user's screen
            warnings.simplefilter("ignore")
            return ast.literal_eval(stored.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
