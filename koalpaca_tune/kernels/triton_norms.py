"""Norms of a residual and their gradients in Triton: a program holds a whole row in registers."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from koalpaca_tune.kernels.fp8 import Scaled
from koalpaca_tune.kernels.plain import Affine
from koalpaca_tune.kernels.triton_fp8 import places, row_columns, store_result, whole_row


@triton.jit
def _residual(x, update, x_row, update_row, row, cols, inside):
    total = tl.load(x + row * x_row + cols, mask=inside, other=0.0)
    if update is not None:
        place = update + row * update_row + cols
        total = total.to(tl.float32) + tl.load(place, mask=inside, other=0.0).to(tl.float32)
        # the statistics are those of the sum as it is stored
        total = total.to(update.dtype.element_ty)
        tl.store(place, total, mask=inside)
    return total.to(tl.float32)


@triton.jit
def _vector(weight, cols, inside):
    # every row reads these again: they are to stay in L1
    return tl.load(weight + cols, mask=inside, other=0.0, eviction_policy="evict_last").to(tl.float32)


@triton.jit
def _stream(x, stride, row, cols, inside):
    return tl.load(x + row * stride + cols, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)


@triton.jit
def _affine(normal, weight, bias, cols, inside):
    result = normal * _vector(weight, cols, inside)
    if bias is not None:
        result += _vector(bias, cols, inside)
    return result


@triton.jit
def _norm(
    x,
    update,
    weight,
    bias,
    out,
    data,
    scale,
    out_row,
    data_row,
    weight2,
    bias2,
    out2,
    data2,
    scale2,
    out2_row,
    data2_row,
    x_row,
    update_row,
    eps,
    width: tl.constexpr,
    span: tl.constexpr,
):
    """A layer norm, or an RMS norm where there is no bias; two where there is a second weight."""
    row = tl.program_id(0).to(tl.int64)
    cols = row_columns(span)
    inside = cols < width
    normal = _residual(x, update, x_row, update_row, row, cols, inside)
    if bias is not None:
        normal = tl.where(inside, normal - tl.sum(normal, 0) / width, 0.0)
    normal *= tl.rsqrt(tl.sum(normal * normal, 0) / width + eps)
    result = _affine(normal, weight, bias, cols, inside)
    store_result(result, out, data, scale, row, out_row, data_row, cols, inside)
    if weight2 is not None:
        result2 = _affine(normal, weight2, bias2, cols, inside)
        store_result(result2, out2, data2, scale2, row, out2_row, data2_row, cols, inside)


@triton.jit
def _norm_backward(
    x,
    weight,
    grad,
    weight2,
    grad2,
    residual,
    x_row,
    grad_row,
    grad2_row,
    residual_row,
    eps,
    width: tl.constexpr,
    span: tl.constexpr,
    centre: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    cols = row_columns(span)
    inside = cols < width
    normal = _stream(x, x_row, row, cols, inside)
    inner = _stream(grad, grad_row, row, cols, inside) * _vector(weight, cols, inside)
    if weight2 is not None:
        inner += _stream(grad2, grad2_row, row, cols, inside) * _vector(weight2, cols, inside)
    place = residual + row * residual_row + cols
    past = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    if centre:
        normal = tl.where(inside, normal - tl.sum(normal, 0) / width, 0.0)
    scale = tl.rsqrt(tl.sum(normal * normal, 0) / width + eps)
    normal *= scale
    back = inner - normal * (tl.sum(inner * normal, 0) / width)
    if centre:
        back -= tl.sum(inner, 0) / width
    tl.store(place, (past + back * scale).to(residual.dtype.element_ty), mask=inside)


Norm = tuple[Tensor, Tensor | None, Tensor | None, Scaled | None]
"""Weight, bias, and where the result goes: in full, in e4m3."""


def _forward(x: Tensor, update: Tensor | None, norms: Sequence[Norm], eps: float) -> Tensor:
    total = x if update is None else update
    rows, width = x.shape
    span, warps = whole_row(width)
    arguments: list[object] = []
    for weight, bias, out, narrow in norms:
        arguments += [weight, bias, *places(out, narrow)]
    if len(norms) == 1:
        arguments += [None, None, *places(None, None)]
    _norm[(rows,)](x, update, *arguments, x.stride(0), total.stride(0), eps, width, span, num_warps=warps)
    return total


def add_layer_norm(
    x: Tensor,
    update: Tensor | None,
    affines: tuple[Affine, ...],
    outs: tuple[Tensor | None, ...],
    eps: float,
    narrow: tuple[Scaled | None, ...] = (),
) -> Tensor:
    """`plain.add_layer_norm`, for at most two norms.

    Raises:
        ValueError: for more than two norms.
    """
    if not outs:
        return x if update is None else update.add_(x)
    narrow = narrow or (None,) * len(outs)
    if not len(outs) == len(affines) == len(narrow) or len(outs) > 2:
        raise ValueError(f"{len(affines)} norms into {len(outs)} outputs; one or two of both are handled")
    norms = [(*affine, out, scaled) for affine, out, scaled in zip(affines, outs, narrow, strict=True)]
    return _forward(x, update, norms, eps)


def layer_norm_backward(
    x: Tensor, weights: tuple[Tensor, ...], grads: tuple[Tensor, ...], residual: Tensor, eps: float
) -> Tensor:
    """`plain.layer_norm_backward`, for one norm or two.

    Raises:
        ValueError: for any other number of norms.
    """
    if len(grads) != len(weights) or not 1 <= len(grads) <= 2:
        raise ValueError(f"{len(grads)} gradients of {len(weights)} norms; one or two of both are handled")
    return _backward(x, weights, grads, residual, eps, centre=True)


def add_rms_norm(
    x: Tensor, update: Tensor | None, weight: Tensor, out: Tensor | None, eps: float, narrow: Scaled | None = None
) -> Tensor:
    """`plain.add_rms_norm`."""
    if out is None and narrow is None:
        return x if update is None else update.add_(x)
    return _forward(x, update, [(weight, None, out, narrow)], eps)


def rms_norm_backward(x: Tensor, weight: Tensor, grad: Tensor, residual: Tensor, eps: float) -> Tensor:
    """`plain.rms_norm_backward`."""
    return _backward(x, (weight,), (grad,), residual, eps, centre=False)


def _backward(
    x: Tensor, weights: tuple[Tensor, ...], grads: tuple[Tensor, ...], residual: Tensor, eps: float, *, centre: bool
) -> Tensor:
    rows, width = x.shape
    span, warps = whole_row(width)
    _norm_backward[(rows,)](
        x,
        weights[0],
        grads[0],
        weights[1] if len(weights) == 2 else None,
        grads[1] if len(grads) == 2 else None,
        residual,
        x.stride(0),
        grads[0].stride(0),
        grads[-1].stride(0),
        residual.stride(0),
        eps,
        width,
        span,
        centre,
        num_warps=warps,
    )
    return residual
