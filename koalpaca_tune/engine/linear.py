"""Frozen linears with LoRA that read the same input, forward and backward, and the gradients of A and B.

How base and LoRA become matrix products is their buffer's (`buffers`, `narrow`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from koalpaca_tune.engine.buffers import Buffer, Folded, Kernels, Operand
from koalpaca_tune.engine.members import Members
from koalpaca_tune.engine.narrow import Narrow
from koalpaca_tune.kernels import fp8
from koalpaca_tune.kernels.fp8 import Scaled

NARROW_ROW = 128
"""Bytes that rows in 8 bits are longer by a multiple of. With 16, which the product asks for, products took 18 %
longer (Llama-3-8B on an H200, bench/results/fp8-folding-h200-2026-11-21.log)."""
MOST_MEMBERS = 4
"""Of a group: q, k and v are three."""


@dataclass
class Group(Members):
    """Linears that read the same input.

    Attributes:
        kernels: plain or fused functions.
        fold: whether LoRA is part of the product where the input has room for it.
        narrow: whether the base's products are in 8 bits.
        salt: the group's number, which tells its dropout from the others'.
        buffer: its own, where the weights stay decoded; else None.
        bias: [N] or None.
    """

    kernels: Kernels
    fold: bool
    narrow: bool
    salt: int
    buffer: Buffer | None = None
    bias: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.dropout = max((one.lora.dropout for one in self.members if one.lora), default=0.0)
        self.bias = self.joined_bias()

    def new_buffer(self) -> Buffer:
        """Room for its weights, or for those of any group of the same shape."""
        return Narrow(self, self.kernels, self.spare) if self.narrow else Folded(self, self.kernels)

    @property
    def room(self) -> int:
        """Columns that an input (and a gradient at the output) should have spare, for a folded product."""
        return self.rank if self.fold and not self.narrow else 0

    @property
    def spare(self) -> int:
        """The same of their copies in 8 bits."""
        return -(-3 * self.rank // NARROW_ROW) * NARROW_ROW if self.fold and self.narrow else 0

    def place(self, tokens: int, *, product: bool = True) -> Operand:
        """Room for an input [tokens, K], as the base's product (or else only LoRA's gradients) will read it."""
        full = self.learns or (product and not self.narrow)
        width = self.inputs + (self.room if product else 0)
        return Operand(
            torch.empty(tokens, width, dtype=self.dtype, device=self.device) if full else None,
            fp8.room(tokens, self.inputs + self.spare, self.device) if product and self.narrow else None,
        )

    def place_of_grad(self, grad: Tensor) -> Operand:
        """Room for the gradient at the output: in a tensor [T, N + room], as far as it is read there."""
        return Operand(
            grad if self.learns or not self.narrow else None,
            fp8.room(len(grad), self.outputs + self.spare, self.device) if self.narrow else None,
        )

    def operand(self, x: Tensor) -> Operand:
        """An input, or a gradient at the output, that there is already."""
        return Operand(x, self.narrowed(x))

    def narrowed(self, x: Tensor) -> Scaled | None:
        """A tensor [T, width] in 8 bits, with room for a folded product; None where the products are not."""
        if not self.narrow:
            return None
        made = fp8.room(len(x), x.shape[1] + self.spare, x.device)
        self.kernels.quantize(x, made.first(x.shape[1]))
        return made

    def project(self, x: Tensor, buffer: Buffer, seed: Tensor | None) -> Tensor:
        """x A' [T, R] of an input [T, K] (more columns are not read), with dropout on the input of each member."""
        inner = x[:, : self.inputs]
        if not self.dropout or seed is None:
            return inner @ buffer.a.t()
        projected = torch.zeros(len(x), self.rank, dtype=x.dtype, device=x.device)
        place = torch.empty(len(x), self.inputs, dtype=x.dtype, device=x.device)
        for member, columns in self._columns():
            dropped = self._dropped(inner, place, seed, member)
            projected[:, columns].copy_(dropped @ buffer.a[columns].t())
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
        x: Operand,
        buffer: Buffer,
        seed: Tensor | None,
        *,
        bias: Tensor | None,
        into: Tensor | None = None,
        out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The linears of x, with LoRA.

        Args:
            x: [T, K]; columns beyond K are overwritten.
            buffer: loaded.
            seed: int64 [1], of the dropout; None: none is done.
            bias: [N] or None.
            into: [T, N] to add to, in place of a bias.
            out: [T, N], where the result goes (not in 8 bits); None: a new tensor.

        Returns:
            The result [T, N], and x A' [T, R] for the backward pass (None without LoRA).
        """
        projected = None
        if self.learns:
            assert x.full is not None
            projected = self.project(x.full, buffer, seed)
        return buffer.forward(x, projected, bias, into, out), projected

    def backward(
        self, grad: Operand, buffer: Buffer, seed: Tensor | None, *, out: Tensor | None = None, wanted: bool = True
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradient at the input, and what `learn` needs.

        Args:
            grad: [T, N], the gradient at the result; columns beyond N are overwritten.
            buffer: loaded.
            seed: as in the forward pass.
            out: [T, K], where the gradient at x goes (not in 8 bits); None: a new tensor.
            wanted: whether the gradient at x is (in the first block nothing below learns).

        Returns:
            The gradient at x [T, K] or None, and s g B [T, R] (None without LoRA).
        """
        back = None
        if self.learns:
            assert grad.full is not None
            back = grad.full[:, : self.outputs] @ buffer.b
        if not wanted:
            return None, back
        if back is None or not self.dropout or seed is None:
            return buffer.backward(grad, back, out), back
        found = buffer.backward(grad, None, out)
        for member, columns in self._columns():
            part = back[:, columns] @ buffer.a[columns]
            found += self._dropped(part, part, seed, member)
        return found, back

    def learn(
        self, grad: Operand, back: Tensor | None, x: Tensor | None, projected: Tensor | None, seed: Tensor | None
    ) -> None:
        """Adds the gradients of A and B to theirs; nothing without LoRA.

        Args:
            grad: [T, N] (more columns of it are not read), the gradient at the result.
            back: from `backward`.
            x: [T, K], the input (more columns are not read).
            projected: from `forward`.
            seed: as in the forward pass.
        """
        if back is None:
            return
        assert grad.full is not None
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
        above = _product(grad.full[:, : self.outputs], projected[:, :rank])
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
