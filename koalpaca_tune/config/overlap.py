"""What counts as a duplicate, and what as a leak of evaluation items."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from koalpaca_tune.config.check import Strict


class Duplicates(Strict):
    """Records that say the same as an earlier one, within and across sources."""

    drop: Literal["none", "exact", "normalised", "near"] = Field(
        "near", description="The widest sense of 'the same' that is dropped; each includes the ones before it."
    )
    threshold: Annotated[float, Field(ge=0.5, lt=1.0)] = Field(
        0.8,
        description="Near duplicates share at least this much (Jaccard) of their pairs of neighbouring characters.",
    )


class Contamination(Strict):
    """Training text that overlaps with the items of evaluation tasks."""

    drop: bool = Field(True, description="Leave such records out; false: only report them.")
    tasks: list[str] | None = Field(None, description="Tasks to protect; null: all whose items can be read.")
