"""Activations of the fast engine, as `engine.neox` and `engine.llama` keep them."""

from __future__ import annotations

from dataclasses import dataclass

from koalpaca_tune.planner import constants, fp8
from koalpaca_tune.planner.choice import Recompute
from koalpaca_tune.planner.work import Work


@dataclass(frozen=True)
class Within:
    """Bytes for a token in a block's backward pass, beside the residual's gradient and what was saved.

    Attributes:
        mlp: the most at once in the MLP's half.
        attention: the most at once in the attention's half.
    """

    mlp: float
    attention: float


def moments(work: Work, tokens: int, recompute: Recompute) -> tuple[dict[str, float], dict[str, float]]:
    """Bytes by part at the loss, and in the backward pass of the last block."""
    hidden = work.shape.hidden * work.compute_bytes
    layers = work.shape.layers
    block, wide, within = block_bytes(work), wide_bytes(work), backward_bytes(work)
    rebuilt, inside = 0.0, max(within.mlp, within.attention)
    if recompute == "none":
        saved = block * layers
    elif recompute == "wide":
        saved = (block - wide) * layers
        # built again from the norm's result, and gone before attention's half begins
        up = work.groups[2]
        normed = work.shape.hidden + fp8.spare(work, up) if work.fp8 else 0 if up.targets else hidden
        if within.mlp + normed + wide > within.attention:
            rebuilt, inside = wide, within.mlp + normed
    else:
        # the input of one block that is fetched while another's is used
        saved = float(hidden * (layers if recompute == "blocks" else min(2, layers)))
        rebuilt = block - hidden
    learned = tokens * work.learned_share
    rows = min(learned, chunk_rows(work))
    room = max(group.padded for group in work.groups) * work.compute_bytes if work.folded else 0
    return (
        # the residual; of its learned rows the states and their gradient; of a chunk the norm's result
        _moment(
            work,
            tokens * saved,
            0.0,
            (tokens + 2 * learned + rows) * hidden,
            rows * work.shape.vocabulary * work.compute_bytes,
        ),
        # the residual's gradient, that of the learned rows that it was made from, and what a block adds
        _moment(work, tokens * saved, tokens * rebuilt, tokens * (hidden + room + inside), 0.0),
    )


def wide_bytes(work: Work) -> float:
    """The MLP's wide tensor for each token: before GELU, or gate and up (with room for a folded product)."""
    up = work.groups[2]
    room = up.padded if work.folded and work.shape.family == "llama" else 0
    return float((up.outputs + room) * work.compute_bytes)


def block_bytes(work: Work) -> float:
    """All that one block saves for each token."""
    shape = work.shape
    elements = shape.hidden + 2 * shape.query_width + 2 * shape.kv_width + sum(g.padded for g in work.groups)
    if shape.family == "llama":
        elements += shape.hidden
    if work.attention == "documents":
        # torch's own graph of it keeps the result a second time
        elements += shape.query_width
    # attention's sums of exponentials are float32
    return elements * work.compute_bytes + wide_bytes(work) + 4.0 * shape.heads


def backward_bytes(work: Work) -> Within:
    """What stands beside each other at the fullest places of `backward`."""
    neox = work.shape.family == "gpt_neox"
    mlp = _neox_mlp(work) if neox else _llama_mlp(work)
    if not work.fused:
        mlp += constants.TORCH_KERNEL_FLOATS * 4.0 * work.shape.intermediate
    # of a parallel residual the MLP's half waits for attention's
    return Within(mlp, _attention(work) + (work.shape.hidden * work.compute_bytes if neox else 0))


def _neox_mlp(work: Work) -> float:
    shape, item, narrow = work.shape, work.compute_bytes, work.narrow_bytes
    _, dense, up, down = work.groups
    hidden, inner = shape.hidden * item, shape.intermediate * item
    drop = 1 if work.dropout else 0
    room = up.padded * item if work.folded else 0
    # what `down` learns from is GELU's result, computed again
    active = inner * (1 + drop) if down.targets else 0
    through = hidden * (1 + (drop if up.targets else 0))
    # GELU's gradient takes the place of the one at its result, or is written beside it
    inner8 = shape.intermediate * narrow + fp8.spare(work, up)
    grad8 = shape.hidden * narrow + max(fp8.spare(work, dense), fp8.spare(work, down))
    gone = inner if narrow and not up.targets else 0
    normed = hidden if up.targets else 0
    return normed + grad8 + inner + room + max(active, inner8, inner8 + through - gone)


def _llama_mlp(work: Work) -> float:
    shape, item, narrow = work.shape, work.compute_bytes, work.narrow_bytes
    _, _, gate_up, down = work.groups
    hidden, inner = shape.hidden * item, shape.intermediate * item
    drop = 1 if work.dropout else 0
    wide8 = gate_up.outputs * narrow + fp8.spare(work, gate_up)
    # what `down` learns from, SwiGLU's result, takes the place of the gradient at it
    activation = shape.hidden * narrow + fp8.spare(work, down) + inner * (1 + (drop if down.targets else 0))
    through = hidden * (1 + (drop if gate_up.targets else 0))
    return (hidden if gate_up.targets else 0) + wide8 + max(activation, through)


def _attention(work: Work) -> float:
    shape, item = work.shape, work.compute_bytes
    qkv = work.groups[0]
    hidden, query, kv = shape.hidden * item, shape.query_width * item, shape.kv_width * item
    heads = query + 2 * kv
    joined = heads + (qkv.padded * item if work.folded else 0)
    # the kernel's own sums, and one key and value head for each query head
    kernel = constants.ATTENTION_WORKSPACE * shape.query_width + (2 * query if kv < query else 0)
    learning = hidden * (1 + (1 if work.dropout else 0)) if qkv.targets else 0
    after = joined + qkv.outputs * work.narrow_bytes + fp8.spare(work, qkv) + hidden + learning
    return max(query + heads + kernel, heads + joined, after)


def chunk_rows(work: Work) -> int:
    """Rows of logits that are computed at once."""
    row = work.shape.vocabulary * work.compute_bytes
    return max(constants.LOGIT_CHUNK_ROWS, constants.LOGIT_CHUNK_BYTES // row)


def _moment(work: Work, saved: float, rebuilt: float, gradients: float, logits: float) -> dict[str, float]:
    rounding = constants.WORKSPACE_BYTES * work.cuda + constants.ROUNDING * (saved + rebuilt + gradients)
    return {"saved": saved, "rebuilt": rebuilt, "gradients": gradients, "logits": logits, "rounding": rounding}
