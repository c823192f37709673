"""Rows of keys and values in Triton, read where they stand among queries: torch gathers strided rows one by one."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

SPAN = 4096
"""Most numbers of a program."""


@triton.jit
def _take(x, rows, out, x_row, x_head, width: tl.constexpr, size: tl.constexpr, span: tl.constexpr):
    row = tl.program_id(0)
    column = tl.program_id(1) * span + tl.arange(0, span)
    live = column < width
    source = tl.load(rows + row) * x_row + column // size * x_head + column % size
    value = tl.load(x + source, mask=live)
    tl.store(out + row.to(tl.int64) * width + column, value, mask=live)


def take(x: Tensor, rows: Tensor) -> Tensor:
    """`plain.take`; numbers of a head lie side by side."""
    heads, size = x.shape[1:]
    assert x.stride(2) == 1
    out = torch.empty(len(rows), heads, size, dtype=x.dtype, device=x.device)
    width = heads * size
    span = min(SPAN, triton.next_power_of_2(width))
    _take[(len(rows), triton.cdiv(width, span))](
        x, rows, out, x.stride(0), x.stride(1), width, size, span, num_warps=4
    )
    return out
