"""Checkpoints: everything that the next step depends on, in safetensors and JSON, renamed into place whole.

A checkpoint holds what is trained (the adapter, or all weights in float32), the optimizer's state, the random
generators, the step and the lines of metrics so far. The data order is a function of the step (training.steps),
the learning rate too. `SHA256SUMS` tells a file that was cut short or flipped (`sha256sum -c` reads it): such a
checkpoint is not gone on from.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.training import durable, generators
from koalpaca_tune.training.trained import ADAPTER_FILES, WEIGHTS, WHOLE_FILES, Trained

PREFIX, DAMAGED = "step-", "damaged-"
TENSOR, PAIRS = "tensor", "pairs"
STATE, TENSORS, TRAIL, SUMS = "state.json", "state.safetensors", "metrics.jsonl", "SHA256SUMS"
OTHERS = (TENSORS, STATE, TRAIL)
FILES = (*ADAPTER_FILES, *OTHERS)
"""Of a checkpoint with an adapter."""


def save(
    folder: Path,
    step: int,
    trained: Trained,
    optimizer: Any,
    state: Mapping[str, Any],
    *,
    rows: Iterable[Mapping[str, Any]] = (),
    random: Sequence[generators.State] = (),
) -> Path:
    """Writes `folder/step-N` aside, syncs it and renames it.

    Args:
        folder: of the checkpoints.
        step: steps done.
        trained: what the run trains.
        optimizer: torch's or bitsandbytes'.
        state: what else the loop needs, as JSON.
        rows: lines of metrics so far.
        random: the generators of each process.

    Raises:
        KoalpacaError: the disk is full or not to be written to (run-write); what was there stays whole.
    """
    final = folder / name_of(step)
    made = durable.aside(final)
    older = [path.name for path in listed(folder)]
    try:
        with durable.writing(final, f"{older[-1]} is there." if older else ""):
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(parents=True)
            trained.save(made)
            tensors, scalars = _flatten(optimizer.state_dict())
            drawn, others = generators.pack(random)
            save_file({**tensors, **drawn}, made / TENSORS)
            jsonl.write_json(made / STATE, {"step": step, "optimizer": scalars, "rng": others, **state})
            jsonl.write(made / TRAIL, rows)
            (made / SUMS).write_text(sums(made), encoding="ascii")
            if final.exists():
                set_aside(final)
            durable.place(made, final)
    except KoalpacaError:
        # room for whatever is still to be written
        shutil.rmtree(made, ignore_errors=True)
        raise
    return final


def name_of(step: int) -> str:
    """The folder's name."""
    return f"{PREFIX}{step:07d}"


def step_of(path: Path) -> int:
    """Steps done, by the folder's name."""
    return int(path.name.removeprefix(PREFIX))


def listed(folder: Path) -> list[Path]:
    """Checkpoints that have their name, oldest first; one that was damaged later is among them."""
    found = [
        path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit() and path.is_dir()
    ]
    return sorted(found, key=step_of)


def files_of(path: Path) -> tuple[str, ...]:
    """The files that a checkpoint must have, SHA256SUMS aside: those of an adapter, or of all weights."""
    listed = (path / SUMS).read_bytes() if (path / SUMS).is_file() else b""
    whole = (path / WEIGHTS).is_file() or f"  {WEIGHTS}\n".encode() in listed
    return (*WHOLE_FILES, *OTHERS) if whole else FILES


def sums(path: Path) -> str:
    """The content that SHA256SUMS must have.

    Raises:
        OSError: a file cannot be read.
    """
    lines = []
    for name in files_of(path):
        with (path / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


def fault(path: Path) -> str:
    """What is wrong with the files of a checkpoint; empty where each is as it was written."""
    try:
        written = (path / SUMS).read_bytes().decode("ascii", errors="replace").splitlines(keepends=True)
        found = sums(path).splitlines(keepends=True)
    except OSError as error:
        return f"{Path(error.filename).name}: {error.strerror}"
    wrong = [name for name, one in zip(files_of(path), found, strict=True) if one not in written]
    if wrong:
        return f"{wrong[0]} is not what was written"
    return "" if written == found else f"{SUMS} is not what was written"


def set_aside(path: Path) -> Path:
    """Renames a checkpoint so that it is not taken for a whole one; it is kept."""
    free = path.with_name(DAMAGED + path.name)
    number = 1
    while free.exists():
        number += 1
        free = path.with_name(f"{DAMAGED}{path.name}-{number}")
    return path.rename(free)


def restore(path: Path, trained: Trained, optimizer: Any, rank: int = 0) -> dict[str, Any]:
    """Puts a checkpoint's weights, optimizer and a process's random state in place; returns state.json.

    A process that the run did not have before keeps its own random state.

    Raises:
        KoalpacaError: it is not of this model (checkpoint-other).
    """
    try:
        state = jsonl.read_json(path / STATE)
        tensors = load_file(path / TENSORS)
        trained.restore(path)
        optimizer.load_state_dict(_unflatten(tensors, state["optimizer"]))
        drawn = generators.unpack(tensors, state["rng"])
        if rank < len(drawn):
            generators.put(drawn[rank])
    except (KoalpacaError, OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise KoalpacaError(
            "checkpoint-other",
            f"the checkpoint does not fit this run ({type(error).__name__}: {reason}).",
            where=str(path),
            fix="Resume with the recipe, base and package versions that it was written with.",
        ) from error
    return state


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics up to a checkpoint."""
    return [row for _, row in jsonl.read(path / TRAIL)]


def rollbacks_of(path: Path) -> int:
    """How many rollbacks the run had behind it when a checkpoint was written."""
    return int(jsonl.read_json(path / STATE)["rollbacks"])


def _flatten(state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], Any]:
    """An optimizer's state_dict as tensors by path, and the rest as JSON with the paths in their places.

    bitsandbytes nests its quantised state one level deeper than torch, so the whole tree is walked.
    """
    tensors: dict[str, torch.Tensor] = {}

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, torch.Tensor):
            tensors[path] = value.detach().cpu().clone().contiguous()
            return {TENSOR: path}
        if isinstance(value, dict):
            # JSON has no integer keys: the items are kept as pairs
            return {PAIRS: [[key, walk(inner, f"{path}.{key}")] for key, inner in value.items()]}
        if isinstance(value, list | tuple):
            return [walk(inner, f"{path}.{n}") for n, inner in enumerate(value)]
        return value

    return tensors, walk(state, "optimizer")


def _unflatten(tensors: dict[str, torch.Tensor], value: Any) -> Any:
    if isinstance(value, dict) and TENSOR in value:
        return tensors[value[TENSOR]]
    if isinstance(value, dict):
        return {key: _unflatten(tensors, inner) for key, inner in value[PAIRS]}
    if isinstance(value, list):
        return [_unflatten(tensors, inner) for inner in value]
    return value
