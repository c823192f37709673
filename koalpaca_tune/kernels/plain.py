"""The reference of every fused kernel, in torch: any device, any floating type.

Tensors are rows of tokens: [T, ...] with T the tokens of a micro-step. The last dimension is contiguous;
rows may stand apart (a view of the first columns of a wider buffer). Statistics are taken in float32, or in
float64 where the inputs are float64. `fused` has the same functions, written in Triton.
"""

from __future__ import annotations

import bitsandbytes.functional as bnb
import torch
from torch import Tensor
from torch.nn import functional

from koalpaca_tune.kernels.nf4 import Packed

aten = torch.ops.aten

Affine = tuple[Tensor, Tensor]
"""Weight and bias [H] of a layer norm."""


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def add_layer_norm(
    x: Tensor, update: Tensor | None, affines: tuple[Affine, ...], outs: tuple[Tensor, ...], eps: float
) -> Tensor:
    """Layer norms of a residual, several at once where they share their input (parallel residual).

    Args:
        x: [T, H], not changed.
        update: [T, H], added to x first; it is overwritten with the sum. None: nothing is added.
        affines: weight and bias of each norm.
        outs: [T, H], where each norm's result is written; empty to add only.
        eps: as in the model's config.

    Returns:
        The sum [T, H]: `update`, or `x` itself.
    """
    total = x if update is None else update.add_(x)
    if outs:
        wide = _wide(total)
        normal = functional.layer_norm(wide, wide.shape[-1:], eps=eps)
        for (weight, bias), out in zip(affines, outs, strict=True):
            out.copy_(torch.addcmul(_wide(bias), normal, _wide(weight)))
    return total


def layer_norm_backward(
    x: Tensor, weights: tuple[Tensor, ...], grads: tuple[Tensor, ...], residual: Tensor, eps: float
) -> Tensor:
    """Gradient at a residual: its own, and through the layer norms that read it. Weights are frozen.

    Args:
        x: [T, H], the input of the norms.
        weights: [H] of each norm.
        grads: [T, H], the gradient at each norm's result.
        residual: [T, H], the gradient that passes by the norms; overwritten.
        eps: as in the forward pass.

    Returns:
        `residual`, which now holds the gradient at x.
    """
    wide = _wide(x)
    inner = _wide(grads[0]) * _wide(weights[0])
    for weight, one in zip(weights[1:], grads[1:], strict=True):
        inner.addcmul_(_wide(one), _wide(weight))
    shape = wide.shape[-1:]
    _, mean, scale = torch.native_layer_norm(wide, shape, None, None, eps)
    back, _, _ = aten.native_layer_norm_backward(inner, wide, shape, mean, scale, None, None, [True, False, False])
    return residual.copy_(_wide(residual) + back)


def add_rms_norm(x: Tensor, update: Tensor | None, weight: Tensor, out: Tensor | None, eps: float) -> Tensor:
    """`add_layer_norm` for one RMS norm (Zhang & Sennrich 2019): no mean, no bias."""
    total = x if update is None else update.add_(x)
    if out is not None:
        wide = _wide(total)
        normal = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        out.copy_(normal * _wide(weight))
    return total


def rms_norm_backward(x: Tensor, weight: Tensor, grad: Tensor, residual: Tensor, eps: float) -> Tensor:
    """`layer_norm_backward` for one RMS norm: adds to `residual` and returns it."""
    wide = _wide(x)
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    normal = wide * scale
    inner = _wide(grad) * _wide(weight)
    back = inner - normal * (inner * normal).mean(-1, keepdim=True)
    return residual.copy_(_wide(residual) + back * scale)


