"""Files, folders and sets on the Hub, opened as rows.

A broken row is handed on as `Rejected`; what cannot be opened is an error. To add a format, write a
function from (path, name, options) to `Opened`, enter it in `FORMATS` and its suffix in `SUFFIXES`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from koalpaca_tune.config.preparation import Input
from koalpaca_tune.data.reading import (
    columnar,
    compression,
    encodings,
    folders,
    html_tables,
    hub,
    lists,
    sheets,
    tables,
)
from koalpaca_tune.data.reading.encodings import MAX_ROW, Line
from koalpaca_tune.data.reading.lost import until_lost
from koalpaca_tune.data.reading.opened import Opened, Options
from koalpaca_tune.data.rows import Rejected, Row, place, plain
from koalpaca_tune.errors import KoalpacaError, Problem, did_you_mean

PEEK = 100
"""Rows that are looked at to learn the columns of JSON and JSONL."""

_ON_THE_HUB = re.compile(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*")


def open_input(given: Input, name: str | None = None) -> Opened:
    """Opens an input of a preparation: a file, a folder, or a set on the Hub (`hf:user/name`).

    Args:
        given: the path, and how it is to be read. An option that does not apply is an error.
        name: what origins call it; its own name when None.

    Raises:
        KoalpacaError: it cannot be opened, as in `read` and `hub.read`.
    """
    options = Options(given.encoding, given.sheet, given.config, given.split, given.revision)
    if given.path.startswith(hub.PREFIX):
        _check_options("hub", options, given.path)
        repository = given.path.removeprefix(hub.PREFIX)
        return _begun(hub.read(repository, name or repository, options), given.path)
    if given.path.startswith("source:"):
        raise KoalpacaError(
            "input-source", "a source is looked up before its files are read.", where=given.path, fix="Name a file."
        )
    path = Path(given.path)
    if not path.exists() and _ON_THE_HUB.fullmatch(given.path) and _format(path) is None:
        raise KoalpacaError(
            "file-missing",
            "there is no such file or folder.",
            where=given.path,
            fix=f"If it is a set on the Hub, write hf:{given.path}.",
        )
    return _read(path, options, name)


def read(
    path: Path,
    *,
    encoding: str | None = None,
    sheet: str | None = None,
    split: str | None = None,
    name: str | None = None,
) -> Opened:
    """Opens a file of rows, or a folder of such files.

    Args:
        path: a file with a suffix in `SUFFIXES`, text perhaps compressed (.csv.gz); or a folder.
        encoding: of a text file, a key of `encodings.ENCODINGS`; None finds it out.
        sheet: of a workbook; None takes the first that is not empty.
        split: of a folder; None takes train.
        name: what origins call it; its own name (in NFC: macOS writes NFD) when None.

    Raises:
        KoalpacaError: it cannot be read as a whole (file-*, table-header, json-rows, encoding-name,
            input-sheet, input-split), or an option does not apply to it (input-option).
    """
    return _read(path, Options(encoding=encoding, sheet=sheet, split=split), name)


def _read(path: Path, options: Options, name: str | None) -> Opened:
    # "." and ".." have no name of their own
    name = name or place(Path((path.name.strip(".") and path.name) or path.resolve().name))
    if path.is_dir():
        _check_options("folder", options, place(path))
        return _begun(folders.read(path, name, options, _folder_file, _format), place(path))
    format = _format(path)
    if format is None:
        # a missing file says so, whatever its suffix
        encodings.regular(path).close()
        raise _suffix(path)
    if format == "workbook" and path.is_file() and sheets.looks_like_html(path):
        format = "html"
    _check_options(format, options, place(path))
    opened = FORMATS[format].open(path, name, options)
    packed = compression.SUFFIXES.get(path.suffix.lower())
    if packed:
        opened = replace(opened, compression=packed)
    return _begun(opened, place(path))


def _folder_file(path: Path, name: str, options: Options) -> Opened:
    return _read(path, options, name)


def _begun(opened: Opened, where: str) -> Opened:
    """The same, with its first rows looked at: there has to be one, and the columns have to be known."""
    rows = until_lost(opened.rows, opened.name, where)
    first = list(islice(rows, PEEK))
    if not first:
        raise KoalpacaError("file-empty", "there are no rows in it.", where=where)
    columns = opened.columns
    if not columns:
        columns = tuple(dict.fromkeys(key for row in first if isinstance(row, Row) for key in row.values))
    if not columns and isinstance(first[0], Rejected):
        problem = first[0].problem
        raise KoalpacaError(
            "json-rows",
            f"none of the first {len(first)} rows can be read; of the first: {problem.what}",
            where=where,
            fix=problem.fix,
        )
    return replace(opened, columns=columns, rows=chain(first, rows))


def _format(path: Path) -> str | None:
    """The format that the suffix says, with that of a compression before it; None when it says none."""
    suffix = path.suffix.lower()
    if suffix not in compression.SUFFIXES:
        return SUFFIXES.get(suffix)
    inner = SUFFIXES.get(Path(path.stem).suffix.lower())
    return inner if inner in FORMATS and FORMATS[inner].packed else None


def _suffix(path: Path) -> KoalpacaError:
    last = path.suffix.lower()
    if last in compression.SUFFIXES:
        inner = Path(path.stem).suffix
        packed = [suffix for suffix, format in SUFFIXES.items() if FORMATS[format].packed]
        return KoalpacaError(
            "file-suffix",
            f"'{inner}{path.suffix}' is not read here; compressed: {', '.join(packed)}.",
            where=place(path),
            fix="Unpack it first." if inner.lower() in SUFFIXES else "Let its name say what is in it: .jsonl.gz.",
        )
    return KoalpacaError(
        "file-suffix",
        f"'{path.suffix}' is not a format that is read here.",
        where=place(path),
        fix=f"{did_you_mean(last, list(SUFFIXES))} Save it as one of these.",
    )


def _check_options(format: str, options: Options, where: str) -> None:
    takes = _TAKES.get(format) or FORMATS[format].takes
    wrong = [field.name for field in fields(options) if getattr(options, field.name) is not None]
    problems = [
        Problem(
            "input-option", f"'{option}' does not apply to it ({_CALLED[format]}).", where, f"Leave {option} out."
        )
        for option in wrong
        if option not in takes
    ]
    if problems:
        raise KoalpacaError.of(problems)


def _table(path: Path, name: str, options: Options) -> Opened:
    encoding = encodings.detect(path, options.encoding)
    table = tables.read(path, encoding, name)
    columns = tuple(column for column in table.columns if column)
    return Opened(
        name, "tsv" if table.delimiter == "tab" else "csv", encoding, table.delimiter, columns, table.rows
    )


def _jsonl(path: Path, name: str, options: Options) -> Opened:
    encoding = encodings.detect(path, options.encoding)
    return Opened(name, "jsonl", encoding, None, (), _object_lines(path, encoding, name))


def _object_lines(path: Path, encoding: str, name: str) -> Iterator[Row | Rejected]:
    decode = json.JSONDecoder().raw_decode
    for number, text, whole in encodings.lines(path, encoding, newline="\n"):
        try:
            # quick for most lines; whatever it does not take goes the long way
            value, end = decode(text)
        except (ValueError, RecursionError):
            value, end = None, 0
        if type(value) is dict and text[end:] in _LINE_ENDS:
            yield Row(f"{name}:{number}", value)
        elif text.strip():
            yield _line(Line(number, text, whole), f"{name}:{number}")


_LINE_ENDS = ("\n", "\r\n", "")


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


def _json(path: Path, name: str, options: Options) -> Opened:
    encoding = encodings.detect(path, options.encoding)
    if lists.is_lines(path, encoding):
        return Opened(name, "jsonl", encoding, None, (), _object_lines(path, encoding, name))
    rows = (_object(row, f"{name}[{n}]") for n, row in enumerate(lists.values(path, encoding)))
    return Opened(name, "json", encoding, None, (), rows)


def _workbook(path: Path, name: str, options: Options) -> Opened:
    sheet = sheets.read(path, options.sheet, name)
    columns = tuple(column for column in sheet.columns if column)
    return Opened(name, "workbook", None, None, columns, sheet.rows, sheet=sheet.name)


def _html(path: Path, name: str, options: Options) -> Opened:
    encoding = encodings.detect(path, options.encoding)
    columns, rows = html_tables.read(path, encoding, name)
    return Opened(name, "html", encoding, None, tuple(column for column in columns if column), rows)


def _parquet(path: Path, name: str, options: Options) -> Opened:
    columns, rows = columnar.parquet(path, name)
    return Opened(name, "parquet", None, None, columns, rows)


def _arrow(path: Path, name: str, options: Options) -> Opened:
    columns, rows = columnar.arrow(path, name)
    return Opened(name, "arrow", None, None, columns, rows)


@dataclass(frozen=True, slots=True)
class Format:
    """How files of a format are opened.

    Attributes:
        open: from (path, name of the file in origins, options).
        takes: names of the `Options` that apply.
        packed: whether a compressed file of it is read.
    """

    open: Callable[[Path, str, Options], Opened]
    takes: frozenset[str] = frozenset()
    packed: bool = False


_TEXT = frozenset({"encoding"})

FORMATS: dict[str, Format] = {
    "csv": Format(_table, _TEXT, packed=True),
    "tsv": Format(_table, _TEXT, packed=True),
    "json": Format(_json, _TEXT, packed=True),
    "jsonl": Format(_jsonl, _TEXT, packed=True),
    "workbook": Format(_workbook, frozenset({"sheet"})),
    "html": Format(_html, _TEXT),
    "parquet": Format(_parquet),
    "arrow": Format(_arrow),
}
"""Format -> how a file of it is opened. html: a web page under the name .xls."""

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".xlsx": "workbook",
    ".xlsm": "workbook",
    ".xlsb": "workbook",
    ".xls": "workbook",
    ".ods": "workbook",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
"""Last suffix of a file -> its format; `compression.SUFFIXES` may follow where the format allows it."""

_TAKES = {
    "hub": frozenset({"config", "split", "revision"}),
    "folder": frozenset({"split", "encoding", "sheet"}),
}
_CALLED = {
    "csv": "a CSV file",
    "tsv": "a TSV file",
    "json": "a JSON file",
    "jsonl": "a JSONL file",
    "workbook": "a workbook",
    "html": "a web page named .xls",
    "parquet": "a Parquet file",
    "arrow": "an Arrow file",
    "hub": "a set on the Hub",
    "folder": "a folder",
}
