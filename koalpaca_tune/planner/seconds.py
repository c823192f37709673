"""The time of a step, in seconds by part: how much is computed and moved, at the rates that a card sustains.

A roofline of each part, added up: on one stream they run one after the other. Only the host (launches) and
the copies to host memory run beside them, and count where they take longer.
"""

from __future__ import annotations

from koalpaca_tune.planner import constants, fp8
from koalpaca_tune.planner.card import Card
from koalpaca_tune.planner.choice import Choice, Recompute
from koalpaca_tune.planner.work import Work

PARTS = (
    "matmuls",
    "recompute",
    "attention",
    "head",
    "lora",
    "elementwise",
    "dequantise",
    "optimizer",
    "launches",
    "offload",
)
"""matmuls: of the base; recompute: those done again; head: with the loss; elementwise: norms, rotary embedding,
activation; launches: the host, where the card waits for it; offload: copies that the card waits for."""


def seconds(work: Work, choice: Choice, card: Card) -> dict[str, float]:
    """Seconds of each of PARTS in one step."""
    rates = _Rates(work, choice, card)
    parts = dict.fromkeys(PARTS, 0.0)
    parts["matmuls"] = matmul_flop(work) / rates.base
    parts["recompute"] = recompute_flop(work, choice.recompute) / rates.base
    again = 1.0 if choice.recompute in ("blocks", "offload") else 0.0
    parts["attention"] = (
        attention_flop(work, tile=constants.ATTENTION_TILE)
        * (1.0 + constants.ATTENTION_BACKWARD + again)
        / rates.attention
    )
    logits = work.step_tokens * work.learned_share * work.shape.vocabulary * work.compute_bytes
    parts["head"] = head_flop(work) / rates.matmul + 3 * logits / rates.moved
    parts["lora"] = _lora(work, rates, again)
    forward, backward = elementwise_bytes(work)
    layers_tokens = work.shape.layers * work.step_tokens
    parts["elementwise"] = layers_tokens * (forward * (1.0 + again) + backward) * rates.unfused / rates.moved
    parts["dequantise"] = (
        _dequantise(work, choice, again) * rates.micro_steps / (card.bandwidth * constants.DEQUANTISE_EFFICIENCY)
    )
    parts["optimizer"] = work.adapter_parameters * 2 * (8.0 + work.optimizer_bytes) / card.bandwidth
    if card.cuda:
        parts["optimizer"] += constants.STEP_SECONDS
    if choice.recompute == "offload":
        parts["offload"] = _offload(work, card, sum(parts.values()))
    if card.cuda:
        computing = sum(parts.values()) - parts["optimizer"]
        parts["launches"] = max(0.0, rates.micro_steps * _host(work, choice) - computing)
    return parts


class _Rates:
    """What the card does for this work: FLOP/s and bytes/s."""

    def __init__(self, work: Work, choice: Choice, card: Card) -> None:
        self.micro_steps = work.micro_steps(choice)
        filled = work.step_tokens / self.micro_steps * work.shape.hidden
        precision = constants.FLOAT32_RATE if card.cuda and work.compute_bytes == 4 else 1.0
        share = filled / (filled + constants.MATMUL_HALF)
        self.matmul = card.matmul * precision * share
        # the plain kernels multiply what the narrow numbers stand for
        self.base = card.matmul8 * share if work.fp8 and work.fused and card.matmul8 else self.matmul
        self.attention = card.attention * precision * _kernel(work, card, choice)
        self.moved = card.bandwidth * constants.ELEMENTWISE_EFFICIENCY
        if work.engine == "plain":
            self.unfused = constants.PLAIN_ELEMENTWISE
        else:
            self.unfused = 1.0 if work.fused else constants.TORCH_KERNELS


def _kernel(work: Work, card: Card, choice: Choice) -> float:
    """The attention kernel's rate over flash's, as `kernels.attention.choose` takes it."""
    head = work.shape.head_dim
    wide = constants.WIDE_HEAD if head > 128 else 1.0
    small = card.capability in ((8, 6), (8, 7), (8, 9), (12, 0)) and head > constants.FLASH_HEAD
    if work.attention in ("efficient", "documents") or (work.attention == "auto" and small):
        return constants.EFFICIENT_ATTENTION * wide
    if work.attention == "flash4":
        return constants.FLASH4_ATTENTION * wide
    padded = work.tokens_at_once(choice.micro_tokens) % constants.STREAM_MULTIPLE
    equal = work.equal and not padded and work.engine == "fast"
    if work.attention in ("auto", "cudnn") and equal and card.capability[0] == 9:
        return constants.EQUAL_ATTENTION * wide
    return 1.0


def matmul_flop(work: Work) -> float:
    """Forward, and the gradient at the input; none goes below the first block. A base that is trained has weight
    gradients, too."""
    shape = work.shape
    if work.full:
        return 6.0 * work.step_tokens * shape.linear_weights
    groups = work.groups
    first = (groups[0], groups[2]) if shape.family == "gpt_neox" else (groups[0],)
    skipped = sum(group.inputs * group.outputs for group in first)
    return work.step_tokens * (4.0 * shape.linear_weights - 2.0 * skipped)


def recompute_flop(work: Work, recompute: Recompute) -> float:
    """Products of the forward pass that are done again. The last ones of a block are not: nothing reads them."""
    return 2.0 * work.step_tokens * work.shape.layers * _read_again(work, recompute)


