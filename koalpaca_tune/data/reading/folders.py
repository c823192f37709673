"""Folders of data: what `datasets` saved with save_to_disk, or files laid out as on the Hub.

Files say their split in their name or in a folder's: `data/train-00000-of-00002.parquet`,
`validation/rows.jsonl`. When none says it, all of them are train.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from koalpaca_tune.data.reading import columnar
from koalpaca_tune.data.reading.lost import Lost, until_lost
from koalpaca_tune.data.reading.opened import Opened, Options
from koalpaca_tune.data.rows import Rejected, Row, place, readable
from koalpaca_tune.errors import KoalpacaError, Problem, did_you_mean

TRAIN = "train"
_SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""Words in a path -> the split that they mean, as on the Hub."""

_ABOUT = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"}

_NAME = re.compile(r"[^/\\\x00-\x1f]{1,80}")

Read = Callable[[Path, str, Options], Opened]
FormatOf = Callable[[Path], str | None]


def read(path: Path, name: str, options: Options, read_file: Read, format_of: FormatOf) -> Opened:
    """Opens a folder.

    Args:
        path: the folder.
        name: what origins call it.
        options: a split, and what applies to the files in it.
        read_file: opens one of its files.
        format_of: the format of a file by its name, None when it is not read.

    Raises:
        KoalpacaError: nothing in it can be read (file-folder, or of its first file), or there is no such
            split (input-split).
    """
    saved_dict, saved_set = path / "dataset_dict.json", path / "state.json"
    if saved_dict.is_file() or saved_set.is_file():
        for option in ("encoding", "sheet"):
            if getattr(options, option) is not None:
                raise KoalpacaError(
                    "input-option",
                    f"'{option}' does not apply to it (a saved set).",
                    where=place(path),
                    fix=f"Leave {option} out.",
                )
    if saved_dict.is_file():
        about = _about(saved_dict)
        known = about.get("splits")
        names = [_inside(path, name) for name in known] if isinstance(known, list) else []
        split = choose(options.split, names, place(path))
        return replace(_saved(path / split, f"{name}/{split}"), split=split)
    if saved_set.is_file():
        saved = _saved(path, name)
        own = str(_about(saved_set).get("_split") or TRAIN)
        if options.split and options.split != own:
            choose(options.split, [own], place(path))
        return replace(saved, split=own)
    return _laid_out(path, name, options, read_file, format_of)


def choose(asked: str | None, known: list[str], where: str) -> str:
    """The split that was asked for; train when none was, or the only one there is.

    Raises:
        KoalpacaError: there is none such, or none was asked for and several are there without train
            (input-split).
    """
    if asked is None and len(known) == 1:
        return known[0]
    wanted = asked or TRAIN
    if wanted in known:
        return wanted
    what = f"there is no split '{wanted}'." if asked or not known else "none of its splits is train."
    fix = did_you_mean(wanted, known) if asked else "Name one of them with split."
    raise KoalpacaError("input-split", f"{what} Splits: {', '.join(known)}.", where=where, fix=fix)


def _saved(path: Path, name: str) -> Opened:
    state = _about(path / "state.json")
    try:
        files = [path / _inside(path, file["filename"]) for file in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise KoalpacaError(
            "file-folder", "its state.json names no data files.", where=place(path), fix="Save the set again."
        ) from error
    if not files:
        raise KoalpacaError("file-empty", "there are no rows in it.", where=place(path))
    columns, _ = columnar.arrow(files[0], name)

    def rows() -> Iterator[Row]:
        count = 0
        for file in files:
            try:
                _, more = columnar.arrow(file, name, count)
            except KoalpacaError as error:
                raise Lost(f"{file.name}: {error.problems[0].what}", at=f"[{count}]") from error
            for row in more:
                count += 1
                yield row

    return Opened(name, "arrow", None, None, columns, until_lost(rows(), name, place(path)))


def _inside(folder: Path, name: object) -> str:
    """A name that a saved set gives of one of its files or splits: not a way out of its folder.

    Raises:
        KoalpacaError: it is one, or no name at all (file-folder).
    """
    if isinstance(name, str) and name not in (".", "..") and _NAME.fullmatch(name):
        return name
    raise KoalpacaError(
        "file-folder",
        f"it names {readable(repr(name)[:80])} as one of its parts, which is no name of a file in it.",
        where=place(folder),
        fix="Save the set again; do not use one that you do not trust.",
    )


def _about(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise KoalpacaError(
            "file-damaged", f"it cannot be read ({error}).", where=place(path), fix="Save the set again."
        ) from error
    return value if isinstance(value, dict) else {}


def _laid_out(path: Path, name: str, options: Options, read_file: Read, format_of: FormatOf) -> Opened:
    found: dict[str, list[Path]] = {}
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        hidden = any(part.startswith((".", "_")) for part in inside.parts)
        if file.is_file() and not hidden and file.name not in _ABOUT and format_of(file):
            found.setdefault(_split(inside), []).append(file)
    if not found:
        raise KoalpacaError(
            "file-folder", "it is a folder without data files.", where=place(path), fix="Name the files."
        )
    if set(found) == {""}:
        found = {TRAIN: found[""]}
    elif "" in found:
        others = ", ".join(place(file.relative_to(path)) for file in found[""][:3])
        raise KoalpacaError(
            "file-folder",
            f"some of its files say their split in their name, others do not ({others}).",
            where=place(path),
            fix="Name the files, or let each name say train, validation or test.",
        )
    split = choose(options.split, list(found), place(path))
    files = found[split]
    formats = sorted({str(format_of(file)) for file in files})
    if len(formats) > 1:
        raise KoalpacaError(
            "file-folder",
            f"it holds files of several formats ({', '.join(formats)}).",
            where=place(path),
            fix="Name the files.",
        )

    def opened(file: Path) -> Opened:
        return read_file(file, f"{name}/{place(file.relative_to(path))}", replace(options, split=None))

    first = opened(files[0])

    def rest() -> Iterator[Row | Rejected]:
        for file in files[1:]:
            try:
                yield from opened(file).rows
            except KoalpacaError as error:
                # the files before it are being used already
                problem = error.problems[0]
                what = f"the file cannot be read ({problem.code}): {problem.what}"
                where = f"{name}/{place(file.relative_to(path))}"
                yield Rejected(where, Problem("row-file", what, where, problem.fix), None)

    return replace(first, name=name, split=split, rows=chain(first.rows, rest()))


def _split(inside: Path) -> str:
    """The split that the name says, or the nearest folder that says one."""
    for part in reversed(inside.parts):
        parts = re.split(r"[^0-9a-z]+|(?<=[a-z])(?=[0-9])", part.lower())
        words = {_SPLITS[word] for word in parts if word in _SPLITS}
        if len(words) == 1:
            return words.pop()
    return ""
