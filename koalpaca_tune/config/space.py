"""What a sweep tries, as it stands on a command line: `lora.r=4,8,16` and `training.learning_rate=1e-4..1e-3`.

`quantization=nf4,int8,full` tries ways to keep the base, each of which is several keys.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from koalpaca_tune.errors import KoalpacaError, did_you_mean

WIDE = 10
"""A range whose ends are so many times apart is searched in its logarithm."""
_FOUR = "quantization.load_in_4bit=true"
_KIND, _DOUBLE = "quantization.bnb_4bit_quant_type", "quantization.bnb_4bit_use_double_quant"
QUANTISATIONS: dict[str, tuple[str, ...]] = {
    "nf4": (_FOUR, f"{_KIND}=nf4", f"{_DOUBLE}=false"),
    "nf4+double": (_FOUR, f"{_KIND}=nf4", f"{_DOUBLE}=true"),
    "fp4": (_FOUR, f"{_KIND}=fp4", f"{_DOUBLE}=false"),
    "int8": ("quantization.load_in_8bit=true",),
    "bf16": ("quantization.load_in_4bit=false",),
    "full": ("quantization.load_in_4bit=false", "lora=null"),
}
"""Name -> the overrides that it stands for. bf16: LoRA on a base that is not quantised (float32 on the CPU);
full: all weights are trained."""
NAMED = {"quantization": QUANTISATIONS}
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


def overrides(key: str, value: str) -> tuple[str, ...]:
    """A value as overrides of a recipe: one, but for a name that stands for several.

    Raises:
        KoalpacaError: no such name (sweep-values).
    """
    if key not in NAMED:
        return (f"{key}={value}",)
    names = NAMED[key]
    if value not in names:
        raise KoalpacaError(
            "sweep-values",
            f"'{value}' is none of {', '.join(names)}.",
            where=f"command line: {key}",
            fix=did_you_mean(value, [*names]),
        )
    return names[value]


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
            for value in values:
                overrides(key, value)
            space.append(Choices(key, tuple(values)))
        elif key in NAMED:
            fixed += overrides(key, raw)
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
