"""The loss: cross-entropy summed over learned tokens, with the head only where something is learned.

Summed, not averaged: a mean over micro-steps of different sizes would weigh tokens by their company, and
the loss would depend on how a step is cut (transformers PR 34191). The caller divides once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.models import forward
from koalpaca_tune.models.architectures import Architecture
from koalpaca_tune.records import NOT_LEARNED, Encoded
from koalpaca_tune.tokens.pack import collate
from koalpaca_tune.training.steps import micro_batches

ROWS = 4096
"""Learned positions per chunk: bounds the memory of the logits at 4096 x vocabulary."""

MICRO_TOKENS = 4096
"""Tokens of a micro-step of the plain engine where the recipe leaves them open."""

Rows = Sequence[Sequence[Encoded]]
"""Rows as the documents in them."""


class Arranged(Protocol):
    """A module that cuts rows into micro-steps and computes the summed loss of one.

    `count` and the cut depend on rows and recipe alone, never on this process's card: with several
    processes each one counts the micro-steps of all, since they wait for each other at every one.
    """

    def count(self, rows: Rows, *, grad: bool) -> int:
        """How many micro-steps `arrange` makes of these rows."""

    def arrange(self, rows: Rows, *, grad: bool, count: int = 0) -> list[tuple[Any, ...]]:
        """The arguments of `forward`, one tuple per micro-step, tensors on the device.

        Args:
            rows: what this process computes.
            grad: whether backward follows (else more fits into a micro-step).
            count: at least so many micro-steps; those beyond the rows learn nothing.
        """

    def __call__(self, *arguments: Any) -> Any:
        """Summed negative log-likelihood in nats of one micro-step, as a float32 scalar."""


class Objective(nn.Module):
    """The plain engine: a causal language model as transformers and PEFT compute it, in padded rows."""

    def __init__(
        self,
        model: Any,
        architecture: Architecture,
        *,
        pad_id: int,
        device: torch.device,
        micro_tokens: int,
        scored_tokens: int,
    ) -> None:
        """micro_tokens, scored_tokens: padded tokens of a micro-step with and without backward."""
        super().__init__()
        self.model = model
        self._architecture = architecture
        self._pad_id = pad_id
        self._device = device
        self._tokens = {True: micro_tokens, False: scored_tokens}

    def count(self, rows: Rows, *, grad: bool) -> int:
        """How many micro-steps these rows are."""
        return len(self._groups(rows, grad))

    def arrange(self, rows: Rows, *, grad: bool, count: int = 0) -> list[tuple[Any, ...]]:
        """Rows of like length together; arguments as `forward` wants them."""
        groups = [[rows[index] for index in group] for group in self._groups(rows, grad)]
        groups += [[()]] * (count - len(groups))
        return [self._tensors(group) for group in groups]

    def forward(self, ids: Tensor, positions: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
        """Summed negative log-likelihood in nats.

        Args:
            ids, positions: int64 [rows, length].
            rows: int64 [n], places (of rows x length) whose next token is learned.
            targets: int64 [n], that token.

        Returns:
            float32 scalar; zero, with a graph, where nothing is learned.
        """
        states = forward.hidden(self.model, self._architecture, ids, positions)
        if not len(targets):
            return states.float().sum() * 0.0
        # places known beforehand: choosing by mask would wait for the card
        states = states.flatten(0, 1).index_select(0, rows)
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

    def _groups(self, rows: Rows, grad: bool) -> list[list[int]]:
        return micro_batches([sum(len(one.ids) for one in row) for row in rows], self._tokens[grad])

    def _tensors(self, group: Rows) -> tuple[Tensor, ...]:
        batch = collate(group, self._pad_id)
        # a first column is never learned, so the place before a learned one is in the same row
        learned = np.flatnonzero(batch.labels != NOT_LEARNED)
        arrays = (batch.ids, batch.positions, learned - 1, batch.labels.reshape(-1)[learned])
        return tuple(on_device(array, self._device) for array in arrays)


def on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array as a tensor on the device, without waiting for what the card is doing."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda" and tensor.numel():
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def build(recipe: Recipe, model: Any, architecture: Architecture, *, pad_id: int, device: torch.device) -> Arranged:
    """The engine that the recipe asks for, as a module that is `Arranged`; data parallelism wraps it."""
    engine, max_length = recipe.engine, recipe.data.max_length
    recompute = engine.recompute
    if recompute == "auto":
        recompute = "blocks" if device.type == "cuda" else "none"
    if recompute != "none":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return Objective(
        model,
        architecture,
        pad_id=pad_id,
        device=device,
        micro_tokens=engine.micro_tokens or max(MICRO_TOKENS, max_length),
        scored_tokens=8 * max_length,
    )
