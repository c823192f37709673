"""CSV and TSV: rows that span lines, quotes that are broken, and the line where each row starts.

The csv module does the parsing, in strict mode, one row at a time, so that a broken quote costs one row
and never the rest of the file. In tab-separated files a quote is often just a quote (NSMC is so): a line
that has the right number of tabs is then read as it stands.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from koalpaca_tune.data.reading.encodings import MAX_ROW, Line, lines
from koalpaca_tune.data.reading.lost import Lost
from koalpaca_tune.data.rows import Rejected, Row, place, readable
from koalpaca_tune.data.shaping import shapes
from koalpaca_tune.errors import KoalpacaError, Problem

DELIMITERS = {"comma": ",", "tab": "\t", "semicolon": ";", "pipe": "|"}

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
        if source.lost:
            raise KoalpacaError("file-damaged", f"{source.lost.what}.", where=place(path), fix=source.lost.fix)
        raise KoalpacaError("file-empty", "there is nothing in it.", where=place(path))
    # the suffix only breaks ties: tab-separated text is often called .csv
    tabs_first = ".tsv" in (suffix.lower() for suffix in path.suffixes[-2:])
    order = sorted(DELIMITERS, key="tab".__ne__) if tabs_first else list(DELIMITERS)
    delimiter = max(order, key=lambda candidate: _promise(first, DELIMITERS[candidate]))
    source.again([first])
    taken, header = _take(source, DELIMITERS[delimiter])
    where = f"{place(path)}:{taken[0].number}"
    if isinstance(header, str):
        raise KoalpacaError("table-header", f"the header line cannot be read: {header}.", where=where)
    columns = named(header, where)
    return Table(delimiter, columns, _rows(source, DELIMITERS[delimiter], columns, name))


def named(header: Sequence[str], where: str) -> tuple[str, ...]:
    """The column names in a header, without outer space; "" for a column without one.

    Raises:
        KoalpacaError: one of them stands there twice (table-header).
    """
    columns = tuple(field.strip() for field in header)
    folded = [shapes.fold(column) for column in columns if column]
    twice = sorted({column for column in folded if folded.count(column) > 1})
    if twice:
        raise KoalpacaError(
            "table-header",
            f"the column '{readable(twice[0])}' stands in the header twice.",
            where=where,
            fix="Rename one of them; if this line is data, put a header line above it, such as 질문,답변.",
        )
    return columns


class _Lines:
    """Lines that can be given back and read again. Where the file breaks off they end, and `lost` says why."""

    def __init__(self, source: Iterator[Line]) -> None:
        self._source = source
        self._given_back: deque[Line] = deque()
        self.lost: Lost | None = None

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        if self._given_back:
            return self._given_back.popleft()
        try:
            return next(self._source)
        except Lost as lost:
            self.lost = lost
            raise StopIteration from None

    def again(self, taken: list[Line]) -> None:
        self._given_back.extendleft(reversed(taken))


def _promise(header: Line, delimiter: str) -> tuple[bool, int]:
    """How likely it is that this delimiter made the header: known columns first, then many columns."""
    fields = _alone(header.text, delimiter)
    return shapes.recognises([field for field in fields if field.strip()]), len(fields)


def _alone(line: str, delimiter: str) -> list[str]:
    """The fields of a line that is a row by itself; none when its quotes are broken or span lines."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
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
    all_named = all(columns)
    for line in source:
        number, text, whole = line
        if whole:
            # most rows are one line, and most have no quotes: the csv module would find only the delimiters
            split = _alone(text, delimiter) if '"' in text else text.rstrip("\r\n").split(delimiter)
            if len(split) == width and (width > 1 or split[0]):
                values = dict(zip(columns, split))  # noqa: B905 - as long as each other, and strict is slow
                if not all_named:
                    values.pop("", None)
                yield Row(f"{name}:{number}", values)
                continue
        source.again([line])
        taken, fields = _take(source, delimiter)
        if delimiter == "\t" and (literal := _literal(taken, fields, width)):
            source.again(taken[1:])
            taken, fields = taken[:1], literal
        origin = f"{name}:{taken[0].number}"
        if isinstance(fields, str):
            if not taken[0].whole or _is_stray(taken[1:], delimiter, width):
                source.again(taken[1:])
                del taken[1:]
            yield Rejected(origin, _broken(taken, fields, origin), "".join(line.text for line in taken))
        elif len(fields) == width:
            yield Row(origin, {column: field for column, field in zip(columns, fields, strict=True) if column})
        elif any(field.strip() for field in fields):
            what = f"the row has {len(fields)} fields, the header {width}."
            fix = "Put a field that holds the delimiter or a line break in double quotes."
            yield Rejected(origin, Problem("row-fields", what, origin, fix), fields)
        elif fields:
            yield Rejected(origin, Problem("row-empty", "every field is empty.", origin), fields)
    if source.lost:
        raise source.lost


def _broken(taken: list[Line], said: str, origin: str) -> Problem:
    if not taken[0].whole:
        return Problem("row-size", f"the line is longer than {MAX_ROW:,} characters.", origin)
    fix = "A field with a quote in it is written in quotes, its own quotes doubled."
    what = f"a double quote opens a field and does not close it rightly ({said})."
    return Problem("row-quotes", what, origin, fix)


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
    rows = sum(len(_alone(line.text, delimiter)) == width for line in rest)
    return rows >= _STRAY_SHARE * len(rest)
