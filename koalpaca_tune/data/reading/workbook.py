"""A program of its own: one sheet of a workbook, as lines of JSON on standard output.

A cell far from the table (one slip of the hand in Excel) makes the reader allocate every cell between,
hundreds of GiB, and that ends the process. So `sheets` runs this file as another process, with less memory.
Nothing of this package is imported here: the file is run by its path.

The first line is {"sheet"} or {"error", ...}; each other line is [row number from 1, cells].
"""

from __future__ import annotations

import datetime
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

MEMORY = 4 * 2**30
"""Bytes of address space."""


def main(path: str, sheet: str) -> None:
    """Prints the sheet of that name; "" for the first that is not empty."""
    import python_calamine as calamine
    from python_calamine import SheetTypeEnum as Kind
    from python_calamine import SheetVisibleEnum as Visible

    _limit_memory()
    try:
        with _workbook(path) as workbook:
            # a chart sheet holds no cells
            names = [found.name for found in workbook.sheets_metadata if found.typ == Kind.WorkSheet]
            if sheet and sheet not in names:
                _say({"error": "sheet", "sheets": names})
                return
            shown = [found.name for found in workbook.sheets_metadata if found.visible == Visible.Visible]
            for name in [sheet] if sheet else [name for name in names if name in shown]:
                found = workbook.get_sheet_by_name(name)
                if found.height:
                    _say({"sheet": name})
                    for number, cells in enumerate(found.iter_rows(), 1):
                        texts = [text(cell) for cell in cells]
                        if any(texts):
                            _say([number, texts])
                    return
            _say({"error": "empty"})
    except calamine.PasswordError:
        _say({"error": "password"})
    except (calamine.CalamineError, OSError) as error:
        _say({"error": "broken", "what": " ".join(str(error).split())})


def text(cell: Any) -> str:
    """A cell as a person sees it: 12345.0 as 12345, a day without a time, TRUE; 15 digits as Excel has them."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, int | float):
        return _number(cell)
    if isinstance(cell, datetime.datetime):
        return cell.strftime("%Y-%m-%d" if cell.time() == datetime.time() else "%Y-%m-%d %H:%M:%S")
    if isinstance(cell, datetime.time):
        return cell.strftime("%H:%M:%S")
    if isinstance(cell, datetime.timedelta):
        minutes, seconds = divmod(round(cell.total_seconds()), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    return str(cell)


def _number(number: float) -> str:
    whole = math.isfinite(number) and number == int(number) and abs(number) < 1e16
    return str(int(number)) if whole else f"{number:.15g}"


def _workbook(path: str) -> Any:
    import python_calamine as calamine

    try:
        return calamine.CalamineWorkbook.from_path(path)
    except calamine.PasswordError:
        raise
    except calamine.CalamineError as error:
        # a workbook under another workbook's suffix: its bytes say what it is
        try:
            return calamine.CalamineWorkbook.from_object(io.BytesIO(Path(path).read_bytes()))
        except calamine.CalamineError:
            raise error from None


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
