"""A set on the Hugging Face Hub, streamed through `datasets`: `hf:user/name`.

The commit is looked up first, and that commit is what is read, so that the one that is recorded is the
right one. No code of a set is ever run: `datasets` has no scripts any more, and none is allowed here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from koalpaca_tune.data.reading import folders
from koalpaca_tune.data.reading.lost import Lost, until_lost
from koalpaca_tune.data.reading.opened import Opened, Options
from koalpaca_tune.data.rows import Row
from koalpaca_tune.errors import KoalpacaError

PREFIX = "hf:"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+|[A-Za-z0-9][\w.-]*")


def read(repository: str, name: str, options: Options) -> Opened:
    """Opens a set on the Hub.

    Args:
        repository: user/name.
        name: what origins call it.
        options: its configuration, split (default train) and revision (default: the newest commit).

    Raises:
        KoalpacaError: no such set, or the Hub cannot be reached (hub-set), no such configuration
            (input-config) or split (input-split), or it cannot be read (hub-set).
    """
    if not _NAME.fullmatch(repository):
        raise KoalpacaError(
            "hub-set", f"'{repository}' is no name of a set.", where=PREFIX + repository, fix="Write hf:user/name."
        )
    where = PREFIX + repository
    revision = _commit(repository, options.revision, where)
    return stream(repository, name, options, revision, where)


def stream(path: str, name: str, options: Options, revision: str | None, where: str) -> Opened:
    """Streams a set that `datasets` can load.

    Args:
        path: what `datasets.load_dataset` takes: a name on the Hub, or a folder of the same layout.
        name: what origins call it.
        options: its configuration and split.
        revision: its commit; None for a folder.
        where: the set, for errors.

    Raises:
        KoalpacaError: as `read`.
    """
    import datasets

    try:
        configs = datasets.get_dataset_config_names(path, revision=revision)
        config = _config(options.config, configs, where)
        splits = datasets.load_dataset(path, config, revision=revision, streaming=True)
        split = folders.choose(options.split, list(splits), where)
        rows = splits[split]
        # a set in CSV or JSON has no columns before its first row is read, and nothing in it to decode
        if rows.features is not None:
            rows = rows.decode(False)
        columns = tuple(rows.column_names or next(iter(rows.take(1)), ()))
    except _errors() as error:
        raise _unreadable(error, where) from error
    return Opened(
        name,
        "hub",
        None,
        None,
        columns,
        until_lost(_rows(rows, name), name, where),
        split=split,
        revision=revision,
    )


def _rows(rows: Any, name: str) -> Iterator[Row]:
    number = 0
    try:
        for values in rows:
            yield Row(f"{name}[{number}]", values)
            number += 1
    except _errors() as error:
        raise Lost(_line(error), at=f"[{number}]", fix="Start again; is the network up?") from error


def _commit(repository: str, revision: str | None, where: str) -> str | None:
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        sha: str | None = huggingface_hub.HfApi().dataset_info(repository, revision=revision).sha
    except GatedRepoError as error:
        raise KoalpacaError(
            "hub-set",
            "its owner gives it out on request only.",
            where=where,
            fix="Ask on its page, then log in with `hf auth login`.",
        ) from error
    except RevisionNotFoundError as error:
        raise KoalpacaError("hub-set", f"it has no revision '{revision}'.", where=where) from error
    except RepositoryNotFoundError as error:
        raise KoalpacaError(
            "hub-set",
            "there is no such set on the Hub, or it is private.",
            where=where,
            fix="Check the name; for a private one log in with `hf auth login`.",
        ) from error
    except _errors() as error:
        raise _unreadable(error, where) from error
    return sha


def _config(asked: str | None, known: list[str], where: str) -> str | None:
    if asked is not None and asked not in known:
        raise KoalpacaError(
            "input-config", f"there is no configuration '{asked}'. Known: {', '.join(known)}.", where=where
        )
    if asked is None and len(known) > 1 and "default" not in known:
        raise KoalpacaError(
            "input-config",
            f"it has several configurations: {', '.join(known)}.",
            where=where,
            fix="Name one with config.",
        )
    return asked


def _errors() -> tuple[type[Exception], ...]:
    """What `datasets` and `huggingface_hub` raise when a set cannot be read."""
    import pyarrow
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError

    # RuntimeError: the set is a script; ValueError: no data files, or columns that differ between them
    return OSError, ValueError, RuntimeError, DatasetsError, pyarrow.ArrowException, HTTPError


def _unreadable(error: Exception, where: str) -> KoalpacaError:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    fix = (
        "HF_HUB_OFFLINE is set."
        if offline
        else "Is the network up? A set can also be downloaded and read as a folder."
    )
    return KoalpacaError("hub-set", f"it cannot be read ({_line(error)}).", where=where, fix=fix)


def _line(error: Exception) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first.rstrip(".")
