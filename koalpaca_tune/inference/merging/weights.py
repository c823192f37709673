"""A base's weights as its files have them: looked up by name, read one at a time, never all in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from safetensors import safe_open
from torch import Tensor

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Base
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models.sources import Reading, locate

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"

FLOATING = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
COMPUTED = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
"""Endings of tensors that older files hold and every model computes by itself: masks and rotary frequencies."""


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies and what it is; `dtype` as the file names it."""

    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class Weights:
    """The tensors of a model folder, in the order of its files.

    Attributes:
        folder: holds config.json and the files.
        entries: name of a tensor -> where it lies.
    """

    folder: Path
    entries: Mapping[str, Entry]

    def tensor(self, name: str) -> Tensor:
        """One tensor, in the file's type. The file is opened and closed, so that its pages can be given back."""
        with safe_open(self.entries[name].file, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def rows(self, name: str, at: int) -> Iterator[Tensor]:
        """A matrix in stretches of `at` rows."""
        with safe_open(self.entries[name].file, framework="pt") as file:
            part = file.get_slice(name)
            for start in range(0, self.entries[name].shape[0], at):
                yield part[start : start + at]

    def array(self, name: str) -> Any:
        """One tensor as a numpy array of float32, for code that knows no torch."""
        return self.tensor(name).float().numpy()

    def under(self, prefix: str) -> list[str]:
        """Names that begin with a prefix."""
        return [name for name in self.entries if name.startswith(prefix)]

    def find(self, *candidates: str) -> str | None:
        """The first of the names that there is."""
        return next((name for name in candidates if name in self.entries), None)


def fetch(base: Base) -> Path:
    """The folder with a base's config and weights; from the Hub (or its cache) where it is no local one.

    Raises:
        KoalpacaError: it cannot be read (base-load), or there is none (base-missing).
    """
    located = locate(base.path)
    if Path(located).is_dir():
        return Path(located)
    wanted = [CONFIG, "generation_config.json", INDEX, "model*.safetensors"]
    with Reading(base.path):
        return Path(huggingface_hub.snapshot_download(located, revision=base.revision, allow_patterns=wanted))


def read(folder: Path) -> Weights:
    """Reads names, types and shapes. No weight is read.

    Raises:
        KoalpacaError: files are missing or damaged, or an index points out of the folder (base-load), or the
            weights are quantised already (merge-base).
    """
    files = _files(folder)
    entries: dict[str, Entry] = {}
    with Reading(str(folder)):
        for path, wanted in files.items():
            with safe_open(path, framework="pt") as file:
                names = file.keys()
                for name in names if wanted is None else wanted:
                    part = file.get_slice(name)
                    entries[name] = Entry(path, part.get_dtype(), tuple(part.get_shape()))
    kept = {name: entry for name, entry in entries.items() if not name.endswith(COMPUTED)}
    odd = next((name for name, entry in kept.items() if entry.dtype not in FLOATING), None)
    if odd is not None:
        raise KoalpacaError(
            "merge-base",
            f"'{odd[:120]}' is of type {kept[odd].dtype}: the base's files are quantised already.",
            where=str(folder),
            fix="Take the base in full precision (bfloat16, float16 or float32).",
        )
    return Weights(folder, kept)


def _files(folder: Path) -> dict[Path, Sequence[str] | None]:
    """Each file with the tensors that the index says are in it; None: all that it has."""
    index = folder / INDEX
    if not index.is_file():
        single = folder / SINGLE
        if not single.is_file():
            raise _broken("there is neither model.safetensors nor its index", folder)
        return {single: None}
    try:
        mapped = jsonl.read_json(index).get("weight_map")
    except KoalpacaError as error:
        raise _broken(f"{INDEX} cannot be read", folder) from error
    if not isinstance(mapped, dict) or not mapped:
        raise _broken(f"{INDEX} has no weight_map", folder)
    files: dict[Path, list[str]] = {}
    for name, file in mapped.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise _broken(f"{INDEX} names the file {str(file)[:80]!r}", folder)
        files.setdefault(folder / file, []).append(name)
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise _broken(f"{missing.name}, which {INDEX} names, is missing", folder)
    return dict(files)


def _broken(what: str, folder: Path) -> KoalpacaError:
    return KoalpacaError("base-load", f"{what}.", where=str(folder), fix="Download the model again.")
