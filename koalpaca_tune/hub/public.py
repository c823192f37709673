"""What may leave this machine: names of files, not where they lie; text that cannot turn into markup."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.html import markdown
from koalpaca_tune.models import sources

__all__ = ["base_name", "check_repo", "file_name", "is_hub_name", "markdown", "scrub"]

_ABSOLUTE = re.compile(r"^(/|~|\.\.?[/\\]|\\\\|[A-Za-z]:[/\\]|file:)")
_PLACES = frozenset({"train", "valid", "out"})
"""Keys of a recipe that hold a file or folder of this machine."""


def is_hub_name(base: str) -> bool:
    """Whether others can load a base by this name: neither a folder of this machine nor the embedded one."""
    if base == sources.EMBEDDED or sources.is_local(base):
        return False
    try:
        return sources.locate(base) == base
    except KoalpacaError:
        return False


def base_name(base: str) -> str:
    """A base as a stranger may read it: the Hub's name, 'embedded', or the folder's own name."""
    return base if base == sources.EMBEDDED or is_hub_name(base) else file_name(base)


def file_name(path: str) -> str:
    """The last part of a path of any system."""
    return PurePosixPath(PureWindowsPath(path.removeprefix("file:")).as_posix()).name or "?"


def scrub(value: Any, keys: tuple[str, ...] = ()) -> Any:
    """A record without places: every path becomes its last part, at any depth.

    Paths are known by where they stand (recipe.data.train, data.train.path, out), or by how they begin
    (/, ~, ./, C:\\, file:).

    Args:
        value: JSON.
        keys: the keys that lead to it.
    """
    if isinstance(value, Mapping):
        return {name: scrub(inner, (*keys, str(name))) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrub(inner, keys) for inner in value]
    if not isinstance(value, str):
        return value
    of_data = keys[-3:-2] == ("data",) and keys[-1] == "path"
    return file_name(value) if of_data or _PLACES & set(keys[-1:]) or _ABSOLUTE.match(value) else value


def check_repo(repo: str) -> None:
    """A repository's name, as the Hub allows it, with its owner.

    Raises:
        KoalpacaError: anything else (hub-repo).
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        reason = str(error).split(": '")[0].rstrip(".")
        raise KoalpacaError(
            "hub-repo", f"'{repo}' is no name of a repository ({reason}).", fix="Write user/name."
        ) from error
    if "/" not in repo:
        raise KoalpacaError("hub-repo", f"'{repo}' does not say whose it is.", fix="Write user/name.")
