"""Weights written file by file, so that a merge that was stopped goes on where it stood.

Each file is written aside, synced and given its name; then its SHA-256 goes into progress.json. A merge of the same
things finds the folder, checks those files and writes the others.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference.merging.weights import INDEX, SINGLE, Weights

SHARD = 1 << 30
"""Bytes of a file at most, unless one tensor alone is larger: also what is held in memory while it is written."""

PROGRESS = "progress.json"
LOCK = ".lock"


@dataclass(frozen=True)
class Shard:
    """One file to be: its name, its tensors in order, and their bytes."""

    file: str
    names: tuple[str, ...]
    size: int


def layout(weights: Weights, dtype: torch.dtype, limit: int = SHARD) -> list[Shard]:
    """Tensors to files, in the base's order."""
    groups: list[list[str]] = [[]]
    sizes = [0]
    for name, entry in weights.entries.items():
        size = entry.elements * dtype.itemsize
        if groups[-1] and sizes[-1] + size > limit:
            groups.append([])
            sizes.append(0)
        groups[-1].append(name)
        sizes[-1] += size
    count = len(groups)
    files = [SINGLE] if count == 1 else [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    return [Shard(file, tuple(names), size) for file, names, size in zip(files, groups, sizes, strict=True)]


@contextmanager
def workplace(out: Path, key: Mapping[str, Any]) -> Iterator[Path]:
    """The folder aside in which `out` is made, kept when the merge is stopped and `key` is the same next time.

    A user's error (KoalpacaError) removes it: it would come back. Whatever else stops the work leaves it.

    Raises:
        KoalpacaError: another process is at work there (merge-busy).
    """
    aside = out.with_name(f".{out.name}.merging")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside.mkdir(exist_ok=True)
    with (aside / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise KoalpacaError(
                "merge-busy",
                "another merge writes there.",
                where=str(out),
                fix="Wait for it, or give another --out.",
            ) from error
        if _progress(aside).get("key") != dict(key):
            for one in aside.iterdir():
                if one.name != LOCK:
                    shutil.rmtree(one) if one.is_dir() else one.unlink()
            jsonl.write_json(aside / PROGRESS, {"key": dict(key), "done": {}})
        try:
            yield aside
        except KoalpacaError:
            shutil.rmtree(aside)
            raise


def left(aside: Path, shards: Sequence[Shard]) -> list[Shard]:
    """The files that are not written yet; what is there and is not as it was written is removed."""
    done = _progress(aside).get("done", {})
    missing = []
    for shard in shards:
        path = aside / shard.file
        if path.is_file() and done.get(shard.file) == _digest(path):
            continue
        path.unlink(missing_ok=True)
        missing.append(shard)
    return missing


def write(
    aside: Path,
    shards: Sequence[Shard],
    tensor: Callable[[str], Tensor],
    wrote: Callable[[int], None] = lambda count: None,
) -> None:
    """Writes those files that are left, one tensor after the other.

    Args:
        aside: from `workplace`.
        shards: all of them.
        tensor: makes a tensor, by name, in the type in which it is stored.
        wrote: told how many files are there, after each.
    """
    missing = left(aside, shards)
    wrote(len(shards) - len(missing))
    for n, shard in enumerate(missing, len(shards) - len(missing) + 1):
        path = aside / shard.file
        part = path.with_name(f".{shard.file}.tmp")
        save_file({name: tensor(name).contiguous() for name in shard.names}, part, metadata={"format": "pt"})
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        # safetensors makes a file that its owner alone can read; a server often is another user
        part.chmod((aside / PROGRESS).stat().st_mode & 0o777)
        digest = _digest(part)
        part.replace(path)
        progress = _progress(aside)
        progress["done"][shard.file] = digest
        jsonl.write_json(aside / PROGRESS, progress)
        wrote(n)


def write_index(aside: Path, shards: Sequence[Shard]) -> None:
    """Says which file holds which tensor, where there is more than one file."""
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(shard.size for shard in shards)},
            "weight_map": {name: shard.file for shard in shards for name in shard.names},
        }
        jsonl.replace(aside / INDEX, [json.dumps(index, indent=2), "\n"])


def place(aside: Path, out: Path) -> None:
    """Gives the finished folder its name."""
    for name in (PROGRESS, LOCK):
        (aside / name).unlink(missing_ok=True)
    aside.replace(out)


def _progress(aside: Path) -> dict[str, Any]:
    path = aside / PROGRESS
    return jsonl.read_json(path) if path.is_file() else {}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
