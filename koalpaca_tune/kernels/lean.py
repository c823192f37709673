"""`plain` for a forward pass on the CPU in one type: results are written where they go, with no copy between.

Every other function, and every case with 8 bits or two types, is that of `plain`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from koalpaca_tune.kernels import plain
from koalpaca_tune.kernels.fp8 import Scaled
from koalpaca_tune.kernels.plain import Affine

aten = torch.ops.aten


def __getattr__(name: str) -> Any:
    return getattr(plain, name)


def add_layer_norm(
    x: Tensor,
    update: Tensor | None,
    affines: tuple[Affine, ...],
    outs: tuple[Tensor | None, ...],
    eps: float,
    narrow: tuple[Scaled | None, ...] = (),
) -> Tensor:
    """See `plain`."""
    total = x if update is None else update.add_(x)
    normal = functional.layer_norm(total, total.shape[-1:], eps=eps)
    for (weight, bias), out in zip(affines, outs, strict=True):
        assert out is not None
        torch.addcmul(bias, normal, weight, out=out)
    return total


def gelu(x: Tensor, out: Tensor, narrow: Scaled | None = None) -> None:
    """See `plain`."""
    if out.is_contiguous():
        aten.gelu.out(x, out=out)
    else:
        # gelu.out of torch 2.13 leaves rows that stand apart unwritten
        out.copy_(functional.gelu(x))


def swiglu(gate_up: Tensor, out: Tensor, narrow: Scaled | None = None) -> None:
    """See `plain`."""
    gate, up = gate_up.chunk(2, -1)
    aten.silu.out(gate, out=out)
    out.mul_(up)


def rotate(x: Tensor, out: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, *, inverse: bool = False) -> Tensor:
    """See `plain`; x itself is turned."""
    assert out is x
    assert not inverse
    half = cos.shape[1]
    turn_cos, turn_sin = (table.index_select(0, positions)[:, None] for table in (cos, sin))
    first, second = x[..., :half], x[..., half : 2 * half]
    turned = torch.addcmul(first * turn_cos, second, turn_sin, value=-1)
    second.mul_(turn_cos).addcmul_(first, turn_sin)
    first.copy_(turned)
    return x