def rotate(x: Tensor, out: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, *, inverse: bool = False) -> Tensor:
    """Rotary embedding (Su et al. 2021) of the first 2R of D dimensions, halves paired as GPT-NeoX and Llama do.

    Args:
        x: [T, heads, D]; any strides but a contiguous last dimension.
        out: [T, heads, D], where the result goes; may be x itself. The other dimensions are copied.
        cos, sin: float32 [longest, R]; R may be 0 (a copy).
        positions: int32 [T], the row of the table for each token.
        inverse: rotates back, which is also the gradient.

    Returns:
        `out`.
    """
    half = cos.shape[1]
    turn_cos = cos[positions].to(_wide(x).dtype)[:, None]
    turn_sin = sin[positions].to(_wide(x).dtype)[:, None]
    if inverse:
        turn_sin = -turn_sin
    wide = _wide(x)
    first, second = wide[..., :half].clone(), wide[..., half : 2 * half].clone()
    if out is not x:
        out[..., 2 * half :].copy_(x[..., 2 * half :])
    out[..., :half].copy_(first * turn_cos - second * turn_sin)
    out[..., half : 2 * half].copy_(second * turn_cos + first * turn_sin)
    return out


def gelu(x: Tensor, out: Tensor) -> Tensor:
    """GELU with the error function (Hendrycks & Gimpel 2016), [T, F] to [T, F]; returns `out`."""
    return out.copy_(functional.gelu(_wide(x)))


def gelu_backward(x: Tensor, grad: Tensor) -> Tensor:
    """Overwrites `grad` [T, F], the gradient at gelu(x), with the gradient at x, and returns it."""
    return grad.copy_(aten.gelu_backward(_wide(grad), _wide(x)))


def swiglu(gate_up: Tensor, out: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer 2020) of [T, 2F], the gate first, into `out` [T, F], which is returned."""
    gate, up = _wide(gate_up).chunk(2, -1)
    return out.copy_(functional.silu(gate) * up)


def swiglu_backward(gate_up: Tensor, grad: Tensor) -> None:
    """Overwrites `gate_up` [T, 2F] with its gradient, and `grad` [T, F] with silu(gate) * up.

    Args:
        gate_up: what the forward pass read.
        grad: the gradient at the forward pass's result.
    """
    gate, up = (part.clone() for part in _wide(gate_up).chunk(2, -1))
    share = torch.sigmoid(gate)
    silu = gate * share
    wide = _wide(grad)
    both = torch.cat((wide * up * (share + silu * (1.0 - share)), wide * silu), -1)
    grad.copy_(silu * up)
    gate_up.copy_(both)


def cross_entropy(logits: Tensor, targets: Tensor, *, grad: bool) -> Tensor:
    """Negative log-likelihood of each target, and its gradient in the place of the logits.

    Args:
        logits: [n, V]; with `grad` overwritten with the gradient of the sum of the results (softmax less one-hot).
        targets: int64 [n].
        grad: whether the gradient is wanted.

    Returns:
        float32 [n], in nats.
    """
    logs = torch.log_softmax(_wide(logits), -1)
    picked = -logs.gather(1, targets[:, None])[:, 0]
    if grad:
        share = logs.exp_()
        share[torch.arange(len(targets), device=targets.device), targets] -= 1.0
        logits.copy_(share)
    return picked.float()


def dropout(x: Tensor, out: Tensor, seed: Tensor, salt: int, probability: float) -> Tensor:
    """Inverted dropout (Srivastava et al. 2014) whose mask is a function of seed, salt and place.

    Called again with the same seed and salt it drops the same places: the backward pass keeps no mask.

    Args:
        x: [T, K].
        out: [T, K], may be x.
        seed: int64 [1] on x's device; read on the device by the fused version.
        salt: tells the uses of one seed apart.
        probability: of a zero, to 1 / 65536; the others are multiplied by 1 / (1 - probability).

    Returns:
        `out`.
    """
    generator = torch.Generator(x.device).manual_seed((int(seed) * 0x9E3779B1 + salt) % 2**63)
    # four draws of 16 bits in each number: drawing is what takes the time
    lanes = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    lanes.random_(-(2**63), None, generator=generator)
    kept = lanes.view(torch.int16)[: x.numel()].view(x.shape) >= round(probability * 65536) - 32768
    return torch.mul(x, kept, out=out).mul_(1.0 / (1.0 - probability))


def dequantize(packed: Packed, out: Tensor) -> Tensor:
    """Writes a 4-bit weight into `out` [N, K], whose rows may stand apart, in its type; returns `out`.

    The values are those of bitsandbytes' own matrix products, bit for bit.
    """
    return out.copy_(bnb.dequantize_4bit(packed.data, packed.state))
