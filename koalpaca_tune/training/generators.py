"""The random generators of every library, of every process."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

Tensors = dict[str, torch.Tensor]
State = tuple[Tensors, dict[str, Any]]
"""One process's generators: tensors by name, and the rest as JSON."""


def take() -> State:
    """This process's."""
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, state, gauss = random.getstate()
    return tensors, {
        "python": [version, list(state), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, cached],
    }


def put(state: State) -> None:
    """Sets this process's.

    Raises:
        LookupError, TypeError, ValueError, RuntimeError: not what `take` gave.
    """
    tensors, scalars = state
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    version, python, gauss = scalars["python"]
    random.setstate((version, tuple(python), gauss))
    kind, keys, position, has_gauss, cached = scalars["numpy"]
    np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))


def pack(states: Sequence[State]) -> tuple[Tensors, list[dict[str, Any]]]:
    """Those of all processes, by rank, as one set of tensors and a JSON list."""
    tensors = {f"rng.{rank}.{name}": one for rank, (mine, _) in enumerate(states) for name, one in mine.items()}
    return tensors, [scalars for _, scalars in states]


def unpack(tensors: Tensors, scalars: Sequence[dict[str, Any]]) -> list[State]:
    """The reverse of `pack`."""
    return [
        ({name: tensors[key] for name in ("torch", "cuda") if (key := f"rng.{rank}.{name}") in tensors}, one)
        for rank, one in enumerate(scalars)
    ]
