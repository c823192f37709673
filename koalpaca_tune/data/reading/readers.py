"""Files of rows: CSV, TSV, JSON, JSONL. A broken row is handed on as `Rejected`; a broken file is an error.

To add a format, write a function from (path, encoding, name) to `Opened` and enter it in `FORMATS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from koalpaca_tune.data.reading import encodings, tables
from koalpaca_tune.data.reading.encodings import MAX_ROW, Line
from koalpaca_tune.data.rows import Rejected, Row, place, plain
from koalpaca_tune.errors import KoalpacaError, Problem, did_you_mean

MAX_JSON_BYTES = 2**30
"""Largest .json file: it has to be read as a whole (JSONL has no such limit)."""

PEEK = 100
"""Rows that are looked at to learn the columns of JSON and JSONL."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A file whose rows can be read once.

    Attributes:
        name: what origins call the file.
        format: csv, tsv, json or jsonl, as it turned out to be.
        encoding: as found out.
        delimiter: comma, tab or semicolon; None for JSON.
        columns: column names; for JSON and JSONL the keys of the first rows.
        rows: rows and rejected rows, in the file's order, read as they are asked for.
    """

    name: str
    format: str
    encoding: str
    delimiter: str | None
    columns: tuple[str, ...]
    rows: Iterator[Row | Rejected]


def read(path: Path, *, encoding: str | None = None, name: str | None = None) -> Opened:
    """Opens a file of rows.

    Args:
        path: a file with a suffix in `SUFFIXES`.
        encoding: a key of `encodings.ENCODINGS`; None finds it out.
        name: what origins call the file; its own name (in NFC: macOS writes NFD) when None.

    Raises:
        KoalpacaError: the file as a whole cannot be read (file-*, table-header, json-rows, encoding-name).
    """
    if path.exists() and not path.is_dir() and path.suffix.lower() not in SUFFIXES:
        raise KoalpacaError(
            "file-suffix",
            f"'{path.suffix}' is not a format that is read here.",
            where=place(path),
            fix=f"{did_you_mean(path.suffix.lower(), list(SUFFIXES))} Save it as one of these.",
        )
    found = encodings.detect(path, encoding)
    name = name or place(Path(path.name))
    opened = FORMATS[SUFFIXES[path.suffix.lower()]](path, found, name)
    first = list(islice(opened.rows, PEEK))
    if not first:
        raise KoalpacaError("file-empty", "there are no rows in it.", where=place(path))
    columns = opened.columns
    if not columns:
        columns = tuple(dict.fromkeys(key for row in first if isinstance(row, Row) for key in row.values))
    if not columns and isinstance(first[0], Rejected):
        problem = first[0].problem
        raise KoalpacaError(
            "json-rows",
            f"none of the first {len(first)} rows can be read; of the first: {problem.what}",
            where=place(path),
            fix=problem.fix,
        )
    return Opened(opened.name, opened.format, found, opened.delimiter, columns, chain(first, opened.rows))


def _table(path: Path, encoding: str, name: str) -> Opened:
    table = tables.read(path, encoding, name)
    columns = tuple(column for column in table.columns if column)
    return Opened(
        name, "tsv" if table.delimiter == "tab" else "csv", encoding, table.delimiter, columns, table.rows
    )


def _jsonl(path: Path, encoding: str, name: str) -> Opened:
    lines = encodings.lines(path, encoding, newline="\n")
    rows = (_line(line, f"{name}:{line.number}") for line in lines if line.text.strip())
    return Opened(name, "jsonl", encoding, None, (), rows)


def _line(line: Line, origin: str) -> Row | Rejected:
    text = line.text.rstrip("\r\n")
    if not line.whole:
        what = f"the line is longer than {MAX_ROW:,} characters."
        return Rejected(origin, Problem("row-size", what, origin), text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Rejected(origin, Problem("row-json", f"the line is not JSON ({error}).", origin), text)
    return _object(value, origin)


def _object(value: Any, origin: str) -> Row | Rejected:
    if isinstance(value, dict):
        return Row(origin, value)
    what = f"the row is a {type(value).__name__}, not an object with names and values."
    return Rejected(origin, Problem("row-type", what, origin), plain(value))


def _json(path: Path, encoding: str, name: str) -> Opened:
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise KoalpacaError(
            "json-rows",
            f"{size:,} bytes are too many for one JSON list.",
            where=place(path),
            fix="Save it as JSONL.",
        )
    with path.open(encoding=encoding, errors=encodings.on_error(encoding), newline="\n") as file:
        text = file.read()
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and _has_object_lines(text):
            # JSON Lines under the name .json, as many sets on the Hub have it
            return _jsonl(path, encoding, name)
        at = f"{place(path)}:{error.lineno}:{error.colno}"
        raise KoalpacaError("json-rows", f"it is not JSON ({error.msg}).", where=at) from error
    except (ValueError, RecursionError) as error:
        raise KoalpacaError("json-rows", f"it is not JSON ({error}).", where=place(path)) from error
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        keys = ", ".join(map(repr, list(value)[:5])) if isinstance(value, dict) else ""
        raise KoalpacaError(
            "json-rows",
            f"it holds {'an object with ' + keys if keys else 'one ' + type(value).__name__}, not a list of rows.",
            where=place(path),
            fix='Write [{...}, ...] or {"data": [...]}; in pandas: to_json(path, orient="records").',
        )
    return Opened(name, "json", encoding, None, (), (_object(row, f"{name}[{n}]") for n, row in enumerate(rows)))


def _has_object_lines(text: str) -> bool:
    lines = [line for line in text.split("\n", 3)[:2] if line.strip()]
    return len(lines) == 2 and all(line.lstrip().startswith("{") for line in lines)


FORMATS: dict[str, Callable[[Path, str, str], Opened]] = {
    "csv": _table,
    "tsv": _table,
    "json": _json,
    "jsonl": _jsonl,
}
"""Format -> how a file of it is opened: (path, encoding, name of the file in origins)."""

SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
