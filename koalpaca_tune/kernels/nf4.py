"""A 4-bit weight as bitsandbytes holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import bitsandbytes.functional as bnb
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """A frozen linear weight [N, K] in 4 bits (NF4 or FP4, Dettmers et al. 2023).

    Attributes:
        data: uint8 [N * K / 2, 1]; of two neighbours in a row the first is in the high half of the byte.
        state: bitsandbytes' QuantState: `code` float32 [16], `blocksize`, `absmax` per block (uint8 with
            `state2` and `offset` where it is itself quantised), `shape`, `dtype`.
    """

    data: Tensor
    state: Any

    def largest(self) -> float:
        """No decoded weight is larger: the largest scale of a block times the code's largest value."""
        state = self.state
        scales = state.absmax
        if state.nested:
            scales = bnb.dequantize_blockwise(scales, state.state2) + state.offset
        return float(scales.abs().max() * state.code.abs().max())
