"""Frozen linears with LoRA, as one matrix product.

Linears that read the same input form a group. The group's weights stand in one buffer

        [ W    s*B ]      W [N, K] of all members, B [N, R] their B matrices on the diagonal,
        [ A     0  ]      A [R, K] their A matrices; s = alpha / r, R = the sum of their ranks

so that  [x, x A'] [W, s B]' = x W' + s (x A') B'  and  [g, g s B] [W; A] = g W + s (g B) A  are one product
each, forward and backward, instead of three passes over wide tensors (' is the transpose). The master
copies of A and B stay in float32; in the buffer they are rounded to the type of the product, as autocast
would round them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from koalpaca_tune.kernels.nf4 import Packed

MOST_MEMBERS = 4
"""Of a group: q, k and v are three."""


class Kernels(Protocol):
    """The functions of `kernels.plain` and `kernels.fused`."""

    def __getattr__(self, name: str) -> Any: ...


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


@dataclass
class Group:
    """Linears that read the same input.

    Attributes:
        kernels: plain or fused functions.
        dtype: of the products.
        multiple: R is rounded up to it, so that rows stay aligned.
        fold: whether LoRA is part of the product where the input has room for it.
        salt: the group's number, which tells its dropout from the others'.
        buffer: its own, where the weights stay dequantised; else None.
    """

    members: tuple[Member, ...]
    kernels: Kernels
    dtype: torch.dtype
    multiple: int
    fold: bool
    salt: int
    buffer: Tensor | None = None
    bias: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = self.members[0].inputs
        self.outputs = sum(one.outputs for one in self.members)
        rank = sum(one.lora.a.shape[0] for one in self.members if one.lora)
        self.rank = -(-rank // self.multiple) * self.multiple
        self.dropout = max((one.lora.dropout for one in self.members if one.lora), default=0.0)
        weight = self.members[0].weight
        self.device = (weight.data if isinstance(weight, Packed) else weight).device
        self.bias = self._bias()

    def _bias(self) -> Tensor | None:
        if all(one.bias is None for one in self.members):
            return None
        parts = [
            torch.zeros(one.outputs, dtype=self.dtype, device=self.device) if one.bias is None else one.bias
            for one in self.members
        ]
        return torch.cat([part.to(self.dtype) for part in parts])

    @property
    def learns(self) -> bool:
        """Whether any member has LoRA."""
        return self.rank > 0

    @property
    def room(self) -> int:
        """Columns that an input (and a gradient at the output) should have spare, for a folded product."""
        return self.rank if self.fold else 0

    @property
    def shape(self) -> tuple[int, int]:
        """Of its buffer."""
        return self.outputs + self.rank, self.inputs + self.rank

    def new_buffer(self) -> Tensor:
        """Zeros: what no matrix is written to stays zero."""
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)

    def load(self, buffer: Tensor) -> None:
        """Writes base weights and LoRA matrices into a buffer."""
        at = 0
        for one in self.members:
            place = buffer[at : at + one.outputs, : self.inputs]
            if isinstance(one.weight, Packed):
                self.kernels.dequantize(one.weight, place)
            else:
                place.copy_(one.weight)
            at += one.outputs
        self.load_lora(buffer)

    def load_lora(self, buffer: Tensor) -> None:
        """Writes the LoRA matrices as they are now."""
        row, column = 0, 0
        for one in self.members:
            if one.lora:
                rank = one.lora.a.shape[0]
                torch.mul(
                    one.lora.b,
                    one.lora.scale,
                    out=buffer[row : row + one.outputs, self.inputs + column : self.inputs + column + rank],
                )
                buffer[self.outputs + column : self.outputs + column + rank, : self.inputs].copy_(one.lora.a)
                column += rank
            row += one.outputs

    def project(self, x: Tensor, buffer: Tensor, seed: Tensor | None) -> Tensor:
        """x A' [T, R] of an input [T, K] (more columns are not read), with dropout on the input of each member."""
        inner = x[:, : self.inputs]
        through = buffer[self.outputs :, : self.inputs]
        if not self.dropout or seed is None:
            return inner @ through.t()
        projected = torch.zeros(len(x), self.rank, dtype=x.dtype, device=x.device)
        place = torch.empty(len(x), self.inputs, dtype=x.dtype, device=x.device)
        for member, columns in self._columns():
            dropped = self._dropped(inner, place, seed, member)
            projected[:, columns].copy_(dropped @ through[columns].t())
        return projected

    def _columns(self) -> Iterator[tuple[int, slice]]:
        """Of each member with LoRA its number, and its columns in x A'."""
        at = 0
        for member, one in enumerate(self.members):
            if one.lora:
                yield member, slice(at, at + one.lora.a.shape[0])
                at += one.lora.a.shape[0]

    def _dropped(self, x: Tensor, place: Tensor, seed: Tensor, member: int) -> Tensor:
        """A member's own dropout of x, in `place`; the same places at every call of a micro-step."""
        # PEFT draws for each linear by itself, also where they read the same input
        dropped: Tensor = self.kernels.dropout(x, place, seed, MOST_MEMBERS * self.salt + member, self.dropout)
        return dropped

    def forward(
        self,
        x: Tensor,
        buffer: Tensor,
        seed: Tensor | None,
        *,
        bias: Tensor | None,
        into: Tensor | None = None,
        out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The linears of x, with LoRA.

        Args:
            x: [T, K + room], of which the first K columns are the input and the rest are overwritten; or [T, K].
            buffer: loaded.
            seed: int64 [1], of the dropout; None: none is done.
            bias: [N] or None.
            into: [T, N] to add to, in place of a bias.
            out: [T, N], where the result goes; None: a new tensor.

        Returns:
            The result [T, N], and x A' [T, R] for the backward pass (None without LoRA).
        """
        projected = self.project(x, buffer, seed) if self.learns else None
        weight = buffer[: self.outputs, : self.inputs]
        folded = projected is not None and x.shape[1] == self.inputs + self.rank
        if folded:
            x[:, self.inputs :].copy_(projected)  # type: ignore[arg-type]
            weight = buffer[: self.outputs]
        else:
            x = x[:, : self.inputs]
        if into is not None:
            result = into.addmm_(x, weight.t())
        elif bias is not None:
            result = torch.addmm(bias, x, weight.t()) if out is None else torch.addmm(bias, x, weight.t(), out=out)
        else:
            result = x @ weight.t() if out is None else torch.mm(x, weight.t(), out=out)
        if projected is not None and not folded:
            result.addmm_(projected, buffer[: self.outputs, self.inputs :].t())
        return result, projected

    def backward(
        self, grad: Tensor, buffer: Tensor, seed: Tensor | None, *, out: Tensor | None = None, wanted: bool = True
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradient at the input, and what `learn` needs.

        Args:
            grad: [T, N + room], of which the first N columns are the gradient at the result and the rest are
                overwritten; or [T, N].
            buffer: loaded.
            seed: as in the forward pass.
            out: [T, K], where the gradient at x goes; None: a new tensor.
            wanted: whether the gradient at x is (in the first block nothing below learns).

        Returns:
            The gradient at x [T, K] or None, and s g B [T, R] (None without LoRA).
        """
        inner = grad[:, : self.outputs]
        back = inner @ buffer[: self.outputs, self.inputs :] if self.learns else None
        if not wanted:
            return None, back
        weight = buffer[: self.outputs, : self.inputs]
        folded = (
            back is not None
            and not (self.dropout and seed is not None)
            and grad.shape[1] == self.outputs + self.rank
        )
        if folded:
            grad[:, self.outputs :].copy_(back)  # type: ignore[arg-type]
            inner, weight = grad, buffer[:, : self.inputs]
        found = inner @ weight if out is None else torch.mm(inner, weight, out=out)
        if back is not None and not folded:
            through = buffer[self.outputs :, : self.inputs]
            if self.dropout and seed is not None:
                for member, columns in self._columns():
                    part = back[:, columns] @ through[columns]
                    found += self._dropped(part, part, seed, member)
            else:
                found.addmm_(back, through)
        return found, back

    def learn(
        self, grad: Tensor, back: Tensor | None, x: Tensor | None, projected: Tensor | None, seed: Tensor | None
    ) -> None:
        """Adds the gradients of A and B to theirs; nothing without LoRA.

        Args:
            grad: [T, N] (more columns are not read), the gradient at the result.
            back: from `backward`.
            x: [T, K], the input (more columns are not read).
            projected: from `forward`.
            seed: as in the forward pass.
        """
        if back is None:
            return
        assert x is not None
        assert projected is not None
        x = x[:, : self.inputs]
        # padding has no gradient; of several members all products at once, off the diagonal for nothing
        rank = sum(one.lora.a.shape[0] for one in self.members if one.lora)
        if self.dropout and seed is not None:
            place = torch.empty(len(x), self.inputs, dtype=x.dtype, device=x.device)
            parts = [
                _product(back[:, columns], self._dropped(x, place, seed, member))
                for member, columns in self._columns()
            ]
            below = torch.cat(parts)
        else:
            below = _product(back[:, :rank], x)
        above = _product(grad[:, : self.outputs], projected[:, :rank])
        row, column = 0, 0
        sums: list[Tensor] = []
        news: list[Tensor] = []
        for one in self.members:
            if one.lora:
                columns = slice(column, column + one.lora.a.shape[0])
                sums += [one.lora.a_grad, one.lora.b_grad]
                news += [below[columns], above[row : row + one.outputs, columns] * one.lora.scale]
                column = columns.stop
            row += one.outputs
        torch._foreach_add_(sums, news)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left' right in float32: a sum over all tokens, which must not be rounded before it is added up."""
    if left.is_cuda and left.dtype != torch.float32:
        product: Tensor = torch.mm(left.t(), right, out_dtype=torch.float32)
        return product
    return left.t() @ right
