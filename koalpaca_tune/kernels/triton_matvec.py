"""`matvec` in Triton: one row with weights on the ordinary units, some rows on the tensor cores.

Weights in 4 bits are decoded in registers. A word holds eight neighbours of a row; the products take the first
digit of all words of a tile, then the second, and so on, so that decoded weights never change places.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from koalpaca_tune.kernels import matvec
from koalpaca_tune.kernels.matvec import Beside, Weight
from koalpaca_tune.kernels.nf4 import Packed
from koalpaca_tune.kernels.triton_nf4 import _DTYPES, _scale, _scales, dequantize

MOST_OWN = 16
"""Rows of x that are multiplied here."""
WIDE = 8192
TABLE_BYTES = 64


@triton.jit
def _finish(total, bias, added, added_row, out, out_row, m, row, live, gelu: tl.constexpr):
    if bias is not None:
        total += tl.load(bias + row, mask=live, other=0.0).to(tl.float32)
    if gelu:
        total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
    if added is not None:
        total += tl.load(added + m * added_row + row, mask=live, other=0.0).to(tl.float32)
    tl.store(out + m * out_row + row, total.to(out.dtype.element_ty), mask=live)


@triton.jit
def _beside_one(total, projected, b, b_adapter, b_rank, which, m, row, live, rank: tl.constexpr):
    adapter = tl.load(which + m)
    if adapter >= 0:
        ranks = tl.arange(0, rank)
        part = tl.load(projected + m * rank + ranks)
        place = b + adapter.to(tl.int64) * b_adapter + ranks[:, None] * b_rank + row[None, :]
        total += tl.sum(tl.load(place, mask=live[None, :], other=0.0).to(tl.float32) * part[:, None], 0)
    return total


@triton.jit
def _project(x, a, which, out, x_row, a_adapter, width: tl.constexpr, rank: tl.constexpr, rows: tl.constexpr,
             span: tl.constexpr):  # fmt: skip
    m = tl.program_id(1)
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    adapter = tl.load(which + m)
    total = tl.zeros([rows], tl.float32)
    if adapter >= 0:
        sums = tl.zeros([rows, span], tl.float32)
        for begin in range(0, width, span):
            col = begin + tl.arange(0, span)
            inside = col < width
            place = a + adapter.to(tl.int64) * a_adapter + row[:, None] * width + col[None, :]
            weight = tl.load(place, mask=inside[None, :], other=0.0).to(tl.float32)
            sums += weight * tl.load(x + m * x_row + col, mask=inside, other=0.0).to(tl.float32)[None, :]
        total = tl.sum(sums, 1)
    tl.store(out + m * rank + row, total)


@triton.jit(do_not_specialize=["outputs"])
def _vector(
    x, weight, bias, projected, b, which, added, out, outputs,
    x_row, weight_row, b_adapter, b_rank, added_row, out_row,
    width: tl.constexpr, rank: tl.constexpr, gelu: tl.constexpr, rows: tl.constexpr, span: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(1)
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    live = row < outputs
    start = weight + row.to(tl.int64)[:, None] * weight_row
    sums = tl.zeros([rows, span], tl.float32)
    for begin in range(0, width, span):
        col = begin + tl.arange(0, span)
        inside = col < width
        read = tl.load(start + col[None, :], mask=live[:, None] & inside[None, :], other=0.0,
                       eviction_policy="evict_first")  # fmt: skip
        value = tl.load(x + m * x_row + col, mask=inside, other=0.0).to(tl.float32)
        sums += read.to(tl.float32) * value[None, :]
    total = tl.sum(sums, 1)
    if rank > 0:
        total = _beside_one(total, projected, b, b_adapter, b_rank, which, m, row, live, rank)
    _finish(total, bias, added, added_row, out, out_row, m, row, live, gelu)


@triton.jit
def _looked_up(packed, digit: tl.constexpr, code):
    """The code of one digit of all words; the table begins at a multiple of its 64 bytes, so an "or" adds to it."""
    shift: tl.constexpr = (digit // 2) * 8 + 4 - (digit % 2) * 4 - 2
    offset = (packed >> shift) & 60 if shift >= 0 else (packed << -shift) & 60
    place = code.to(tl.int64) | offset.to(tl.int64)
    return tl.load(place.to(tl.pointer_type(tl.float32)))


@triton.jit
def _digit(sums, packed, digit: tl.constexpr, code, value, scale, kept: tl.constexpr):
    """Adds the products of one digit of all words; of each byte the high half comes first, and the lowest byte."""
    read = _looked_up(packed, digit, code)
    if kept is not None:
        read = (read * scale[:, :, None]).to(kept).to(tl.float32)
    return sums + read * value[None, :, :]


@triton.jit(do_not_specialize=["outputs"])
def _vector_packed(
    x, data, code, absmax, absmax_code, absmax_scale, absmax_offset,
    bias, projected, b, which, added, out, outputs,
    x_row, b_adapter, b_rank, added_row, out_row,
    width: tl.constexpr, block: tl.constexpr, nested_block: tl.constexpr, kept: tl.constexpr,
    rank: tl.constexpr, gelu: tl.constexpr, rows: tl.constexpr, span: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(1)
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    live = row < outputs
    words: tl.constexpr = width // 8
    # four words to a thread are 16 bytes, and of one block: its scale is taken once
    fours: tl.constexpr = words // 4
    total = tl.zeros([rows], tl.float32)
    start = data.to(tl.pointer_type(tl.int32)) + (row.to(tl.int64) * words)[:, None, None]
    for begin in range(0, fours, span):
        four = begin + tl.arange(0, span)
        inside = four < fours
        within = live[:, None] & inside[None, :]
        word = four[:, None] * 4 + tl.arange(0, 4)[None, :]
        packed = tl.load(start + word[None, :, :], mask=within[:, :, None], other=0, eviction_policy="evict_first")
        at = (row.to(tl.int64) * (width // block))[:, None] + (four * 32 // block)[None, :]
        scale = _scale(absmax, absmax_code, absmax_scale, absmax_offset, at, within, nested_block)
        sums = tl.zeros([rows, span, 4], tl.float32)
        col = begin * 32 + tl.arange(0, span * 32)
        value = tl.load(x + m * x_row + col, mask=col < width, other=0.0).to(tl.float32)
        # all first digits of the words, all second ones, ...: read together, since neighbours lie side by side
        evens, odds = tl.split(tl.reshape(value, [span, 4, 2, 2, 2]))
        e0, e1 = tl.split(evens)
        o0, o1 = tl.split(odds)
        v0, v4 = tl.split(e0)
        v2, v6 = tl.split(e1)
        v1, v5 = tl.split(o0)
        v3, v7 = tl.split(o1)
        sums = _digit(sums, packed, 0, code, v0, scale, kept)
        sums = _digit(sums, packed, 1, code, v1, scale, kept)
        sums = _digit(sums, packed, 2, code, v2, scale, kept)
        sums = _digit(sums, packed, 3, code, v3, scale, kept)
        sums = _digit(sums, packed, 4, code, v4, scale, kept)
        sums = _digit(sums, packed, 5, code, v5, scale, kept)
        sums = _digit(sums, packed, 6, code, v6, scale, kept)
        sums = _digit(sums, packed, 7, code, v7, scale, kept)
        part = tl.sum(sums, 2)
        total += tl.sum(part if kept is not None else part * scale, 1)
    if rank > 0:
        total = _beside_one(total, projected, b, b_adapter, b_rank, which, m, row, live, rank)
    _finish(total, bias, added, added_row, out, out_row, m, row, live, gelu)


@triton.jit
def _beside_all(total, projected, b, b_adapter, b_rank, which, count, m, row, live, rank: tl.constexpr):
    """`total` [rows, texts] with LoRA."""
    there = m < count
    adapter = tl.load(which + m, mask=there, other=-1)
    own = there & (adapter >= 0)
    start = b + tl.maximum(adapter, 0).to(tl.int64)[None, :] * b_adapter + row[:, None]
    for one in range(0, rank):
        part = tl.load(projected + m * rank + one, mask=own, other=0.0)
        read = tl.load(start + one * b_rank, mask=live[:, None] & own[None, :], other=0.0).to(tl.float32)
        total += read * part[None, :]
    return total


@triton.jit
def _finish_all(total, bias, added, added_row, out, out_row, count, m, row, live, gelu: tl.constexpr):
    both = live[:, None] & (m < count)[None, :]
    if bias is not None:
        total += tl.load(bias + row, mask=live, other=0.0).to(tl.float32)[:, None]
    if gelu:
        total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
    if added is not None:
        total += tl.load(added + m[None, :] * added_row + row[:, None], mask=both, other=0.0).to(tl.float32)
    tl.store(out + m[None, :] * out_row + row[:, None], total.to(out.dtype.element_ty), mask=both)


@triton.jit(do_not_specialize=["outputs", "count"])
def _matrix(
    x, weight, bias, projected, b, which, added, out, outputs, count,
    x_row, weight_row, b_adapter, b_rank, added_row, out_row,
    width: tl.constexpr, rank: tl.constexpr, gelu: tl.constexpr, texts: tl.constexpr, rows: tl.constexpr,
    span: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    live = row < outputs
    m = tl.arange(0, texts)
    start = weight + row.to(tl.int64)[:, None] * weight_row
    total = tl.zeros([rows, texts], tl.float32)
    for begin in range(0, width, span):
        col = begin + tl.arange(0, span)
        inside = col < width
        read = tl.load(start + col[None, :], mask=live[:, None] & inside[None, :], other=0.0,
                       eviction_policy="evict_first")  # fmt: skip
        value = tl.load(x + m[None, :] * x_row + col[:, None], mask=inside[:, None] & (m < count)[None, :],
                        other=0.0)  # fmt: skip
        total = tl.dot(read, value, total, input_precision="ieee")
    if rank > 0:
        total = _beside_all(total, projected, b, b_adapter, b_rank, which, count, m, row, live, rank)
    _finish_all(total, bias, added, added_row, out, out_row, count, m, row, live, gelu)


@triton.jit(do_not_specialize=["outputs", "count"])
def _matrix_packed(
    x, data, code, absmax, absmax_code, absmax_scale, absmax_offset,
    bias, projected, b, which, added, out, outputs, count,
    x_digit, x_row, b_adapter, b_rank, added_row, out_row,
    width: tl.constexpr, block: tl.constexpr, nested_block: tl.constexpr, kept: tl.constexpr,
    rank: tl.constexpr, gelu: tl.constexpr, texts: tl.constexpr, rows: tl.constexpr, span: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    live = row < outputs
    m = tl.arange(0, texts)
    there = m < count
    words: tl.constexpr = width // 8
    fours: tl.constexpr = words // 4
    total = tl.zeros([rows, texts], tl.float32)
    start = data.to(tl.pointer_type(tl.int32)) + (row.to(tl.int64) * words)[:, None, None]
    for begin in range(0, fours, span):
        four = begin + tl.arange(0, span)
        within = live[:, None] & (four < fours)[None, :]
        word = four[:, None] * 4 + tl.arange(0, 4)[None, :]
        packed = tl.load(start + word[None, :, :], mask=within[:, :, None], other=0, eviction_policy="evict_first")
        at = (row.to(tl.int64) * (width // block))[:, None] + (four * 32 // block)[None, :]
        scale = _scale(absmax, absmax_code, absmax_scale, absmax_offset, at, within, nested_block)
        flat = begin * 4 + tl.arange(0, span * 4)
        place = x + m[None, :] * x_row + flat[:, None]
        keep = (flat < words)[:, None] & there[None, :]
        for digit in tl.static_range(8):
            read = (_looked_up(packed, digit, code) * scale[:, :, None]).to(kept).to(x.dtype.element_ty)
            read = tl.reshape(read, [rows, span * 4])
            value = tl.load(place + digit * x_digit, mask=keep, other=0.0)
            total = tl.dot(read, value, total, input_precision="ieee")
    if rank > 0:
        total = _beside_all(total, projected, b, b_adapter, b_rank, which, count, m, row, live, rank)
    _finish_all(total, bias, added, added_row, out, out_row, count, m, row, live, gelu)


def project(x: Tensor, a: Tensor, which: Tensor, out: Tensor) -> None:
    """`matvec.project`; the rank is a power of two, and the rows of `a` follow each other."""
    _, rank, width = a.shape
    rows = min(rank, 4)
    span = min(triton.next_power_of_2(width), 1024)
    _project[(rank // rows, len(x))](
        x, a, which, out, x.stride(0), a.stride(0), width, rank, rows, span, num_warps=4
    )  # fmt: skip


def linear(
    x: Tensor,
    weight: Weight,
    out: Tensor,
    *,
    bias: Tensor | None = None,
    beside: Beside | None = None,
    gelu: bool = False,
    added: Tensor | None = None,
    tile: tuple[int, int, int, int] | None = None,
) -> None:
    """`matvec.linear`; the rank is a power of two. Many rows are cuBLAS's, after 4-bit weights were decoded.

    `tile`: rows of W, columns (whole) or groups of 32 (in 4 bits) that a program reads at a time, warps, stages;
    None: by the shape.

    Raises:
        ValueError: for rows of 4-bit weights that are not whole blocks of 32 or more.
    """
    count, width = x.shape
    outputs = out.shape[1]
    packed = isinstance(weight, Packed)
    if tile is None and not _own(count, outputs, packed=packed):
        whole = weight
        if isinstance(weight, Packed):
            whole = dequantize(weight, torch.empty(outputs, width, dtype=x.dtype, device=x.device))
        matvec.linear(x, whole, out, bias=bias, beside=beside, gelu=gelu, added=added)
        return
    lora = (None, None, None) if beside is None else (beside.projected, beside.b, beside.which)
    strides = (0, 0) if beside is None else (beside.b.stride(0), beside.b.stride(1))
    rank = 0 if beside is None else beside.b.shape[1]
    sizes = (*strides, 0 if added is None else added.stride(0), out.stride(0))
    rows, span, warps, stages = tile or tile_of(count, outputs, width, packed=packed)
    grid = (-(-outputs // rows), 1)
    common: dict[str, Any] = {
        "width": width, "rank": rank, "gelu": gelu, "rows": rows, "span": span, "num_warps": warps,
        "num_stages": stages,
    }  # fmt: skip
    rest = (bias, *lora, added, out, outputs)
    if isinstance(weight, Packed):
        scales, nested = _scales(weight, width)
        code = weight.state.code
        read = (weight.data, code if code.data_ptr() % TABLE_BYTES == 0 else code.clone(), *scales)
        kept = _DTYPES[weight.state.dtype]
        common |= {"block": weight.state.blocksize, "nested_block": nested}
        if count == 1:
            # the rounding of decoded weights costs time, and beside the rounding of 16 bits it is not seen
            kept = kept if x.dtype == torch.float32 else None
            _vector_packed[grid](x, *read, *rest, x.stride(0), *sizes, kept=kept, **common)
        else:
            digits = x.unflatten(1, (width // 8, 8)).permute(2, 0, 1).contiguous()
            strides_x = digits.stride(0), digits.stride(1)
            _matrix_packed[grid](
                digits, *read, *rest, count, *strides_x, *sizes, kept=kept, texts=texts_of(count), **common
            )
    elif count == 1:
        _vector[grid](x, weight, *rest, x.stride(0), weight.stride(0), *sizes, **common)
    else:
        _matrix[grid](
            x, weight, *rest, count, x.stride(0), weight.stride(0), *sizes, texts=texts_of(count), **common
        )


def _own(count: int, outputs: int, *, packed: bool) -> bool:
    """Whether a product is computed here: what was faster on an H200."""
    if packed and outputs < WIDE:
        # too few programs to decode and multiply: with cuBLAS the card decodes all at once
        return count == 1
    return count <= MOST_OWN


def texts_of(count: int) -> int:
    """Columns of the tensor cores' tile for so many rows of x."""
    return max(16, 1 << (count - 1).bit_length())


def tile_of(count: int, outputs: int, width: int, *, packed: bool) -> tuple[int, int, int, int]:
    """Rows of W and columns (groups of 32 in 4 bits) of a tile, warps, stages: what was fastest on an H200."""
    if packed:
        fours = triton.next_power_of_2(width // 32)
        if count == 1:
            return (8, min(fours, 64), 4, 1)
        # with more stages every lookup of a code would be a copy of its own to shared memory
        return (64, max(4, min(fours, 16)), 4, 1)
    columns = max(16, triton.next_power_of_2(width))
    if count == 1:
        return (1, min(columns, 2048), 8, 2) if width <= WIDE else (1, min(columns, 1024), 4, 2)
    return (32, min(columns, 128), 4, 3) if outputs >= WIDE else (16, min(columns, 256), 2, 4)
