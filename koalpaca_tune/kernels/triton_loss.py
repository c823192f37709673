"""Cross-entropy in Triton: a program walks over a row of logits once for its sum, and once for its gradient."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

LANE = 8
"""Neighbouring logits that a thread sums by itself, with one maximum."""


@triton.jit
def _cross_entropy(
    logits,
    targets,
    losses,
    logits_row,
    vocabulary: tl.constexpr,
    backward: tl.constexpr,
    span: tl.constexpr,
    lane: tl.constexpr,
):
    log2_e: tl.constexpr = 1.4426950408889634
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * logits_row
    target = tl.load(targets + row)
    right = tl.load(start + target).to(tl.float32)
    lanes: tl.constexpr = span // lane
    offsets = tl.arange(0, lanes)[:, None] * lane + tl.arange(0, lane)[None, :]
    # a running maximum and sum for each lane (Milakov & Gimelshein 2018): the threads meet once, after the loop.
    # Exponents are of 2, which is what the hardware has
    peak = tl.full((lanes,), -1e38, tl.float32)
    total = tl.zeros((lanes,), tl.float32)
    for begin in range(0, vocabulary, span):
        cols = begin + offsets
        value = tl.load(start + cols, mask=cols < vocabulary, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(peak, tl.max(value, 1) * log2_e)
        total = total * tl.exp2(peak - higher) + tl.sum(tl.exp2(value * log2_e - higher[:, None]), 1)
        peak = higher
    top = tl.max(peak, 0)
    log_sum = top + tl.log2(tl.sum(total * tl.exp2(peak - top), 0))
    tl.store(losses + row, log_sum / log2_e - right)
    if backward:
        steps: tl.constexpr = (vocabulary + span - 1) // span
        for step in range(0, steps):
            # backwards: the end of the row is still in the cache
            cols = (steps - 1 - step) * span + offsets
            value = tl.load(start + cols, mask=cols < vocabulary, other=0.0).to(tl.float32)
            share = tl.exp2(value * log2_e - log_sum)
            tl.store(start + cols, share.to(logits.dtype.element_ty), mask=cols < vocabulary)
        # every thread has written its part of the row
        tl.debug_barrier()
        share = tl.exp2(right * log2_e - log_sum) - 1.0
        tl.store(start + target, share.to(logits.dtype.element_ty))


def cross_entropy(logits: Tensor, targets: Tensor, *, grad: bool) -> Tensor:
    """`plain.cross_entropy`; targets are contiguous and within the vocabulary."""
    rows, vocabulary = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    # two 16-byte accesses in bfloat16 to a thread; of long rows fewer at a time, so that they stay in L2
    warps = 16 if vocabulary <= 65536 else 32
    block = warps * 512
    _cross_entropy[(rows,)](
        logits, targets, losses, logits.stride(0), vocabulary, grad, block, LANE, num_warps=warps
    )
    return losses
