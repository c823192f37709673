"""What a sweep tries, as it stands on a command line: `lora.r=4,8,16` and `training.learning_rate=1e-4..1e-3`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from koalpaca_tune.errors import KoalpacaError

WIDE = 10
"""A range whose ends are so many times apart is searched in its logarithm."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Choices:
    """Some values of a key, as they would be written in an override."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """Every number from `low` to `high`, both among them; whole numbers where both ends are."""

    key: str
    low: float
    high: float
    whole: bool

    @property
    def logarithmic(self) -> bool:
        """Whether it is searched in its logarithm."""
        return self.low > 0 and self.high / self.low >= WIDE

    @property
    def values(self) -> tuple[str, ...]:
        """Its ends."""
        return written(self.low, whole=self.whole), written(self.high, whole=self.whole)


Dimension = Choices | Range


def written(number: float, *, whole: bool) -> str:
    """A number as YAML reads it back: `1e-05` would be a text there."""
    return str(int(number)) if whole else f"{number:.4e}"


def read(texts: Sequence[str]) -> tuple[list[Dimension], list[str]]:
    """What is tried, and the overrides that hold for every trial.

    Raises:
        KoalpacaError: a range that is none (sweep-range), a value twice (sweep-values), nothing to try
            (sweep-nothing).
    """
    space: list[Dimension] = []
    fixed: list[str] = []
    for text in texts:
        key, _, raw = text.partition("=")
        if ".." in raw and not raw.startswith(("[", "{", '"', "'", ".", "/")) and "/" not in raw:
            space.append(_range(key, raw))
        elif len(values := _parts(raw)) > 1:
            if len(set(values)) < len(values) or "" in values:
                raise KoalpacaError(
                    "sweep-values", f"'{raw}' names a value twice, or none.", where=f"command line: {key}"
                )
            space.append(Choices(key, tuple(values)))
        else:
            fixed.append(text)
    if not space:
        raise KoalpacaError(
            "sweep-nothing",
            "there is nothing to try.",
            where="command line",
            fix="Name values or a range, as in lora.r=4,8,16 training.learning_rate=1e-4..1e-3",
        )
    keys = [one.key for one in space]
    for key in keys:
        if keys.count(key) > 1:
            raise KoalpacaError("sweep-values", f"'{key}' is given twice.", where="command line", fix="Keep one.")
    return space, fixed


def combinations(space: Sequence[Dimension]) -> int | None:
    """How many there are; None with a range."""
    if any(isinstance(one, Range) for one in space):
        return None
    return math.prod(len(one.values) for one in space)


def _range(key: str, raw: str) -> Range:
    low, _, high = raw.partition("..")
    if not (_NUMBER.fullmatch(low) and _NUMBER.fullmatch(high)) or float(low) >= float(high):
        raise KoalpacaError(
            "sweep-range",
            f"'{raw}' is no range of numbers that rises.",
            where=f"command line: {key}",
            fix="Example: training.learning_rate=1e-4..1e-3",
        )
    return Range(key, float(low), float(high), whole=all(part.lstrip("+-").isdigit() for part in (low, high)))


def _parts(raw: str) -> list[str]:
    """Cut at commas outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in raw:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += letter
    return [part.strip() for part in parts]
