"""Workbooks: .xlsx, .xlsm, .xls, .xlsb and .ods, one sheet of each, every cell as text.

The header is the first row; when that row has one cell only, it is the title that stands over many
tables made for the eye, and the next row is the header.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from koalpaca_tune.data.reading import encodings, tables, workbook
from koalpaca_tune.data.reading.lost import Lost
from koalpaca_tune.data.rows import Rejected, Row, place
from koalpaca_tune.errors import KoalpacaError, Problem, did_you_mean

_HTML = (b"<html", b"<!doctype html", b"<table", b"<meta", b"<head")


class Sheet(NamedTuple):
    """An opened sheet: its name, the columns, the rows."""

    name: str
    columns: tuple[str, ...]
    rows: Iterator[Row | Rejected]


def looks_like_html(path: Path) -> bool:
    """Whether it is a web page named .xls, as many public offices hand out their tables."""
    with encodings.regular(path) as file:
        head = file.read(2048)
    # UTF-16 has a NUL beside every ASCII letter
    return head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").lower().startswith(_HTML)


def read(path: Path, sheet: str | None, name: str) -> Sheet:
    """Reads the header; the rows follow lazily.

    Args:
        path: the workbook.
        sheet: the sheet's name; None for the first that is not empty.
        name: what origins call the file.

    Raises:
        KoalpacaError: no such file, no workbook or a locked one (file-missing, file-empty, file-workbook),
            no such sheet (input-sheet), or no usable header (table-header).
    """
    _refuse(path)
    source = _lines(path, sheet or "")
    title = sheet or ""
    try:
        first = next(source)
        if "error" in first:
            raise _error(path, sheet, first)
        title = str(first["sheet"])
        number, header = next(source)
        if sum(map(bool, header)) == 1 and len(header) > 1:
            number, header = next(source)
    except StopIteration:
        raise KoalpacaError("file-empty", f"the sheet '{title}' has no rows.", where=place(path)) from None
    except Lost as lost:
        raise _gone(path) from lost
    columns = tables.named(header, f"{place(path)}!{title}:{number}")
    return Sheet(title, columns, _rows(source, columns, f"{name}!{title}"))


def _rows(source: Iterator[Any], columns: tuple[str, ...], name: str) -> Iterator[Row | Rejected]:
    for number, cells in source:
        origin = f"{name}:{number}"
        values = dict(zip(columns, cells, strict=True))
        unnamed = values.pop("", "")
        if any(cell.strip() for cell in values.values()):
            yield Row(origin, values)
        else:
            what = f"every cell under a name is empty{', others are not' if unnamed else ''}."
            yield Rejected(origin, Problem("row-empty", what, origin), cells)


def _lines(path: Path, sheet: str) -> Iterator[Any]:
    """What `workbook` prints.

    Raises:
        Lost: it ended before its end.
    """
    program = [sys.executable, "-P", workbook.__file__, str(path.resolve()), sheet]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        ended = False
        try:
            for line in process.stdout:
                if line.endswith(b"\n"):
                    yield json.loads(line)
            ended = True
        finally:
            if not ended:
                process.kill()
    if process.returncode:
        raise Lost(_GONE)


_GONE = f"the workbook is damaged, or needs more than {workbook.MEMORY // 2**30} GiB of memory"


def _gone(path: Path) -> KoalpacaError:
    return KoalpacaError(
        "file-workbook",
        f"{_GONE}.",
        where=place(path),
        fix="One cell far from the table does that: delete the empty rows and columns, or save it as CSV.",
    )


def _refuse(path: Path) -> None:
    with encodings.regular(path) as file:
        head = file.read(2048)
    if not head:
        raise KoalpacaError("file-empty", "there is nothing in it.", where=place(path))
    if not head.startswith((b"PK", b"\xd0\xcf\x11\xe0", b"\x09\x08")):
        if b"\0" in head:
            what, fix = "something else", "Save it as .xlsx or CSV."
        elif head.lstrip(b"\xef\xbb\xbf \r\n").startswith(b"<?xml"):
            what, fix = "XML", "Open it in Excel and save it as .xlsx."
        else:
            what, fix = "text", "If it is a CSV, let its name end in .csv."
        raise KoalpacaError("file-workbook", f"it is {what}, not a workbook.", where=place(path), fix=fix)


def _error(path: Path, sheet: str | None, said: dict[str, Any]) -> KoalpacaError:
    kind = said["error"]
    if kind == "sheet":
        known = [str(name) for name in said["sheets"]]
        return KoalpacaError(
            "input-sheet",
            f"there is no sheet '{sheet}'. Sheets: {', '.join(known)}.",
            where=place(path),
            fix=did_you_mean(sheet or "", known) if len(known) > 1 else "",
        )
    if kind == "empty":
        where = f"the sheet '{sheet}' is" if sheet else "its sheets are"
        return KoalpacaError("file-empty", f"{where} empty.", where=place(path))
    if kind == "password":
        return KoalpacaError(
            "file-workbook", "it is locked with a password.", where=place(path), fix="Save it without one."
        )
    return KoalpacaError(
        "file-workbook",
        f"it cannot be read as a workbook ({said['what']}).",
        where=place(path),
        fix="Open it in Excel and save it as .xlsx.",
    )
