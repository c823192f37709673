"""The output head and its loss, on the rows that are learned from, in chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from koalpaca_tune.engine.buffers import Kernels

CHUNK_BYTES = 1 << 29
"""Logits of one chunk: large enough for the matrix product, small beside the activations."""
CHUNK_ROWS = 1024
"""The least rows of a chunk, whatever the vocabulary."""


@dataclass(frozen=True)
class Head:
    """Last norm and output head, frozen.

    Attributes:
        kernels: plain or fused functions.
        weight: [V, H].
        norm: (residual [n, H], out [n, H]) -> None, the last norm.
        norm_backward: (residual [n, H], gradient at the norm's result [n, H], place [n, H]) -> None: adds the
            gradient at the residual to the place.
    """

    kernels: Kernels
    weight: Tensor
    norm: Callable[[Tensor, Tensor], None]
    norm_backward: Callable[[Tensor, Tensor, Tensor], None]

    def chunk(self) -> int:
        """Rows of a chunk."""
        return max(CHUNK_ROWS, CHUNK_BYTES // (self.weight.shape[0] * self.weight.element_size()))

    def loss(self, states: Tensor, targets: Tensor, *, grad: bool) -> tuple[Tensor, Tensor | None]:
        """Summed negative log-likelihood, and the gradient at the residual.

        Args:
            states: [n, H], the residual stream at the places that predict.
            targets: int64 [n].
            grad: whether the gradient is wanted.

        Returns:
            float32 scalar in nats; the gradient [n, H] or None.
        """
        total = torch.zeros((), device=states.device)
        back = torch.empty_like(states) if grad else None
        rows = self.chunk()
        for at in range(0, len(targets), rows):
            here = slice(at, at + rows)
            normed = torch.empty_like(states[here])
            self.norm(states[here], normed)
            logits = normed @ self.weight.t()
            total += self.kernels.cross_entropy(logits, targets[here], grad=back is not None).sum()
            if back is not None:
                torch.mm(logits, self.weight, out=normed)
                back[here].zero_()
                self.norm_backward(states[here], normed, back[here])
        return total, back
