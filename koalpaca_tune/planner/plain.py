"""Activations of the plain engine: what autograd keeps of PEFT, transformers and bitsandbytes under autocast.

Rougher than the fast engine's: it follows from what each operation saves. Against TRL on the H200 without
recompute (8 x 2,048 tokens; the same stack) it is within 3 % on three bases.
"""

from __future__ import annotations

from koalpaca_tune.planner import constants
from koalpaca_tune.planner.choice import Recompute
from koalpaca_tune.planner.work import Work


def moments(work: Work, tokens: int, recompute: Recompute) -> tuple[dict[str, float], dict[str, float]]:
    """Bytes by part at the loss, and in the backward pass of the last block."""
    shape, item = work.shape, work.compute_bytes
    hidden = shape.hidden * item
    whole = _block(work)
    if recompute == "none":
        saved, rebuilt = whole * shape.layers, 0.0
    else:
        # LLM.int8 holds its inputs itself, where recomputing cannot take them from it
        held = sum(group.inputs for group in work.groups) * item if work.eight_bit else 0
        saved, rebuilt = float((hidden + held) * shape.layers), whole - hidden
    rows = min(tokens * work.learned_share, constants.PLAIN_LOGIT_ROWS)
    logits = rows * shape.vocabulary * constants.PLAIN_LOGIT_BYTES
    heads = (shape.query_width + 2 * shape.kv_width) * item
    within = 2 * shape.intermediate * item + heads + 2 * hidden + 8.0 * shape.hidden
    if work.eight_bit:
        # 16-bit and 8-bit input, 32-bit sums of one product
        within = max(within, max(3.0 * g.inputs + 4.0 * g.outputs for g in work.groups) + 2 * hidden)
    # a weight's gradient in the model's type, on its way to the float32 one
    of_head, of_linear = 0.0, 0.0
    if work.full:
        of_head = float(shape.vocabulary * hidden)
        of_linear = float(max(inputs * out for inputs, members in shape.linears for _, out in members) * item)
    return (
        _moment(work, tokens * saved, 0.0, tokens * 3 * hidden + of_head, logits),
        _moment(work, tokens * saved, tokens * rebuilt, tokens * within + of_linear, 0.0),
    )


def _block(work: Work) -> float:
    """Bytes that autograd keeps of one block, for each token."""
    shape, item = work.shape, work.compute_bytes
    query, kv, inner = shape.query_width * item, shape.kv_width * item, shape.intermediate * item
    scores = 4.0 * shape.heads
    adapter = sum(group.targets * group.inputs * (item + (1 if work.dropout else 0)) for group in work.groups)
    if work.full or work.eight_bit:
        # every product keeps its input: for the weight's gradient, or because LLM.int8 does; attention's is counted
        adapter += sum(group.inputs for group in work.groups) * item - query
    if shape.family == "gpt_neox":
        # under autocast each of the two norms keeps a float32 copy of the residual
        norms = 8.0 * shape.hidden if item == 2 else 4.0 * shape.hidden
        attention = (query + 2 * kv) + (query + kv) + query
        return norms + attention + scores + inner + adapter
    norms = 8.0 * shape.hidden
    attention = (query + kv) + kv + query
    return norms + attention + scores + 3 * inner + adapter


def dequantised(work: Work) -> float:
    """Bytes of the largest linear, dequantised for one product."""
    if not (work.four_bit or work.eight_bit):
        return 0.0
    return float(
        max(inputs * out for inputs, members in work.shape.linears for _, out in members) * work.compute_bytes
    )


def _moment(work: Work, saved: float, rebuilt: float, gradients: float, logits: float) -> dict[str, float]:
    rounding = float(constants.WORKSPACE_BYTES * work.cuda)
    return {"saved": saved, "rebuilt": rebuilt, "gradients": gradients, "logits": logits, "rounding": rounding}
