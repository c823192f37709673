"""What the engine's own blocks can compute, and what is left to transformers' modules."""

from __future__ import annotations

from typing import Any

import torch

ROTARY = ("default", "linear", "llama3")
"""Rotary tables that do not depend on the length of the text."""


def obstacle(config: Any, compute: torch.dtype) -> str | None:
    """Why a base cannot be trained by the engine, in a few words; None where it can.

    Args:
        config: the base's transformers config.
        compute: type of the matrix products.
    """
    if compute == torch.float16:
        return "float16 products need residuals of another type"
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if kind not in ROTARY:
        return f"rotary type '{kind}'"
    dropouts = [getattr(config, name, 0.0) for name in ("attention_dropout", "hidden_dropout")]
    if any(dropouts):
        return "dropout inside the base"
    if config.model_type == "gpt_neox":
        if config.hidden_act != "gelu":
            return f"activation '{config.hidden_act}'"
        if not config.use_parallel_residual:
            return "no parallel residual"
        return None
    if config.hidden_act != "silu":
        return f"activation '{config.hidden_act}'"
    return None
