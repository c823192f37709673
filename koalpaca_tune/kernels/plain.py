"""The reference of every fused kernel, in torch: any device, any floating type.

Tensors are rows of tokens: [T, ...] with T the tokens of a micro-step. The last dimension is contiguous;
rows may stand apart (a view of the first columns of a wider buffer). Statistics are taken in float32, or in
float64 where the inputs are float64. Where a function takes `out` and `narrow`, its result goes to either or both:
rounded to the type of `out`, and to e4m3 with a scale for each row. `fused` has the same functions for CUDA.
"""

from __future__ import annotations

import bitsandbytes.functional as bnb
import torch
from torch import Tensor
from torch.nn import functional

from koalpaca_tune.kernels import chance
from koalpaca_tune.kernels.fp8 import LARGEST, Scaled
from koalpaca_tune.kernels.nf4 import Packed

aten = torch.ops.aten

Affine = tuple[Tensor, Tensor]
"""Weight and bias [H] of a layer norm."""


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def quantize(x: Tensor, out: Scaled) -> Scaled:
    """Rounds rows [T, K] to e4m3, each divided by its scale; returns `out`.

    A row with a number that is not finite becomes NaN. A row so small that its scale would not be a normal
    float32 number has scale 1, as a row of zeros has.
    """
    wide = _wide(x)
    scale = wide.abs().amax(-1, keepdim=True).float() * (1.0 / LARGEST)
    out.scale.copy_(torch.where(scale < torch.finfo(torch.float32).tiny, 1.0, scale))
    out.data.copy_(wide * (1.0 / out.scale))
    return out


