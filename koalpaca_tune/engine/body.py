"""The base's blocks in order, forward and backward, keeping what the policy says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from koalpaca_tune.engine.balance import Balance
from koalpaca_tune.engine.block import Block, Pass, Weights
from koalpaca_tune.engine.offload import Shelf
from koalpaca_tune.engine.redraw import Redraw
from koalpaca_tune.planner.choice import Recompute


@dataclass
class Tape:
    """What the backward pass reads: of each block its saved tensors, or only its input."""

    step: Pass
    kept: list[Any]


@dataclass
class Body:
    """Blocks, embedding and rotary tables.

    Attributes:
        blocks: in order.
        embedding: [V, H].
        weights: the shared buffers.
        recompute: what is not kept for the backward pass.
        room: spare columns of the residual's gradient.
        shelf: host memory for the inputs of blocks, with recompute "offload".
        balance: of LoRA folded into products in 8 bits, else None.
        redraw: of weights rounded to 8 bits by chance, else None.
    """

    blocks: Sequence[Block]
    embedding: Tensor
    weights: Weights
    recompute: Recompute
    room: int
    shelf: Shelf
    balance: Balance | None
    redraw: Redraw | None

    def forward(self, ids: Tensor, step: Pass, *, grad: bool) -> tuple[Tensor, Tape]:
        """The residual stream [T, H] after the last block, before the last norm.

        Args:
            ids: int64 [T].
            step: of this pass.
            grad: whether a backward pass follows.
        """
        self.weights.forget()
        if self.balance is not None:
            self.balance.refresh()
        x, update = torch.nn.functional.embedding(ids, self.embedding), None
        kept: list[Any] = []
        for block in self.blocks:
            for group in block.groups:
                if group.buffer is not None:
                    group.buffer.load_lora(group)
            x, update, saved = block.forward(x, update, step, self.weights)
            if grad:
                kept.append(self._kept(block, saved))
            # else it would live on beside the next block's
            del saved
        assert update is not None
        return update.add_(x), Tape(step, kept)

    def _kept(self, block: Block, saved: Any) -> Any:
        if self.recompute == "blocks":
            return block.input_of(saved)
        if self.recompute == "offload":
            return self.shelf.put(block.input_of(saved))
        return saved

    def backward(self, tape: Tape, grad: Tensor) -> None:
        """Adds all LoRA gradients.

        Args:
            tape: of the forward pass; emptied.
            grad: [T, H + room], the gradient at the residual after the last block; overwritten.
        """
        step = tape.step
        if self.recompute in ("blocks", "offload"):
            step = replace(step, keep_wide=True)
        for number in reversed(range(len(self.blocks))):
            block, saved = self.blocks[number], tape.kept.pop()
            if self.recompute in ("blocks", "offload"):
                if self.recompute == "offload":
                    saved = self.shelf.get(saved, tape.kept[-1] if tape.kept else None)
                _, _, saved = block.forward(saved, None, step, self.weights, last=False)
            block.backward(saved, grad, step, self.weights, wanted=number > 0)
            del saved
