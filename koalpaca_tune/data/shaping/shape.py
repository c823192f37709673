"""What a shape is: how it finds its columns, and how a row with these becomes conversations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from koalpaca_tune.data.rows import Rejected, Row
from koalpaca_tune.data.shaping.columns import Columns, Index, Names, index
from koalpaca_tune.data.shaping.values import short
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation

Made = Conversation | tuple[Conversation | Rejected, ...]
"""A row's conversation; or, of a row that holds many, each one or why it is not used."""

Finder = Callable[[Index], Columns | None]

SAMPLE = 64
"""Rows that a guess looks at."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A way to read rows. Called with a row, it makes its conversations.

    Attributes:
        name: its key in `SHAPES`.
        wanted: the columns it looks for, for messages and the report.
        make: (row, columns) -> conversations; raises KoalpacaError with a row-* code.
        finder: the columns among some names, or None when they do not make this shape.
        loose: the same for one row, and for a file whose shape was named: JSON leaves empty columns out.
        proof: what a guess needs besides the names: nothing, one row that can be read, or most of them.
    """

    name: str
    wanted: str
    make: Callable[[Row, Columns], Made]
    finder: Finder
    loose: Finder | None = None
    proof: Literal["names", "one row", "most rows"] = "names"

    def find(self, names: Sequence[str], *, named: bool = False) -> Columns | None:
        """The columns that the shape uses among these names of a file; None: they do not make this shape.

        Raises:
            KoalpacaError: there is more than one way to choose them (shape-ambiguous).
        """
        return _loose(self, tuple(names)) if named else self.finder(index(names))

    def fits(self, rows: Sequence[Row]) -> bool:
        """Whether enough of the first rows can be read, for the proof that a guess needs."""
        if self.proof == "names" or not rows:
            return True
        read = sum(map(self._reads, rows[:SAMPLE]))
        return read > 0 if self.proof == "one row" else 2 * read >= len(rows[:SAMPLE])

    def _reads(self, row: Row) -> bool:
        try:
            made = self(row)
        except KoalpacaError:
            return False
        several = made if isinstance(made, tuple) else (made,)
        return any(isinstance(one, Conversation) and one.turns[-1].role == "assistant" for one in several)

    def __call__(self, row: Row) -> Made:
        """The row's conversations.

        Raises:
            KoalpacaError: the row is not of this shape (a row-* code).
        """
        names = tuple(row.values)
        try:
            columns = _loose(self, names)
        except KoalpacaError as error:
            problem = error.problems[0]
            raise KoalpacaError("row-shape", problem.what, where=row.origin, fix=problem.fix) from error
        if columns is None:
            there = ", ".join(repr(short(name)) for name in names[:12]) or "no columns"
            raise KoalpacaError("row-shape", f"the row has {there}; it needs {self.wanted}.", where=row.origin)
        return self.make(row, columns)


@lru_cache(maxsize=1024)
def _loose(shape: Shape, names: Names) -> Columns | None:
    return (shape.loose or shape.finder)(index(names))