def scaled_mm(x: Scaled, weight: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The linear of rows in e4m3, rounded once.

    Args:
        x: [T, K].
        weight: float8_e4m3fn [N, K]; rows may stand apart, here and in x.
        scale: float32 [1, N], what each row of the weight is to be multiplied by.
        bias: [N] or None.
        dtype: of the result.

    Returns:
        [T, N].
    """
    product = (x.data.float() @ weight.float().t()) * x.scale * scale
    return (product if bias is None else product + bias).to(dtype)


def split(x: Tensor, scale: Tensor | None, factor: Tensor, out: Tensor, *, left: bool) -> None:
    """Writes numbers as sums of two in e4m3, so that a product over three times their columns is nearly exact.

    With x = h + l and y = k + m the left side [h, l, h] times the right side [k, k, m] is all of x y but l m, a
    thousandth of it. A number beyond what e4m3 holds becomes NaN.

    Args:
        x: [M, R], of any strides.
        scale: float32 [M, 1], which each row is divided by, or None.
        factor: float32 [1], which all are multiplied by.
        out: float8_e4m3fn [M, 3 R or more], whose rows may stand apart; zero beyond the third part.
        left: which of the two sides.
    """
    value = x.float() * factor
    if scale is not None:
        value = value * (1.0 / scale)
    rank = x.shape[1]
    high = torch.where(value.abs() > LARGEST, torch.nan, value).to(out.dtype)
    low = (value - high.float()).to(out.dtype)
    out[:, :rank].copy_(high)
    out[:, rank : 2 * rank].copy_(low if left else high)
    out[:, 2 * rank : 3 * rank].copy_(high if left else low)
    out[:, 3 * rank :].zero_()


def _write(result: Tensor, out: Tensor | None, narrow: Scaled | None) -> None:
    if narrow is not None:
        quantize(result, narrow)
    if out is not None:
        out.copy_(result)


def add_layer_norm(
    x: Tensor,
    update: Tensor | None,
    affines: tuple[Affine, ...],
    outs: tuple[Tensor | None, ...],
    eps: float,
    narrow: tuple[Scaled | None, ...] = (),
) -> Tensor:
    """Layer norms of a residual, several at once where they share their input (parallel residual).

    Args:
        x: [T, H], not changed.
        update: [T, H], added to x first; it is overwritten with the sum. None: nothing is added.
        affines: weight and bias of each norm.
        outs: [T, H], where each norm's result is written; empty to add only.
        eps: as in the model's config.
        narrow: where each norm's result is written in e4m3; empty: nowhere.

    Returns:
        The sum [T, H]: `update`, or `x` itself.
    """
    total = x if update is None else update.add_(x)
    if outs:
        wide = _wide(total)
        normal = functional.layer_norm(wide, wide.shape[-1:], eps=eps)
        for (weight, bias), out, scaled in zip(affines, outs, narrow or (None,) * len(outs), strict=True):
            _write(torch.addcmul(_wide(bias), normal, _wide(weight)), out, scaled)
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


def add_rms_norm(
    x: Tensor, update: Tensor | None, weight: Tensor, out: Tensor | None, eps: float, narrow: Scaled | None = None
) -> Tensor:
    """`add_layer_norm` for one RMS norm (Zhang & Sennrich 2019): no mean, no bias. Without a place it only adds."""
    total = x if update is None else update.add_(x)
    if out is not None or narrow is not None:
        wide = _wide(total)
        normal = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        _write(normal * _wide(weight), out, narrow)
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


def take(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of keys or values, contiguous [n, heads, D].

    Args:
        x: [T, heads, D]; rows and heads may stand apart.
        rows: int64 [n].
    """
    return x.index_select(0, rows)


def gelu(x: Tensor, out: Tensor | None, narrow: Scaled | None = None) -> None:
    """GELU with the error function (Hendrycks & Gimpel 2016), [T, F] to [T, F]."""
    _write(functional.gelu(_wide(x)), out, narrow)


def gelu_backward(x: Tensor, grad: Tensor, out: Tensor | None, narrow: Scaled | None = None) -> None:
    """The gradient at x [T, F], from the one at gelu(x).

    Args:
        x: what the forward pass read.
        grad: [T, F], the gradient at its result.
        out: may be `grad` itself, which is not changed otherwise.
        narrow: as everywhere.
    """
    _write(aten.gelu_backward(_wide(grad), _wide(x)), out, narrow)


def swiglu(gate_up: Tensor, out: Tensor | None, narrow: Scaled | None = None) -> None:
    """silu(gate) * up (Shazeer 2020) of [T, 2F], the gate first, to [T, F]."""
    gate, up = _wide(gate_up).chunk(2, -1)
    _write(functional.silu(gate) * up, out, narrow)


def swiglu_backward(gate_up: Tensor, grad: Tensor, narrow: Scaled | None = None) -> None:
    """Overwrites `gate_up` [T, 2F] with its gradient, and `grad` [T, F] with silu(gate) * up.

    Args:
        gate_up: what the forward pass read.
        grad: the gradient at the forward pass's result.
        narrow: [T, 2F], where the gradient at gate_up is written in e4m3 as well.
    """
    gate, up = (part.clone() for part in _wide(gate_up).chunk(2, -1))
    share = torch.sigmoid(gate)
    silu = gate * share
    wide = _wide(grad)
    both = torch.cat((wide * up * (share + silu * (1.0 - share)), wide * silu), -1)
    grad.copy_(silu * up)
    _write(both, gate_up, narrow)


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


def dequantize(
    packed: Packed, out: Tensor, factor: float = 1.0, key: Tensor | None = None, salt: int = 0
) -> Tensor:
    """Writes a 4-bit weight into `out` [N, K], whose rows may stand apart, in its type; returns `out`.

    The values are those of bitsandbytes' own matrix products, bit for bit, times `factor`; with a key rounded to
    e4m3 by chance (key, salt: as for `chance.bits`). In e4m3 none may be beyond 448.
    """
    return out.copy_(_decoded(packed, factor, key, salt))


def dequantize_columns(
    packed: Packed, out: Tensor, factor: float = 1.0, key: Tensor | None = None, salt: int = 0
) -> Tensor:
    """The transpose of `dequantize`, into `out` [K, N]."""
    return out.copy_(_decoded(packed, factor, key, salt).t())


def _decoded(packed: Packed, factor: float, key: Tensor | None, salt: int) -> Tensor:
    value: Tensor = bnb.dequantize_4bit(packed.data, packed.state)
    value = value if factor == 1.0 else value.float() * factor
    return value if key is None else chance.drawn(value.float(), key, salt)
