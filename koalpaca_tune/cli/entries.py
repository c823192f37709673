"""Records of a file, one at a time: their places are kept, never their texts.

What `prepare` wrote is read where it lies. Any other file goes through a temporary one, as far as it is asked for.
"""

from __future__ import annotations

import json
import random
import re
import tempfile
import unicodedata
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from koalpaca_tune import jsonl
from koalpaca_tune.data import load
from koalpaca_tune.data.rows import Rejected, place, plain
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation

REJECTED_KEYS = {"origin", "reason", "what", "row"}
PREPARED_KEYS = {"id", "origin", "source", "messages"}
_FIRST = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One record: a conversation, a row that was set aside, or both (a conversation that was set aside).

    Attributes:
        origin: `file:row`.
        conversation: the turns, where there are any.
        reason, what: why it was set aside; "" for a record that was kept.
        row: what was read, of a row that is no conversation.
    """

    origin: str
    conversation: Conversation | None = None
    reason: str = ""
    what: str = ""
    row: Any = None

    @cached_property
    def id(self) -> str:
        """The conversation's id, or ""."""
        return self.conversation.id if self.conversation else ""

    @property
    def source(self) -> str:
        """The data set it belongs to, where that is known."""
        return self.conversation.source if self.conversation else ""

    def texts(self) -> Iterator[str]:
        """Everything in it that a person may search for."""
        if self.conversation:
            for turn in self.conversation.turns:
                yield turn.content
                yield turn.context or ""
            yield self.conversation.dispreferred or ""
        else:
            yield self.row if isinstance(self.row, str) else json.dumps(self.row, ensure_ascii=False)
        yield self.what

    def contains(self, needle: str) -> bool:
        """Whether some text of it contains a folded needle."""
        return any(needle in folded(text) for text in self.texts())


