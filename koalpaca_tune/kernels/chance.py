"""Rounding to e4m3 by chance: up or down with the odds of the distances, so that the mean is the number itself.

(Croci et al. 2022 survey it as stochastic rounding.) The draws are a hash of key and place, the same in torch here
and in `triton_nf4`. Four bits do not need Philox, which took 145 registers where this hash takes 78.
"""

from __future__ import annotations

import torch
from torch import Tensor

FIRST, SECOND = 0x7FEB352D, 0x846CA68B
"""Multipliers of a hash of 32 bits with hardly any bias (Wellons 2018, "lowbias32")."""
SALT = 0x9E3779B9
LOW = 0xFFFFFFFF


def bits(key: Tensor, salt: int, words: int) -> Tensor:
    """Eight draws of four bits for each word of eight weights: int32 [words, 8].

    Args:
        key: int64 [1], well mixed.
        salt: tells apart what shares a key.
        words: how many.
    """
    key = key.reshape(())
    place = torch.arange(words, device=key.device)
    drawn = _mixed(_mixed(place ^ (key & LOW)) ^ (((key >> 32) + salt * SALT) & LOW))
    return ((drawn[:, None] >> torch.arange(0, 32, 4, device=key.device)) & 15).int()


def _mixed(x: Tensor) -> Tensor:
    # int64 that hold 32 bits without sign; what overflows is cut off
    x = ((x ^ (x >> 16)) * FIRST) & LOW
    x = ((x ^ (x >> 15)) * SECOND) & LOW
    return x ^ (x >> 16)


def rounded(value: Tensor, drawn: Tensor) -> Tensor:
    """float32 numbers on the grid of e4m3.

    Args:
        value: float32, none beyond 448. Where it has no more than four bits behind those that e4m3 keeps, as
            bfloat16 has, the odds are exact; else to a sixteenth.
        drawn: int32 from 0 to 15, of its shape.
    """
    # carries out of the 20 bits that e4m3 does not keep round away from zero
    normal = ((value.view(torch.int32) + (drawn << 16) + (1 << 15)) & -(1 << 20)).view(torch.float32)
    # below 2^-6 its numbers are 2^-9 apart
    small = torch.floor(value * 512.0 + (drawn.float() + 0.5) * (1.0 / 16.0)) * (1.0 / 512.0)
    return torch.where(value.abs() < 2.0**-6, small, normal)


def drawn(value: Tensor, key: Tensor, salt: int) -> Tensor:
    """float32 weights [N, K], eight to a word, on the grid of e4m3: `rounded` by `bits`."""
    return rounded(value.contiguous(), bits(key, salt, value.numel() // 8).view(value.shape))
