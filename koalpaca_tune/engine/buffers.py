"""Weights of a group of linears as matrix products read them, decoded from 4 bits, with their LoRA matrices.

In the type of the products LoRA is part of the product. The weights stand in one buffer

        [ W    s*B ]      W [N, K] of all members, B [N, R] their B matrices on the diagonal,
        [ A     0  ]      A [R, K] their A matrices; s = alpha / r, R = the sum of their ranks

so that  [x, x A'] [W, s B]' = x W' + s (x A') B'  and  [g, g s B] [W; A] = g W + s (g B) A  are one product
each, forward and backward, instead of three passes over wide tensors (' is the transpose). The master
copies of A and B stay in float32; in the buffer they are rounded to the type of the product, as autocast
would round them.

In 8 bits: `narrow`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from koalpaca_tune.engine.members import Members
from koalpaca_tune.kernels.fp8 import Scaled
from koalpaca_tune.kernels.nf4 import Packed


class Kernels(Protocol):
    """The functions of `kernels.plain` and `kernels.fused`."""

    def __getattr__(self, name: str) -> Any: ...


@dataclass
class Operand:
    """What a product reads: rows of an input (or of a gradient at an output) of width K.

    Attributes:
        full: [T, K], or [T, K + R] with room for a folded product; None where nothing reads it.
        narrow: [T, K] in 8 bits, or with room for a folded product; None where products are not in 8 bits.
    """

    full: Tensor | None
    narrow: Scaled | None = None

    def columns(self, width: int) -> Tensor | None:
        """The first columns of `full`, where a kernel writes."""
        return None if self.full is None else self.full[:, :width]

    def scaled(self, width: int) -> Scaled | None:
        """The first columns of `narrow`, where a kernel writes."""
        return None if self.narrow is None else self.narrow.first(width)


class Buffer(Protocol):
    """Room for the weights of a group.

    Attributes:
        a: [R, K], LoRA's A matrices one below the other.
        b: [N, R], their B matrices times alpha / r, on the diagonal.
    """

    a: Tensor
    b: Tensor

    def load(self, members: Members, *, whole: bool = False) -> None:
        """Takes up a group's weights and its LoRA matrices as they are now.

        With `whole` all is decoded at once; else what a product does not need need not be.
        """
        ...

    def load_lora(self, members: Members) -> None:
        """Takes up the LoRA matrices as they are now."""
        ...

    def forward(
        self, x: Operand, projected: Tensor | None, bias: Tensor | None, into: Tensor | None, out: Tensor | None
    ) -> Tensor:
        """x W' + s (x A') B' + bias [T, N], added to `into` or written to `out` where they are given."""
        ...

    def backward(self, grad: Operand, back: Tensor | None, out: Tensor | None) -> Tensor:
        """g W + `back` A [T, K], without the second where `back` is None."""
        ...


class Folded:
    """W and LoRA in one buffer, in the type of the products."""

    def __init__(self, members: Members, kernels: Kernels) -> None:
        shape = members.outputs + members.rank, members.inputs + members.rank
        # what no matrix is written to stays zero
        self._all = torch.zeros(shape, dtype=members.dtype, device=members.device)
        self._kernels = kernels
        self._outputs, self._inputs, self._rank = members.outputs, members.inputs, members.rank
        self.a = self._all[members.outputs :, : members.inputs]
        self.b = self._all[: members.outputs, members.inputs :]

    def load(self, members: Members, *, whole: bool = False) -> None:
        """See `Buffer`."""
        del whole
        at = 0
        for one in members.members:
            place = self._all[at : at + one.outputs, : self._inputs]
            if isinstance(one.weight, Packed):
                self._kernels.dequantize(one.weight, place)
            else:
                place.copy_(one.weight)
            at += one.outputs
        self.load_lora(members)

    def load_lora(self, members: Members) -> None:
        """See `Buffer`."""
        members.write_lora(self.a, self.b)

    def forward(
        self, x: Operand, projected: Tensor | None, bias: Tensor | None, into: Tensor | None, out: Tensor | None
    ) -> Tensor:
        """See `Buffer`; x has room for a folded product, or not."""
        assert x.full is not None
        folded = projected is not None and x.full.shape[1] == self._inputs + self._rank
        if folded:
            x.full[:, self._inputs :].copy_(projected)  # type: ignore[arg-type]
            read, weight = x.full, self._all[: self._outputs]
        else:
            read, weight = x.full[:, : self._inputs], self._all[: self._outputs, : self._inputs]
        if into is not None:
            result = into.addmm_(read, weight.t())
        elif bias is not None:
            result = torch.addmm(bias, read, weight.t(), out=out)
        else:
            result = torch.mm(read, weight.t(), out=out)
        if projected is not None and not folded:
            result.addmm_(projected, self.b.t())
        return result

    def backward(self, grad: Operand, back: Tensor | None, out: Tensor | None) -> Tensor:
        """See `Buffer`; the gradient has room for a folded product, or not."""
        assert grad.full is not None
        folded = back is not None and grad.full.shape[1] == self._outputs + self._rank
        if folded:
            grad.full[:, self._outputs :].copy_(back)  # type: ignore[arg-type]
            read, weight = grad.full, self._all[:, : self._inputs]
        else:
            read, weight = grad.full[:, : self._outputs], self._all[: self._outputs, : self._inputs]
        found = torch.mm(read, weight, out=out)
        if back is not None and not folded:
            found.addmm_(back, self.a)
        return found
