"""What the engine's own blocks can compute, and what is left to transformers' modules."""

from __future__ import annotations

from typing import Any

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.planner.shape import Shape

ROTARY = ("default", "linear", "llama3")
"""Rotary tables that do not depend on the length of the text."""
ACTIVATION = {"gpt_neox": "gelu", "llama": "silu"}
FP8_CAPABILITY = (9, 0)
"""Hopper. Ada has products in e4m3, too, but torch's own with scales by row takes rows there to lie side by side,
whatever their strides say (RowwiseScaledMM.cu), and nothing here was tried on one."""
FP8_WIDTH = 16
"""Widths of such products are multiples of it: rows of 16 bytes."""


def plain_only(recipe: Recipe) -> str | None:
    """Why a recipe leaves no choice but the plain engine, whatever its base; None where it does not."""
    if recipe.full:
        return "every weight is trained (lora: null)"
    if recipe.quantization.load_in_8bit:
        return "8-bit products are bitsandbytes' own"
    return None


def obstacle(config: Any, compute: object) -> str | None:
    """Why a base cannot be trained by the engine, in a few words; None where it can.

    Args:
        config: the base's transformers config, or its config.json as attributes, which leaves defaults out.
        compute: type of the matrix products, as torch or a recipe names it.
    """
    if str(compute).removeprefix("torch.") == "float16":
        return "float16 products need residuals of another type"
    brought = getattr(config, "auto_map", None)
    if isinstance(brought, dict) and {"AutoConfig", "AutoModelForCausalLM"} & brought.keys():
        # `models.base_code` lets it run where it was asked for
        return "it brings Python code of its own"
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


def fp8_obstacle(shape: Shape, compute: object, capability: tuple[int, int], *, fast: bool) -> str | None:
    """Why the base's products cannot be in e4m3, in a few words; None where they can.

    Args:
        shape: of the base.
        compute: type of all other products, as torch or a recipe names it ("auto": bfloat16 on such cards).
        capability: the card's, (0, 0) for the CPU.
        fast: whether our own blocks compute the base.
    """
    if not fast:
        return "only the fast engine does it"
    if capability == (0, 0):
        return "it needs a CUDA card"
    if capability < FP8_CAPABILITY:
        return f"the card's compute capability is {capability[0]}.{capability[1]}, and it needs 9.0 or more"
    name = str(compute).removeprefix("torch.")
    if name not in ("auto", "bfloat16"):
        return f"everything else would be {name}, and it must be bfloat16"
    odd = [width for inputs, members in shape.linears for width in (inputs, *(n for _, n in members))]
    odd = [width for width in odd if width % FP8_WIDTH]
    if odd:
        return f"the base has linears {odd[0]} wide, which is no multiple of {FP8_WIDTH}"
    return None
