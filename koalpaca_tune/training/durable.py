"""Folders that are whole or not there, whatever moment the power goes."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from koalpaca_tune.errors import KoalpacaError


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def aside(path: Path) -> Path:
    """The name under which a file or folder is written before it gets its own, or lies before it is removed."""
    return path.with_name(f".{path.name}.tmp")


def remove(folder: Path) -> None:
    """Takes a folder's name away before its files, so that no half of it is ever found under that name."""
    gone = aside(folder)
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone)


def place(made: Path, final: Path) -> None:
    """Gives a folder that was written aside its name. Files of an older one are replaced one by one."""
    for file in made.iterdir():
        sync(file)
    sync(made)
    if final.is_dir():
        for file in sorted(made.iterdir()):
            file.replace(final / file.name)
        made.rmdir()
        sync(final)
    else:
        made.rename(final)
    sync(final.parent)


def sweep(folder: Path) -> None:
    """Removes what a killed process was writing."""
    for left in folder.glob(".*.tmp"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path, advice: str = "") -> Iterator[None]:
    """Tells a full disk, or a folder that may not be written to, in one line.

    Raises:
        KoalpacaError: the disk refused (run-write).
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise KoalpacaError(
            "run-write",
            f"it cannot be written ({reason.strip().rstrip('.')}).",
            where=str(path),
            fix=f"Make room or mend the permissions, then go on with --resume. {advice}",
        ) from error
