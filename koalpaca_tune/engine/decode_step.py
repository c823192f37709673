"""One token further for each of some texts: the blocks of a model at a row a text, over their keys in a cache.

Nothing is allocated in a step and nothing waits for the host, so that on a card a step can be captured as a graph.
LoRA stands inside the weights, or beside them: then each row may have another adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from koalpaca_tune.engine.block import Block
from koalpaca_tune.engine.buffers import Kernels
from koalpaca_tune.engine.linear import Group
from koalpaca_tune.engine.llama import LlamaBlock
from koalpaca_tune.engine.neox import NeoxBlock
from koalpaca_tune.kernels import decode, lean, matvec, plain
from koalpaca_tune.kernels.decode import Heads
from koalpaca_tune.kernels.matvec import Beside, Weight

LEAST_RANK = 4
"""Of LoRA beside the weights; ranks are padded with zeros to a power of two."""


class Products(Protocol):
    """`project` and `linear` of `matvec` or `triton_matvec`, `attend` of `decode` or `triton_decode`."""

    def __getattr__(self, name: str) -> Any: ...


class Stack:
    """LoRA of a group of linears, of several adapters one behind the other.

    Attributes:
        a: [adapters, R, K].
        b: [adapters, R, N], the transposes of B times alpha / r, on the diagonal of the group's members.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        """`groups`: the same linears with each adapter."""
        self._groups = groups
        rank = max(sum(one.lora.a.shape[0] for one in group.members if one.lora) for group in groups)
        rank = max(LEAST_RANK, 1 << (rank - 1).bit_length())
        like: dict[str, Any] = {"dtype": groups[0].dtype, "device": groups[0].device}
        self.a = torch.zeros(len(groups), rank, groups[0].inputs, **like)
        self.b = torch.zeros(len(groups), rank, groups[0].outputs, **like)
        self.renew()

    def renew(self) -> None:
        """Takes up the matrices as they are now."""
        for n, group in enumerate(self._groups):
            group.write_lora(self.a[n], self.b[n].t())


class Linear:
    """Linears that read the same rows."""

    def __init__(self, group: Group, stack: Stack | None, products: Products) -> None:
        self._parts: list[tuple[Weight, int, int]] = []
        at = 0
        for one in group.members:
            weight = one.weight
            if isinstance(weight, Tensor) and weight.dtype != group.dtype:
                weight = weight.to(group.dtype)
            self._parts.append((weight, at, at + one.outputs))
            at += one.outputs
        self._stack = stack
        self._products = products
        self.bias = group.bias
        self.outputs = group.outputs

    def __call__(
        self,
        x: Tensor,
        out: Tensor,
        which: Tensor,
        projected: Tensor,
        *,
        bias: Tensor | None,
        gelu: bool = False,
        added: Tensor | None = None,
    ) -> Tensor:
        """See `matvec.linear`; which [M]: adapter of each row; projected: float32 room for LoRA's first product."""
        beside: Beside | None = None
        if self._stack is not None:
            rank = self._stack.a.shape[1]
            place = projected[: len(x) * rank].view(len(x), rank)
            self._products.project(x, self._stack.a, which, place)
            beside = Beside(place, self._stack.b, which)
        whole = len(self._parts) == 1
        for weight, begin, end in self._parts:
            self._products.linear(
                x,
                weight,
                out if whole else out[:, begin:end],
                bias=bias if whole or bias is None else bias[begin:end],
                beside=beside if whole or beside is None else beside.columns(begin, end),
                gelu=gelu,
                added=added if whole or added is None else added[:, begin:end],
            )
        return out


class Room:
    """Where the tensors of a step stand, for at most so many texts."""

    def __init__(self, blocks: Sequence[Block], heads: Heads, most: int, ranks: int) -> None:
        groups = blocks[0].groups
        like: dict[str, Any] = {"dtype": groups[0].dtype, "device": groups[0].device}
        width = groups[0].inputs
        self.residuals = torch.empty(2, most, width, **like)
        self.norms = torch.empty(2, most, width, **like)
        self.joined = torch.empty(most, heads.outputs, **like)
        self.attended = torch.empty(most, heads.queries * heads.width, **like)
        self.wide = torch.empty(most, groups[2].outputs, **like)
        self.active = torch.empty(most, groups[3].inputs, **like)
        self.projected = torch.empty(most * ranks, dtype=torch.float32, device=groups[0].device)


