"""Patterns of task files and of instructions: `{field}` and `{field:이/가}`, and nothing else.

Python's format language reaches attributes and indices (`{x.__class__}`); here a field is a name. A pair of
particles after the colon adds the one that fits the field's last sound: `{word:이/가}` gives 수박이, 사과가.
`{{` and `}}` stand for braces.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping

from koalpaca_tune import korean

# letters of any script: the columns of a Korean file are named in Korean
_NAME = re.compile(r"[^\W\d]\w*")
_PAIR = re.compile(r"[가-힣]+/[가-힣]+")


def fields(pattern: str) -> list[str]:
    """The fields that a pattern names, in order, each once.

    Raises:
        ValueError: `what | what to do`, for anything but `{field}` and `{field:particle/particle}`.
    """
    return list(dict.fromkeys(name for _, name, _ in _parts(pattern) if name))


def fill(pattern: str, values: Mapping[str, str]) -> str:
    """The pattern with its fields filled in; a value is taken as it is, braces and all."""
    text = ""
    for literal, name, pair in _parts(pattern):
        text += literal
        if name:
            value = values[name]
            text += value + (korean.particle(value, pair) if pair else "")
    return text


def _parts(pattern: str) -> Iterator[tuple[str, str, str]]:
    """(literal text, field or "", particle pair or "")."""
    try:
        parsed = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise ValueError(f"{pattern!r} has a lone brace. | Write {{{{ or }}}} for a brace.") from error
    for literal, name, spec, conversion in parsed:
        if name is None:
            yield literal, "", ""
            continue
        if not _NAME.fullmatch(name) or conversion:
            said = name + (f"!{conversion}" if conversion else "")
            raise ValueError(f"'{{{said}}}' is not a field. | Write {{name}}: letters, digits, underscore.")
        if spec and not _PAIR.fullmatch(spec):
            raise ValueError(f"'{spec}' after '{name}:' is not a pair of particles. | Example: {{{name}:이/가}}.")
        yield literal, name, spec or ""
