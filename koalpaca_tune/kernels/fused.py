"""The functions of `plain` for CUDA, in Triton: each input is read once, each output written once.

Tensors are bfloat16 or float32 on the current CUDA device; sums are taken in float32 and every output is rounded
once. What a block handles follows from the shapes by fixed rules, so nothing is tuned at run time, and each shape
is compiled on its first call. e4m3 needs a card of compute capability 9.0. Importing this module imports Triton.
"""

from __future__ import annotations

from koalpaca_tune.kernels.triton_activations import gelu, gelu_backward, swiglu, swiglu_backward
from koalpaca_tune.kernels.triton_dropout import dropout
from koalpaca_tune.kernels.triton_fp8 import quantize, scaled_mm, split
from koalpaca_tune.kernels.triton_loss import cross_entropy
from koalpaca_tune.kernels.triton_nf4 import dequantize, dequantize_columns
from koalpaca_tune.kernels.triton_norms import add_layer_norm, add_rms_norm, layer_norm_backward, rms_norm_backward
from koalpaca_tune.kernels.triton_rotary import rotate
from koalpaca_tune.kernels.triton_take import take

__all__ = [
    "add_layer_norm",
    "add_rms_norm",
    "cross_entropy",
    "dequantize",
    "dequantize_columns",
    "dropout",
    "gelu",
    "gelu_backward",
    "layer_norm_backward",
    "quantize",
    "rms_norm_backward",
    "rotate",
    "scaled_mm",
    "split",
    "swiglu",
    "swiglu_backward",
    "take",
]