def folded(text: str) -> str:
    """As texts are compared: NFC, small letters."""
    return unicodedata.normalize("NFC", text).casefold()


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records to show; what is None does not matter.

    Attributes:
        grep: text that occurs in it, in any case.
        source: its source.
        origin: `file:row`, or a file for all its rows.
        id: its id, or how that begins.
        reason: why it was set aside.
    """

    grep: str | None = None
    source: str | None = None
    origin: str | None = None
    id: str | None = None
    reason: str | None = None

    def __bool__(self) -> bool:
        return any(wanted is not None for wanted in (self.grep, self.source, self.origin, self.id, self.reason))

    def keeps(self, entry: Entry) -> bool:
        """Whether a record is one of those."""
        return (
            (self.reason is None or entry.reason == self.reason)
            and (self.source is None or folded(entry.source) == folded(self.source))
            and (self.origin is None or _comes_from(entry.origin, self.origin))
            and (self.id is None or (entry.id != "" and entry.id.startswith(self.id.lower())))
            and (self.grep is None or entry.contains(folded(self.grep)))
        )


_ROW = re.compile(r"(:\d+|\[\d+\])+$")


def _comes_from(origin: str, wanted: str) -> bool:
    """Whether an origin is a row, or a row of a file, named with or without its folders."""
    return any(name == wanted or name.endswith(f"/{wanted}") for name in (origin, _ROW.sub("", origin)))


class Entries:
    """Records of a file that a filter keeps, found as far as they are asked for."""

    def __init__(self, file: BinaryIO, lines: Iterator[tuple[int, bytes]], name: str, wanted: Filter) -> None:
        self._file = file
        self._lines = enumerate(lines, 1)
        self._name = name
        self._wanted = wanted
        self._places = array("q")
        self._numbers = array("q")
        self.complete = False

    def __len__(self) -> int:
        """How many were found so far; all of them when `complete`."""
        return len(self._places)

    def has(self, at: int) -> bool:
        """Whether there is a record at a position from 0; looks on in the file as far as needed."""
        while not self.complete and len(self._places) <= at:
            self._advance()
        return 0 <= at < len(self._places)

    def all(self) -> int:
        """Looks through the whole file; how many there are."""
        while not self.complete:
            self._advance()
        return len(self._places)

    def __getitem__(self, at: int) -> Entry:
        if not self.has(at):
            raise IndexError(at)
        return _entry(self._line(at), f"{self._name}:{self._numbers[at]}")

    def _line(self, at: int) -> bytes:
        self._file.seek(self._places[at])
        return self._file.readline()

    def find(self, text: str, start: int) -> int | None:
        """The first record at or after `start` that contains a text."""
        needle = folded(text)
        while self.has(start):
            if self[start].contains(needle):
                return start
            start += 1
        return None

    def shuffle(self, seed: int) -> None:
        """Puts all of them into an order that the seed decides."""
        order = list(range(self.all()))
        random.Random(seed).shuffle(order)
        self._reorder(order)

    def sort(self, value: Callable[[str], float | None], *, largest_first: bool) -> None:
        """Sorts all of them by a value of their id; those without one come last, equal ones stay as they are."""
        values = [value(line_id(self._line(at))) for at in range(self.all())]
        sign = -1.0 if largest_first else 1.0

        def key(at: int) -> tuple[bool, float]:
            found = values[at]
            return (True, 0.0) if found is None else (False, sign * found)

        self._reorder(sorted(range(len(values)), key=key))

    def _reorder(self, order: list[int]) -> None:
        self._places = array("q", (self._places[at] for at in order))
        self._numbers = array("q", (self._numbers[at] for at in order))

    def _advance(self) -> None:
        for number, (at, line) in self._lines:
            if not line.strip() or (
                self._wanted and not self._wanted.keeps(_entry(line, f"{self._name}:{number}"))
            ):
                continue
            self._places.append(at)
            self._numbers.append(number)
            return
        self.complete = True


_ID = re.compile(rb'\{"id": "([^"\\]+)"')


def line_id(line: bytes) -> str:
    """The id of a line that `prepare` wrote, or ""."""
    found = _ID.match(line)  # where it writes it; without parsing the whole
    if found:
        return found[1].decode("utf-8", "replace")
    try:
        row = jsonl.parse(line.decode("utf-8-sig", "surrogateescape"), "")
    except KoalpacaError:
        return ""
    return str(row.get("id") or "")


def _entry(line: bytes, origin: str) -> Entry:
    text = line.decode("utf-8-sig", "surrogateescape")
    try:
        row = jsonl.parse(text, origin)
        if row.keys() >= REJECTED_KEYS:
            return _set_aside(row, origin)
        return Entry(str(row.get("origin") or origin), Conversation.from_dict(row, origin))
    except KoalpacaError as error:
        problem = error.problems[0]
        return Entry(origin, None, problem.code, problem.what, plain(text.rstrip("\n")))


def _set_aside(row: Mapping[str, Any], origin: str) -> Entry:
    inner = row["row"]
    conversation = None
    if isinstance(inner, dict) and "messages" in inner:
        # a row that was never turned into turns is shown as it was read
        with suppress(KoalpacaError):
            conversation = Conversation.from_dict(inner, origin)
    return Entry(str(row["origin"]), conversation, str(row["reason"]), str(row["what"]), inner)


@dataclass(frozen=True, slots=True)
class Opened:
    """A file to look at.

    Attributes:
        kind: prepared (train.jsonl, valid.jsonl), rejected (rejected.jsonl), or other.
        entries: its records.
    """

    kind: str
    entries: Entries


def open_file(path: Path, wanted: Filter) -> Opened:
    """Opens what `prepare` wrote, or any file that it reads.

    Raises:
        KoalpacaError: the file cannot be read, by the readers' codes.
    """
    name = place(path)
    kind = _kind(path)
    if kind == "other":
        spool = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the entries
        return Opened(kind, Entries(spool, _spooled(path, spool), name, wanted))
    return Opened(kind, Entries(path.open("rb"), lines(path), name, wanted))


def _kind(path: Path) -> str:
    if path.suffix.lower() not in (".jsonl", ".ndjson") or not path.is_file():
        return "other"
    with path.open("rb") as file:
        first = file.readline(_FIRST).decode("utf-8-sig", "replace")
    if not first and path.name == "rejected.jsonl":
        return "rejected"
    try:
        keys = jsonl.parse(first, str(path)).keys()
    except KoalpacaError:
        return "other"
    if keys >= REJECTED_KEYS:
        return "rejected"
    return "prepared" if keys >= PREPARED_KEYS else "other"


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines of a file with the bytes before each."""
    at = 0
    with path.open("rb") as file:
        for line in file:
            yield at, line
            at += len(line)


def _spooled(path: Path, spool: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Rows of any file as lines of a temporary one; broken rows stand where they were."""
    broken: list[Rejected] = []
    at = 0
    rows = load.conversations(path, broken.append)
    while True:
        made = next(rows, None)
        several = [one.as_dict() for one in broken]
        broken.clear()
        if made is not None:
            several.append(plain(made.as_dict()))
        for row in several:
            line = (jsonl.dumps(row) + "\n").encode()
            spool.seek(at)
            spool.write(line)
            yield at, line
            at += len(line)
        if made is None:
            return
