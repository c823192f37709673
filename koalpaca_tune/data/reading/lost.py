"""Where a file breaks off: what was read before stays, and one rejected row says that the rest is lost.

Half a gzip, a JSON list with a syntax error, a damaged Parquet row group, a connection that went away:
nothing after such a place can be trusted to begin at a row again.
"""

from __future__ import annotations

from collections.abc import Iterator

from koalpaca_tune.data.rows import Rejected, Row
from koalpaca_tune.errors import KoalpacaError, Problem

_CUT = 1000


class Lost(Exception):  # noqa: N818 - not an error yet: rows may have been read before it
    """The rest of a file cannot be read.

    Attributes:
        what: why, as a clause.
        at: where in the file, as it is appended to the file's name in an origin: ":12", "[3]" or "".
        text: what was read of the row that breaks off.
        fix: what to do.
    """

    def __init__(self, what: str, *, at: str = "", text: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.at, self.text, self.fix = what, at, text, fix


def until_lost(rows: Iterator[Row | Rejected], name: str, where: str) -> Iterator[Row | Rejected]:
    """The rows before the place where the file breaks off, then one rejected row (row-truncated) for the rest.

    Args:
        rows: rows whose iteration may raise `Lost`.
        name: what origins call the file.
        where: the file, for the error.

    Raises:
        KoalpacaError: it breaks off before its first row (file-damaged).
    """
    count = 0
    try:
        for row in rows:
            count += 1
            yield row
    except Lost as lost:
        if not count:
            raise KoalpacaError(
                "file-damaged", f"no row can be read: {lost.what}.", where=where, fix=lost.fix
            ) from lost
        origin = name + lost.at
        what = f"the file cannot be read beyond here: {lost.what}; {count:,} rows were read, the rest is lost."
        text = lost.text if len(lost.text) <= _CUT else lost.text[:_CUT] + "..."
        yield Rejected(origin, Problem("row-truncated", what, origin, lost.fix), text)
