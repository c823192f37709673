"""Rows of activations or gradients in 8 bits (e4m3, Micikevicius et al. 2022), each with a scale of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 448.0
"""The largest e4m3 number; beyond it there is only NaN."""


@dataclass(frozen=True)
class Scaled:
    """A tensor [T, K] that stands for `data * scale`.

    Attributes:
        data: float8_e4m3fn [T, K]; rows may stand apart.
        scale: float32 [T, 1]: a row's largest magnitude / 448, or 1 for a row of zeros.
    """

    data: Tensor
    scale: Tensor

    def first(self, width: int) -> Scaled:
        """The first columns alone."""
        return self if self.data.shape[1] == width else Scaled(self.data[:, :width], self.scale)


def room(rows: int, width: int, device: torch.device | str) -> Scaled:
    """Uninitialised, for a kernel to write."""
    data = torch.empty(rows, width, dtype=torch.float8_e4m3fn, device=device)
    return Scaled(data, torch.empty(rows, 1, dtype=torch.float32, device=device))
