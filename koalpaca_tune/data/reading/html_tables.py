"""The table of a web page that is named .xls, as Korean public offices and shop back ends hand them out.

The first table that has a row of two cells or more is read. A cell that spans columns or rows stands in
the first of them, as in a workbook.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from koalpaca_tune.data.reading import encodings, tables
from koalpaca_tune.data.reading.lost import Lost
from koalpaca_tune.data.rows import Rejected, Row, place
from koalpaca_tune.errors import KoalpacaError, Problem

_CELLS = ("td", "th")
_MAX_SPAN = 1000


def read(path: Path, encoding: str, name: str) -> tuple[tuple[str, ...], Iterator[Row | Rejected]]:
    """The columns, and the rows, read lazily.

    Args:
        path: the file.
        encoding: as `encodings.detect` found it.
        name: what origins call the file; a row is numbered by the line where it starts.

    Raises:
        KoalpacaError: no table in it (file-workbook), or no usable header (table-header).
    """
    source = _read(path, encoding)
    first = next(source, None)
    if first is None:
        raise KoalpacaError(
            "file-workbook",
            "it is a web page without a table.",
            where=place(path),
            fix="Open it in Excel and save it as .xlsx.",
        )
    number, header = first
    columns = tables.named(header, f"{place(path)}:{number}")
    return columns, _rows(source, columns, name)


def _rows(source: Iterator[tuple[int, list[str]]], columns: tuple[str, ...], name: str) -> Iterator[Row | Rejected]:
    width = len(columns)
    for number, cells in source:
        origin = f"{name}:{number}"
        if len(cells) != width:
            what = f"the row has {len(cells)} cells, the header {width}."
            yield Rejected(origin, Problem("row-fields", what, origin), cells)
        elif not any(cells):
            yield Rejected(origin, Problem("row-empty", "every cell is empty.", origin), cells)
        else:
            values = dict(zip(columns, cells, strict=True))
            values.pop("", None)
            yield Row(origin, values)


def _read(path: Path, encoding: str) -> Iterator[tuple[int, list[str]]]:
    parser = _Table()
    for text in encodings.texts(path, encoding):
        parser.feed(text)
        yield from parser.take()
        if parser.ended:
            return
        if len(parser.rawdata) > encodings.MAX_ROW:
            raise Lost(f"a tag is longer than {encodings.MAX_ROW:,} characters")
    parser.close()
    yield from parser.take()


class _Table(HTMLParser):
    """Gathers the rows of the first real table; a table within a cell is text of that cell."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.ended = False
        self._rows: list[tuple[int, list[str]]] = []
        self._begun = False
        self._depth = 0
        self._row: list[str] | None = None
        self._cell: list[str] | None = None
        self._line = 0
        self._across = 1
        # column -> how many more rows a cell above reaches down
        self._below: dict[int, int] = {}
        self._starting: dict[int, int] = {}

    def take(self) -> list[tuple[int, list[str]]]:
        """The rows since the last time."""
        rows, self._rows = self._rows, []
        return rows

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens rows and cells."""
        if self.ended:
            return
        if tag == "table":
            self._depth += 1
        if self._cell is not None and self._depth > 1:
            return
        if tag == "tr":
            self._end_row()
            self._row, self._line = [], self.getpos()[0]
        elif tag in _CELLS and self._row is not None:
            self._end_cell()
            self._spanned()
            self._cell = []
            spans = dict(attrs)
            self._across, down = _span(spans.get("colspan")), _span(spans.get("rowspan"))
            if down > 1:
                at = len(self._row)
                self._starting.update(dict.fromkeys(range(at, at + self._across), down - 1))
        elif tag in ("br", "p") and self._cell:
            self._cell.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """Closes them."""
        if tag == "table" and self._depth:
            self._depth -= 1
            if not self._depth:
                self._end_row()
                self.ended = self._begun
        elif self._depth > 1 and self._cell is not None:
            return
        elif tag == "tr":
            self._end_row()
        elif tag in _CELLS:
            self._end_cell()

    def handle_data(self, data: str) -> None:
        """Fills the cell."""
        if self._cell is not None:
            # in the source a line end is a space; <br> makes one
            self._cell.append(re.sub(r"[\t\r\n]", " ", data))

    def close(self) -> None:
        """The end of the text ends the last row."""
        super().close()
        self._end_row()

    def _end_cell(self) -> None:
        if self._cell is not None and self._row is not None:
            # runs of spaces are one space, and may come in several pieces
            lines = re.sub(" +", " ", "".join(self._cell)).split("\n")
            self._row.append("\n".join(line.strip(" ") for line in lines).strip().replace("\xa0", " "))
            self._row += [""] * (self._across - 1)
        self._cell = None

    def _spanned(self) -> None:
        """Empty cells where a cell of a row above reaches down."""
        assert self._row is not None
        while len(self._row) in self._below:
            self._row.append("")

    def _end_row(self) -> None:
        if self._row is None:
            return
        self._end_cell()
        self._spanned()
        left = {column: rows - 1 for column, rows in self._below.items() if rows > 1}
        self._below, self._starting = left | self._starting, {}
        if self._begun or sum(map(bool, self._row)) > 1:
            self._begun = True
            self._rows.append((self._line, self._row))
        self._row = None


def _span(value: str | None) -> int:
    return min(int(value), _MAX_SPAN) if value and value.isdecimal() and int(value) else 1
