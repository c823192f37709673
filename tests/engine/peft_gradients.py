"""Gradients by transformers, PEFT, bitsandbytes and autograd, and by the engine, on the same model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from koalpaca_tune.engine.objective import EngineObjective
from koalpaca_tune.models import base, forward
from koalpaca_tune.records import Encoded


@dataclass
class Tuned:
    """A base with its adapter."""

    loaded: base.Loaded
    model: Any

    def gradients(self) -> dict[str, Tensor]:
        """Of every LoRA matrix, copied."""
        return {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}

    def clear(self) -> None:
        """No gradients."""
        for p in self.model.parameters():
            p.grad = None


def reference(tuned: Tuned, documents: Sequence[Encoded]) -> tuple[float, dict[str, Tensor]]:
    """Summed loss and gradients of each document alone, by transformers, PEFT, bitsandbytes and autograd."""
    tuned.clear()
    total = torch.zeros((), dtype=torch.float64)
    for one in documents:
        states, targets, _ = forward.learned(
            tuned.model,
            tuned.loaded.architecture,
            torch.tensor([one.ids]),
            torch.tensor([one.labels]),
            torch.arange(len(one.ids))[None],
        )
        # not `forward.head`, which rounds logits to float32
        logits = forward.causal(tuned.model).get_output_embeddings()(states)
        total = total + torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    total.backward()  # type: ignore[no-untyped-call]
    found = tuned.gradients()
    tuned.clear()
    return float(total.detach()), found


def by_engine(objective: EngineObjective, documents: Sequence[Encoded]) -> float:
    """Adds the gradients of a step; returns its summed loss."""
    total = 0.0
    for arguments in objective.arrange([documents], grad=True):
        loss = objective(*arguments)
        loss.backward()
        total += float(loss.detach())
    return total
