"""`decode` in Triton: a program has a head of a text, or a share of its keys (flash-decoding, Dao et al. 2023)."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from koalpaca_tune.kernels.decode import Heads

KEYS = 32
"""Keys that a program reads at a time."""
PROGRAMS = 264
"""Two for each multiprocessor of a large card: the keys of a head are shared out up to so many."""
MOST_SHARES = 16


@triton.jit
def _turned(start, cos, sin, position, col, inside, half: tl.constexpr):
    value = tl.load(start + col, mask=inside, other=0.0).to(tl.float32)
    if half > 0:
        turns = col < 2 * half
        low = col < half
        other = tl.load(start + tl.where(low, col + half, col - half), mask=turns, other=0.0).to(tl.float32)
        angle = position.to(tl.int64) * half + tl.where(low, col, col - half)
        turn_cos = tl.load(cos + angle, mask=turns, other=1.0)
        turn_sin = tl.load(sin + angle, mask=turns, other=0.0)
        value = value * turn_cos + tl.where(low, -other, other) * turn_sin
    return value


@triton.jit(do_not_specialize=["room"])
def _attend(
    rows, cos, sin, keys, values, slots, lengths, out, sums, peaks, totals,
    rows_row, out_row, room, scale,
    heads: tl.constexpr, kv_heads: tl.constexpr, width: tl.constexpr, half: tl.constexpr,
    first_k: tl.constexpr, first_v: tl.constexpr, q_head: tl.constexpr, k_head: tl.constexpr,
    shares: tl.constexpr, block: tl.constexpr, span: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(0)
    head = tl.program_id(1)
    share = tl.program_id(2)
    group: tl.constexpr = heads // kv_heads
    kv = head // group
    slot = tl.load(slots + m).to(tl.int64)
    length = tl.load(lengths + m).to(tl.int32)
    col = tl.arange(0, span)
    inside = col < width
    row = rows + m.to(tl.int64) * rows_row
    # rounded as it would be if it were stored, like the key
    q = _turned(row + head * q_head, cos, sin, length, col, inside, half)
    q = q.to(rows.dtype.element_ty).to(tl.float32) * scale
    cache = (slot * kv_heads + kv) * room.to(tl.int64) * width
    new_k = _turned(row + first_k + kv * k_head, cos, sin, length, col, inside, half).to(keys.dtype.element_ty)
    new_v = tl.load(row + first_v + kv * k_head + col, mask=inside, other=0.0)
    # the new key is the first share's
    first = share == 0
    place = cache + length.to(tl.int64) * width + col
    writes = inside & first & (head % group == 0)
    tl.store(keys + place, new_k, mask=writes)
    tl.store(values + place, new_v.to(values.dtype.element_ty), mask=writes)
    peak = tl.where(first, tl.sum(q * new_k.to(tl.float32), 0), float("-inf"))
    total = tl.where(first, 1.0, 0.0)
    found = tl.where(first, new_v.to(tl.float32), 0.0)
    each = tl.cdiv(tl.cdiv(length, shares), block) * block
    begin = share * each
    end = tl.minimum(begin + each, length)
    at = begin
    # not `range`: the interpreter cannot turn these numbers into its bounds
    while at < end:
        key = at + tl.arange(0, block)
        live = key < end
        read = cache + key.to(tl.int64)[:, None] * width + col[None, :]
        both = live[:, None] & inside[None, :]
        k = tl.load(keys + read, mask=both, other=0.0).to(tl.float32)
        v = tl.load(values + read, mask=both, other=0.0).to(tl.float32)
        score = tl.where(live, tl.sum(k * q[None, :], 1), float("-inf"))
        higher = tl.maximum(peak, tl.max(score, 0))
        fade = tl.exp(peak - higher)
        weight = tl.exp(score - higher)
        total = total * fade + tl.sum(weight, 0)
        found = found * fade + tl.sum(weight[:, None] * v, 0)
        peak = higher
        at += block
    if shares == 1:
        place = out + m.to(tl.int64) * out_row + head * width + col
        tl.store(place, (found / total).to(out.dtype.element_ty), mask=inside)
    else:
        part = (m * heads + head) * shares + share
        tl.store(sums + part * span + col, found)
        tl.store(peaks + part, peak)
        tl.store(totals + part, total)


@triton.jit
def _join(
    sums, peaks, totals, out, out_row,
    heads: tl.constexpr, width: tl.constexpr, shares: tl.constexpr, span: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(0)
    head = tl.program_id(1)
    share = tl.arange(0, shares)
    col = tl.arange(0, span)
    part = (m * heads + head) * shares + share
    peak = tl.load(peaks + part)
    weight = tl.exp(peak - tl.max(peak, 0))
    found = tl.sum(tl.load(sums + part[:, None] * span + col[None, :]) * weight[:, None], 0)
    found /= tl.sum(tl.load(totals + part) * weight, 0)
    place = out + m.to(tl.int64) * out_row + head * width + col
    tl.store(place, found.to(out.dtype.element_ty), mask=col < width)


def shares_of(texts: int, heads: int) -> int:
    """Programs that share out the keys of a head: a power of two."""
    return min(MOST_SHARES, 1 << (max(1, PROGRAMS // (texts * heads)) - 1).bit_length())


def attend(
    rows: Tensor,
    heads: Heads,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    lengths: Tensor,
    out: Tensor,
    *,
    shares: int | None = None,
) -> None:
    """`decode.attend`; `shares` of the keys of a head, a power of two (None: by the number of texts)."""
    texts = len(rows)
    shares = shares or shares_of(texts, heads.queries)
    span = triton.next_power_of_2(heads.width)
    sums: Tensor | None = None
    peaks: Tensor | None = None
    totals: Tensor | None = None
    if shares > 1:
        like: dict[str, Any] = {"dtype": torch.float32, "device": rows.device}
        parts = texts * heads.queries * shares
        sums, peaks, totals = (
            torch.empty(parts, span, **like),
            torch.empty(parts, **like),
            torch.empty(parts, **like),
        )
    first_k, first_v, q_head, k_head = heads.places
    _attend[(texts, heads.queries, shares)](
        rows, cos, sin, keys, values, slots, lengths, out, sums, peaks, totals,
        rows.stride(0), out.stride(0), keys.shape[2], heads.width**-0.5,
        heads.queries, heads.keys, heads.width, cos.shape[1], first_k, first_v, q_head, k_head,
        shares, KEYS, span, num_warps=4,
    )  # fmt: skip
    if shares > 1:
        _join[(texts, heads.queries)](
            sums, peaks, totals, out, out.stride(0), heads.queries, heads.width, shares, span, num_warps=4
        )
