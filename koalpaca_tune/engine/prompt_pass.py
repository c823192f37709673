"""A forward pass over prompts that leaves their keys and values in a cache, for writing.

Prompts lie end to end. Where they begin alike, with a system text say, the keys of that beginning stand in the
cache already and are only read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import bitsandbytes.functional as bnb
import torch
from torch import Tensor

from koalpaca_tune.engine import forward_pass
from koalpaca_tune.engine.block import Pass, Weights
from koalpaca_tune.engine.build import Builder
from koalpaca_tune.engine.forward_pass import ForwardPass, Lot
from koalpaca_tune.engine.members import Lora, Member
from koalpaca_tune.kernels import trees
from koalpaca_tune.kernels.attention import Backend, Documents, Saved
from koalpaca_tune.kernels.nf4 import Packed
from koalpaca_tune.models.architectures import Architecture

NONE = torch.empty(0)


@dataclass(frozen=True)
class Prefix:
    """The beginning of prompts, computed once.

    Attributes:
        ids: its tokens.
        adapter: with which it was computed.
        keys, values: [layers, kv heads, P, D].
    """

    ids: tuple[int, ...]
    adapter: str | None
    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class Merged:
    """A weight with LoRA inside, and what it was made of."""

    weight: Tensor
    base: Packed | Tensor
    lora: Lora | None

    def renew(self) -> None:
        """Takes up base and LoRA as they are now, in the place where the weight stands."""
        base = self.base
        if isinstance(base, Packed):
            base = bnb.dequantize_4bit(base.data, base.state)
        if self.lora is None:
            self.weight.copy_(base)
        else:
            self.weight.copy_(torch.addmm(base.float(), self.lora.b, self.lora.a, alpha=self.lora.scale))


class Reader(forward_pass.Frozen):
    """Parts of a model with one of its adapters, beside the weights or inside them.

    Attributes:
        merged: the weights that are copies.
    """

    def __init__(
        self,
        model: Any,
        architecture: Architecture,
        *,
        dtype: torch.dtype,
        adapter: str | None,
        inside: bool,
        decoded: dict[int, Merged] | None = None,
        names: str = "auto",
    ) -> None:
        """Reads the model.

        Args:
            model: a causal language model, or PEFT's around it.
            architecture: of the base.
            dtype: of the products.
            adapter: which of PEFT's; None: none.
            inside: whether LoRA becomes part of the weights that it adapts, in copies.
            decoded: where copies of 4-bit weights, decoded, are kept for other readers; None: none are made.
            names: of the kernels (auto, triton, torch).
        """
        self._name = adapter
        self._inside = inside
        self._decoded = decoded
        self.merged: list[Merged] = []
        super().__init__(model, architecture, dtype=dtype, names=names, adapter=adapter is not None)

    def _member(self, module: Any) -> Member:
        linear = getattr(module, "base_layer", module)
        member = Builder._member(self, linear)
        lora: Lora | None = None
        if self._name is not None and self._name in getattr(module, "lora_A", ()):
            a, b = (part[self._name].weight.detach() for part in (module.lora_A, module.lora_B))
            lora = Lora(a, b, NONE, NONE, float(module.scaling[self._name]), 0.0)
        if lora is not None and self._inside:
            return replace(member, weight=self._copy(member, lora).weight)
        if self._decoded is not None and isinstance(member.weight, Packed):
            if id(linear) not in self._decoded:
                self._decoded[id(linear)] = self._copy(member, None)
            member = replace(member, weight=self._decoded[id(linear)].weight)
        return replace(member, lora=lora)

    def _copy(self, member: Member, lora: Lora | None) -> Merged:
        place = torch.empty(member.outputs, member.inputs, dtype=self.dtype, device=self.device)
        made = Merged(place, member.weight, lora)
        made.renew()
        self.merged.append(made)
        return made


class PromptPass(ForwardPass):
    """`ForwardPass` whose attention puts keys and values into a cache."""

    def __init__(self, reader: Reader, weights: Weights | None = None) -> None:
        """Reads the parts; `weights`: room for decoded ones that another pass has, taken where it fits."""
        self._take(reader, decoded=False, weights=weights)
        self._layer = 0
        self._prefix: Prefix | None = None
        self._cache: tuple[Tensor, Tensor] | None = None
        self._slots = NONE

    @property
    def blocks(self) -> Sequence[Any]:
        """The engine's blocks."""
        return self._blocks

    @property
    def weights(self) -> Weights:
        """Room for decoded weights."""
        return self._weights

    @property
    def tables(self) -> tuple[Tensor, Tensor]:
        """cos and sin so far."""
        return self._tables

    def fill(
        self,
        prompts: Sequence[Sequence[int]],
        slots: Sequence[int],
        keys: Tensor,
        values: Tensor,
        prefix: Prefix | None,
    ) -> Tensor:
        """Computes prompts and puts their keys and values into slots, behind a common beginning if there is one.

        Args:
            prompts: ids of each, without those of the prefix.
            slots: of each.
            keys, values: [layers, slots, kv heads, room, D].
            prefix: what all begin with.

        Returns:
            What the head reads [n, H], of the last token of each.
        """
        device = self._builder.device
        lengths = [len(ids) for ids in prompts]
        before = 0 if prefix is None else len(prefix.ids)
        starts = list(accumulate(lengths, initial=0))[:-1]
        rows = [torch.arange(before + n) for n in lengths]
        for row, start in zip(rows, starts, strict=True):
            row[before:] += start
        dense = self.backend == "dense"
        key_lengths = [before + n for n in lengths]
        own = prefix is None

        def layout(queries: Sequence[int]) -> tuple[trees.Layout, ...]:
            return (trees.layout(0, queries, key_lengths, torch.cat(rows), device, own=own, dense=dense),)

        positions = torch.cat([torch.arange(before, before + n) for n in lengths])
        lot = Lot(
            trees.there(torch.tensor([token for ids in prompts for token in ids]), device),
            trees.there(positions.int(), device),
            layout(lengths),
            layout([1] * len(lengths)),
            trees.there(torch.tensor([start + n - 1 for start, n in zip(starts, lengths, strict=True)]), device),
        )
        of = torch.tensor(slots).repeat_interleave(torch.tensor(lengths))
        self._slots = trees.there(of, device)
        self._layer, self._prefix, self._cache = 0, prefix, (keys, values)
        if prefix is not None:
            for slot in slots:
                keys[:, slot, :, :before] = prefix.keys
                values[:, slot, :, :before] = prefix.values
        try:
            return self.states(lot, max(key_lengths))
        finally:
            self._prefix = self._cache = None

    def _pass(self, positions: Tensor, layouts: Sequence[trees.Layout]) -> Pass:
        attend, kernels = trees.BACKENDS[self.backend], self._builder.kernels
        places = positions.long()

        def forward(q: Tensor, k: Tensor, v: Tensor, documents: Documents) -> Saved:
            assert self._cache is not None
            for cache, new in zip(self._cache, (k, v), strict=True):
                cache[self._layer].index_put_((self._slots[:, None], self._heads(new), places[:, None]), new)
            if self._prefix is not None:
                begun = self._prefix.keys[self._layer], self._prefix.values[self._layer]
                k, v = (torch.cat((old.transpose(0, 1), new)) for old, new in zip(begun, (k, v), strict=True))
            self._layer += 1
            out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
            for layout in layouts:
                attend(q, k, v, layout, out, kernels.take)
            return Saved(q, k, v, out, documents, ())

        none = Documents((), positions, 0)
        return Pass(
            kernels,
            Backend(forward, forward_pass.no_backward),
            none,
            positions,
            *self._tables,
            None,
            keep_wide=False,
        )

    def _heads(self, new: Tensor) -> Tensor:
        return torch.arange(new.shape[1], device=new.device)[None]
