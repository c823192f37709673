"""CSV and TSV: rows that span lines, quotes that are broken, and the line where each row starts.

The csv module does the parsing, in strict mode, one row at a time, so that a broken quote costs one row
and never the rest of the file. In tab-separated files a quote is often just a quote (NSMC is so): a line
that has the right number of tabs is then read as it stands.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from koalpaca_tune.data.reading.encodings import MAX_ROW, Line, lines
from koalpaca_tune.data.rows import Rejected, Row, place, readable
from koalpaca_tune.data.shaping import shapes
from koalpaca_tune.errors import KoalpacaError, Problem

DELIMITERS = {"comma": ",", "tab": "\t", "semicolon": ";"}

_STRAY_LINES = 20
_STRAY_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Table:
    """An opened table.

    Attributes:
        delimiter: a key of `DELIMITERS`.
        columns: names in the header, as written; a column without a name is left out of the rows.
        rows: lazily read.
    """

    delimiter: str
    columns: tuple[str, ...]
    rows: Iterator[Row | Rejected]


def read(path: Path, encoding: str, name: str) -> Table:
    """Reads the header; the rows follow lazily.

    Args:
        path: the file.
        encoding: as `encodings.detect` found it.
        name: what origins call the file.

    Raises:
        KoalpacaError: no usable header (table-header).
    """
    if csv.field_size_limit() < MAX_ROW:
        csv.field_size_limit(MAX_ROW)
    source = _Lines(lines(path, encoding, newline=""))
    first = next((line for line in source if line.text.strip()), None)
    if first is None:
        raise KoalpacaError("file-empty", "there is nothing in it.", where=place(path))
    # the suffix only breaks ties: tab-separated text is often called .csv
    order = ["tab", "comma", "semicolon"] if path.suffix.lower() == ".tsv" else list(DELIMITERS)
    delimiter = max(order, key=lambda candidate: _promise(first, DELIMITERS[candidate]))
    source.again([first])
    taken, header = _take(source, DELIMITERS[delimiter])
    where = f"{place(path)}:{taken[0].number}"
    if isinstance(header, str):
        raise KoalpacaError("table-header", f"the header line cannot be read: {header}.", where=where)
    columns = tuple(field.strip() for field in header)
    named = [shapes.fold(column) for column in columns if column]
    twice = sorted({column for column in named if named.count(column) > 1})
    if twice:
        raise KoalpacaError(
            "table-header",
            f"the column '{readable(twice[0])}' stands in the header twice.",
            where=where,
            fix="Rename one of them; if this line is data, put a header line above it, such as 질문,답변.",
        )
    return Table(delimiter, columns, _rows(source, DELIMITERS[delimiter], columns, name))


class _Lines:
    """Lines that can be given back and read again."""

    def __init__(self, source: Iterator[Line]) -> None:
        self._source = source
        self._given_back: deque[Line] = deque()

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        return self._given_back.popleft() if self._given_back else next(self._source)

    def again(self, taken: list[Line]) -> None:
        self._given_back.extendleft(reversed(taken))


def _promise(header: Line, delimiter: str) -> tuple[bool, int]:
    """How likely it is that this delimiter made the header: known columns first, then many columns."""
    fields = _alone(header, delimiter)
    return shapes.recognises([field for field in fields if field.strip()]), len(fields)


def _alone(line: Line, delimiter: str) -> list[str]:
    """The fields of a line that is a row by itself; none when its quotes are broken or span lines."""
    try:
        return next(csv.reader([line.text], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return []


def _take(source: _Lines, delimiter: str) -> tuple[list[Line], list[str] | str]:
    """One row: the lines it takes, and its fields or what is wrong with it. No lines: the end."""
    taken: list[Line] = []

    def feed() -> Iterator[str]:
        size = 0
        for line in source:
            taken.append(line)
            size += len(line.text)
            if size > MAX_ROW or not line.whole:
                raise csv.Error(f"the row is longer than {MAX_ROW:,} characters")
            yield line.text

    try:
        return taken, next(csv.reader(feed(), delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        return taken, str(error)


def _rows(source: _Lines, delimiter: str, columns: tuple[str, ...], name: str) -> Iterator[Row | Rejected]:
    width = len(columns)
    while True:
        taken, fields = _take(source, delimiter)
        if not taken:
            return
        if delimiter == "\t" and (literal := _literal(taken, fields, width)):
            source.again(taken[1:])
            taken, fields = taken[:1], literal
        origin = f"{name}:{taken[0].number}"
        if isinstance(fields, str):
            if not taken[0].whole or _is_stray(taken[1:], delimiter, width):
                source.again(taken[1:])
                del taken[1:]
            yield Rejected(origin, _broken(taken, fields), "".join(line.text for line in taken))
        elif len(fields) == width:
            yield Row(origin, {column: field for column, field in zip(columns, fields, strict=True) if column})
        elif any(field.strip() for field in fields):
            what = f"the row has {len(fields)} fields, the header {width}."
            fix = "Put a field that holds the delimiter or a line break in double quotes."
            yield Rejected(origin, Problem("row-fields", what, origin, fix), fields)
        elif fields:
            yield Rejected(origin, Problem("row-empty", "every field is empty.", origin), fields)


def _broken(taken: list[Line], said: str) -> Problem:
    if not taken[0].whole:
        return Problem("row-size", f"the line is longer than {MAX_ROW:,} characters.")
    fix = "A field with a quote in it is written in quotes, its own quotes doubled."
    return Problem("row-quotes", f"a double quote opens a field and does not close it rightly ({said}).", fix=fix)


def _literal(taken: list[Line], fields: list[str] | str, width: int) -> list[str] | None:
    """The first line split at its tabs, when its quotes are text and not quoting; else None.

    They are text when quoting makes no sense of a line that is followed by a row, or when it joins lines
    of which each is a row.
    """
    if not isinstance(fields, str) and len(taken) == 1:
        return None
    split = taken[0].text.rstrip("\r\n").split("\t")
    if not taken[0].whole or width < 2 or len(split) != width:
        return None
    followers = taken[1:2] if isinstance(fields, str) else taken[1:]
    return split if all(line.text.count("\t") == width - 1 for line in followers) else None


def _is_stray(rest: list[Line], delimiter: str, width: int) -> bool:
    """Whether the lines that an open quote swallowed are rows themselves, so that only the first is broken.

    With few lines nothing is certain, and a row made from the middle of an answer is worse than a lost one.
    """
    if len(rest) < _STRAY_LINES:
        return False
    rows = sum(len(_alone(line, delimiter)) == width for line in rest)
    return rows >= _STRAY_SHARE * len(rest)
