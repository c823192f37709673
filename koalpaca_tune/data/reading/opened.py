"""What a reader gives: how a file was read, and its rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from koalpaca_tune.data.rows import Rejected, Row


@dataclass(frozen=True, slots=True)
class Options:
    """What the user said about how a file is to be read; None: found out.

    Attributes:
        encoding: a key of `encodings.ENCODINGS`, of text files.
        sheet: of a workbook.
        config: configuration of a set on the Hub.
        split: of a set on the Hub or in a folder.
        revision: commit, tag or branch of a set on the Hub.
    """

    encoding: str | None = None
    sheet: str | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A file, a folder or a set on the Hub whose rows can be read once.

    Attributes:
        name: what origins call it.
        format: a key of `readers.FORMATS`, as it turned out to be; "hub" for a set on the Hub.
        encoding: as found out; None where the format fixes it.
        delimiter: a key of `tables.DELIMITERS`; None for what is no CSV.
        columns: column names; for JSON and JSONL the keys of the first rows.
        rows: rows and rejected rows, in the file's order, read as they are asked for.
        compression: gzip or zstd; None: not compressed.
        sheet: of a workbook, the one that is read.
        split: of a folder of splits or a set on the Hub, the one that is read.
        revision: of a set on the Hub, the commit that is read.
    """

    name: str
    format: str
    encoding: str | None
    delimiter: str | None
    columns: tuple[str, ...]
    rows: Iterator[Row | Rejected]
    compression: str | None = None
    sheet: str | None = None
    split: str | None = None
    revision: str | None = None
