"""Which encoding a text file is in, found out from all of its bytes, and its lines.

Korean files come as UTF-8 (with or without a byte order mark), as cp949 (Excel on a Korean Windows; a
superset of EUC-KR) or as UTF-16 with a mark (Excel's "Unicode text"). A file that is whole in UTF-8 is
UTF-8: cp949 text almost never is. Otherwise the encoding with the fewest undecodable lines wins, and
those lines become rejected rows.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from koalpaca_tune.data.reading import compression
from koalpaca_tune.data.reading.lost import Lost
from koalpaca_tune.data.rows import place
from koalpaca_tune.errors import KoalpacaError, did_you_mean

ENCODINGS = {
    "utf-8": "utf-8",
    "utf-8-sig": "utf-8-sig",
    "cp949": "cp949",
    "euc-kr": "cp949",
    "utf-16": "utf-16",
    "utf-16-le": "utf-16-le",
    "utf-16-be": "utf-16-be",
}
"""Names that can be asked for, and how they are read (cp949 reads all of EUC-KR, and more)."""

MAX_ROW = 16 * 1024 * 1024
"""Longest line, CSV field and CSV row, in characters; a longer one is rejected (row-size)."""

_CUT = 1000
_CHUNK = 1 << 20
_BLOCK = 1 << 18
_AGAIN = "Fetch or copy the file again."
_MAGIC = {
    b"PK\x03\x04": ("an Excel (.xlsx) or zip file", "If it is a workbook, let its name end in .xlsx."),
    b"\xd0\xcf\x11\xe0": ("an old Excel (.xls) file", "Let its name end in .xls."),
    b"\x1f\x8b": ("a gzip file", "Let its name end in .gz, as in rows.csv.gz."),
    b"\x28\xb5\x2f\xfd": ("a zstd file", "Let its name end in .zst, as in rows.csv.zst."),
    b"PAR1": ("a Parquet file", "Let its name end in .parquet."),
    b"ARROW1": ("an Arrow file", "Let its name end in .arrow."),
    b"%PDF": ("a PDF file", "Save it as CSV (UTF-8) or JSONL."),
}
"""First bytes -> what has them, and what to do."""


class Line(NamedTuple):
    """One line: its number from 1, its text with the line end, and False when it was cut for its length."""

    number: int
    text: str
    whole: bool = True


class Block(NamedTuple):
    """Lines that follow each other: the number of the first, their texts with the line ends.

    A line that was cut for its length is a block of its own, with `whole` False.
    """

    start: int
    texts: list[str]
    whole: bool = True


def detect(path: Path, asked: str | None = None) -> str:
    """The encoding of a file, a key of `ENCODINGS`.

    Args:
        path: a text file, perhaps compressed; all of it is looked at.
        asked: the encoding that the user named; it is checked, not trusted.

    Raises:
        KoalpacaError: not readable (file-missing, file-folder, file-damaged), no text in it (file-empty,
            file-binary), none of the encodings (file-encoding), or an unknown name (encoding-name).
    """
    name = _known(asked) if asked is not None else None
    with opened(path) as file:
        head = file.read(_CHUNK)
        if not head and (damage := compression.damage(file)):
            raise KoalpacaError("file-damaged", f"{damage}.", where=place(path), fix=_AGAIN)
    marked = _mark(head)
    if marked and name and not name.startswith(marked.removesuffix("-sig")):
        raise KoalpacaError(
            "file-encoding",
            f"the file begins with the mark of {marked}, but '{asked}' was asked for.",
            where=place(path),
            fix="Leave the encoding out.",
        )
    if not head.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0"):
        raise KoalpacaError("file-empty", "there is nothing in it.", where=place(path))
    encoding = marked or name
    if encoding is not None and encoding.startswith("utf-16"):
        return encoding
    _refuse_binary(path, head)
    if _decodes(path, "utf-8") and encoding in (None, "utf-8", "utf-8-sig"):
        return encoding or "utf-8"
    candidates = [encoding] if encoding else ["utf-8", "cp949"]
    if "cp949" in candidates and _decodes(path, "cp949"):
        return "cp949"
    return _fewest_bad_lines(path, candidates)


def opened(path: Path) -> BinaryIO:
    """The file, opened for the bytes in it: a compressed one (`compression.SUFFIXES`) is unpacked.

    Raises:
        KoalpacaError: it cannot be (file-missing, file-folder).
    """
    file = regular(path)
    packed = compression.SUFFIXES.get(path.suffix.lower())
    return compression.unpack(file, packed) if packed else file


def regular(path: Path) -> BinaryIO:
    """The file itself, opened for bytes.

    Raises:
        KoalpacaError: it cannot be (file-missing, file-folder).
    """
    if path.is_dir():
        raise KoalpacaError("file-folder", "it is a folder.", where=place(path), fix="Name the files in it.")
    if path.exists() and not path.is_file():
        # a pipe can be read once, and is read twice here
        raise KoalpacaError("file-folder", "it is not a regular file.", where=place(path), fix="Save it as a file.")
    try:
        return path.open("rb")
    except OSError as error:
        raise KoalpacaError(
            "file-missing", f"cannot read it ({error.strerror}).", where=place(path), fix="Check the path."
        ) from error


def texts(path: Path, encoding: str) -> Iterator[str]:
    """The text of a file, in pieces. A byte that does not decode stays as a lone surrogate (U+FFFD in UTF-16).

    Args:
        path: a file for which `detect` gave the encoding.
        encoding: that encoding.

    Raises:
        Lost: after the last piece, when compressed data ends before its end.
    """
    decoder = codecs.getincrementaldecoder(encoding)(on_error(encoding))
    with opened(path) as file:
        while chunk := file.read(_BLOCK):
            if text := decoder.decode(chunk):
                yield text
        if damage := compression.damage(file):
            raise Lost(damage, fix=_AGAIN)
    if text := decoder.decode(b"", final=True):
        yield text


def blocks(path: Path, encoding: str, newline: str) -> Iterator[Block]:
    """The lines of a file, many at a time.

    Args:
        path: a file for which `detect` gave the encoding.
        encoding: that encoding.
        newline: "" also ends a line at a lone CR (CSV), a line feed alone is "\\n" (JSONL).

    Raises:
        Lost: as in `texts`; a line that breaks off there is no line.
    """
    number, rest, skipping = 1, "", False
    try:
        for text in texts(path, encoding):
            if "\n" not in text and "\r" not in text and not rest.endswith("\r"):
                rest = "" if skipping else rest + text
                found = []
            else:
                found = io.StringIO(rest + text, newline=newline).readlines()
                # a lone CR at the end may be half of a CR LF
                rest = "" if found[-1].endswith("\n") else found.pop()
            if skipping and found:
                skipping = False
                del found[0]
            if found:
                yield from _by_length(number, found)
                number += len(found)
            if skipping:
                rest = "\r" if rest.endswith("\r") else ""
            elif len(rest) > MAX_ROW:
                yield Block(number, [rest[:_CUT] + "..."], whole=False)
                number += 1
                rest, skipping = "\r" if rest.endswith("\r") else "", True
    except Lost as lost:
        raise Lost(lost.what, at=f":{number}", text=rest, fix=lost.fix) from lost
    if rest and not skipping:
        yield from _by_length(number, [rest])


def _by_length(number: int, found: list[str]) -> Iterator[Block]:
    if max(map(len, found)) <= MAX_ROW:
        yield Block(number, found)
        return
    for at, text in enumerate(found, number):
        whole = len(text) <= MAX_ROW
        yield Block(at, [text if whole else text[:_CUT] + "..."], whole)


def lines(path: Path, encoding: str, newline: str) -> Iterator[Line]:
    """The lines of a file; see `blocks`."""
    for start, found, whole in blocks(path, encoding, newline):
        for number, text in enumerate(found, start):
            yield Line(number, text, whole)


def on_error(encoding: str) -> str:
    """The error handler that keeps undecodable bytes visible: as lone surrogates, in UTF-16 as U+FFFD."""
    return "replace" if encoding.startswith("utf-16") else "surrogateescape"


def _known(asked: str) -> str:
    folded = asked.strip().lower().replace("_", "-")
    folded = {"utf8": "utf-8", "utf16": "utf-16", "euckr": "euc-kr", "ms949": "cp949"}.get(folded, folded)
    if folded not in ENCODINGS:
        raise KoalpacaError(
            "encoding-name",
            f"'{asked}' is not an encoding that is read here.",
            where="encoding",
            fix=did_you_mean(folded, list(ENCODINGS)),
        )
    return ENCODINGS[folded]


def _mark(head: bytes) -> str | None:
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not head.startswith(codecs.BOM_UTF32_LE):
        return "utf-16"
    return None


def _refuse_binary(path: Path, head: bytes) -> None:
    for magic, (what, fix) in _MAGIC.items():
        if head.startswith(magic):
            raise KoalpacaError("file-binary", f"it is {what}, not text.", where=place(path), fix=fix)


def _decodes(path: Path, encoding: str) -> bool:
    """Whether all of the file is text in this encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    valid = True
    at = 0
    with opened(path) as file:
        while chunk := file.read(_CHUNK):
            if (nul := chunk.find(b"\0")) >= 0:
                raise KoalpacaError(
                    "file-binary",
                    f"it is not text: byte {at + nul + 1:,} is NUL.",
                    where=place(path),
                    fix="Save it as UTF-8 text (UTF-16 needs its byte order mark).",
                )
            at += len(chunk)
            if valid:
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError:
                    valid = False
        # a damaged archive may end inside a character
        final = compression.damage(file) is None
    try:
        decoder.decode(b"", final=final)
    except UnicodeDecodeError:
        return False
    return valid


def _fewest_bad_lines(path: Path, candidates: list[str]) -> str:
    bad = dict.fromkeys(candidates, 0)
    total = 0
    with opened(path) as file:
        while line := file.readline(MAX_ROW):
            if line.isascii():
                continue
            total += 1
            for encoding in candidates:
                try:
                    line.decode(encoding)
                except UnicodeDecodeError:
                    bad[encoding] += 1
    best = min(candidates, key=lambda encoding: bad[encoding])
    if bad[best] * 2 > total:
        raise KoalpacaError(
            "file-encoding",
            f"{bad[best]:,} of {total:,} lines are not {' or '.join(candidates)}.",
            where=place(path),
            fix="Save it as UTF-8.",
        )
    return best
