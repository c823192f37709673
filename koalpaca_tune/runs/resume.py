"""Whether a run folder may be written to: new, or one of the same recipe, data, base and number of processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from koalpaca_tune.config import load as recipes
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError, Problem, did_you_mean
from koalpaca_tune.runs import record

STORED = "run.yaml"
CONTENTS = ("data.train", "data.valid", "base", "tokenizer", "template", "world_size", "order")
"""What a run stands on besides its recipe, as --allow names it."""
FIXED = ("lora.r", "lora.targets", "training.optimizer")
"""Keys that give a checkpoint its shape."""
Difference = tuple[str, Any, Any]


def check_folder(recipe: Recipe, resume: bool, allow: Sequence[str] = ()) -> Path:
    """The run folder, safe to write to: new, or with --resume one of the same recipe.

    Args:
        recipe: as it is now.
        resume: go on with what is there.
        allow: keys (or sections, or `CONTENTS`) that may differ.

    Raises:
        KoalpacaError: it holds a run already (run-exists), or none (resume-nothing), or one that differs
            (resume-differs); another process is at it (run-busy); it cannot be written to (run-write); `allow` is
            not to be had (allow-unknown, allow-refused).
    """
    folder = Path(recipe.folder)
    _check_allow(recipe, resume, allow)
    _check_writable(folder)
    stored = folder / STORED
    if not resume:
        if folder.exists() and (not folder.is_dir() or not _is_unbegun(folder)):
            raise KoalpacaError(
                "run-exists",
                "the run folder is not empty.",
                where=str(folder),
                fix="Go on with --resume, or choose another: out=runs/NEW.",
            )
    elif not stored.is_file():
        raise KoalpacaError(
            "resume-nothing", "there is no run here to go on with.", where=str(folder), fix="Run without --resume."
        )
    else:
        problems = [
            _differs(
                f"{stored}: {key}",
                f"the run was started with {old!r}, the recipe now says {new!r}.",
                key,
                "Resume with the same recipe",
            )
            for key, old, new in changed(recipes.load(str(stored)), recipe)
            if not allowed(key, allow)
        ]
        if problems:
            raise KoalpacaError.of(problems)
    # the first of several processes speaks for all
    with held(folder) if os.environ.get("RANK", "0") == "0" else contextlib.nullcontext():
        return folder


def changed(before: Recipe, after: Recipe) -> list[Difference]:
    """Keys of which two recipes differ: (key, before, after)."""
    return _differences(before.model_dump(), after.model_dump())


def check_contents(
    before: Mapping[str, Any], after: Mapping[str, Any], folder: Path, allow: Sequence[str]
) -> list[Difference]:
    """What differs between two records in what a run stands on, all of it allowed.

    Raises:
        KoalpacaError: something that was not (resume-differs).
    """
    old, new = _contents(before), _contents(after)
    found = [(name, old[name], new[name]) for name in old if old[name] != new[name]]
    problems = [
        _differs(
            f"{folder}: {name}",
            f"the run was started with {was} processes, there are {now} now."
            if name == "world_size"
            else f"its content changed since the run was started ({str(was)[:12]} before, {str(now)[:12]} now).",
            name,
            "Put it back as it was",
        )
        for name, was, now in found
        if not allowed(name, allow)
    ]
    if problems:
        raise KoalpacaError.of(problems)
    return found


def allowed(key: str, allow: Sequence[str]) -> bool:
    """Whether a key, or a section that it stands in, is among those named."""
    if key == "lora":
        # an adapter, or none: no checkpoint fits both
        return False
    return key not in FIXED and any(key == name or key.startswith(f"{name}.") for name in allow)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other processes of this machine from training in a folder; the system lets go when this one dies.

    Raises:
        KoalpacaError: one is at it (run-busy).
    """
    if not folder.is_dir():
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise KoalpacaError(
                "run-busy",
                "another process is training in this folder.",
                where=str(folder),
                fix="Wait for it, end it, or choose another: out=runs/NEW.",
            ) from error
        except OSError:
            # a network file system without locks
            pass
        yield
    finally:
        os.close(handle)


def _check_allow(recipe: Recipe, resume: bool, allow: Sequence[str]) -> None:
    if allow and not resume:
        raise KoalpacaError(
            "allow-refused", "it has an effect with --resume only.", where="--allow", fix="Remove it."
        )
    keys = _keys(recipe.model_dump())
    sections = {key.rsplit(".", 1)[0] for key in keys if "." in key}
    for name in allow:
        if name not in {*keys, *sections, *CONTENTS}:
            known = sorted({*keys, *sections, *CONTENTS})
            raise KoalpacaError(
                "allow-unknown", f"there is no key '{name}'.", where="--allow", fix=did_you_mean(name, known)
            )
        if name in FIXED:
            raise KoalpacaError(
                "allow-refused",
                f"{name} gives the checkpoint its shape and cannot be changed.",
                where="--allow",
                fix="Start a new run: out=runs/NEW.",
            )


def _keys(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, value in values.items():
        found += _keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return found


def _is_unbegun(folder: Path) -> bool:
    """Whether it holds nothing but what a run that was killed at once left: run.yaml comes last."""
    return all(path.name == record.NAME or path.suffix == ".tmp" for path in folder.iterdir())


def _check_writable(folder: Path) -> None:
    """Writes a nameless file where the run would write."""
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if nearest == folder and not folder.is_dir():
            return
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"\0")
    except OSError as error:
        raise KoalpacaError(
            "run-write",
            f"it cannot be written ({error.strerror}).",
            where=str(folder),
            fix="Mend the permissions or make room, or choose another: out=runs/NEW.",
        ) from error


def _differs(where: str, what: str, key: str, mend: str) -> Problem:
    accept = "" if key in (*FIXED, "lora") else f"; or accept it: --allow {key}"
    return Problem("resume-differs", what, where, f"{mend}, or start a new run: out=runs/NEW{accept}.")


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[Difference]:
    found: list[Difference] = []
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append((prefix + key, old, new))
    return found


def _contents(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a run learns from and stands on, by hash; a record of an older version may lack some."""

    def of(*path: str) -> Any:
        value: Any = entry
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return "none" if value is None else value

    return {
        "data.train": of("data", "train", "sha256"),
        "data.valid": of("data", "valid", "sha256"),
        "base": of("base", "fingerprint"),
        "tokenizer": of("tokenizer", "sha256"),
        "template": of("template", "sha256"),
        "world_size": of("world_size"),
    }
