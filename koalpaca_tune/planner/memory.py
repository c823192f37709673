"""The memory of a step, in bytes by part, at its worst moment.

Two moments can be the worst: the loss (all that is saved, and a chunk of logits), and the backward pass of
the last block (all that is saved, and the gradients within a block; with recompute also that block's own
tensors, computed again). `memory` gives the worse of the two, so that its parts add up to the peak that torch
reports (`torch.cuda.max_memory_allocated`). Loading a base, one weight after another, stays below it.
"""

from __future__ import annotations

import math

from koalpaca_tune.planner import fast, fp8, plain
from koalpaca_tune.planner.choice import Choice
from koalpaca_tune.planner.work import Work

PARTS = ("weights", "embeddings", "adapter", "dequantised", "saved", "rebuilt", "gradients", "logits", "rounding")
"""weights: the blocks' linears; embeddings: with head, norms and biases; adapter: float32 matrices, or copies of
all weights where those are trained, with gradients and optimizer state; dequantised: weights in the type of the
products; saved: activations kept for the backward pass; rebuilt: those of one block, computed again; gradients: and
other tensors of the moment; logits: a chunk of them."""


def memory(work: Work, choice: Choice) -> dict[str, int]:
    """Bytes of each of PARTS at the worst moment of a step."""
    tokens = work.tokens_at_once(choice.micro_tokens)
    moments = (plain if work.engine == "plain" else fast).moments(work, tokens, choice.recompute)
    if choice.graphs:
        # a captured graph keeps its tensors: both moments' stand at once
        loss, backward = moments
        worst = {part: max(loss[part], backward[part]) for part in loss}
        worst["gradients"] = loss["gradients"] + backward["gradients"]
    else:
        worst = max(moments, key=lambda moment: sum(moment.values()))
    parts = resident(work, choice.cached_blocks) | worst
    return {part: math.ceil(parts[part]) for part in PARTS}


def peak(parts: dict[str, int]) -> int:
    """The sum: what the card must have free."""
    return sum(parts.values())


def resident(work: Work, cached_blocks: int) -> dict[str, float]:
    """Bytes that are there whatever the micro-step."""
    return {
        "weights": work.shape.linear_weights * work.quantised_bytes,
        "embeddings": float(work.shape.other_parameters * work.weight_bytes),
        "adapter": work.adapter_parameters * work.trained_bytes,
        "dequantised": dequantised(work, cached_blocks),
    }


def dequantised(work: Work, cached_blocks: int) -> float:
    """Bytes of weights in the type of the products: cached blocks, and one set of buffers for all others."""
    if work.engine == "plain":
        return plain.dequantised(work)
    return float(block_buffers(work) * (cached_blocks + (1 if cached_blocks < work.shape.layers else 0)))


def block_buffers(work: Work) -> int:
    """Bytes of one block's weights with their LoRA rows and columns: (N + R) x (K + R) for each group."""
    if work.fp8:
        return fp8.block_buffers(work)
    return sum((g.outputs + g.padded) * (g.inputs + g.padded) for g in work.groups) * work.compute_bytes


def host_bytes(work: Work, choice: Choice) -> int:
    """Pinned host memory: the blocks' inputs, with recompute "offload"."""
    if choice.recompute != "offload":
        return 0
    tokens = work.tokens_at_once(choice.micro_tokens)
    return tokens * work.shape.layers * work.shape.hidden * work.compute_bytes