class DecodeStep:
    """The blocks of a model at one row a text.

    Attributes:
        heads: of its attention.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        adapters: Sequence[Sequence[Block]],
        kernels: Kernels,
        most: int,
    ) -> None:
        """Reads the parts.

        Args:
            blocks: of the base (or with an adapter inside the weights).
            adapters: the same blocks with each adapter beside the weights.
            kernels: plain, lean or fused.
            most: texts of a step.
        """
        self._kernels = kernels
        self._fused = kernels is not plain and kernels is not lean
        first = blocks[0]
        assert isinstance(first, NeoxBlock | LlamaBlock)
        kv_heads = first.kv_heads if isinstance(first, LlamaBlock) else first.heads
        self.heads = Heads(first.heads, kv_heads, first.head_dim, isinstance(first, NeoxBlock))
        self._attend, products = self._chosen()
        self._blocks = blocks
        self._stacks: list[Stack] = []
        self._linears = [self._read(n, blocks, adapters, products) for n in range(len(blocks))]
        ranks = max((stack.a.shape[1] for stack in self._stacks), default=0)
        self._room = Room(blocks, self.heads, most, ranks)

    def _chosen(self) -> tuple[Any, Products]:
        if not self._fused:
            return decode.attend, matvec
        from koalpaca_tune.kernels import triton_decode, triton_matvec

        return triton_decode.attend, triton_matvec

    def _read(
        self, layer: int, blocks: Sequence[Block], adapters: Sequence[Sequence[Block]], products: Products
    ) -> list[Linear]:
        made = []
        for place, group in enumerate(blocks[layer].groups):
            tuned = [one[layer].groups[place] for one in adapters]
            stack = Stack(tuned) if any(one.rank for one in tuned) else None
            if stack is not None:
                self._stacks.append(stack)
            made.append(Linear(group, stack, products))
        return made

    def renew(self) -> None:
        """Takes up the LoRA matrices beside the weights as they are now."""
        for stack in self._stacks:
            stack.renew()

    def states(
        self,
        embedded: Tensor,
        slots: Tensor,
        lengths: Tensor,
        which: Tensor,
        keys: Tensor,
        values: Tensor,
        tables: tuple[Tensor, Tensor],
    ) -> Tensor:
        """The residual [M, H] after the last block; it is overwritten by the next call.

        Args:
            embedded: [M, H], of the tokens.
            slots, lengths: see `decode.attend`.
            which: int32 [M], the adapter of each row; below 0: none.
            keys, values: [layers, slots, kv heads, room, D].
            tables: cos and sin, float32 [longest, R].
        """
        count = len(embedded)
        x = self._room.residuals[0, :count]
        x.copy_(embedded)
        update: Tensor | None = None
        spare = self._room.residuals[1, :count]
        for n, (block, linears) in enumerate(zip(self._blocks, self._linears, strict=True)):
            cached = keys[n], values[n], slots, lengths
            # the sum takes the place of the update, so what was x is free
            into = spare if update is None else x
            if isinstance(block, NeoxBlock):
                x, update = self._neox(block, linears, x, update, into, which, cached, tables)
            else:
                assert isinstance(block, LlamaBlock)
                x, update = self._llama(block, linears, x, update, into, which, cached, tables)
        assert update is not None
        return update.add_(x)

    def _neox(
        self, block: NeoxBlock, linears: Sequence[Linear], x: Tensor, update: Tensor | None, into: Tensor,
        which: Tensor, cached: tuple[Tensor, ...], tables: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        qkv, dense, up, down = linears
        room, count, kernels = self._room, len(x), self._kernels
        norms = room.norms[0, :count], room.norms[1, :count]
        total = kernels.add_layer_norm(x, update, block.affines, norms, block.eps)
        joined = qkv(norms[0], room.joined[:count], which, room.projected, bias=qkv.bias)
        attended = room.attended[:count]
        self._attend(joined, self.heads, *tables, *cached, attended)
        dense(attended, into, which, room.projected, bias=block.bias)
        wide = up(norms[1], room.wide[:count], which, room.projected, bias=up.bias, gelu=True)
        down(wide, into, which, room.projected, bias=None, added=into)
        return total, into

    def _llama(
        self, block: LlamaBlock, linears: Sequence[Linear], x: Tensor, update: Tensor | None, into: Tensor,
        which: Tensor, cached: tuple[Tensor, ...], tables: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        qkv, out, gate_up, down = linears
        room, count, kernels = self._room, len(x), self._kernels
        normed = room.norms[0, :count]
        total = kernels.add_rms_norm(x, update, block.norms[0], normed, block.eps)
        joined = qkv(normed, room.joined[:count], which, room.projected, bias=qkv.bias)
        attended = room.attended[:count]
        self._attend(joined, self.heads, *tables, *cached, attended)
        out(attended, into, which, room.projected, bias=out.bias)
        middle = kernels.add_rms_norm(total, into, block.norms[1], normed, block.eps)
        wide = gate_up(normed, room.wide[:count], which, room.projected, bias=gate_up.bias)
        active = room.active[:count]
        kernels.swiglu(wide, active)
        down(active, total, which, room.projected, bias=down.bias)
        return middle, total
