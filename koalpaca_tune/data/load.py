"""Conversations for training: from a prepared train.jsonl, or from any file that the readers read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from koalpaca_tune.data.cleaning.clean import clean
from koalpaca_tune.data.inputs import PREPARED, record
from koalpaca_tune.data.reading import readers
from koalpaca_tune.data.rows import Rejected, Row, place
from koalpaca_tune.data.shaping import shapes
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation


def conversations(path: Path, rejected: Callable[[Rejected], None] | None = None) -> Iterator[Conversation]:
    """Reads a set, in the file's order.

    Args:
        path: what `prepare` wrote, or another file; that one is cleaned on the way, not split and not
            freed of duplicates.
        rejected: takes the broken rows of a file that was not prepared. Without it, and in a prepared
            file always, a broken row is an error: nothing is dropped in silence.

    Raises:
        KoalpacaError: the file or a row cannot be used (the row's own code, at file:line), or nothing is
            left (data-nothing-left).
    """
    opened = readers.read(path, name=place(path))
    prepared = set(opened.columns) >= PREPARED
    first = list(islice(opened.rows, shapes.SAMPLE))
    sample = [row for row in first if isinstance(row, Row)]
    shape, _ = shapes.guess(opened.columns, place(path), rows=sample)
    source = place(Path(path.stem))
    count = 0
    for item in chain(first, opened.rows):
        for made in [_prepared(item)] if prepared else _other(item, shape, source):
            if isinstance(made, Conversation):
                count += 1
                yield made
            elif rejected is None or prepared:
                raise _broken(made, prepared)
            else:
                rejected(made)
    if not count:
        raise KoalpacaError(
            "data-nothing-left",
            "no row can be used.",
            where=place(path),
            fix="`koalpaca data prepare` writes down why for each.",
        )


def _prepared(item: Row | Rejected) -> Conversation | Rejected:
    if isinstance(item, Rejected):
        return item
    try:
        # what its preparation cleaned is clean: here it is checked and left as it is
        return clean(record(item), ()).conversation
    except KoalpacaError as error:
        return Rejected(item.origin, error.problems[0], item.values)


def _other(item: Row | Rejected, shape: str, source: str) -> Iterator[Conversation | Rejected]:
    if isinstance(item, Rejected):
        yield item
        return
    try:
        made = shapes.SHAPES[shape](item)
    except KoalpacaError as error:
        yield Rejected(item.origin, error.problems[0], item.values)
        return
    for one in made if isinstance(made, tuple) else (made,):
        if isinstance(one, Rejected):
            yield one
            continue
        try:
            yield replace(clean(one).conversation, source=source)
        except KoalpacaError as error:
            yield Rejected(one.origin, error.problems[0], item.values)


def _broken(row: Rejected, prepared: bool) -> KoalpacaError:
    again = "Prepare the data again." if prepared else "`koalpaca data prepare` sets broken rows aside."
    fix = f"{row.problem.fix} {again}".strip()
    return KoalpacaError(row.problem.code, row.problem.what, where=row.origin, fix=fix)
