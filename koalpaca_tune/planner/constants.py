"""What the predictions rest on besides arithmetic. Change a number here when a measurement says so.

"Measured" is one NVIDIA H200 with torch 2.11 (docs/en/speed.md); everything else is a guess and says so.
"""

from __future__ import annotations

GIB = 1 << 30

# memory: fixed by the engine's own code

RANK_MULTIPLE = 64
"""engine.build.ALIGNED: on a card the ranks of a group are rounded up to it."""
RANK_MULTIPLE_FP8 = 8
"""engine.build.ALIGNED_NARROW."""
NARROW_ROW = 128
"""engine.linear.NARROW_ROW."""
LOGIT_CHUNK_BYTES = 1 << 29
"""engine.head.CHUNK_BYTES."""
LOGIT_CHUNK_ROWS = 1024
"""engine.head.CHUNK_ROWS."""
STREAM_MULTIPLE = 64
"""A micro-step is padded to a multiple of it; the padding is a document, so documents are no longer equal."""
PLAIN_LOGIT_ROWS = 4096
"""training.objective.ROWS."""
PLAIN_LOGIT_BYTES = 14
"""Of a logit under autograd, in the backward pass: log-softmax and its gradients in float32, one in bfloat16."""

# what is settled by rule and not planned: the plain engine, and the CPU

PLAIN_TOKENS = 4096
"""training.objective.MICRO_TOKENS: padded tokens of a micro-step of the plain engine."""
CPU_TOKENS = 2048
"""training.engines.CPU_TOKENS."""
CPU_SHARE = 0.25
"""training.engines.CPU_SHARE: of the machine's memory, for weights that stay dequantised."""

# memory: to calibrate

WORKSPACE_BYTES = 64 << 20
"""cuBLAS's workspaces, which torch's allocator counts (32 MiB a handle on Hopper)."""
ROUNDING = 0.02
"""Of activations: the allocator's rounding, ids, positions and other small tensors."""
ATTENTION_WORKSPACE = 4
"""Bytes for each element of the queries in attention's backward pass: flash sums dQ in float32."""
TORCH_KERNEL_FLOATS = 3
"""float32 copies of the widest tensor that the plain kernels hold at once (engine.kernels: torch)."""

# seconds: the fast engine

MATMUL_HALF = 600_000
"""Elements T x H of a product's result at which it runs at half its rate: n / (n + 600,000). Tiles are of about
128 x 256 elements, and the card has 100 to 150 places for them. Measured: single points of
bench/results/scaling-h200-2026-11-21.jsonl say 300,000 to 800,000."""
ATTENTION_BACKWARD = 2.5
"""Products of attention's backward pass over those of the forward pass: 5 over 2."""
ATTENTION_TILE = 128
"""A query sees on average half its document, and half a tile of 128 more that is masked."""
WIDE_HEAD = 0.85
"""Attention with heads beyond 128 wide. Measured: 385 against 446 to 462 TFLOP/s (cuDNN, forward and backward)."""
EQUAL_ATTENTION = 2.1
"""cuDNN over flash on Hopper, equal documents. Measured: 1.8 (head_dim 256) to 2.2 (128)."""
FLASH4_ATTENTION = 1.55
"""flash-attn-4 over flash on Hopper. Measured: 1.3 to 1.5 (head_dim 256), 1.5 to 1.75 (128). `auto` is not counted
on to find it installed."""
EFFICIENT_ATTENTION = 0.6
"""The memory-efficient kernel, or one document at a time, over flash: a guess."""
FLASH_HEAD = 192
"""The widest head whose backward pass flash has on cards of compute capability 8.6 and 8.9 (kernels.attention)."""
ELEMENTWISE_EFFICIENCY = 0.95
"""Of the copy rate. Measured: norms, GELU and SwiGLU move 3.8 to 4.3 of the 4.25 TB/s of a copy."""
DEQUANTISE_EFFICIENCY = 0.7
"""Of the copy rate: a table look-up for every weight."""
FLOAT32_RATE = 0.1
"""float32 products on a card over bfloat16 ones (no tensor cores)."""
HOST_PER_LAYER = 1.58e-3
"""Seconds that Python takes for a block, forward and backward. Measured on the H200's host: 1.7 to 2.0 ms with one
target (GPT-NeoX), 2.65 and 2.74 with seven (Llama), from which both of these; steps of a run differ by a fifth."""
HOST_PER_TARGET = 0.16e-3
"""And for each linear of a block that has LoRA."""
HOST_FP8 = 0.35e-3
"""And where products are in e4m3, for what quantises and LoRA's own products: a guess."""
HOST_RECOMPUTE = 0.35
"""Share that running whole blocks again adds to it: a guess."""
HOST_WITH_GRAPHS = 0.05
"""Share that remains when a CUDA graph is replayed: a guess (the one point measured was bound by the card)."""
STEP_SECONDS = 2e-3
"""Once a step: clipping, the optimizer's launches, the loss read back."""
OFFLOAD_FRICTION = 0.05
"""Share of hidden copies to and from the host that is felt all the same: they share the card's memory."""
TORCH_KERNELS = 6.0
"""Elementwise traffic of engine.kernels: torch over the fused kernels."""

# seconds: the plain engine. Fitted to TRL without and with recompute on the H200 (8 x 2,048 tokens, three bases):
# within 8 %. It is the same stack: PEFT, transformers, bitsandbytes under autocast.

PLAIN_ELEMENTWISE = 6.5
"""Elementwise traffic over the fused kernels: float32 norms, eager rotary embedding, GELU with its copies."""
PLAIN_HOST_PER_LAYER = 2.5e-3
"""Seconds that Python takes for a block, forward and backward: a guess."""

# choosing

TIE = 0.003
"""Plans within 0.3 % of the fastest count as equally fast: the simplest that needs least memory is taken."""
FRAGMENTS = 0.03
"""Of a budget that a person gives: what the allocator reserves beyond what is in use."""
MARGIN_BYTES = GIB
"""Kept free on the card: what the prediction misses, and fragments."""
MARGIN = 0.04
"""Or this share of it, where that is more."""
