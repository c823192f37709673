"""The weights of what is published, by their headers alone: whole, and what the folder says they are."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import adapter_files

INDEX = "model.safetensors.index.json"


def check(folder: Path, names: Sequence[str], kind: str) -> None:
    """Every weights file of the folder is whole, and none is missing.

    Args:
        folder: the folder.
        names: files of it that go.
        kind: adapter or model.

    Raises:
        KoalpacaError: a file is cut off or holds something else (hub-adapter-damaged), or a shard is missing
            (hub-incomplete).
    """
    files = [name for name in names if name.endswith(".safetensors")]
    tensors = {name: _tensors(folder / name) for name in files}
    if kind == "adapter":
        # a 443-byte adapter file holds no matrices at all (alpaca-lora#446)
        if not any(".lora_B." in name for name in tensors[adapter_files.WEIGHTS]):
            raise _damaged(folder / adapter_files.WEIGHTS, "without LoRA matrices")
        return
    needed = _shards(folder) if INDEX in names else {"model.safetensors"}
    missing = sorted(needed - set(files))
    left = sorted(set(files) - needed)
    if missing or left:
        said = f"there is no {missing[0]}" if missing else f"'{left[0]}' belongs to no index"
        raise KoalpacaError(
            "hub-incomplete",
            f"{said} in the folder.",
            where=str(folder),
            fix="Merge again into a new folder (koalpaca merge).",
        )


def _shards(folder: Path) -> set[str]:
    named = jsonl.read_json(folder / INDEX).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise _damaged(folder / INDEX, "without a weight_map")
    return set(named.values())


def _tensors(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, size)))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        ends = [int(entry["data_offsets"][1]) for entry in tensors.values()]
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _damaged(path, "cut off or broken") from error
    if size != 8 + length + max(ends, default=0):
        raise _damaged(path, "cut off or broken")
    return tensors


def _damaged(path: Path, what: str) -> KoalpacaError:
    return KoalpacaError(
        "hub-adapter-damaged",
        f"the file ({path.stat().st_size:,} bytes) is {what}.",
        where=str(path),
        fix="Take the folder of a finished run or merge.",
    )
