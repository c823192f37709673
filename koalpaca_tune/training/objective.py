"""The loss: cross-entropy summed over learned tokens, with the head only where something is learned.

Summed, not averaged: a mean over micro-batches of different sizes would weigh tokens by their company,
and the loss would depend on the accumulation (transformers PR 34191). The caller divides once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from koalpaca_tune.models import forward
from koalpaca_tune.models.architectures import Architecture

ROWS = 4096
"""Learned positions per chunk: bounds the memory of the logits at 4096 x vocabulary."""


class Objective(nn.Module):
    """A causal language model as a sum of losses; this module is what data parallelism wraps."""

    def __init__(self, model: Any, architecture: Architecture) -> None:
        super().__init__()
        self.model = model
        self._architecture = architecture

    def forward(self, ids: Tensor, labels: Tensor, positions: Tensor) -> Tensor:
        """Summed negative log-likelihood in nats.

        Args:
            ids, labels, positions: int64 [rows, length]; the label of a token stands at its own place.

        Returns:
            float32 scalar; zero, with a graph, where nothing is learned.
        """
        states, targets, _ = forward.learned(self.model, self._architecture, ids, labels, positions)
        if not len(targets):
            return states.float().sum() * 0.0
        total = torch.zeros((), device=states.device)
        for at in range(0, len(targets), ROWS):
            part = (states[at : at + ROWS], targets[at : at + ROWS])
            if len(targets) > ROWS and torch.is_grad_enabled():
                total = total + checkpoint(self._sum, *part, use_reentrant=False)
            else:
                total = total + self._sum(*part)
        return total

    def _sum(self, states: Tensor, targets: Tensor) -> Tensor:
        logits = forward.head(self.model, states)
        return functional.cross_entropy(logits, targets, reduction="sum")
