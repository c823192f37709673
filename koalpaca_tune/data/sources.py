"""What we know about public data sets: one strict YAML file each, in data/sources.

A licence travels from here into the model card. What nobody could check says so: `licence: unknown`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from koalpaca_tune import resources
from koalpaca_tune.config import load as config
from koalpaca_tune.config.check import Strict, check
from koalpaca_tune.errors import KoalpacaError, did_you_mean

FOLDER = resources.DATA / "sources"


class File(Strict):
    """One file of a set."""

    path: str = Field(description="Its name within the set.")
    format: Literal["csv", "tsv", "json", "jsonl", "parquet"] = Field(description="As it is published.")
    columns: Annotated[list[str], Field(min_length=1)] = Field(description="Column names, in their order.")


class Source(Strict):
    """One set: where it lives, and under which terms."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")] = Field(description="The file's name too.")
    title: str = Field(description="As its makers call it.")
    url: str | None = Field(description="Home page; null: it ships with this package.")
    revision: str | None = Field(description="Commit that the description was read from; null: not pinned.")
    licence: str = Field(description="SPDX name, or 'unknown'.")
    obligations: list[str] = Field(description="What the licence asks of those who use the set, in Korean.")
    files: Annotated[list[File], Field(min_length=1)] = Field(description="Its files.")


def names() -> list[str]:
    """Names of the sets that are described."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Source:
    """The description of a set.

    Raises:
        KoalpacaError: none of that name (source-missing), or a file that is not as it should be (config-*).
    """
    if name not in names():
        raise KoalpacaError(
            "source-missing", f"no data source is called '{name}'.", where="source", fix=did_you_mean(name, names())
        )
    return check(Source, config.read(FOLDER / f"{name}.yaml"))
