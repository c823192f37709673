"""Norms of a residual and their gradients in Triton: a program holds a whole row in registers."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from koalpaca_tune.kernels.plain import Affine


@triton.jit
def _residual(x, update, x_row, update_row, row, cols, inside, adds: tl.constexpr):
    total = tl.load(x + row * x_row + cols, mask=inside, other=0.0)
    if adds:
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
def _layer_norm(
    x,
    update,
    weight,
    bias,
    out,
    weight2,
    bias2,
    out2,
    x_row,
    update_row,
    out_row,
    out2_row,
    eps,
    width: tl.constexpr,
    span: tl.constexpr,
    adds: tl.constexpr,
    two: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, span)
    inside = cols < width
    total = _residual(x, update, x_row, update_row, row, cols, inside, adds)
    centred = tl.where(inside, total - tl.sum(total, 0) / width, 0.0)
    normal = centred * tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
    result = normal * _vector(weight, cols, inside) + _vector(bias, cols, inside)
    tl.store(out + row * out_row + cols, result.to(out.dtype.element_ty), mask=inside)
    if two:
        result2 = normal * _vector(weight2, cols, inside) + _vector(bias2, cols, inside)
        tl.store(out2 + row * out2_row + cols, result2.to(out2.dtype.element_ty), mask=inside)


@triton.jit
def _layer_norm_backward(
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
    two: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, span)
    inside = cols < width
    value = _stream(x, x_row, row, cols, inside)
    inner = _stream(grad, grad_row, row, cols, inside) * _vector(weight, cols, inside)
    if two:
        inner += _stream(grad2, grad2_row, row, cols, inside) * _vector(weight2, cols, inside)
    place = residual + row * residual_row + cols
    past = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, value - tl.sum(value, 0) / width, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
    normal = centred * scale
    back = inner - tl.sum(inner, 0) / width - normal * (tl.sum(inner * normal, 0) / width)
    tl.store(place, (past + back * scale).to(residual.dtype.element_ty), mask=inside)


@triton.jit
def _rms_norm(
    x,
    update,
    weight,
    out,
    x_row,
    update_row,
    out_row,
    eps,
    width: tl.constexpr,
    span: tl.constexpr,
    adds: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, span)
    inside = cols < width
    total = _residual(x, update, x_row, update_row, row, cols, inside, adds)
    normal = total * tl.rsqrt(tl.sum(total * total, 0) / width + eps)
    result = normal * _vector(weight, cols, inside)
    tl.store(out + row * out_row + cols, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _rms_norm_backward(
    x,
    weight,
    grad,
    residual,
    x_row,
    grad_row,
    residual_row,
    eps,
    width: tl.constexpr,
    span: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, span)
    inside = cols < width
    value = _stream(x, x_row, row, cols, inside)
    inner = _stream(grad, grad_row, row, cols, inside) * _vector(weight, cols, inside)
    place = residual + row * residual_row + cols
    past = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 0) / width + eps)
    normal = value * scale
    back = inner - normal * (tl.sum(inner * normal, 0) / width)
    tl.store(place, (past + back * scale).to(residual.dtype.element_ty), mask=inside)


def _block(width: int) -> tuple[int, int]:
    """Columns of a program, and its warps: about 16 columns to a thread, two 16-byte accesses in bfloat16.

    Past 4,096 columns a thread takes 32 rather than that fewer rows fit a multiprocessor at a time.
    """
    block = max(32, triton.next_power_of_2(width))
    return block, max(block // 512, 1) if block <= 4096 else min(block // 1024, 16)


def add_layer_norm(
    x: Tensor, update: Tensor | None, affines: tuple[Affine, ...], outs: tuple[Tensor, ...], eps: float
) -> Tensor:
    """`plain.add_layer_norm`, for at most two norms.

    Raises:
        ValueError: for more than two norms.
    """
    total = x if update is None else update
    if not outs:
        return x if update is None else update.add_(x)
    if len(outs) != len(affines) or len(outs) > 2:
        raise ValueError(f"{len(affines)} norms into {len(outs)} outputs; one or two of both are handled")
    (weight, bias), (weight2, bias2) = affines[0], affines[-1]
    out, out2 = outs[0], outs[-1]
    rows, width = x.shape
    block, warps = _block(width)
    _layer_norm[(rows,)](
        x,
        total,
        weight,
        bias,
        out,
        weight2,
        bias2,
        out2,
        x.stride(0),
        total.stride(0),
        out.stride(0),
        out2.stride(0),
        eps,
        width,
        block,
        update is not None,
        len(outs) == 2,
        num_warps=warps,
    )
    return total


def layer_norm_backward(
    x: Tensor, weights: tuple[Tensor, ...], grads: tuple[Tensor, ...], residual: Tensor, eps: float
) -> Tensor:
    """`plain.layer_norm_backward`, for one norm or two.

    Raises:
        ValueError: for any other number of norms.
    """
    if len(grads) != len(weights) or not 1 <= len(grads) <= 2:
        raise ValueError(f"{len(grads)} gradients of {len(weights)} norms; one or two of both are handled")
    rows, width = x.shape
    block, warps = _block(width)
    _layer_norm_backward[(rows,)](
        x,
        weights[0],
        grads[0],
        weights[-1],
        grads[-1],
        residual,
        x.stride(0),
        grads[0].stride(0),
        grads[-1].stride(0),
        residual.stride(0),
        eps,
        width,
        block,
        len(grads) == 2,
        num_warps=warps,
    )
    return residual


def add_rms_norm(x: Tensor, update: Tensor | None, weight: Tensor, out: Tensor | None, eps: float) -> Tensor:
    """`plain.add_rms_norm`."""
    if out is None:
        return x if update is None else update.add_(x)
    total = x if update is None else update
    rows, width = x.shape
    block, warps = _block(width)
    _rms_norm[(rows,)](
        x,
        total,
        weight,
        out,
        x.stride(0),
        total.stride(0),
        out.stride(0),
        eps,
        width,
        block,
        update is not None,
        num_warps=warps,
    )
    return total


def rms_norm_backward(x: Tensor, weight: Tensor, grad: Tensor, residual: Tensor, eps: float) -> Tensor:
    """`plain.rms_norm_backward`."""
    rows, width = x.shape
    block, warps = _block(width)
    _rms_norm_backward[(rows,)](
        x,
        weight,
        grad,
        residual,
        x.stride(0),
        grad.stride(0),
        residual.stride(0),
        eps,
        width,
        block,
        num_warps=warps,
    )
    return residual
