"""What a block of the base is to the engine, whatever its family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from koalpaca_tune.engine.buffers import Buffer, Kernels
from koalpaca_tune.engine.linear import Group
from koalpaca_tune.kernels import attention
from koalpaca_tune.kernels.attention import Documents


@dataclass(frozen=True)
class Pass:
    """What all blocks of one forward and backward pass share.

    Attributes:
        kernels: plain or fused functions.
        attention: how attention is computed.
        documents: who may see whom.
        positions: int32 [T].
        cos, sin: float32 [longest, R], the rotary tables.
        seed: int64 [1], of this micro-step's dropout; None: none is done.
        keep_wide: whether the wide MLP tensor is kept for the backward pass, or computed again.
    """

    kernels: Kernels
    attention: attention.Backend
    documents: Documents
    positions: Tensor
    cos: Tensor
    sin: Tensor
    seed: Tensor | None
    keep_wide: bool


class Block(Protocol):
    """One block of the base.

    The residual stream comes as two tensors whose sum it is, so that the sum is taken inside the block's
    first norm: `x` and `update` [T, H] (None in the first block).
    """

    groups: tuple[Group, ...]

    def forward(self, x: Tensor, update: Tensor | None, step: Pass, weights: Weights, *, last: bool = True) -> Any:
        """(sum, update for the next block, saved tensors).

        `update` is overwritten. With last=False only what the backward pass needs is computed (the block is
        run again), and the update is None.
        """
        ...

    def backward(self, saved: Any, grad: Tensor, step: Pass, weights: Weights, *, wanted: bool) -> None:
        """Turns `grad` [T, H + room], the gradient at the block's result, into that at its input, in place.

        With wanted=False only the gradients of LoRA are computed.
        """
        ...

    def input_of(self, saved: Any) -> Tensor:
        """The residual [T, H] that the block was given: what is kept when the block is run again."""
        ...


class Weights:
    """Buffers for the weights of one block: shared by all that keep none of their own.

    Attributes:
        buffers: by the place of a group in its block.
    """

    def __init__(self, block: Block, *, shared: bool) -> None:
        """Buffers of the shapes of a block; none where every block keeps its own."""
        self.buffers = [group.new_buffer() for group in block.groups] if shared else []
        self._loaded: list[Group | None] = [None for _ in block.groups]

    def forget(self) -> None:
        """What is loaded is no longer true: the LoRA matrices have changed."""
        self._loaded = [None for _ in self._loaded]

    def of(self, block: Block, place: int) -> Buffer:
        """The loaded buffer of a block's group, decoded once for as long as it stays the last one used."""
        group = block.groups[place]
        if group.buffer is not None:
            return group.buffer
        if self._loaded[place] is not group:
            self.buffers[place].load(group)
            self._loaded[place] = group
        return self.buffers[place]


def empty(tokens: int, width: int, like: Tensor) -> Tensor:
    """A new tensor [tokens, width] of another's type and device."""
    return torch.empty(tokens, width, dtype=like.dtype, device=like.device)


def with_room(grad: Tensor, group: Group) -> Tensor:
    """The residual's gradient [T, H + ...] as a group wants it: with room for a folded product."""
    return grad[:, : group.outputs + group.room]


def turn(q: Tensor, k: Tensor, step: Pass) -> None:
    """Rotary embedding of q and k [T, heads, D] in place."""
    for x in (q, k):
        step.kernels.rotate(x, x, step.cos, step.sin, step.positions)


def turn_back(grads: tuple[Tensor, Tensor, Tensor], places: tuple[Tensor, Tensor, Tensor], step: Pass) -> None:
    """The gradients at rotated q and k, turned back, and that at v, to where the product reads them."""
    for grad, place in zip(grads[:2], places[:2], strict=True):
        step.kernels.rotate(grad, place, step.cos, step.sin, step.positions, inverse=True)
    step.kernels.rotate(grads[2], places[2], step.cos[:, :0], step.sin[:, :0], step.positions)
