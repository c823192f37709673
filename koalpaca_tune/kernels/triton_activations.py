"""GELU, SwiGLU and their gradients in Triton, over rows that may stand apart."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
"""Columns of a program: with 4 warps two 16-byte accesses in bfloat16 to a thread and tensor."""


@triton.jit
def _place(width: tl.constexpr, span: tl.constexpr):
    program = tl.program_id(0)
    blocks: tl.constexpr = (width + span - 1) // span
    row = (program // blocks).to(tl.int64)
    cols = (program % blocks) * span + tl.arange(0, span)
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
def _gelu(x, out, x_row, out_row, width: tl.constexpr, span: tl.constexpr):
    row, cols, inside = _place(width, span)
    value = tl.load(x + row * x_row + cols, mask=inside, other=0.0).to(tl.float32)
    below, _ = _normal(value)
    tl.store(out + row * out_row + cols, (value * below).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gelu_backward(x, grad, x_row, grad_row, width: tl.constexpr, span: tl.constexpr):
    row, cols, inside = _place(width, span)
    place = grad + row * grad_row + cols
    value = tl.load(x + row * x_row + cols, mask=inside, other=0.0).to(tl.float32)
    above = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    below, bell = _normal(value)
    result = above * (below + value * bell * 0.3989422804014327)
    tl.store(place, result.to(grad.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu(gate_up, out, gate_row, out_row, width: tl.constexpr, span: tl.constexpr):
    row, cols, inside = _place(width, span)
    place = gate_up + row * gate_row + cols
    gate = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(place + width, mask=inside, other=0.0).to(tl.float32)
    result = gate * _sigmoid(gate) * up
    tl.store(out + row * out_row + cols, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu_backward(gate_up, grad, gate_row, grad_row, width: tl.constexpr, span: tl.constexpr):
    row, cols, inside = _place(width, span)
    place = gate_up + row * gate_row + cols
    above_place = grad + row * grad_row + cols
    gate = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(place + width, mask=inside, other=0.0).to(tl.float32)
    above = tl.load(above_place, mask=inside, other=0.0).to(tl.float32)
    share = _sigmoid(gate)
    silu = gate * share
    gate_grad = above * up * (share + silu * (1.0 - share))
    tl.store(place, gate_grad.to(gate_up.dtype.element_ty), mask=inside)
    tl.store(place + width, (above * silu).to(gate_up.dtype.element_ty), mask=inside)
    tl.store(above_place, (silu * up).to(grad.dtype.element_ty), mask=inside)


def gelu(x: Tensor, out: Tensor) -> Tensor:
    """`plain.gelu`."""
    rows, width = x.shape
    _gelu[(rows * -(-width // BLOCK),)](x, out, x.stride(0), out.stride(0), width, BLOCK, num_warps=4)
    return out


def gelu_backward(x: Tensor, grad: Tensor) -> Tensor:
    """`plain.gelu_backward`."""
    rows, width = x.shape
    _gelu_backward[(rows * -(-width // BLOCK),)](x, grad, x.stride(0), grad.stride(0), width, BLOCK, num_warps=4)
    return grad


def swiglu(gate_up: Tensor, out: Tensor) -> Tensor:
    """`plain.swiglu`."""
    rows, width = out.shape
    _swiglu[(rows * -(-width // BLOCK),)](gate_up, out, gate_up.stride(0), out.stride(0), width, BLOCK, num_warps=4)
    return out


def swiglu_backward(gate_up: Tensor, grad: Tensor) -> None:
    """`plain.swiglu_backward`."""
    rows, width = grad.shape
    _swiglu_backward[(rows * -(-width // BLOCK),)](
        gate_up, grad, gate_up.stride(0), grad.stride(0), width, BLOCK, num_warps=4
    )
