"""What a device knows of the texts in its slots, and how their tokens come to the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MOST_STOPS = 8
"""Stop ids of a text."""
OVER = -1
"""In the place of a token of a text that was over before."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of a step, on their way to the host."""

    place: Tensor
    arrived: torch.cuda.Event | None

    def read(self) -> list[int]:
        """Waits for them; `OVER` for a text that was over."""
        if self.arrived is not None:
            self.arrived.synchronize()
        found: list[int] = self.place.tolist()
        return found


class State:
    """What the device knows of each slot; the last one is nobody's, and pads a step."""

    def __init__(self, slots: int, device: torch.device) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        self.token = zeros(slots)
        self.length = zeros(slots)
        self.left = zeros(slots)
        self.count = zeros(slots)
        self.seed = zeros(slots)
        self.adapter = torch.full((slots,), -1, dtype=torch.int32, device=device)
        self.stops = torch.full((slots, MOST_STOPS), -2, device=device)
        self.temperature = zeros(slots, dtype=torch.float32)
        self.top_p = torch.ones(slots, device=device)
        self.over = torch.ones(slots, dtype=torch.bool, device=device)
