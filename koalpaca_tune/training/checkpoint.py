"""Checkpoints: everything that the next step depends on, in safetensors and JSON, renamed into place whole.

A checkpoint holds the adapter, the optimizer's state, the random generators and the step. The data order
is a function of the step (training.steps), the learning rate too.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import adapter

PREFIX = "step-"
TENSOR, PAIRS = "tensor", "pairs"


def save(folder: Path, step: int, model: Any, optimizer: Any, extra: dict[str, Any], keep: int) -> Path:
    """Writes `folder/step-N` aside, syncs it, renames it, and only then removes older ones beyond `keep`."""
    final = folder / f"{PREFIX}{step:07d}"
    aside = folder / f".{final.name}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    adapter.save(model, aside)
    tensors, scalars = _flatten(optimizer.state_dict())
    save_file({**tensors, **_rng_tensors()}, aside / "state.safetensors")
    state = {"step": step, "optimizer": scalars, "rng": _rng_scalars(), **extra}
    jsonl.write_json(aside / "state.json", state)
    for file in aside.iterdir():
        _sync(file)
    _sync(aside)
    if final.exists():
        shutil.rmtree(final)
    aside.rename(final)
    _sync(folder)
    for old in complete(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def complete(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first (one is whole once it has its name)."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())


def restore(path: Path, model: Any, optimizer: Any) -> dict[str, Any]:
    """Puts a checkpoint's adapter, optimizer and random state in place; returns state.json.

    Raises:
        KoalpacaError: damaged or not of this model (checkpoint-damaged).
    """
    try:
        state = jsonl.read_json(path / "state.json")
        weights = load_file(path / adapter.WEIGHTS)
        tensors = load_file(path / "state.safetensors")
        result = peft.set_peft_model_state_dict(model, weights)
        if result.unexpected_keys:
            raise KeyError(result.unexpected_keys[0])
        optimizer.load_state_dict(_unflatten(tensors, state["optimizer"]))
        _set_rng(tensors, state["rng"])
    except (KoalpacaError, OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise KoalpacaError(
            "checkpoint-damaged",
            f"the checkpoint cannot be read ({type(error).__name__}: {error}).",
            where=str(path),
            fix="Remove this folder and resume: the checkpoint before it is used.",
        ) from error
    return state


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


def _rng_tensors() -> dict[str, torch.Tensor]:
    tensors = {"rng.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    return tensors


def _rng_scalars() -> dict[str, Any]:
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, state, gauss = random.getstate()
    return {
        "python": [version, list(state), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, cached],
    }


def _set_rng(tensors: dict[str, torch.Tensor], scalars: dict[str, Any]) -> None:
    torch.set_rng_state(tensors["rng.torch"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    version, state, gauss = scalars["python"]
    random.setstate((version, tuple(state), gauss))
    kind, keys, position, has_gauss, cached = scalars["numpy"]
    np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
