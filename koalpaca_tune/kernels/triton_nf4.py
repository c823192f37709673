"""Decoding of bitsandbytes' 4-bit weights in Triton, one launch, nested scales included."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from koalpaca_tune.kernels.nf4 import Packed

WORDS = 512
"""Words of eight weights that a program decodes; with 4 warps four to a thread, a 16-byte store each."""

_DTYPES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}


@triton.jit(do_not_specialize=["words"])
def _dequantize(
    data,
    code,
    absmax,
    absmax_code,
    absmax_scale,
    absmax_offset,
    out,
    words,
    out_row,
    row_words: tl.constexpr,
    block_words: tl.constexpr,
    nested_block: tl.constexpr,
    dtype: tl.constexpr,
    span: tl.constexpr,
):
    word = tl.program_id(0) * span + tl.arange(0, span)
    live = word < words
    packed = tl.load(data.to(tl.pointer_type(tl.int32)) + word, mask=live, other=0)
    block = word // block_words
    scale = tl.load(absmax + block, mask=live, other=0)
    if nested_block > 0:
        # two roundings as in bitsandbytes, so the launch forbids a fused multiply and add
        scale = tl.load(absmax_code + scale.to(tl.int32)) * tl.load(
            absmax_scale + block // nested_block, mask=live, other=0.0
        )
        scale = scale + tl.load(absmax_offset)
    digit = tl.arange(0, 8)
    # of each byte the high half comes first, and the lowest byte of a word
    shift = (digit // 2) * 8 + 4 - (digit % 2) * 4
    nibble = (packed[:, None] >> shift[None, :]) & 15
    value = (tl.load(code + nibble) * scale[:, None]).to(dtype)
    row = word // row_words
    place = out + (row.to(tl.int64) * out_row)[:, None] + ((word % row_words) * 8)[:, None] + digit[None, :]
    tl.store(place, value.to(out.dtype.element_ty), mask=live[:, None])


def dequantize(packed: Packed, out: Tensor) -> Tensor:
    """`plain.dequantize`, bit for bit; the blocks of scales do not cross rows.

    Raises:
        ValueError: if the row length is not a multiple of the block size.
    """
    state = packed.state
    rows, width = out.shape
    if width % state.blocksize:
        raise ValueError(f"rows of {width} weights are not whole blocks of {state.blocksize}")
    words = rows * width // 8
    if state.nested:
        nested = state.state2
        scales = (state.absmax, nested.code, nested.absmax, state.offset)
        nested_block = nested.blocksize
    else:
        scales = (state.absmax,) * 4
        nested_block = 0
    _dequantize[(-(-words // WORDS),)](
        packed.data,
        state.code,
        *scales,
        out,
        words,
        out.stride(0),
        width // 8,
        state.blocksize // 8,
        nested_block,
        _DTYPES[state.dtype],
        WORDS,
        num_warps=4,
        enable_fp_fusion=False,
    )
    return out
