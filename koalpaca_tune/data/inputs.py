"""The inputs of a preparation, opened: how each was read, and how its rows become conversations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from koalpaca_tune.config.preparation import Input, Preparation
from koalpaca_tune.data import instructions, sources
from koalpaca_tune.data.reading import compression, readers
from koalpaca_tune.data.reading.opened import Opened
from koalpaca_tune.data.rows import Rejected, Row, place, readable
from koalpaca_tune.data.shaping import shapes
from koalpaca_tune.data.sources import Use
from koalpaca_tune.data.work import BATCH, BATCH_CHARACTERS, Batch, Shaper
from koalpaca_tune.errors import KoalpacaError, Problem
from koalpaca_tune.records import Conversation


@dataclass(frozen=True, slots=True)
class Plan:
    """How the rows of one input become conversations: small, so that it travels to other processes.

    Attributes:
        source: source name of its records.
        shape: a key of `shapes.SHAPES`, or the task of a described set.
        columns: meaning -> column, or None.
        described: name of the described set whose task it is, or None.
        prepared: the rows are records of an earlier preparation, with origins and sources of their own.
        names: the file's columns.
        where: the file, for errors.
    """

    source: str
    shape: str
    columns: Mapping[str, str] | None
    described: str | None
    prepared: bool
    names: tuple[str, ...]
    where: str

    def shaper(self) -> Shaper:
        """What makes conversations of its rows."""
        if self.described is not None:
            return sources.shaper(self.described, self.shape)
        if self.prepared:
            return record
        if self.columns is not None:
            return shapes.mapped(self.columns, self.names, self.where)
        return shapes.SHAPES[self.shape]


def record(row: Row) -> Conversation:
    """A row of an earlier preparation; what it says of its origin is made fit to be written again.

    Raises:
        KoalpacaError: it is no record (row-shape, row-turns).
    """
    made = Conversation.from_dict(row.values, row.origin)
    return replace(made, origin=readable(made.origin), source=readable(made.source))


PREPARED = frozenset({"id", "origin", "source", "messages"})
"""Columns that make a file one of an earlier preparation; a later version may add others."""


@dataclass(frozen=True, slots=True)
class Source:
    """One opened input; its rows can be read once.

    Attributes:
        given: what the preparation says of it; of a described set, one of its parts.
        described: name of the described set that it is a part of, or None.
        opened: the file.
        plan: how its rows become conversations.
        used: the columns that are used.
        unused: the others, and keys of messages that mean nothing here.
    """

    given: Input
    described: str | None
    opened: Opened
    plan: Plan
    used: tuple[str, ...]
    unused: tuple[str, ...]


def open_all(preparation: Preparation) -> list[Source]:
    """Opens every input, so that what is wrong with any of them is said before the work begins.

    Raises:
        KoalpacaError: what is wrong, with all of them.
    """
    problems: list[Problem] = []
    root = Path(preparation.data_root) if preparation.data_root is not None else None
    uses: list[Use] = []
    for given in preparation.inputs:
        try:
            described = given.path.startswith(sources.PREFIX)
            uses += sources.inputs(given, root) if described else [Use(given, "", None)]
        except KoalpacaError as error:
            problems += error.problems
    opened: list[Source] = []
    for use, name in zip(uses, _names([use.given for use in uses]), strict=True):
        try:
            opened.append(_open(use, name))
        except KoalpacaError as error:
            # a wrong option is wrong once, not once for each file
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise KoalpacaError.of(problems)
    return opened


def _open(use: Use, name: str) -> Source:
    given = use.given
    opened = readers.open_input(given, name=name)
    where = given.path if ":" in given.path else place(Path(given.path))
    if use.task is not None:
        task = sources.task(use.source, use.task)
        plan = Plan(source_name(given), use.task, None, use.source, False, opened.columns, where)
        rows = instructions.rows(opened.rows, task)
        peeked = list(islice(rows, 1))
        # of nested rows, the columns are those of the rows within
        names = tuple(peeked[0].values) if peeked and isinstance(peeked[0], Row) else opened.columns
        try:
            used = tuple(instructions.columns(task, names).values())
        except ValueError as error:
            raise KoalpacaError("source-columns", f"{error}.", where=where, fix="Get the file again.") from error
        unused = tuple(name for name in names if name not in used)
        return Source(given, use.source, replace(opened, rows=chain(peeked, rows)), plan, used, unused)
    first = list(islice(opened.rows, shapes.SAMPLE))
    sample = [row for row in first if isinstance(row, Row)]
    opened = replace(opened, rows=chain(first, opened.rows))
    if given.columns is not None:
        if given.shape is not None:
            raise KoalpacaError(
                "input-option", "both shape and columns are given.", where=where, fix="Leave one of them out."
            )
        mapped = shapes.mapped(given.columns, opened.columns, where)
        shape, columns = mapped.name, mapped.columns
    else:
        shape, columns = shapes.guess(opened.columns, where, given.shape, sample)
    # a name, shape or licence that is given says that these are to be new records of that source
    said = (given.name, given.shape, given.columns, given.licence) != (None, None, None, None)
    prepared = not said and set(opened.columns) >= PREPARED
    plan = Plan(source_name(given), shape, given.columns, None, prepared, opened.columns, where)
    unused = () if prepared else shapes.unused(opened.columns, columns, sample)
    return Source(given, use.source or None, opened, plan, columns.used, unused)


def source_name(given: Input) -> str:
    """The source name of an input's records: as said, else the file's name without its endings."""
    if given.name:
        return given.name
    last = given.path.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    stem = last
    while Path(stem).suffix.lower() in ENDINGS:
        stem = Path(stem).stem
    return place(Path(stem or last))


ENDINGS = {*readers.SUFFIXES, *compression.SUFFIXES}


def _names(inputs: Sequence[Input]) -> list[str]:
    """What origins call each file: its name, with as many folders before it as make it the only one."""
    parts = [
        tuple(filter(None, (given.path, given.config, given.split)))
        if given.path.startswith("hf:")
        else Path(place(Path(given.path).resolve())).parts
        for given in inputs
    ]

    def name(n: int, length: int) -> str:
        return "/".join(parts[n][-length:])

    lengths = [1] * len(parts)
    for n in range(len(parts)):
        others = [m for m in range(len(parts)) if m != n]
        while lengths[n] < len(parts[n]) and any(name(n, lengths[n]) == name(m, lengths[n]) for m in others):
            lengths[n] += 1
    return [name(n, lengths[n]) for n in range(len(parts))]


def batches(opened: Sequence[Source]) -> Iterator[Batch]:
    """All rows of all inputs, in order, in batches of one input each: fewer rows of long texts.

    Raises:
        KoalpacaError: a file cannot be read on (file-missing).
    """
    start = 0
    for n, source in enumerate(opened):
        rows = _readable(source)
        while taken := tuple(_batch(rows)):
            yield Batch(start, n, taken)
            start += len(taken)


def _readable(source: Source) -> Iterator[Row | Rejected]:
    try:
        yield from source.opened.rows
    except OSError as error:
        # said here: where the result is written, it would be taken for a full disk
        raise KoalpacaError(
            "file-missing",
            f"it cannot be read to its end ({error.strerror or error}).",
            where=source.plan.where,
            fix="Check the disk or the connection, and start again.",
        ) from error


def _batch(rows: Iterator[Row | Rejected]) -> Iterator[Row | Rejected]:
    characters = 0
    for row in islice(rows, BATCH):
        yield row
        characters += _characters(row.values if isinstance(row, Row) else row.row)
        if characters >= BATCH_CHARACTERS:
            return


def _characters(value: Any) -> int:
    """Characters in a value of a row, in all that it holds; without recursion, since rows may be nested deeply."""
    count, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            count += len(one)
        elif isinstance(one, Mapping):
            left += one.values()
        elif isinstance(one, list | tuple):
            left += one
    return count
