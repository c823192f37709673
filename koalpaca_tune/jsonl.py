"""JSON Lines, read with line numbers and written so that a crash leaves the old file or the new one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from koalpaca_tune.errors import KoalpacaError


def read(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number from 1, object) for every non-blank line of a UTF-8 file.

    Raises:
        KoalpacaError: no such file (file-missing), a line that is not UTF-8 or not a JSON object (jsonl-line).
    """
    for number, text in lines(path):
        yield number, parse(text, f"{path}:{number}")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, text) of the non-blank lines; bytes that are not UTF-8 fail `is_utf8`.

    Raises:
        KoalpacaError: no such file (file-missing).
    """
    try:
        file = path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    except OSError as error:
        raise KoalpacaError(
            "file-missing", f"cannot read it ({error.strerror}).", where=str(path), fix="Check the path."
        ) from error
    with file:
        for number, text in enumerate(file, 1):
            if text.strip():
                yield number, text


def is_utf8(text: str) -> bool:
    """Whether every byte of a line of `lines` was UTF-8.

    U+FFFD is no sign of the contrary: a model that stops inside a syllable writes one.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def parse(text: str, where: str) -> dict[str, Any]:
    """One line to one object.

    Raises:
        KoalpacaError: not JSON, not an object, or not UTF-8 (jsonl-line).
    """
    if not is_utf8(text):
        raise KoalpacaError("jsonl-line", "the line is not UTF-8.", where=where, fix="Save the file as UTF-8.")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        # ValueError: not JSON, or a number of more digits than Python reads
        raise KoalpacaError("jsonl-line", f"the line is not JSON ({error}).", where=where) from error
    if not isinstance(value, dict):
        raise KoalpacaError("jsonl-line", f"the line is a JSON {type(value).__name__}, not an object.", where=where)
    return value


def dumps(row: Mapping[str, Any]) -> str:
    """One object on one line, Korean as Korean."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes all rows aside, syncs, renames; returns how many. The folder is made when missing."""
    count = 0

    def text() -> Iterator[str]:
        nonlocal count
        for row in rows:
            count += 1
            yield dumps(row) + "\n"

    replace(path, text())
    return count


def replace(path: Path, chunks: Iterable[str]) -> None:
    """Writes text to a file in one stroke: aside, synced, renamed over the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("w", encoding="utf-8", newline="\n") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """One indented JSON file, in one stroke."""
    replace(path, [json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"])


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object from a file.

    Raises:
        KoalpacaError: no such file (file-missing), or not a JSON object (json-file).
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise KoalpacaError(
            "file-missing", f"cannot read it ({error.strerror}).", where=str(path), fix="Check the path."
        ) from error
    except (ValueError, RecursionError) as error:
        raise KoalpacaError("json-file", f"it is not JSON ({error}).", where=str(path)) from error
    if not isinstance(value, dict):
        raise KoalpacaError("json-file", f"it holds a {type(value).__name__}, not an object.", where=str(path))
    return value
