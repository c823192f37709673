"""The least time that each group of kernels of a QLoRA step needs: arithmetic, at rates measured on this card.

Products: what cuBLAS takes for the bare base weights, forward and the gradient at the input (the frozen base has no
weight gradient), where a gradient is needed at all; LoRA's own products as the bytes that they must read.
Attention: its FLOPs over the documents at the best rate that a product reached. Everything else: bytes that must
move, each input read once and each output written once, at the speed of a copy. bfloat16 is 2 bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from shapes import Shape

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Of a weight with double quantisation: 4 bits, a byte for 64 weights, a float for 256 of those."""


@dataclass(frozen=True)
class Rates:
    """Measured on this card.

    Attributes:
        forward, backward: seconds per token of each linear group's product and of the gradient at its input.
        head: seconds per row of the output head, forward and backward.
        best: FLOP/s of the fastest of them.
        bandwidth: bytes read and written per second by a large copy.
    """

    forward: tuple[float, ...]
    backward: tuple[float, ...]
    head: float
    best: float
    bandwidth: float


@dataclass(frozen=True)
class Work:
    """A step: tokens of its documents, all learned, and how it is computed; `narrow`: engine.compute=fp8."""

    lengths: tuple[int, ...]
    micro_steps: int
    recompute: str
    cached_blocks: int
    rank: int
    narrow: bool = False


def rates(shape: Shape, device: torch.device, *, narrow: bool = False) -> Rates:
    """Times the products of one block and of the head at 16,384 tokens, and a copy of 2 GiB (2 seconds in all).

    With `narrow` those of the block are in e4m3, with a scale for each row.
    """
    card = device.type == "cuda"
    tokens, rows = (16384, 4096) if card else (256, 64)
    dtype = torch.bfloat16 if card else torch.float32

    def random(*size: int) -> torch.Tensor:
        return torch.randn(size, device=device, dtype=dtype)

    forward, backward = [], []
    best = 0.0
    for inputs, several in shape.groups:
        outputs = sum(several)
        x, weight, grad = random(tokens, inputs), random(outputs, inputs), random(tokens, outputs)
        if narrow:
            there, back = _timed(_narrow(x, weight)), _timed(_narrow(grad, weight.t().contiguous()))
        else:
            there, back = _timed(partial(torch.matmul, x, weight.T)), _timed(partial(torch.matmul, grad, weight))
        forward.append(there / tokens)
        backward.append(back / tokens)
        best = max(best, 2 * tokens * inputs * outputs / min(there, back))
    x, weight, grad = (
        random(rows, shape.hidden),
        random(shape.vocabulary, shape.hidden),
        random(rows, shape.vocabulary),
    )
    head = (_timed(partial(torch.matmul, x, weight.T)) + _timed(partial(torch.matmul, grad, weight))) / rows
    source = torch.randint(100, (2**31 if card else 2**24,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * source.numel() / _timed(lambda: target.copy_(source))
    return Rates(tuple(forward), tuple(backward), head, best, bandwidth)


def _narrow(x: torch.Tensor, weight: torch.Tensor) -> Callable[[], object]:
    """x weight' in e4m3."""
    scales = torch.ones(len(x), 1, device=x.device), torch.ones(1, len(weight), device=x.device)
    rows, columns = x.to(torch.float8_e4m3fn), weight.to(torch.float8_e4m3fn).t()
    return partial(torch._scaled_mm, rows, columns, *scales, out_dtype=torch.bfloat16, use_fast_accum=True)


def _timed(call: Callable[[], object], times: int = 10) -> float:
    """Seconds of one call among several in a row."""
    for _ in range(3):
        call()
    card = torch.cuda.is_available()
    if card:
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        call()
    if card:
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / times


def seconds(shape: Shape, work: Work, rates: Rates) -> dict[str, float]:
    """The least seconds of a step by group, under the names of bench/profile_step.py."""
    tokens = sum(work.lengths)
    again = {"none": 0.0, "wide": rates.forward[2]}.get(work.recompute, sum(rates.forward))
    per_token = shape.layers * (sum(rates.forward) + sum(rates.backward) + again)
    # the first block hands no gradient on; GPT-NeoX's adapter sits before its attention alone
    per_token -= sum(rates.backward[n] for n in ((0, 2, 3) if shape.family == "gpt_neox" else (0,)))
    adapted = shape.groups[:1] if shape.family == "gpt_neox" else shape.groups
    lora_bytes = shape.layers * sum(2 * inputs + 2 * sum(outputs) for inputs, outputs in adapted)
    attention = 4 * shape.hidden * shape.layers * sum(length**2 / 2 for length in work.lengths)
    passes = 3.5 if work.recompute in ("none", "wide") else 4.5
    cached = work.cached_blocks / shape.layers
    dequantise = 2 * work.micro_steps * (1 - cached) * shape.quantised * (NF4_BYTES + (1 if work.narrow else 2))
    adapter = shape.layers * sum(work.rank * (len(outputs) * inputs + sum(outputs)) for inputs, outputs in adapted)
    return {
        "products": tokens * (per_token + rates.head + lora_bytes / rates.bandwidth),
        "attention": attention * passes / rates.best,
        "dequantise": dequantise / rates.bandwidth,
        # AdamW in float32 reads weight, gradient and two moments and writes three of them; clipping reads once
        "optimizer": 32 * adapter / rates.bandwidth,
        "our kernels": tokens
        * (shape.layers * elementwise(shape, work.recompute, narrow=work.narrow) + 4 * shape.vocabulary)
        / rates.bandwidth,
    }


def elementwise(shape: Shape, recompute: str, *, narrow: bool = False) -> float:
    """Bytes per token and layer of norms, rotary embedding and activation, each fused to one pass.

    GPT-NeoX, forward: x and update read, their sum and two norms written (10 H); rotation of q and k in place; GELU
    (4 F). Backward: norms again for LoRA (4 H) and their gradient (10 H), rotation, GELU's gradient (6 F).
    Llama, forward: two norms with a sum (16 H), rotation, SwiGLU (6 F); backward: the same norms again (8 H) and
    their gradients (16 H), rotation, SwiGLU's gradients and its result for LoRA (12 F).
    In 8 bits what only products read is a byte; attention's result, the residual's gradient and that at q, k, v are
    read and written once more (3 bytes an element).
    """
    hidden, wide, kv = shape.hidden, shape.intermediate, shape.kv_heads * shape.head_dim
    rotation = 4 * (hidden + kv) * shape.rotary
    if shape.family == "gpt_neox":
        forward, backward = 10 * hidden + rotation + 4 * wide, 14 * hidden + rotation + 6 * wide
    else:
        forward, backward = 16 * hidden + rotation + 6 * wide, 24 * hidden + rotation + 12 * wide
    if narrow and shape.family == "gpt_neox":
        forward, backward = forward + 3 * hidden - wide, backward + 12 * hidden - wide
    elif narrow:
        forward, backward = forward + 5 * hidden + wide, backward + 3 * (3 * hidden + 2 * kv) + 2 * wide
    return backward + forward * (1 if recompute in ("none", "wide") else 2)
