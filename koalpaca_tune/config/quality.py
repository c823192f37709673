"""Limits on what the quality signals measure. null: the signal is counted and reported, nothing is dropped."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from koalpaca_tune.config.check import Strict

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Quality(Strict):
    """Limits per record; a record beyond one of them goes to rejected.jsonl."""

    max_repetition: Share | None = Field(None, description="Largest share of repeated character 4-grams.")


class Speech(Strict):
    """What to do with the speech level (존댓말, 반말) of answers."""

    keep: list[Literal["하십시오체", "해요체", "해체", "해라체"]] | None = Field(
        None, description="Levels that an answer may have; null: all."
    )
    label: bool = Field(False, description="Write each answer's level into the system turn.")
