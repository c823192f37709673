"""The preparation: one strict model that says how files become a training set. The same file, the same bytes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from koalpaca_tune.config.check import Strict
from koalpaca_tune.config.cleaning import KINDS, STEPS, Kind, Step
from koalpaca_tune.config.overlap import Contamination, Duplicates
from koalpaca_tune.config.quality import Quality, Speech


class Input(Strict):
    """One file, or one set."""

    path: str = Field(description="File, dataset folder, hf:user/name on the Hub, or source:name (data/sources).")
    name: str | None = Field(None, description="Source name of its records; null: the file's name.")
    shape: str | None = Field(None, description="Record shape; null: guessed from the columns, and said.")
    columns: dict[str, str] | None = Field(
        None, description="What the columns mean, in place of a shape: {question: 문의내용, answer: 답글}."
    )
    encoding: str | None = Field(None, description="Of text files; null: found out, and said.")
    sheet: str | None = Field(None, description="Of an Excel file; null: the first.")
    config: str | None = Field(None, description="Configuration of a set on the Hub.")
    split: str | None = Field(None, description="Split of a set on the Hub or in a folder; null: train.")
    revision: str | None = Field(None, description="Commit of a set on the Hub; null: the newest, and said.")
    licence: str | None = Field(None, description="SPDX name; null: what data/sources knows, or unknown.")
    weight: Annotated[float, Field(gt=0.0, le=100.0)] = Field(
        1.0,
        description="0.5: half of its records, by stable hash; 2: each twice in the training set. "
        "Weight and cap hold for each part of a source:name.",
    )
    cap: Annotated[int, Field(gt=0)] | None = Field(None, description="Most records taken, by stable hash.")


class Preparation(Strict):
    """Everything between the files and train.jsonl."""

    inputs: list[Input] = Field(default_factory=list, description="Where the records come from, in this order.")
    data_root: str | None = Field(
        None, description="Folder of local public sets: for source:name, and for tasks to protect (as of eval)."
    )
    on_error: Literal["continue", "stop"] = Field(
        "continue", description="A broken row: set aside in rejected.jsonl, or an error."
    )
    valid_share: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.1, description="Share of questions kept to validate."
    )
    clean: list[Step] = Field(default_factory=lambda: list(STEPS), description="Cleaning steps, in this order.")
    mask: list[Kind] = Field(default_factory=lambda: list(KINDS), description="Personal data to mask; []: none.")
    quality: Quality = Field(default_factory=Quality)
    speech: Speech = Field(default_factory=Speech)
    duplicates: Duplicates = Field(default_factory=Duplicates)
    contamination: Contamination = Field(default_factory=Contamination)
