"""GELU, SwiGLU and their gradients in Triton, over rows that may stand apart.

A result in e4m3 has one scale for a row, so a program then holds the whole row; else it takes a block of one.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from koalpaca_tune.kernels.fp8 import Scaled
from koalpaca_tune.kernels.triton_fp8 import (
    magnitude,
    places,
    row_columns,
    row_scale,
    store_result,
    store_scaled,
    whole_row,
)

BLOCK = 2048
"""Columns of a program: with 4 warps two 16-byte accesses in bfloat16 to a thread and tensor."""


@triton.jit
def _place(width: tl.constexpr, span: tl.constexpr):
    program = tl.program_id(0)
    blocks: tl.constexpr = (width + span - 1) // span
    row = (program // blocks).to(tl.int64)
    cols = (program % blocks) * span + row_columns(span)
    return row, cols, cols < width


@triton.jit
def _inverse(x):
    # of a positive number, in two instructions where a division takes seven
    root = tl.rsqrt(x)
    return root * root


@triton.jit
def _normal(x):
    """The normal distribution below x, and exp(-x * x / 2).

    Abramowitz & Stegun 1964, 7.1.26: within 1e-7 of the error function, with one exponential where erf has its
    own. It takes the tail below zero as it is instead of 1 - erf, which cancels.
    """
    bell = tl.exp2(-0.7213475204444817 * x * x)
    t = _inverse(1.0 + 0.23164188 * tl.abs(x))
    tail = 0.127414796 + t * (-0.142248368 + t * (0.7107068705 + t * (-0.7265760135 + t * 0.5307027145)))
    tail = tail * t * bell
    return tl.where(x < 0.0, tail, 1.0 - tail), bell


@triton.jit
def _sigmoid(x):
    return _inverse(1.0 + tl.exp2(-1.4426950408889634 * x))


@triton.jit
def _gelu(x, out, data, scale, out_row, data_row, x_row, width: tl.constexpr, span: tl.constexpr):
    row, cols, inside = _place(width, span)
    value = tl.load(x + row * x_row + cols, mask=inside, other=0.0).to(tl.float32)
    below, _ = _normal(value)
    store_result(value * below, out, data, scale, row, out_row, data_row, cols, inside)


@triton.jit
def _gelu_backward(
    x, grad, out, data, scale, out_row, data_row, x_row, grad_row, width: tl.constexpr, span: tl.constexpr
):
    row, cols, inside = _place(width, span)
    value = tl.load(x + row * x_row + cols, mask=inside, other=0.0).to(tl.float32)
    above = tl.load(grad + row * grad_row + cols, mask=inside, other=0.0).to(tl.float32)
    below, bell = _normal(value)
    result = above * (below + value * bell * 0.3989422804014327)
    store_result(result, out, data, scale, row, out_row, data_row, cols, inside)


@triton.jit
def _swiglu(gate_up, out, data, scale, out_row, data_row, gate_row, width: tl.constexpr, span: tl.constexpr):
    row, cols, inside = _place(width, span)
    place = gate_up + row * gate_row + cols
    gate = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(place + width, mask=inside, other=0.0).to(tl.float32)
    store_result(gate * _sigmoid(gate) * up, out, data, scale, row, out_row, data_row, cols, inside)


@triton.jit
def _swiglu_backward(
    gate_up, grad, data, scale, data_row, gate_row, grad_row, width: tl.constexpr, span: tl.constexpr
):
    row, cols, inside = _place(width, span)
    place = gate_up + row * gate_row + cols
    above_place = grad + row * grad_row + cols
    gate = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(place + width, mask=inside, other=0.0).to(tl.float32)
    above = tl.load(above_place, mask=inside, other=0.0).to(tl.float32)
    share = _sigmoid(gate)
    silu = gate * share
    gate_grad = above * up * (share + silu * (1.0 - share))
    up_grad = above * silu
    tl.store(place, gate_grad.to(gate_up.dtype.element_ty), mask=inside)
    tl.store(place + width, up_grad.to(gate_up.dtype.element_ty), mask=inside)
    tl.store(above_place, (silu * up).to(grad.dtype.element_ty), mask=inside)
    if data is not None:
        step = row_scale(tl.maximum(magnitude(gate_grad), magnitude(up_grad)))
        tl.store(scale + row, step)
        goal = data + row * data_row + cols
        store_scaled(gate_grad, step, goal, inside)
        store_scaled(up_grad, step, goal + width, inside)


def _blocks(rows: int, width: int, narrow: Scaled | None) -> tuple[tuple[int], int, int]:
    """Grid, columns of a program, and its warps."""
    if narrow is None:
        return (rows * -(-width // BLOCK),), BLOCK, 4
    return ((rows,), *whole_row(width))


def gelu(x: Tensor, out: Tensor | None, narrow: Scaled | None = None) -> None:
    """`plain.gelu`."""
    rows, width = x.shape
    grid, span, warps = _blocks(rows, width, narrow)
    _gelu[grid](x, *places(out, narrow), x.stride(0), width, span, num_warps=warps)


def gelu_backward(x: Tensor, grad: Tensor, out: Tensor | None, narrow: Scaled | None = None) -> None:
    """`plain.gelu_backward`."""
    rows, width = x.shape
    grid, span, warps = _blocks(rows, width, narrow)
    _gelu_backward[grid](x, grad, *places(out, narrow), x.stride(0), grad.stride(0), width, span, num_warps=warps)


def swiglu(gate_up: Tensor, out: Tensor | None, narrow: Scaled | None = None) -> None:
    """`plain.swiglu`."""
    rows, width = len(gate_up), gate_up.shape[1] // 2
    grid, span, warps = _blocks(rows, width, narrow)
    _swiglu[grid](gate_up, *places(out, narrow), gate_up.stride(0), width, span, num_warps=warps)


def swiglu_backward(gate_up: Tensor, grad: Tensor, narrow: Scaled | None = None) -> None:
    """`plain.swiglu_backward`."""
    rows, width = grad.shape
    grid, span, warps = _blocks(rows, width, narrow)
    if narrow is not None:
        # two results of each column are held
        warps = min(2 * warps, 32)
    _, data, scale, _, data_row = places(None, narrow)
    _swiglu_backward[grid](
        gate_up, grad, data, scale, data_row, gate_up.stride(0), grad.stride(0), width, span, num_warps=warps
    )
