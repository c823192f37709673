"""Products of a few rows with a wide weight, as a model computes them when it writes: the reference, in torch.

A step of writing has one row for each text, so that reading the weights is most of the time. `triton_matvec` reads
each weight once, packed in 4 bits or whole, and does beside it what is cheap there: bias, LoRA's second product,
GELU, the residual.
"""

from __future__ import annotations

from dataclasses import dataclass

import bitsandbytes.functional as bnb
import torch
from torch import Tensor
from torch.nn import functional

from koalpaca_tune.kernels.nf4 import Packed

Weight = Packed | Tensor
"""[N, K] in 4 bits, or whole."""


@dataclass(frozen=True)
class Beside:
    """LoRA's second product, for rows that may have different adapters.

    Attributes:
        projected: float32 [M, R], x A' of each row's own adapter.
        b: [adapters, R, N], the transposes of s B.
        which: int32 [M], the adapter of each row; below 0: none.
    """

    projected: Tensor
    b: Tensor
    which: Tensor

    def columns(self, begin: int, end: int) -> Beside:
        """Of some of the outputs."""
        return Beside(self.projected, self.b[:, :, begin:end], self.which)


def project(x: Tensor, a: Tensor, which: Tensor, out: Tensor) -> None:
    """LoRA's first product: each row with the A of its adapter.

    Args:
        x: [M, K].
        a: [adapters, R, K].
        which: int32 [M], the adapter of each row; below 0: none, and zeros are written.
        out: float32 [M, R].
    """
    all_of = x.float() @ a.flatten(0, 1).float().t()
    out.copy_((all_of.view(len(x), *a.shape[:2]) * _own(which, len(a))).sum(1))


def _own(which: Tensor, adapters: int) -> Tensor:
    """bool [M, adapters, 1]: which adapter is a row's."""
    return (which[:, None] == torch.arange(adapters, device=which.device))[:, :, None]


def linear(
    x: Tensor,
    weight: Weight,
    out: Tensor,
    *,
    bias: Tensor | None = None,
    beside: Beside | None = None,
    gelu: bool = False,
    added: Tensor | None = None,
) -> None:
    """out = act(x W' + bias + LoRA) + added, rounded once.

    Args:
        x: [M, K].
        weight: [N, K].
        out: [M, N]; rows may stand apart, here and in all others.
        bias: [N] or None.
        beside: LoRA or None.
        gelu: whether the GELU with the error function is taken.
        added: [M, N] or None; may be `out`.
    """
    whole = bnb.dequantize_4bit(weight.data, weight.state).to(x.dtype) if isinstance(weight, Packed) else weight
    t = whole.t()
    apart = added is None or added.data_ptr() != out.data_ptr()
    place = out if out.dtype == x.dtype and apart else None
    found: Tensor
    if x.is_cuda and x.dtype != out.dtype == torch.float32:
        # not rounded to 16 bits on the way
        found = torch.mm(x, t, out_dtype=torch.float32)
        if bias is not None:
            found += bias
    else:
        found = torch.mm(x, t, out=place) if bias is None else torch.addmm(bias, x, t, out=place)
    if beside is not None:
        # every adapter's part, of which a row has its own alone
        parts = (beside.projected[:, None] * _own(beside.which, len(beside.b))).flatten(1)
        found.addmm_(parts.to(found.dtype), beside.b.flatten(0, 1).to(found.dtype))
    if gelu:
        found = functional.gelu(found)
    if added is not None:
        torch.add(found, added, out=out)
    elif found is not out:
        out.copy_(found)
