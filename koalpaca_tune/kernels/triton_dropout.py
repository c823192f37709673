"""Dropout in Triton, whose mask is computed again wherever it is needed."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512
"""Columns that one draw of Philox numbers: it gives four, so a program handles four times as many."""


@triton.jit(do_not_specialize=["salt"])
def _dropout(x, out, seed, salt, probability, x_row, out_row, width: tl.constexpr, span: tl.constexpr):
    program = tl.program_id(0)
    blocks: tl.constexpr = (width + 4 * span - 1) // (4 * span)
    line = program // blocks
    block = program % blocks
    lanes = tl.arange(0, span)
    # Philox 4x32 (Salmon et al. 2011) with 7 rounds, the fewest that passed their tests; the place and the salt
    # are the counter, the seed is the key
    numbers = tl.philox(tl.load(seed), block * span + lanes, line, salt, 0, 7)
    bar = (tl.full((), probability, tl.float32) * 4294967296.0).to(tl.uint32)
    scale = 1.0 / (1.0 - probability)
    row = line.to(tl.int64)
    for part in tl.static_range(4):
        cols = (block * 4 + part) * span + lanes
        inside = cols < width
        value = tl.load(x + row * x_row + cols, mask=inside, other=0.0).to(tl.float32)
        kept = tl.where(numbers[part] >= bar, value * scale, 0.0)
        tl.store(out + row * out_row + cols, kept.to(out.dtype.element_ty), mask=inside)


def dropout(x: Tensor, out: Tensor, seed: Tensor, salt: int, probability: float) -> Tensor:
    """`plain.dropout` with a mask of its own, the same on every device; salt is below 2^31."""
    rows, width = x.shape
    blocks = -(-width // (4 * BLOCK))
    _dropout[(rows * blocks,)](
        x, out, seed, salt, probability, x.stride(0), out.stride(0), width, BLOCK, num_warps=2
    )
    return out
