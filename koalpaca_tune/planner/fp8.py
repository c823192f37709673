"""What products in e4m3 add to a step or take from it: bytes moved, and buffers of weights.

A norm, GELU or SwiGLU writes what a product reads in one byte an element, and in two only for LoRA. What other
kernels leave (attention's result, the gradients at the block's and at qkv's result) is quantised by one of its own.
"""

from __future__ import annotations

import math

from koalpaca_tune.planner import constants
from koalpaca_tune.planner.work import Group, Work

QUANTISED = 3.0
"""Bytes of an element that a kernel of its own quantises: two read, one written."""


def moved(work: Work) -> tuple[float, float]:
    """Bytes for a token of a block, forward and backward, beyond those of 16-bit products."""
    shape = work.shape
    hidden, inner, query, kv = shape.hidden, shape.intermediate, shape.query_width, shape.kv_width
    qkv, _, up, down = work.groups
    forward = hidden * (_written(qkv) + _written(up)) + inner * _written(down) + QUANTISED * query
    backward = QUANTISED * (query + 2 * kv)
    if shape.family == "gpt_neox":
        # the sum of dense and dense_4h_to_h, which a 16-bit product adds up as it writes
        forward += 4.0 * hidden
        # both read the same gradient
        backward += QUANTISED * hidden + inner * _written(up)
    else:
        # SwiGLU's gradient takes the place of gate and up as well
        backward += 2 * QUANTISED * hidden + 2.0 * inner
    return forward, backward


def _written(group: Group) -> float:
    """Bytes more for an element of what a group reads: one byte in place of two, or beside them for LoRA."""
    return 1.0 if group.targets else -1.0


def block_buffers(work: Work) -> int:
    """Bytes of one block's weights: one byte for each of both layouts, and LoRA's matrices twice."""
    return sum(
        2 * g.outputs * g.inputs + (g.padded * work.compute_bytes + spare(work, g)) * (g.inputs + g.outputs)
        for g in work.groups
    )


def spare(work: Work, group: Group) -> int:
    """Bytes of a row of its input, or of the gradient at its output, beyond them (engine.linear.Group.spare)."""
    if not (work.fp8 and work.fold_lora):
        return 0
    return math.ceil(3 * group.padded / constants.NARROW_ROW) * constants.NARROW_ROW
