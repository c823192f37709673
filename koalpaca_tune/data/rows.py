"""What a reader hands on: a row with its origin, or a row set aside with the reason."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koalpaca_tune.errors import Problem

_LOST = re.compile("[\ud800-\udfff\ufffd]")
_DEEPEST = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file, as it stands there: column names and values.

    Attributes:
        origin: `file:line` of the line where the row starts; `file[index]` in a JSON list, a Parquet file
            and a set, from 0; `file!sheet:row` in a workbook.
        values: column name -> value, in the file's order. Text in CSV and workbooks; plain Python else.
    """

    origin: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that is not used. It goes to rejected.jsonl in full, so that nothing is lost.

    Attributes:
        origin: as in `Row`.
        problem: the code counts the reason, the text explains it.
        row: what was read: column names and values, a list of fields, or the raw text.
    """

    origin: str
    problem: Problem
    row: Any

    def as_dict(self) -> dict[str, Any]:
        """The line of rejected.jsonl."""
        what = f"{self.problem.what} {self.problem.fix}".strip()
        return {"origin": self.origin, "reason": self.problem.code, "what": what, "row": plain(self.row)}


def plain(value: Any, depth: int = 0) -> Any:
    """A value that JSON in UTF-8 can hold: undecodable bytes spelt `\\xNN`, NaN, infinities and dates as words."""
    if isinstance(value, str):
        return readable(value)
    if depth > _DEEPEST:
        return "(nested too deeply)"
    if isinstance(value, Mapping):
        return {readable(str(key)): plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, depth + 1) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes):
        return f"({len(value):,} bytes)"
    if value is None or isinstance(value, bool | int | float):
        return value
    # what only a Parquet file holds: a date, a decimal
    return readable(str(value))


def place(path: Path) -> str:
    """A path in a message or an origin: in NFC (macOS writes NFD), undecodable bytes spelt out."""
    return readable(unicodedata.normalize("NFC", str(path)))


def readable(text: str) -> str:
    """Text with what was lost spelt out: `\\xNN` for a byte that did not decode, `\\uNNNN` for the rest.

    U+FFFD too: `jsonl.read` takes it for a line that is not UTF-8.
    """
    return _LOST.sub(_spell, text)


def _spell(match: re.Match[str]) -> str:
    code = ord(match[0])
    # Python's surrogateescape keeps the byte 0xNN as U+DCNN
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
