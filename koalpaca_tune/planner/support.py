"""What the engine's own blocks can compute, and what is left to transformers' modules."""

from __future__ import annotations

from typing import Any

ROTARY = ("default", "linear", "llama3")
"""Rotary tables that do not depend on the length of the text."""
ACTIVATION = {"gpt_neox": "gelu", "llama": "silu"}


def obstacle(config: Any, compute: object) -> str | None:
    """Why a base cannot be trained by the engine, in a few words; None where it can.

    Args:
        config: the base's transformers config, or its config.json as attributes, which leaves defaults out.
        compute: type of the matrix products, as torch or a recipe names it.
    """
    if str(compute).removeprefix("torch.") == "float16":
        return "float16 products need residuals of another type"
    family = getattr(config, "model_type", "gpt_neox")
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ROTARY:
        return f"rotary type '{kind}'"
    if any(getattr(config, name, 0.0) for name in ("attention_dropout", "hidden_dropout")):
        return "dropout inside the base"
    activation = getattr(config, "hidden_act", None) or ACTIVATION[family]
    if activation != ACTIVATION[family]:
        return f"activation '{activation}'"
    if family == "gpt_neox" and not getattr(config, "use_parallel_residual", True):
        return "no parallel residual"
    return None
