"""quality.jsonl beside a prepared set: what was measured of each record, found by the record's id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl
from koalpaca_tune.cli.entries import line_id, lines
from koalpaca_tune.data.quality.signals import SIGNALS
from koalpaca_tune.errors import KoalpacaError, did_you_mean


class Signals:
    """What was measured of each record. Places are kept, as far as they were looked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._lines = lines(path)
        self._places: dict[str, int] = {}

    @staticmethod
    def beside(path: Path) -> Signals | None:
        """The signals that lie beside a file, if any do."""
        quality = path.with_name("quality.jsonl")
        return Signals(quality) if quality.is_file() else None

    def of(self, id: str) -> dict[str, Any]:
        """The line of a record: signals, examples, ...; {} when it has none."""
        # the two files have the same order, so what is near the beginning is found near the beginning
        while id not in self._places:
            at, line = next(self._lines, (0, b""))
            if not line:
                return {}
            self._places.setdefault(line_id(line), at)
        self._file.seek(self._places[id])
        return _parsed(self._file.readline(), str(self._path))

    def values(self, name: str) -> dict[str, float]:
        """A signal's number for each record that has one.

        Raises:
            KoalpacaError: no such signal, it found nothing, or it is no number (look-signal).
        """
        found: dict[str, float] = {}
        known: dict[str, None] = {}
        other = None
        for _, line in lines(self._path):
            row = _parsed(line, str(self._path))
            signals = row.get("signals") or {}
            value = signals.get(name)
            if isinstance(value, int | float):
                found[str(row.get("id"))] = float(value)
            elif value is not None:
                other = value
            known |= dict.fromkeys(signals)
        if not found:
            raise self._nothing(name, other, list(known))
        return found

    def _nothing(self, name: str, other: object, known: list[str]) -> KoalpacaError:
        where = str(self._path)
        if other is not None:
            return KoalpacaError("look-signal", f"'{name}' is {other!r}, not a number.", where=where)
        if name in SIGNALS:
            return KoalpacaError("look-signal", f"'{name}' found nothing in any record.", where=where)
        fix = did_you_mean(name, list(dict.fromkeys([*known, *SIGNALS])))
        return KoalpacaError("look-signal", f"there is no signal '{name}'.", where=where, fix=fix)


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    return jsonl.parse(line.decode("utf-8", "surrogateescape"), where) if line.strip() else {}
