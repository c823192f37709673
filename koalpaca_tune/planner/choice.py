"""How a step is taken: what the planner chooses and the engine does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Recompute = Literal["none", "wide", "blocks", "offload"]
RECOMPUTE: tuple[Recompute, ...] = ("none", "wide", "blocks", "offload")
"""From the fastest to the smallest."""


@dataclass(frozen=True)
class Choice:
    """One way to compute a step; none of it changes what is learned.

    Attributes:
        micro_tokens: most tokens computed at once (whole documents; a longer one stands alone).
        recompute: what the backward pass computes again: nothing; the MLP's wide tensor; whole blocks;
            those, with their inputs kept in host memory.
        cached_blocks: blocks whose weights stay dequantised.
        graphs: whether small micro-steps are replayed as CUDA graphs.
    """

    micro_tokens: int
    recompute: Recompute
    cached_blocks: int
    graphs: bool


@dataclass(frozen=True)
class Fixed:
    """What a person has already chosen; None: free."""

    micro_tokens: int | None = None
    recompute: Recompute | None = None
    cached_blocks: int | None = None
    graphs: bool | None = None
