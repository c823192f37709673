"""Rotary embedding in Triton: a program turns a few heads of neighbouring tokens."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["lines"])
def _rotate(
    x,
    out,
    cos,
    sin,
    positions,
    lines,
    x_token,
    x_head,
    out_token,
    out_head,
    heads: tl.constexpr,
    half: tl.constexpr,
    rest: tl.constexpr,
    inverse: tl.constexpr,
    span: tl.constexpr,
    half_span: tl.constexpr,
    rest_span: tl.constexpr,
):
    # a line is one head of one token
    line = tl.program_id(0) * span + tl.arange(0, span)
    live = line < lines
    token = line // heads
    head = line % heads
    source = token.to(tl.int64) * x_token + head * x_head
    target = token.to(tl.int64) * out_token + head * out_head
    if half > 0:
        cols = tl.arange(0, half_span)
        inside = live[:, None] & (cols < half)[None, :]
        position = tl.load(positions + token, mask=live, other=0).to(tl.int64)
        angle = position[:, None] * half + cols[None, :]
        turn_cos = tl.load(cos + angle, mask=inside, other=0.0)
        turn_sin = tl.load(sin + angle, mask=inside, other=0.0)
        if inverse:
            turn_sin = -turn_sin
        place = x + source[:, None] + cols[None, :]
        first = tl.load(place, mask=inside, other=0.0).to(tl.float32)
        second = tl.load(place + half, mask=inside, other=0.0).to(tl.float32)
        goal = out + target[:, None] + cols[None, :]
        tl.store(goal, (first * turn_cos - second * turn_sin).to(out.dtype.element_ty), mask=inside)
        tl.store(goal + half, (second * turn_cos + first * turn_sin).to(out.dtype.element_ty), mask=inside)
    if rest > 0:
        others = tl.arange(0, rest_span)
        within = live[:, None] & (others < rest)[None, :]
        value = tl.load(x + source[:, None] + 2 * half + others[None, :], mask=within, other=0.0)
        tl.store(out + target[:, None] + 2 * half + others[None, :], value.to(out.dtype.element_ty), mask=within)


def rotate(x: Tensor, out: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, *, inverse: bool = False) -> Tensor:
    """`plain.rotate`; cos and sin are contiguous. Views of one place count as the same tensor."""
    tokens, heads, size = x.shape
    half = cos.shape[1]
    same = out is x or (out.data_ptr() == x.data_ptr() and out.stride() == x.stride())
    rest = 0 if same else size - 2 * half
    if half == 0 and rest == 0:
        return out
    half_block, rest_block = triton.next_power_of_2(max(half, 1)), triton.next_power_of_2(max(rest, 1))
    # 8 or 16 pairs to a thread of 4 warps, and at most 64 numbers that are only copied
    lines_block = max(min(2048 // half_block, 8192 // rest_block), 1)
    lines = tokens * heads
    _rotate[(-(-lines // lines_block),)](
        x,
        out,
        cos,
        sin,
        positions,
        lines,
        x.stride(0),
        x.stride(1),
        out.stride(0),
        out.stride(1),
        heads,
        half,
        rest,
        inverse,
        lines_block,
        half_block,
        rest_block,
        num_warps=4,
    )
    return out
