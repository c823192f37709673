"""The rows of a task's source: a shipped file, a file under --data-root, or a set on the Hub.

The revision is always said: of a file the SHA-256 of its bytes, of a set on the Hub the commit that was read.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl
from koalpaca_tune.data.reading import readers
from koalpaca_tune.data.rows import Rejected, Row
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.suites.schema import Hub

CONFIG = "config"
"""Column that a row of a source with several configurations gets: the one that it came from."""


@dataclass(frozen=True)
class Place:
    """Where rows are, settled from a task file and --data-root.

    Attributes:
        files: (configuration or "", file), in order; empty for the Hub.
        hub: the set; None for files.
        reader: how a file is read.
    """

    files: tuple[tuple[str, Path], ...]
    hub: Hub | None
    reader: str = "auto"

    @property
    def several(self) -> bool:
        """Whether there is more than one configuration: each row says its own, and ids begin with it."""
        if self.hub is not None:
            return isinstance(self.hub.config, list) and len(self.hub.config) > 1
        return len(self.files) > 1

    @property
    def name(self) -> str:
        """For messages and the result: the set's name on the Hub, or the file's."""
        if self.hub is not None:
            return f"hf:{self.hub.repo}"
        first = self.files[0][1].name
        return first if len(self.files) == 1 else f"{first} ... ({len(self.files)} files)"


@dataclass(frozen=True)
class Rows:
    """Rows with where they are from.

    Attributes:
        rows: in order.
        origin: set or file.
        revision: `sha256:...` of files, the commit of a set on the Hub; None where none could be known.
    """

    rows: tuple[Row, ...]
    origin: str
    revision: str | None


def read(place: Place) -> Rows:
    """Reads all rows.

    Raises:
        KoalpacaError: a file that is missing or broken, a row that is (its own code, at its line), or a set on the
            Hub that cannot be read (hub-set, input-config, input-split).
    """
    return _of_hub(place.hub, place.name) if place.hub is not None else _of_files(place)


def _of_files(place: Place) -> Rows:
    rows: list[Row] = []
    digest = hashlib.sha256()
    for config, path in place.files:
        found = READERS[place.reader](path)
        rows += [Row(row.origin, {**row.values, CONFIG: config}) for row in found] if place.several else found
        digest.update(path.read_bytes())
    return Rows(tuple(rows), place.name, f"sha256:{digest.hexdigest()}")


def _of_hub(hub: Hub, name: str) -> Rows:
    from koalpaca_tune.data.reading import hub as sets
    from koalpaca_tune.data.reading.opened import Options

    configs: list[str | None] = [hub.config] if not isinstance(hub.config, list) else list(hub.config)
    rows: list[Row] = []
    revision = hub.revision
    for config in configs:
        label = hub.repo if config is None else f"{hub.repo}/{config}"
        opened = sets.read(hub.repo, label, Options(config=config, split=hub.split, revision=revision))
        # the commit of the first part is that of all
        revision = opened.revision or revision
        for row in opened.rows:
            whole = _whole(row)
            rows.append(Row(whole.origin, {**whole.values, CONFIG: config}) if len(configs) > 1 else whole)
    return Rows(tuple(rows), name, revision)


def _whole(row: Row | Rejected) -> Row:
    if isinstance(row, Rejected):
        problem = row.problem
        raise KoalpacaError(problem.code, problem.what, where=problem.where or row.origin, fix=problem.fix)
    return row


def _auto(path: Path) -> list[Row]:
    if not path.is_file():
        jsonl.lines(path).__next__()
    if path.suffix.lower() == ".jsonl":
        return [Row(f"{path}:{number}", values) for number, values in jsonl.read(path)]
    return [_whole(row) for row in readers.read(path, name=str(path)).rows]


def _tsv(path: Path, cell: Callable[[str], str]) -> Iterator[Row]:
    header: list[str] = []
    for number, text in jsonl.lines(path):
        origin = f"{path}:{number}"
        if not jsonl.is_utf8(text):
            raise KoalpacaError("item-encoding", "the line is not UTF-8.", where=origin, fix="Save it as UTF-8.")
        try:
            cells = [cell(one) for one in text.rstrip("\r\n").split("\t")]
        except csv.Error as error:
            raise KoalpacaError(
                "item-cells", f"a quoted cell cannot be read ({error}).", where=origin, fix="Look at its quotes."
            ) from error
        if not header:
            header = cells
        elif len(cells) != len(header):
            raise KoalpacaError(
                "item-cells", f"the line has {len(cells)} cells, the header {len(header)}.", where=origin
            )
        else:
            yield Row(origin, dict(zip(header, cells, strict=True)))


def unquoted(cell: str) -> str:
    """A cell as csv and pandas read it: outer quotes go, doubled ones inside are one, what follows stays.

    KoBEST's cells are so: a text may end after its closing quote (`"그" 책`).
    """
    return next(csv.reader([cell], delimiter="\t"), [""])[0] if '"' in cell else cell


def _squad(path: Path) -> Iterator[Row]:
    """One row for each question: id, title, context, question, answers (texts), is_impossible."""
    whole = jsonl.read_json(path)
    try:
        for article in whole["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    yield Row(
                        f"{path}: {asked.get('id') or asked['guid']}",
                        {
                            "id": asked.get("id") or asked["guid"],
                            "title": article.get("title") or "",
                            "context": paragraph["context"],
                            "question": asked["question"],
                            "answers": [answer["text"] for answer in asked["answers"]],
                            "is_impossible": bool(asked.get("is_impossible", False)),
                        },
                    )
    except (KeyError, TypeError) as error:
        raise KoalpacaError(
            "item-shape", f"it is not SQuAD's JSON ({error!r}).", where=str(path), fix="data > paragraphs > qas."
        ) from error


def _text(path: Path) -> list[Row]:
    try:
        return [Row(str(path), {"text": path.read_bytes().decode("utf-8-sig")})]
    except OSError as error:
        raise KoalpacaError(
            "file-missing", f"cannot read it ({error.strerror}).", where=str(path), fix="Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise KoalpacaError(
            "item-encoding", f"it is not UTF-8 (byte {error.start}).", where=str(path), fix="Save it as UTF-8."
        ) from error


READERS: dict[str, Callable[[Path], list[Row]]] = {
    "auto": _auto,
    "tsv": lambda path: list(_tsv(path, unquoted)),
    "tsv-plain": lambda path: list(_tsv(path, str)),
    "squad": lambda path: list(_squad(path)),
    "text": _text,
}
"""Reader of a task file -> how a file is read."""


def same(one: Mapping[str, Any], keep: Mapping[str, list[str]]) -> bool:
    """Whether a row has one of the wanted values in each of these columns; case does not count."""
    return all(plain(one.get(column)) in {plain(value) for value in values} for column, values in keep.items())


def plain(value: object) -> str:
    """A value as labels are compared: text, without outer space, in lower case."""
    return str(value).strip().casefold()
