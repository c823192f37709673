"""The folder of one evaluation: who was judged, one line per item as it is done, the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError

IDENTITY, ITEMS, RESULT = "identity.json", "items.jsonl", "result.json"

Line = dict[str, Any]
"""One item's result: `task`, `hash`, `id`, and what was measured."""


class Store:
    """items.jsonl of one identity. Lines that are there already are not computed again."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], template: str) -> None:
        """Opens the folder, or makes it.

        Raises:
            KoalpacaError: the folder holds another model's or template's lines (eval-identity).
        """
        self.path = folder / ITEMS
        wanted = {"identity": json.loads(json.dumps(identity)), "template": template}
        mark = folder / IDENTITY
        if mark.exists():
            _same(jsonl.read_json(mark), wanted, folder)
        elif self.path.exists():
            raise KoalpacaError(
                "eval-identity",
                f"there is {ITEMS} but no {IDENTITY}: whose results these are is unknown.",
                where=str(folder),
                fix="Choose another --out, or remove the folder.",
            )
        jsonl.write_json(mark, wanted)
        self._stored = 0
        self._places: dict[tuple[str, str, str], int] = {}
        self._lines = self._sound()
        self._file: TextIO | None = None

    def _sound(self) -> dict[tuple[str, str, str], Line]:
        """Lines that were written whole; a last line cut by a crash is dropped, and the file mended."""
        if not self.path.exists():
            return {}
        text = self.path.read_text(encoding="utf-8", errors="surrogateescape")
        whole = text[: text.rfind("\n") + 1]
        rows = [
            jsonl.parse(line, f"{self.path}:{n}") for n, line in enumerate(whole.split("\n"), 1) if line.strip()
        ]
        if whole != text:
            jsonl.write(self.path, rows)
        self._stored = len(rows)
        lines = {}
        for n, row in enumerate(rows, 1):
            name, hash, id = (row.get(key) for key in ("task", "hash", "id"))
            if not (isinstance(name, str) and isinstance(hash, str) and isinstance(id, str)):
                what = "the line is not one of an evaluation: it lacks task, hash or id."
                raise KoalpacaError("eval-shape", what, where=f"{self.path}:{n}", fix="Choose another --out.")
            lines[name, hash, id] = row
            self._places[name, hash, id] = n
        return lines

    def done(self, task: str, digest: str) -> dict[str, Line]:
        """Lines of a task as it is now, by item id; those of an older version do not count."""
        return {id: line for (name, hash, id), line in self._lines.items() if (name, hash) == (task, digest)}

    def check(self, task: str, digest: str, good: Callable[[Line, str], None]) -> None:
        """Has every stored line of a task looked at, with its place.

        Raises:
            KoalpacaError: whatever `good` raises (eval-shape).
        """
        for key, number in self._places.items():
            if key[:2] == (task, digest):
                good(self._lines[key], f"{self.path}:{number}")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keeps the file open for `add`."""
        with self.path.open("a", encoding="utf-8", newline="\n") as self._file:
            yield
        self._file = None

    def add(self, lines: Iterable[Line]) -> None:
        """Appends lines and flushes them, so that an interruption loses nothing that was done."""
        assert self._file is not None
        for line in lines:
            self._file.write(jsonl.dumps(line) + "\n")
            self._lines[line["task"], line["hash"], line["id"]] = line
            self._stored += 1
        self._file.flush()

    def tidy(self) -> None:
        """Rewrites the file without lines that later ones replaced.

        Lines of other tasks and options stay: asking those again in this folder costs nothing.
        """
        if len(self._lines) != self._stored:
            jsonl.write(self.path, self._lines.values())
            self._stored = len(self._lines)


def digest(*parts: object) -> str:
    """16 hex digits of SHA-256 over JSON values."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, sort_keys=True).encode()).hexdigest()[:16]


def _same(stored: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    if stored == wanted:
        return
    old, new = stored.get("identity"), wanted["identity"]
    old = old if isinstance(old, dict) else {}
    differ = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if stored.get("template") != wanted["template"]:
        differ.append("template")
    raise KoalpacaError(
        "eval-identity",
        f"the folder holds the results of another model: {', '.join(differ)} differ.",
        where=str(folder),
        fix="Choose another --out, or remove the folder.",
    )
