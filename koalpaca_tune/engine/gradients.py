"""The gradients of all LoRA matrices, end to end in one tensor: cleared, summed over ranks and measured at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Gradients:
    """Views of one tensor, of the type of the parameters (float32), as the `grad` of each parameter.

    Attributes:
        flat: all of them.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._parameters = list(parameters)
        sizes = [p.numel() for p in parameters]
        # frozen adapters have none
        like = parameters[0] if parameters else torch.empty(0)
        self.flat = torch.zeros(sum(sizes), dtype=like.dtype, device=like.device)
        self.views: list[Tensor] = [
            part.view_as(p) for part, p in zip(torch.split(self.flat, sizes), parameters, strict=False)
        ]

    @property
    def anchor(self) -> torch.nn.Parameter:
        """One of the parameters."""
        return self._parameters[0]

    def bind(self) -> None:
        """Puts the views in place, where an optimizer or a caller has removed them; they are zero then."""
        if any(p.grad is not view for p, view in zip(self._parameters, self.views, strict=True)):
            self.flat.zero_()
            for p, view in zip(self._parameters, self.views, strict=True):
                p.grad = view
