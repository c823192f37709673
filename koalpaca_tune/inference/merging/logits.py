"""Logits of a model that is never in memory as a whole: block after block is read, used for all texts, let go.

Everything is computed in float32, whatever type the weights are stored in. So two versions of a model differ
by their weights alone, not by the rounding of products on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference.merging.updates import Update
from koalpaca_tune.inference.merging.weights import Weights
from koalpaca_tune.models.architectures import Architecture

HEAD_ROWS = 8192
"""Rows of the output head in memory at once: a head of 128,256 words would be 2 GiB in float32."""


def _as_stored(name: str, weight: Tensor) -> Tensor:
    return weight


@dataclass(frozen=True)
class Version:
    """A model: where its weights are, what is done to each, and an adapter beside it (unmerged).

    Attributes:
        weights: the files.
        change: (name, stored weight or some of its rows) -> what is computed with.
        updates: an unmerged adapter, by name of the weight.
    """

    weights: Weights
    change: Callable[[str, Tensor], Tensor] = _as_stored
    updates: Mapping[str, Update] = field(default_factory=dict)


@torch.inference_mode()
def logits(
    config: Any,
    architecture: Architecture,
    versions: Sequence[Version],
    texts: Sequence[Sequence[int]],
    device: torch.device,
) -> list[list[Tensor]]:
    """For each version the logits after every token of each text: float32 [tokens, vocabulary], on the CPU.

    Args:
        config: transformers' config of the model, the same for all versions.
        architecture: where its parts are.
        versions: read side by side, so that a block is in memory once and in one version at a time.
        texts: token ids.
        device: where blocks are computed.

    Raises:
        KoalpacaError: the files lack a weight of the model (base-incomplete).
    """
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    model.eval()
    body = getattr(model, architecture.body)
    reader = _Reader(architecture.body, device)
    rotary = type(body.rotary_emb)(model.config).to(device)
    names = {id(module): name for name, module in body.named_modules()}
    embedding = names[id(body.get_input_embeddings())]
    norm = next(name for name, module in body.named_children() if name.endswith("norm"))
    states = [[reader.embedded(version, embedding, ids) for ids in texts] for version in versions]
    for number, block in enumerate(body.layers):
        for version, rows in zip(versions, states, strict=True):
            parameters = reader.parameters(version, f"layers.{number}", block)
            with _beside(block, version, reader, f"layers.{number}"):
                for n, row in enumerate(rows):
                    positions = torch.arange(row.shape[1], device=device)[None]
                    rows[n] = functional_call(
                        block,
                        parameters,
                        (row,),
                        {
                            "attention_mask": None,
                            "position_ids": positions,
                            "position_embeddings": rotary(row, positions),
                        },
                    )
            del parameters
    for version, rows in zip(versions, states, strict=True):
        parameters = reader.parameters(version, norm, getattr(body, norm))
        rows[:] = [functional_call(getattr(body, norm), parameters, (row,)) for row in rows]
    return [reader.head(version, embedding, rows) for version, rows in zip(versions, states, strict=True)]


class _Reader:
    """Finds a module's weights in a version's files and brings them to the device, in float32."""

    def __init__(self, body: str, device: torch.device) -> None:
        self._body = body
        self._device = device

    def name(self, weights: Weights, path: str) -> str:
        found = weights.find(f"{self._body}.{path}", path)
        if found is None:
            raise KoalpacaError(
                "base-incomplete",
                f"'{path}' is not in its files.",
                where=str(weights.folder),
                fix="Download the model again.",
            )
        return found

    def parameters(self, version: Version, path: str, module: Any) -> dict[str, Tensor]:
        read = {}
        for own, _ in module.named_parameters():
            name = self.name(version.weights, f"{path}.{own}")
            read[own] = version.change(name, version.weights.tensor(name).to(self._device)).float()
        return read

    def embedded(self, version: Version, path: str, ids: Sequence[int]) -> Tensor:
        name = self.name(version.weights, f"{path}.weight")
        rows = version.weights.tensor(name)[torch.tensor(ids)].to(self._device)
        return version.change(name, rows).float()[None]

    def head(self, version: Version, embedding: str, states: Sequence[Tensor]) -> list[Tensor]:
        """Logits through the head, or through the embedding where the two are tied."""
        weights = version.weights
        name = weights.find("lm_head.weight", "embed_out.weight") or self.name(weights, f"{embedding}.weight")
        whole = torch.cat([one[0] for one in states])
        parts = [
            functional.linear(whole, version.change(name, rows.to(self._device)).float()).cpu()
            for rows in weights.rows(name, HEAD_ROWS)
        ]
        whole = torch.cat(parts, dim=1)
        return list(torch.split(whole, [one.shape[1] for one in states]))


@contextmanager
def _beside(block: Any, version: Version, reader: _Reader, path: str) -> Iterator[None]:
    """The unmerged adapter of a block: each adapted module's output, and what the adapter adds to it."""
    handles = []
    for name, module in block.named_modules():
        stored = version.weights.find(f"{reader._body}.{path}.{name}.weight", f"{path}.{name}.weight")
        update = version.updates.get(stored) if stored is not None else None
        if update is not None:
            handles.append(module.register_forward_hook(_adding(update)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adding(update: Update) -> Callable[[Any, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + update.beside(inputs[0])

    return hook
