"""Linears of the base that read the same input, with their LoRA: what there is, before anything is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from koalpaca_tune.kernels.nf4 import Packed

LARGEST_WEIGHT = 7.0
"""In e4m3, which reaches 448: beside the weights there is to be room for LoRA's numbers (`balance`). Down to
2^-6, less than half a percent of the largest, numbers have all their bits; those of NF4 are seldom smaller."""


@dataclass(frozen=True)
class Lora:
    """A target's matrices: float32 a [r, K], b [N, r], and where their gradients are added up."""

    a: Tensor
    b: Tensor
    a_grad: Tensor
    b_grad: Tensor
    scale: float
    dropout: float


@dataclass(frozen=True)
class Member:
    """One linear of the base: weight [N, K] in 4 bits or whole, bias [N] or None, LoRA or None."""

    weight: Packed | Tensor
    bias: Tensor | None
    lora: Lora | None
    outputs: int
    inputs: int

    def largest(self) -> float:
        """No weight is larger than this."""
        if isinstance(self.weight, Packed):
            return self.weight.largest()
        return float(self.weight.abs().max())


@dataclass(frozen=True)
class Factors:
    """float32 [1] each, of one group, read where LoRA's numbers are split; `balance` sets them.

    Attributes:
        projected, b: of x A', and of s B: their product is 1 / w.
        back, a: of g s B, and of A.
    """

    projected: Tensor
    b: Tensor
    back: Tensor
    a: Tensor


@dataclass
class Members:
    """Linears one below the other, as if they were one.

    Attributes:
        members: in order; they read the same input.
        dtype: of the products.
        multiple: R is rounded up to it, so that rows stay aligned.
        inputs, outputs: K, and N of all together.
        rank: R, the sum of their ranks; 0 without LoRA.
        device: of the weights.
        factors: of a folded product in e4m3, else None.
        draw: int64 [1], the key of rounding to e4m3 by chance (`redraw`); None: to the nearest.
    """

    members: tuple[Member, ...]
    dtype: torch.dtype
    multiple: int
    inputs: int = field(init=False)
    outputs: int = field(init=False)
    rank: int = field(init=False)
    device: torch.device = field(init=False)
    factors: Factors | None = field(init=False)
    draw: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        self.factors = None
        self.draw = None
        self.inputs = self.members[0].inputs
        self.outputs = sum(one.outputs for one in self.members)
        rank = sum(one.lora.a.shape[0] for one in self.members if one.lora)
        self.rank = -(-rank // self.multiple) * self.multiple
        weight = self.members[0].weight
        self.device = (weight.data if isinstance(weight, Packed) else weight).device

    @property
    def learns(self) -> bool:
        """Whether any has LoRA."""
        return self.rank > 0

    @cached_property
    def scale(self) -> float:
        """The power of two by which the largest weight in e4m3 comes to between half of `LARGEST_WEIGHT` and it."""
        # weights next to zero would leave LoRA no room: those of a trained linear spread by about K ** -0.5
        largest = max(self.inputs**-0.5, *(one.largest() for one in self.members))
        return 2.0 ** math.ceil(math.log2(largest / LARGEST_WEIGHT))

    def joined_bias(self) -> Tensor | None:
        """[N], or None where none has one."""
        if all(one.bias is None for one in self.members):
            return None
        parts = [
            torch.zeros(one.outputs, dtype=self.dtype, device=self.device) if one.bias is None else one.bias
            for one in self.members
        ]
        return torch.cat([part.to(self.dtype) for part in parts])

    def write_lora(self, a: Tensor, b: Tensor) -> None:
        """Writes the LoRA matrices as they are now.

        Args:
            a: [R, K], theirs one below the other; rows beyond their ranks are left alone.
            b: [N, R], theirs times alpha / r, on the diagonal; the rest is left alone.
        """
        row, column = 0, 0
        for one in self.members:
            if one.lora:
                columns = slice(column, column + one.lora.a.shape[0])
                torch.mul(one.lora.b, one.lora.scale, out=b[row : row + one.outputs, columns])
                a[columns].copy_(one.lora.a)
                column = columns.stop
            row += one.outputs
