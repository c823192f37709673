"""A micro-step's forward and backward pass as two CUDA graphs, replayed for every micro-step of the same shape.

A small micro-step launches some thousand kernels that are done sooner than Python can launch the next. A
graph launches them all at once. Its tensors keep their places: inputs are copied into them, streams are
padded to one length, and documents to one number (the empty ones cost nothing).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from koalpaca_tune.engine.block import Pass
from koalpaca_tune.engine.body import Body
from koalpaca_tune.kernels.attention import Documents

MOST = 4
"""Captured shapes; each keeps memory of its own. Further shapes are computed without a graph."""


@dataclass
class Inputs:
    """Where a graph reads its micro-step: int64 ids [T], int32 positions [T], starts [n + 1], int64 seed [1]."""

    ids: Tensor
    positions: Tensor
    starts: Tensor
    seed: Tensor | None


class Captured:
    """One shape's two graphs.

    Attributes:
        residual: [T, H], what the forward pass writes.
        grad: [T, H + room], what the backward pass reads, and overwrites.
    """

    def __init__(self, body: Body, inputs: Inputs, step: Pass, room: int) -> None:
        """Captures; the same shape must have been computed before, so that every kernel is compiled."""
        self.inputs = inputs
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        pool = torch.cuda.graph_pool_handle()
        torch.cuda.synchronize()
        with torch.cuda.graph(self._forward, pool=pool):
            self.residual, tape = body.forward(inputs.ids, step, grad=True)
        tokens, width = self.residual.shape
        self.grad = torch.zeros(tokens, width + room, dtype=self.residual.dtype, device=self.residual.device)
        with torch.cuda.graph(self._backward, pool=pool):
            body.backward(tape, self.grad)

    def forward(self, ids: Tensor, positions: Tensor, documents: Documents, seed: Tensor | None) -> Tensor:
        """The residual [T, H] after the last block; it is overwritten by the next replay."""
        self.inputs.ids.copy_(ids)
        self.inputs.positions.copy_(positions)
        starts = self.inputs.starts
        starts[: len(documents.starts)].copy_(documents.starts)
        starts[len(documents.starts) :].fill_(len(ids))
        if self.inputs.seed is not None and seed is not None:
            self.inputs.seed.copy_(seed)
        self._forward.replay()
        return self.residual

    def backward(self) -> None:
        """Adds the LoRA gradients, from the gradient in `grad`."""
        self._backward.replay()


class Graphs:
    """The captured shapes of an objective."""

    def __init__(self, body: Body, room: int, longest: int) -> None:
        self._body = body
        self._room = room
        self._longest = longest
        self._seen: set[Any] = set()
        self._captured: dict[Any, Captured] = {}

    def find(self, tokens: int, documents: Documents, dense: bool, make: Callable[[Inputs, Documents], Pass],
             dropout: bool) -> Captured | None:  # fmt: skip
        """The graphs for a shape; None the first time (which compiles its kernels) and beyond `MOST` shapes.

        Args:
            tokens: T.
            documents: of this micro-step.
            dense: whether attention sees them as a dense batch, which fixes their lengths.
            make: (inputs, documents as the graph sees them) -> what the blocks need to know.
            dropout: whether a seed is read.
        """
        count = len(documents.lengths)
        room = 1 << max(3, (count - 1).bit_length())
        key = (tokens, documents.lengths if dense else room, dropout)
        if key in self._captured:
            return self._captured[key]
        if key not in self._seen or len(self._captured) == MOST:
            self._seen.add(key)
            return None
        device = documents.starts.device

        def zeros(size: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(size, dtype=dtype, device=device)

        inputs = Inputs(
            zeros(tokens, torch.int64),
            zeros(tokens, torch.int32),
            zeros((count if dense else room) + 1, torch.int32),
            zeros(1, torch.int64) if dropout else None,
        )
        inputs.starts.fill_(tokens)
        inputs.starts[: count + 1].copy_(documents.starts)
        seen = Documents(
            documents.lengths if dense else (), inputs.starts, documents.longest if dense else self._longest
        )
        made = Captured(self._body, inputs, make(inputs, seen), self._room)
        self._captured[key] = made
        return made
