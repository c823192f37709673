"""A JSON list of rows, decoded row by row, so that a file of any size can be read.

The list is the file itself, or the value of "data" in an object. Python's own decoder does the work, on
a buffer that grows while a value is not whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from koalpaca_tune.data.reading import encodings
from koalpaca_tune.data.reading.lost import Lost
from koalpaca_tune.data.rows import place
from koalpaca_tune.errors import KoalpacaError

_INK = re.compile(r"[^ \t\n\r]")
_ADVICE = 'Write [{...}, ...] or {"data": [...]}; in pandas: to_json(path, orient="records").'


def values(path: Path, encoding: str) -> Iterator[Any]:
    """The values in the list, one by one.

    Raises:
        KoalpacaError: there is no list of rows, or none of it can be read (json-rows).
        Lost: it is no longer JSON after the last value.
    """
    text = _Text(encodings.texts(path, encoding))
    count = 0
    try:
        for value in _rows(text, path):
            count += 1
            yield value
        text.end()
    except Lost as lost:
        what, at = f"it is not JSON ({lost.what})", lost.at or text.place()
        if not count:
            raise KoalpacaError("json-rows", f"{what}.", where=f"{place(path)}{at}", fix=lost.fix) from lost
        raise Lost(what, at=at, text=text.ahead(), fix=lost.fix) from lost


def is_lines(path: Path, encoding: str) -> bool:
    """Whether the file is JSON Lines under the name .json, as many sets on the Hub have it."""
    found: list[str] = []
    try:
        # a list may be one line of any length
        if _Text(encodings.texts(path, encoding)).peek() != "{":
            return False
        for line in encodings.lines(path, encoding, newline="\n"):
            if line.text.strip():
                found.append(line.text)
            if len(found) == 2 or not line.whole:
                break
    except Lost:
        return False
    if len(found) < 2 or not found[1].lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(found[0]), dict)
    except (ValueError, RecursionError):
        return False


def _rows(text: _Text, path: Path) -> Iterator[Any]:
    opening = text.peek()
    if opening == "[":
        yield from _items(text)
        return
    if opening != "{":
        raise _no_list(path, f"one {type(text.value()).__name__}")
    text.take("{")
    keys: list[str] = []
    seen = False
    while text.peek() != "}":
        if keys:
            text.take(",")
        key = text.value()
        if not isinstance(key, str):
            raise Lost("a name in double quotes was expected")
        text.take(":")
        keys.append(key)
        if key == "data" and not seen and text.peek() == "[":
            seen = True
            yield from _items(text)
        else:
            text.value()
    text.take("}")
    if not seen:
        raise _no_list(path, f"an object with {', '.join(map(repr, keys[:5]))}" if keys else "an empty object")


def _items(text: _Text) -> Iterator[Any]:
    text.take("[")
    if text.took("]"):
        return
    while True:
        yield text.value()
        if not text.took(","):
            text.take("]")
            return


def _no_list(path: Path, what: str) -> KoalpacaError:
    return KoalpacaError("json-rows", f"it holds {what}, not a list of rows.", where=place(path), fix=_ADVICE)


class _Text:
    """Text that is read as far as it is asked for, with the line and column of what was taken."""

    def __init__(self, texts: Iterator[str]) -> None:
        self._texts = texts
        self._buffer = ""
        self._at = 0
        self._line, self._column = 1, 1
        self._lost: Lost | None = None
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            if found := _INK.search(self._buffer, self._at):
                self._at = found.start()
                return found[0]
            self._at = len(self._buffer)
            if not self._more(1):
                return ""

    def take(self, expected: str) -> None:
        """Takes this character, which has to be the next.

        Raises:
            Lost: another one is.
        """
        if not self.took(expected):
            raise Lost(f"'{expected}' was expected")

    def took(self, wanted: str) -> bool:
        """Takes this character if it is the next."""
        if not self._buffer.startswith(wanted, self._at) and self.peek() != wanted:
            return False
        self._at += 1
        return True

    def end(self) -> None:
        """Nothing may follow.

        Raises:
            Lost: something does.
        """
        if self.peek():
            raise Lost("something follows the end of the list")

    def value(self) -> Any:
        """The next value, whole.

        Raises:
            Lost: it is no JSON, or longer than a row may be.
        """
        self.peek()
        wanted = 1
        while True:
            try:
                value, end = self._decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                if self._more(wanted):
                    wanted *= 2
                    continue
                raise Lost(error.msg, at=self.place(error.pos)) from error
            except (ValueError, RecursionError) as error:
                raise Lost(str(error)) from error
            # the digits of a number may go on behind the buffer
            if end < len(self._buffer) or not self._more(wanted):
                self._at = end
                return value

    def place(self, at: int | None = None) -> str:
        """Line and column of the next character, or of one in the buffer, as they follow a file's name."""
        line, column = self._moved(self._at if at is None else at)
        return f":{line}:{column}"

    def ahead(self) -> str:
        """Some of what was not taken."""
        return self._buffer[self._at : self._at + 2000]

    def _more(self, wanted: int) -> bool:
        """Reads on, `wanted` pieces at most; False when there is no more, or the value has become too long."""
        self._line, self._column = self._moved(self._at)
        self._buffer, self._at = self._buffer[self._at :], 0
        if len(self._buffer) > encodings.MAX_ROW:
            raise Lost(f"a value is longer than {encodings.MAX_ROW:,} characters")
        if self._lost:
            raise self._lost
        pieces = []
        size = 0
        try:
            for piece in self._texts:
                pieces.append(piece)
                size += len(piece)
                if len(pieces) >= wanted or size > encodings.MAX_ROW:
                    break
        except Lost as lost:
            if not pieces:
                raise
            self._lost = lost
        self._buffer += "".join(pieces)
        return bool(pieces)

    def _moved(self, to: int) -> tuple[int, int]:
        ends = self._buffer.count("\n", 0, to)
        if not ends:
            return self._line, self._column + to
        return self._line + ends, to - self._buffer.rindex("\n", 0, to)