def _read_again(work: Work, recompute: Recompute) -> int:
    """Elements of a block's weights that the products done again read."""
    sizes = [group.inputs * group.outputs for group in work.groups]
    if recompute == "none":
        return 0
    if work.engine == "plain":
        return sum(sizes)
    if recompute == "wide":
        return sizes[2]
    return sizes[0] + sizes[2] if work.shape.family == "gpt_neox" else sum(sizes[:3])


def attention_flop(work: Work, *, tile: int = 0) -> float:
    """Forward: two products over the causal half of each document, and half a tile of it that is masked."""
    seen = (work.document_tokens + tile) / 2
    return 4.0 * seen * work.shape.query_width * work.shape.layers * work.step_tokens


def head_flop(work: Work) -> float:
    """Logits of learned tokens, the gradient at the head's input and, where it is trained, at its weights."""
    products = 3.0 if work.full else 2.0
    return products * 2.0 * work.shape.vocabulary * work.shape.hidden * work.step_tokens * work.learned_share


def useful_flop(work: Work) -> float:
    """What a step must compute, whoever computes it: no recompute, no padding. MFU is this over time and peak."""
    adapter = 0.0 if work.full else 6.0 * work.adapter_parameters * work.step_tokens
    attention = attention_flop(work) * (1.0 + constants.ATTENTION_BACKWARD)
    return matmul_flop(work) + attention + head_flop(work) + adapter


def elementwise_bytes(work: Work) -> tuple[float, float]:
    """Bytes that norms, rotary embedding, activation and residuals move for a token of a block, fused."""
    narrow = fp8.moved(work) if work.fp8 else (0.0, 0.0)
    forward, backward = _unquantised(work)
    return forward + narrow[0], backward + narrow[1]


def _unquantised(work: Work) -> tuple[float, float]:
    shape = work.shape
    hidden, inner, query, kv = shape.hidden, shape.intermediate, shape.query_width, shape.kv_width
    scale = work.compute_bytes / 2
    if shape.family == "gpt_neox":
        turned = 8.0 * query * shape.rotary / shape.head_dim
        return scale * (14.0 * hidden + turned + 4.0 * inner), scale * (16.0 * hidden + turned + 8.0 * inner)
    turned = 4.0 * (query + kv)
    return scale * (16.0 * hidden + turned + 6.0 * inner), scale * (24.0 * hidden + turned + 12.0 * inner)


def _lora(work: Work, rates: _Rates, again: float) -> float:
    """Products with the adapter's matrices are too narrow to be bound by anything but what they read and write."""
    flop, forward, backward = 0.0, 0.0, 0.0
    for (inputs, members), group in zip(work.shape.linears, work.groups, strict=True):
        if not group.targets:
            continue
        outputs = sum(out for name, out in members if name in work.targets)
        if work.engine == "plain":
            # each target by itself, float32 copies of the input among them
            forward += group.targets * inputs + 8 * outputs
            backward += group.targets * 5 * inputs + 4 * outputs
            flop += 6.0 * work.lora_r * (group.targets * inputs + outputs)
            continue
        # each target drops by itself
        drop = group.targets if work.dropout else 0
        forward += inputs * (max(1, drop) + 2 * drop) + (0 if work.fold_lora else 2 * group.outputs)
        backward += 2 * group.outputs + inputs * (max(1, drop) + 8 * drop) + (0 if work.fold_lora else 2 * inputs)
        # the folded part of the two large products; both gradients
        flop += (4.0 * group.padded + 2.0 * group.ranks) * (inputs + group.outputs)
    layers_tokens = work.shape.layers * work.step_tokens
    moved = (forward * (1.0 + again) + backward) * work.compute_bytes
    return layers_tokens * (flop / rates.matmul + moved / rates.moved)


def _dequantise(work: Work, choice: Choice, again: float) -> float:
    """Bytes of one micro-step. Forward and backward each load a block once; the last one loaded serves both."""
    shape = work.shape
    if work.engine == "plain":
        # in 8 bits the forward pass multiplies what is there
        quantised = (2.0 + again) if work.four_bit else 1.0 if work.eight_bit else 0.0
        passes = quantised * shape.layers
    elif work.fp8:
        # each layout when a product first reads it: rows in the forward pass, columns in the backward pass
        decoded = shape.layers - choice.cached_blocks
        elements = 2.0 * decoded * shape.block_weights
        elements += max(0, decoded - 1) * _read_again(work, choice.recompute)
        return elements * (work.quantised_bytes + 1)
    else:
        passes = max(0.0, 2.0 * (shape.layers - choice.cached_blocks) - 1.0)
    return passes * shape.block_weights * (work.quantised_bytes + work.compute_bytes)


def _offload(work: Work, card: Card, computing: float) -> float:
    """Copies that outlast the forward pass (about a third of the computing) or the backward pass, and friction."""
    copied = work.step_tokens * work.shape.layers * work.shape.hidden * work.compute_bytes / card.host_link
    waited = max(0.0, copied - computing / 3) + max(0.0, copied - computing * 2 / 3)
    return waited + constants.OFFLOAD_FRICTION * 2 * copied


def _host(work: Work, choice: Choice) -> float:
    """Seconds that the host takes to launch one micro-step."""
    if work.engine == "plain":
        layer = constants.PLAIN_HOST_PER_LAYER
    else:
        layer = constants.HOST_PER_LAYER + constants.HOST_PER_TARGET * sum(g.targets for g in work.groups)
        layer += constants.HOST_FP8 if work.fp8 else 0.0
    if choice.recompute in ("blocks", "offload"):
        layer *= 1.0 + constants.HOST_RECOMPUTE
    if choice.graphs:
        layer *= constants.HOST_WITH_GRAPHS
    return layer * work.shape.layers
