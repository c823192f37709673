"""Optimizer and learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from koalpaca_tune.config.recipe import Training
from koalpaca_tune.errors import KoalpacaError


def build(parameters: Sequence[torch.nn.Parameter], training: Training, device: torch.device) -> Any:
    """AdamW (Loshchilov & Hutter 2019), in one launch on CUDA; or in 8 bits (Dettmers et al. 2021).

    The states of a LoRA adapter are small beside its base, so that 8 bits save next to nothing; of a full
    fine-tuning they are the most of all. Biases and norms are not decayed.

    Raises:
        KoalpacaError: the 8-bit optimizer was asked for on the CPU (optimizer-device).
    """
    name = training.optimizer
    if name in ("auto", "adamw"):
        cuda = device.type == "cuda"
        return torch.optim.AdamW(
            _groups(parameters, training.weight_decay),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            fused=True if cuda else None,
        )
    if device.type != "cuda":
        raise KoalpacaError(
            "optimizer-device",
            f"'{name}' needs a CUDA card; this run is on the {device.type}.",
            where="training.optimizer",
            fix="Use auto or adamw.",
        )
    import bitsandbytes as bnb

    return bnb.optim.PagedAdamW8bit(
        _groups(parameters, training.weight_decay), lr=training.learning_rate, weight_decay=training.weight_decay
    )


def _groups(parameters: Sequence[torch.nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices, and what is none; the second group is not there with an adapter, which is matrices alone."""
    matrices = [p for p in parameters if p.dim() > 1]
    others = [p for p in parameters if p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": weight_decay}]
    return [*groups, {"params": others, "weight_decay": 0.0}] if others else groups


def rate(training: Training, step: int, total: int) -> float:
    """The learning rate of a step (from 0): linear warm-up, then the schedule down to zero."""
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    done = (step - training.warmup_steps) / max(1, total - training.warmup_steps)
    if training.schedule == "cosine":
        return training.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
    if training.schedule == "linear":
        return training.learning_rate * (1.0 - done)
    return training.learning_rate
