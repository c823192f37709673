"""e4m3 on a GPU that has it: rounding whole rows in Triton, and the hardware's products of them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from koalpaca_tune.kernels.fp8 import Scaled


@triton.jit
def magnitude(value):
    """|value| of float32 as an integer: the order is the same, and NaN comes above infinity."""
    return value.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def row_scale(magnitudes):
    """The scale of a row; a maximum of integers keeps a NaN, and takes one instruction for a warp."""
    scale = tl.max(magnitudes, 0).to(tl.float32, bitcast=True) * (1.0 / 448.0)
    # 2^-126: below it the inverse could overflow
    return tl.where(scale < 1.1754943508222875e-38, 1.0, scale)


@triton.jit
def store_scaled(value, scale, place, inside):
    """Stores value / scale, to the nearest even."""
    tl.store(place, (value * tl.div_rn(1.0, scale)).to(place.dtype.element_ty), mask=inside)


@triton.jit
def store_result(value, out, data, scale, row, out_row, data_row, cols, inside):
    """Stores columns of a row in `out`, a whole row in e4m3, or both; `value` is 0 where it is not `inside`."""
    if out is not None:
        tl.store(out + row * out_row + cols, value.to(out.dtype.element_ty), mask=inside)
    if data is not None:
        step = row_scale(magnitude(value))
        tl.store(scale + row, step)
        store_scaled(value, step, data + row * data_row + cols, inside)


@triton.jit
def row_columns(span: tl.constexpr):
    """Columns of a row, 8 to a thread and access: 16 bytes of bfloat16, and 8 of e4m3 in the same layout."""
    return tl.max_contiguous(tl.arange(0, span), 8)


Places = tuple[Tensor | None, Tensor | None, Tensor | None, int, int]
"""out, data, scale; strides of the rows of out and of data."""


def places(out: Tensor | None, narrow: Scaled | None) -> Places:
    """What a kernel that ends in `store_result` is given."""
    stride = 0 if out is None else out.stride(0)
    if narrow is None:
        return out, None, None, stride, 0
    return out, narrow.data, narrow.scale, stride, narrow.data.stride(0)


def whole_row(width: int) -> tuple[int, int]:
    """Columns of a program that holds a row, and its warps: about 16 columns to a thread.

    Past 4,096 columns a thread takes 32 rather than that fewer rows fit a multiprocessor at a time.
    """
    span = max(32, triton.next_power_of_2(width))
    return span, max(span // 512, 1) if span <= 4096 else min(span // 1024, 32)


@triton.jit
def _quantize(x, data, scale, x_row, data_row, width: tl.constexpr, span: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    cols = row_columns(span)
    inside = cols < width
    value = tl.load(x + row * x_row + cols, mask=inside, other=0.0).to(tl.float32)
    store_result(value, None, data, scale, row, 0, data_row, cols, inside)


def quantize(x: Tensor, out: Scaled) -> Scaled:
    """`plain.quantize`, bit for bit."""
    rows, width = x.shape
    span, warps = whole_row(width)
    _quantize[(rows,)](x, out.data, out.scale, x.stride(0), out.data.stride(0), width, span, num_warps=warps)
    return out


@triton.jit(do_not_specialize=["rows"])
def _split(
    x,
    scale,
    factor,
    out,
    rows,
    x_row,
    x_column,
    out_row,
    second: tl.constexpr,
    rank: tl.constexpr,
    spare: tl.constexpr,
    tile: tl.constexpr,
    span: tl.constexpr,
):
    """`second`: which of the three parts holds what the first rounding leaves."""
    row = (tl.program_id(0) * tile + tl.arange(0, tile)).to(tl.int64)
    cols = tl.arange(0, span)
    live = row < rows
    inside = live[:, None] & (cols < 3 * rank)[None, :]
    place = x + row[:, None] * x_row + (cols % rank)[None, :] * x_column
    value = tl.load(place, mask=inside, other=0.0).to(tl.float32) * tl.load(factor)
    if scale is not None:
        value *= tl.div_rn(1.0, tl.load(scale + row, mask=live, other=1.0))[:, None]
    # a conversion would cut off what e4m3 cannot hold
    value = tl.where(tl.abs(value) > 448.0, float("nan"), value)
    rounded = value.to(out.dtype.element_ty).to(tl.float32)
    result = tl.where((cols // rank == second)[None, :], value - rounded, rounded)
    place = out + row[:, None] * out_row + cols[None, :]
    tl.store(place, result.to(out.dtype.element_ty), mask=live[:, None] & (cols < spare)[None, :])


def split(x: Tensor, scale: Tensor | None, factor: Tensor, out: Tensor, *, left: bool) -> None:
    """`plain.split`.

    Raises:
        ValueError: fewer columns in `out` than three times those of x.
    """
    (rows, rank), spare = x.shape, out.shape[1]
    if spare < 3 * rank:
        raise ValueError(f"{rank} columns three times do not fit into {spare}")
    span = max(16, triton.next_power_of_2(spare))
    tile = max(1, 4096 // span)
    strides = x.stride(0), x.stride(1), out.stride(0)
    second = 1 if left else 2
    _split[(-(-rows // tile),)](x, scale, factor, out, rows, *strides, second, rank, spare, tile, span, num_warps=4)


def scaled_mm(x: Scaled, weight: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """`plain.scaled_mm` by the hardware, in its fast accumulation (0.35 % at K = 16,384); on CUDA to bfloat16."""
    return torch._scaled_mm(
        x.data, weight.t(), scale_a=x.scale, scale_b=scale, bias=bias, out_dtype=dtype, use_fast_accum=True
    )
