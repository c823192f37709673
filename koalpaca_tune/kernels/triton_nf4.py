"""Decoding of bitsandbytes' 4-bit weights in Triton, one launch, nested scales included."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from koalpaca_tune.kernels import chance
from koalpaca_tune.kernels.nf4 import Packed

FIRST, SECOND, SALT = (tl.constexpr(one) for one in (chance.FIRST, chance.SECOND, chance.SALT))

WORDS = 512
"""Words of eight weights that a program decodes; with 4 warps four to a thread, a 16-byte store each."""

TILE = (128, 8)
"""Rows, and words of eight weights, that a program decodes and stores transposed: a line of e4m3 to a column."""

_DTYPES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}


@triton.jit
def _scale(absmax, absmax_code, absmax_scale, absmax_offset, block, live, nested_block: tl.constexpr):
    scale = tl.load(absmax + block, mask=live, other=0)
    if nested_block > 0:
        # two roundings as in bitsandbytes, so the launch forbids a fused multiply and add
        scale = tl.load(absmax_code + scale.to(tl.int32)) * tl.load(
            absmax_scale + block // nested_block, mask=live, other=0.0
        )
        scale = scale + tl.load(absmax_offset)
    return scale


@triton.jit
def _mixed(x):
    x = (x ^ (x >> 16)) * FIRST
    x = (x ^ (x >> 15)) * SECOND
    return x ^ (x >> 16)


@triton.jit
def _draws(key, salt, word):
    """`chance.bits`: eight draws of four bits for each word; nothing without a key."""
    drawn = word
    if key is not None:
        whole = tl.load(key)
        high = (whole >> 32).to(tl.uint32) + salt.to(tl.uint32) * SALT
        drawn = _mixed(_mixed(word.to(tl.uint32) ^ whole.to(tl.uint32)) ^ high).to(tl.int32, bitcast=True)
    return drawn


@triton.jit
def _store(packed, code, scale, digit, factor, place, live, key, draws, dtype: tl.constexpr):
    # of each byte the high half comes first, and the lowest byte of a word
    nibble = (packed >> ((digit // 2) * 8 + 4 - (digit % 2) * 4)) & 15
    value = (tl.load(code + nibble) * scale).to(dtype)
    if factor is not None:
        value = value.to(tl.float32) * factor
    if key is not None:
        # `chance.rounded`
        drawn = (draws >> (digit * 4)) & 15
        value = value.to(tl.float32)
        kept = (value.to(tl.int32, bitcast=True) + (drawn << 16) + 32768) & -1048576
        small = tl.floor(value * 512.0 + (drawn.to(tl.float32) + 0.5) * 0.0625) * 0.001953125
        value = tl.where(tl.abs(value) < 0.015625, small, kept.to(tl.float32, bitcast=True))
    tl.store(place, value.to(place.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["words", "salt"])
def _dequantize(
    data,
    code,
    absmax,
    absmax_code,
    absmax_scale,
    absmax_offset,
    out,
    factor,
    key,
    salt,
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
    scale = _scale(absmax, absmax_code, absmax_scale, absmax_offset, block, live, nested_block)
    digit = tl.arange(0, 8)[None, :]
    row = word // row_words
    place = out + (row.to(tl.int64) * out_row)[:, None] + ((word % row_words) * 8)[:, None] + digit
    draws = _draws(key, salt, word)[:, None]
    _store(packed[:, None], code, scale[:, None], digit, factor, place, live[:, None], key, draws, dtype)


@triton.jit(do_not_specialize=["salt"])
def _dequantize_columns(
    data,
    code,
    absmax,
    absmax_code,
    absmax_scale,
    absmax_offset,
    out,
    factor,
    key,
    salt,
    rows,
    out_row,
    row_words: tl.constexpr,
    block_words: tl.constexpr,
    nested_block: tl.constexpr,
    dtype: tl.constexpr,
    row_span: tl.constexpr,
    word_span: tl.constexpr,
):
    row = (tl.program_id(0) * row_span + tl.arange(0, row_span))[None, :]
    column = (tl.program_id(1) * word_span + tl.arange(0, word_span))[:, None]
    live = (row < rows) & (column < row_words)
    word = row * row_words + column
    packed = tl.load(data.to(tl.pointer_type(tl.int32)) + word, mask=live, other=0)
    scale = _scale(absmax, absmax_code, absmax_scale, absmax_offset, word // block_words, live, nested_block)
    # neighbours in a thread are rows, which lie side by side in the transpose
    digit = tl.arange(0, 8)[:, None, None]
    place = out + (column[None, :, :] * 8 + digit).to(tl.int64) * out_row + row[None, :, :]
    draws = _draws(key, salt, word)[None, :, :]
    _store(packed[None, :, :], code, scale[None, :, :], digit, factor, place, live[None, :, :], key, draws, dtype)


def _scales(packed: Packed, width: int) -> tuple[tuple[Tensor, ...], int]:
    """The tensors of the scales, and the block size of the nested ones or 0."""
    state = packed.state
    if width % state.blocksize:
        raise ValueError(f"rows of {width} weights are not whole blocks of {state.blocksize}")
    if not state.nested:
        return (state.absmax,) * 4, 0
    nested = state.state2
    return (state.absmax, nested.code, nested.absmax, state.offset), nested.blocksize


def dequantize(
    packed: Packed, out: Tensor, factor: float = 1.0, key: Tensor | None = None, salt: int = 0
) -> Tensor:
    """`plain.dequantize`, bit for bit; the blocks of scales do not cross rows.

    Raises:
        ValueError: if the row length is not a multiple of the block size.
    """
    state = packed.state
    rows, width = out.shape
    scales, nested_block = _scales(packed, width)
    words = rows * width // 8
    _dequantize[(-(-words // WORDS),)](
        packed.data,
        state.code,
        *scales,
        out,
        None if factor == 1.0 else factor,
        key,
        salt,
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


def dequantize_columns(
    packed: Packed, out: Tensor, factor: float = 1.0, key: Tensor | None = None, salt: int = 0
) -> Tensor:
    """`plain.dequantize_columns`, bit for bit.

    Raises:
        ValueError: if the row length is not a multiple of the block size.
    """
    state = packed.state
    width, rows = out.shape
    scales, nested_block = _scales(packed, width)
    words = width // 8
    _dequantize_columns[(-(-rows // TILE[0]), -(-words // TILE[1]))](
        packed.data,
        state.code,
        *scales,
        out,
        None if factor == 1.0 else factor,
        key,
        salt,
        rows,
        out.stride(0),
        words,
        state.blocksize // 8,
        nested_block,
        _DTYPES[state.dtype],
        *TILE,
        num_warps=8,
        enable_fp_fusion=False,
    )
    return out
