"""Weights of a group in 8 bits (e4m3, Micikevicius et al. 2022), and their products.

x and g have a scale for each row, W one power of two for all of it, so that both of its layouts hold the same
numbers and the backward product is the forward one's transpose. A matrix that learns in steps of 1e-4 would not
survive three bits of mantissa: in the folded product LoRA's numbers are sums of two (`kernels.plain.split`), and
take three times their columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from koalpaca_tune.engine.buffers import Kernels, Operand
from koalpaca_tune.engine.members import Members
from koalpaca_tune.kernels.fp8 import Scaled
from koalpaca_tune.kernels.nf4 import Packed


class Layout:
    """W [N, K], or its transpose, as one of the two products reads it: along its rows.

    Attributes:
        spare: columns beyond those of W, for LoRA's numbers.
    """

    def __init__(self, members: Members, kernels: Kernels, spare: int, *, transposed: bool) -> None:
        self._kernels = kernels
        self._transposed = transposed
        rows, self._width = members.outputs, members.inputs
        if transposed:
            rows, self._width = self._width, rows
        self._numbers = torch.zeros(rows, self._width + spare, dtype=torch.float8_e4m3fn, device=members.device)
        # the product wants a scale for each of its columns
        self._scale = torch.zeros(1, rows, device=members.device)
        self._members = members
        self._decoded = False

    @property
    def spare(self) -> Tensor:
        """Where LoRA's numbers stand."""
        return self._numbers[:, self._width :]

    def load(self, members: Members) -> None:
        """Takes up a group's weights, which are decoded when a product first reads them."""
        self._members = members
        self._decoded = False

    def decode(self) -> None:
        """Unless it has been done."""
        if self._decoded:
            return
        scale, draw, at = self._members.scale, self._members.draw, 0
        decode = self._kernels.dequantize_columns if self._transposed else self._kernels.dequantize
        for number, one in enumerate(self._members.members):
            here = slice(at, at + one.outputs)
            place = self._numbers[:, here] if self._transposed else self._numbers[here, : self._width]
            if isinstance(one.weight, Packed):
                decode(one.weight, place, 1.0 / scale, draw, number)
            else:
                weight = one.weight.t() if self._transposed else one.weight
                place.copy_(weight * (1.0 / scale))
            at += one.outputs
        self._scale.fill_(scale)
        self._decoded = True

    def product(
        self, x: Scaled | None, lora: Tensor | None, factor: Tensor | None, bias: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None]:
        """x W', with LoRA where x has room for it.

        Args:
            x: [T, L], or with room for LoRA's numbers.
            lora: [T, R], what LoRA's other matrix is multiplied by.
            factor: of those numbers (`members.Factors`).
            bias: or None.
            dtype: of the result.

        Returns:
            The result, and `lora` where it is still to be multiplied and added.
        """
        assert x is not None
        self.decode()
        room = self._numbers.shape[1] - self._width
        if lora is not None and factor is not None and room and x.data.shape[1] == self._width + room:
            self._kernels.split(lora, x.scale, factor, x.data[:, self._width :], left=True)
            read, weight, lora = x, self._numbers, None
        else:
            read, weight = x.first(self._width), self._numbers[:, : self._width]
        return self._kernels.scaled_mm(read, weight, self._scale, bias, dtype), lora


class Narrow:
    """A `buffers.Buffer` in e4m3: W in two layouts, since the hardware reads both sides along the sum."""

    def __init__(self, members: Members, kernels: Kernels, spare: int) -> None:
        """`spare`: columns of a folded product beyond K and N; 0: LoRA is a product of its own."""
        self._kernels = kernels
        self._dtype = members.dtype
        self._folds = spare > 0
        self._rows = Layout(members, kernels, spare, transposed=False)
        self._columns = Layout(members, kernels, spare, transposed=True)
        self._factors = members.factors
        self.a = torch.zeros(members.rank, members.inputs, dtype=members.dtype, device=members.device)
        self.b = torch.zeros(members.outputs, members.rank, dtype=members.dtype, device=members.device)

    def load(self, members: Members, *, whole: bool = False) -> None:
        """See `Buffer`."""
        for layout in (self._rows, self._columns):
            layout.load(members)
            if whole:
                layout.decode()
        self.load_lora(members)

    def load_lora(self, members: Members) -> None:
        """See `Buffer`."""
        members.write_lora(self.a, self.b)
        self._factors = members.factors
        if self._folds and self._factors is not None:
            self._kernels.split(self.b, None, self._factors.b, self._rows.spare, left=False)
            self._kernels.split(self.a.t(), None, self._factors.a, self._columns.spare, left=False)

    def forward(
        self, x: Operand, projected: Tensor | None, bias: Tensor | None, into: Tensor | None, out: Tensor | None
    ) -> Tensor:
        """See `Buffer`; x has room for a folded product, or not."""
        assert out is None
        factor = None if self._factors is None else self._factors.projected
        result, rest = self._rows.product(x.narrow, projected, factor, bias, self._dtype)
        if into is not None:
            result = into.add_(result)
        return result if rest is None else result.addmm_(rest, self.b.t())

    def backward(self, grad: Operand, back: Tensor | None, out: Tensor | None) -> Tensor:
        """See `Buffer`; the gradient has room for a folded product, or not."""
        assert out is None
        factor = None if self._factors is None else self._factors.back
        found, rest = self._columns.product(grad.narrow, back, factor, None, self._dtype)
        return found if rest is None else found.addmm_(rest, self.a)
