"""Parquet and Arrow files (Feather too), read some rows at a time; values as plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from koalpaca_tune.data.reading import encodings
from koalpaca_tune.data.reading.lost import Lost
from koalpaca_tune.data.rows import Row, place
from koalpaca_tune.errors import KoalpacaError

_BATCH = 1024
_AGAIN = "Fetch or copy the file again."


def parquet(path: Path, name: str) -> tuple[tuple[str, ...], Iterator[Row]]:
    """The columns, and the rows, read lazily; origins are `name[n]`, from 0.

    Raises:
        KoalpacaError: no such file (file-missing), or not Parquet (file-empty, file-damaged).
    """
    import pyarrow
    from pyarrow import parquet

    _head(path)
    try:
        file = parquet.ParquetFile(path)
        columns = tuple(file.schema_arrow.names)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _not(path, "Parquet", error) from error

    def batches() -> Iterator[Any]:
        with file:
            # a group at a time: a damaged one costs nothing of those before it
            for group in range(file.num_row_groups):
                yield from file.iter_batches(_BATCH, row_groups=[group])

    return columns, _rows(batches(), name)


def arrow(path: Path, name: str, start: int = 0) -> tuple[tuple[str, ...], Iterator[Row]]:
    """As `parquet`, of an Arrow stream (as `datasets` writes it) or an Arrow file (Feather).

    Args:
        path: the file.
        name: what origins call it.
        start: number of the first row.

    Raises:
        KoalpacaError: no such file (file-missing), or not Arrow (file-empty, file-damaged).
    """
    import pyarrow
    from pyarrow import ipc

    is_file = _head(path) == b"ARROW1"
    try:
        source = pyarrow.memory_map(str(path))
        reader = ipc.open_file(source) if is_file else ipc.open_stream(source)
        columns = tuple(reader.schema.names)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _not(path, "Arrow", error) from error

    def batches() -> Iterator[Any]:
        with source:
            whole = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
            for batch in whole:
                for at in range(0, batch.num_rows, _BATCH):
                    yield batch.slice(at, _BATCH)

    return columns, _rows(batches(), name, start)


def _rows(batches: Iterator[Any], name: str, start: int = 0) -> Iterator[Row]:
    import pyarrow

    number = start
    try:
        for batch in batches:
            # Arrow believes the lengths and offsets in a file: one that lies makes it read where nothing is
            batch.validate(full=True)
            for values in batch.to_pylist():
                yield Row(f"{name}[{number}]", values)
                number += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise Lost(_line(error), at=f"[{number}]", fix=_AGAIN) from error


def _head(path: Path) -> bytes:
    with encodings.regular(path) as file:
        head = file.read(6)
    if not head:
        raise KoalpacaError("file-empty", "there is nothing in it.", where=place(path))
    return head


def _not(path: Path, what: str, error: Exception) -> KoalpacaError:
    return KoalpacaError(
        "file-damaged", f"it cannot be read as {what} ({_line(error)}).", where=place(path), fix=_AGAIN
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
