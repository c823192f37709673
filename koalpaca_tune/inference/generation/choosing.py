"""The next token of each text: the likeliest, or drawn, by numbers that belong to the text alone.

What is drawn follows from the text's own seed and how many tokens it has, so neighbours in a batch, and the
device's generator, change nothing. All is computed on the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ADD, _FIRST, _SECOND = (
    number - (1 << 64) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
"""Of SplitMix64 (Steele et al. 2014), as int64."""
_BITS = 24
"""Of a draw: as many as float32 holds."""


def likeliest(logits: Tensor) -> Tensor:
    """int64 [M] of logits [M, V]; of equal ones the first."""
    return logits.argmax(-1)


def drawn(logits: Tensor, temperature: Tensor, top_p: Tensor, seed: Tensor, count: Tensor) -> Tensor:
    """A token for each text, from the likeliest that together reach `top_p` (Holtzman et al. 2020).

    Args:
        logits: float32 [M, V].
        temperature: float32 [M]; 0 for the likeliest token.
        top_p: float32 [M], in (0, 1].
        seed, count: int64 [M], what the draw follows from.

    Returns:
        int64 [M].
    """
    best = likeliest(logits)
    greedy = temperature <= 0
    shares = torch.softmax(logits / torch.where(greedy, 1.0, temperature)[:, None], -1)
    shares, order = shares.sort(dim=-1, descending=True, stable=True)
    sums = shares.cumsum(-1)
    # a token stays where those before it have not reached top_p: the first always does
    kept = torch.where(sums - shares < top_p[:, None], shares, 0.0).cumsum(-1)
    at = (kept <= (uniform(seed, count) * kept[:, -1])[:, None]).sum(-1, keepdim=True)
    # rounding may carry the draw past the last token that stays
    last = (kept < kept[:, -1:]).sum(-1, keepdim=True)
    found = order.gather(-1, torch.minimum(at, last))[:, 0]
    return torch.where(greedy, best, found)


def uniform(seed: Tensor, count: Tensor) -> Tensor:
    """float32 in [0, 1) of int64 numbers: SplitMix64 of their mix."""
    mixed = _mix(seed + _ADD) + (count + 1) * _ADD
    high = (_mix(mixed) >> (64 - _BITS)) & ((1 << _BITS) - 1)
    return high.float() / (1 << _BITS)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ ((z >> 30) & ((1 << 34) - 1))) * _FIRST
    z = (z ^ ((z >> 27) & ((1 << 37) - 1))) * _SECOND
    return z ^ ((z >> 31) & ((1 << 33) - 1))
