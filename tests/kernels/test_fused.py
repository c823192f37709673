"""The Triton kernels against the plain functions, in Triton's interpreter on the CPU.

In bfloat16 the interpreter cuts off where a GPU rounds; what is expected is cut off too.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import bitsandbytes.functional as bnb
import pytest
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from koalpaca_tune.kernels import fused, plain
from koalpaca_tune.kernels.nf4 import Packed

MARK = 7.0
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])

if not isinstance(tl.sum, InterpretedFunction):
    raise RuntimeError(
        "Triton was imported before TRITON_INTERPRET=1 was set; set it in the environment or first of all"
    )


def rows(count: int, width: int, *, spare: int = 0, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Normal numbers [count, width]; with `spare`, a view whose rows have that many marked columns behind them."""
    generator = torch.Generator().manual_seed(seed)
    whole = torch.full((count, width + spare), MARK, dtype=dtype)
    whole[:, :width] = torch.randn(count, width, generator=generator)
    return whole[:, :width]


def untouched(view: Tensor) -> bool:
    """Whether the columns behind the rows of `rows` still hold their mark."""
    assert view._base is not None
    return bool((view._base[:, view.shape[1] :] == MARK).all())


def twin(view: Tensor) -> Tensor:
    """A copy for the reference, in float32."""
    return view.clone().float()


def cut(wide: Tensor) -> Tensor:
    """Float32 with the digits of bfloat16, cut off as the interpreter does."""
    return (wide.contiguous().view(torch.int32) >> 16 << 16).view(torch.float32)


def close(result: Tensor, expected: Tensor) -> bool:
    """Whether a result is the reference's; in bfloat16 the same number but for a few at the edge of a step."""
    assert expected.dtype == torch.float32
    if result.dtype == torch.float32:
        return torch.allclose(result, expected, rtol=2e-6, atol=float(expected.abs().max()) * 1e-6)
    near = torch.allclose(result.float(), cut(expected), rtol=2**-7, atol=float(expected.abs().max()) * 1e-6)
    return near and float((result.float() == cut(expected)).double().mean()) > 0.98


def test_every_function_has_the_signature_of_its_reference() -> None:
    functions = {
        name: value
        for name, value in vars(plain).items()
        if inspect.isfunction(value) and value.__module__ == plain.__name__ and not name.startswith("_")
    }
    assert set(functions) == set(fused.__all__)
    for name, function in functions.items():
        assert inspect.signature(getattr(fused, name)) == inspect.signature(function), name


@DTYPES
@pytest.mark.parametrize("norms", [0, 1, 2])
@pytest.mark.parametrize("adds", [False, True])
def test_layer_norms(dtype: torch.dtype, norms: int, adds: bool) -> None:
    x = rows(3, 80, spare=16, dtype=dtype, seed=1) + 2
    update = rows(3, 80, spare=16, dtype=dtype, seed=2)
    affines = tuple(
        (rows(1, 80, seed=3 + n)[0].to(dtype), rows(1, 80, seed=5 + n)[0].to(dtype)) for n in range(norms)
    )
    outs = tuple(rows(3, 80, spare=8 * (n + 1), dtype=dtype) for n in range(norms))
    before, added = twin(x), twin(update)
    total = fused.add_layer_norm(x, update if adds else None, affines, outs, 1e-5)
    assert total is (update if adds else x)
    expected = plain.add_layer_norm(before, added if adds else None, (), (), 1e-5)
    # adding only is torch's own, which rounds
    assert close(total, expected) if norms else torch.equal(total, expected.to(dtype))
    # the norm is that of the sum as it was stored
    wanted = tuple(torch.empty(3, 80) for _ in outs)
    plain.add_layer_norm(twin(total), None, affines, wanted, 1e-5)
    assert all(close(out, want) and untouched(out) for out, want in zip(outs, wanted, strict=True))
    assert torch.equal(x.float(), before)
    assert untouched(update)


def test_layer_norm_of_a_large_mean_keeps_its_digits() -> None:
    x = rows(2, 128, seed=1) + 300
    affine = (torch.ones(128), torch.zeros(128))
    out, wanted = torch.empty(2, 128), torch.empty(2, 128, dtype=torch.float64)
    fused.add_layer_norm(x, None, (affine,), (out,), 1e-5)
    plain.add_layer_norm(x.double(), None, ((affine[0].double(), affine[1].double()),), (wanted,), 1e-5)
    assert (out - wanted).abs().max() < 1e-4


@DTYPES
@pytest.mark.parametrize("norms", [1, 2])
def test_layer_norm_gradients(dtype: torch.dtype, norms: int) -> None:
    x = rows(3, 80, spare=16, dtype=dtype, seed=1)
    weights = tuple(rows(1, 80, seed=3 + n)[0].to(dtype) for n in range(norms))
    grads = tuple(rows(3, 80, spare=8 * (n + 1), dtype=dtype, seed=5 + n) for n in range(norms))
    residual = rows(3, 80, spare=8, dtype=dtype, seed=9)
    expected = plain.layer_norm_backward(twin(x), weights, grads, twin(residual), 1e-5)
    result = fused.layer_norm_backward(x, weights, grads, residual, 1e-5)
    assert result is residual
    assert close(result, expected)
    assert untouched(residual)


def test_other_numbers_of_norms_are_refused() -> None:
    x, one = rows(2, 32), torch.ones(32)
    with pytest.raises(ValueError, match="3 norms"):
        fused.add_layer_norm(x, None, ((one, one),) * 3, (x,) * 3, 1e-5)
    with pytest.raises(ValueError, match="0 norms"):
        fused.layer_norm_backward(x, (), (), x, 1e-5)


@DTYPES
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("norms", [False, True])
def test_rms_norm(dtype: torch.dtype, adds: bool, norms: bool) -> None:
    x, update = rows(3, 48, spare=16, dtype=dtype, seed=1), rows(3, 48, spare=16, dtype=dtype, seed=2)
    weight = rows(1, 48, seed=3)[0].to(dtype)
    out = rows(3, 48, spare=8, dtype=dtype)
    before, added = twin(x), twin(update)
    total = fused.add_rms_norm(x, update if adds else None, weight, out if norms else None, 1e-5)
    assert total is (update if adds else x)
    expected = plain.add_rms_norm(before, added if adds else None, weight, None, 1e-5)
    assert close(total, expected) if norms else torch.equal(total, expected.to(dtype))
    if norms:
        wanted = torch.empty(3, 48)
        plain.add_rms_norm(twin(total), None, weight, wanted, 1e-5)
        assert close(out, wanted)
    assert torch.equal(x.float(), before)
    assert untouched(out)
    assert untouched(update)


@DTYPES
def test_rms_norm_gradient(dtype: torch.dtype) -> None:
    x, grad = rows(3, 48, spare=16, dtype=dtype, seed=1), rows(3, 48, spare=8, dtype=dtype, seed=2)
    residual = rows(3, 48, spare=8, dtype=dtype, seed=4)
    weight = rows(1, 48, seed=3)[0].to(dtype)
    expected = plain.rms_norm_backward(twin(x), weight, grad, twin(residual), 1e-5)
    assert fused.rms_norm_backward(x, weight, grad, residual, 1e-5) is residual
    assert close(residual, expected)
    assert untouched(residual)


def table(longest: int, half: int) -> tuple[Tensor, Tensor]:
    angles = torch.arange(longest)[:, None] / 100 ** (torch.arange(half) / max(half, 1))
    return angles.cos(), angles.sin()


@DTYPES
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(
    ("heads", "size", "half"), [(4, 64, 8), (3, 80, 10), (2, 128, 64), (2, 256, 32), (2, 64, 0)]
)
def test_rotary(dtype: torch.dtype, inverse: bool, heads: int, size: int, half: int) -> None:
    """Queries of GPT-NeoX's interleaved [heads, 3, D], in their place and to another tensor."""
    cos, sin = table(9, half)
    positions = torch.tensor([0, 1, 8, 0, 5], dtype=torch.int32)
    qkv = rows(5, heads * 3 * size, dtype=dtype, seed=1)
    keys = qkv.view(5, heads, 3, size)[:, :, 1]
    want = torch.full((5, heads, size), MARK)
    plain.rotate(twin(keys), want, cos, sin, positions, inverse=inverse)
    # [heads, T, D], as an attention may ask for it
    out = torch.full((heads, 5, size), MARK, dtype=dtype).transpose(0, 1)
    before = qkv.clone()
    assert fused.rotate(keys, out, cos, sin, positions, inverse=inverse) is out
    assert close(out, want)
    assert torch.equal(out[..., 2 * half :], keys[..., 2 * half :])
    assert torch.equal(qkv, before)

    fused.rotate(keys, keys, cos, sin, positions, inverse=inverse)
    assert close(keys, want)
    others = before.view(5, heads, 3, size).clone()
    others[:, :, 1] = keys
    assert torch.equal(qkv.view(5, heads, 3, size), others)


@DTYPES
@pytest.mark.parametrize(("heads", "size"), [(4, 64), (3, 80), (20, 256)])
def test_taken_rows_are_those_asked_for(dtype: torch.dtype, heads: int, size: int) -> None:
    """Keys of GPT-NeoX's interleaved [heads, 3, D], repeated and out of order."""
    keys = rows(9, heads * 3 * size, dtype=dtype).view(9, heads, 3, size)[:, :, 1]
    asked = torch.tensor([8, 0, 3, 3, 7])
    found = fused.take(keys, asked)
    assert found.is_contiguous()
    assert torch.equal(found, keys[asked])
    assert torch.equal(found, plain.take(keys, asked))


def test_a_rotation_is_undone_by_its_inverse() -> None:
    cos, sin = table(40, 32)
    positions = torch.arange(40, dtype=torch.int32)
    x = rows(40, 5 * 64).view(40, 5, 64)
    turned = fused.rotate(x, torch.empty_like(x), cos, sin, positions)
    assert not close(turned, x)
    assert close(fused.rotate(turned, turned, cos, sin, positions, inverse=True), x)


@DTYPES
@pytest.mark.parametrize("width", [48, 2048, 2100])
def test_gelu(dtype: torch.dtype, width: int) -> None:
    x = rows(3, width, spare=16, dtype=dtype, seed=1) * 2
    out, grad = rows(3, width, spare=64, dtype=dtype), rows(3, width, spare=64, dtype=dtype, seed=2)
    wanted, slope = torch.empty(3, width), torch.empty(3, width)
    fused.gelu(x, out)
    plain.gelu(twin(x), wanted)
    assert close(out, wanted)
    assert untouched(out)
    plain.gelu_backward(twin(x), twin(grad), slope)
    before = grad.clone()
    fused.gelu_backward(x, grad, out)
    assert close(out, slope)
    assert untouched(out)
    assert torch.equal(grad, before)
    fused.gelu_backward(x, grad, grad)
    assert torch.equal(grad, out)
    assert untouched(grad)


def test_gelu_is_exact_to_a_millionth_everywhere() -> None:
    x = torch.linspace(-12, 12, 4001)[None]
    out, wanted = torch.empty_like(x), x.double()
    fused.gelu(x, out)
    plain.gelu(x.double(), wanted)
    assert (out - wanted).abs().max() < 1e-6
    fused.gelu_backward(x, torch.ones_like(x), out)
    plain.gelu_backward(x.double(), torch.ones_like(wanted), wanted)
    assert (out - wanted).abs().max() < 1e-6
    # the tail below zero does not vanish in 1 - 1
    tail = torch.empty(1, 1)
    fused.gelu(torch.tensor([[-6.0]]), tail)
    assert float(tail) == pytest.approx(-6 * 0.5 * math.erfc(6 / math.sqrt(2)), rel=0.01)


@DTYPES
@pytest.mark.parametrize("width", [48, 2056])
def test_swiglu(dtype: torch.dtype, width: int) -> None:
    gate_up = rows(3, 2 * width, spare=16, dtype=dtype, seed=1)
    gate_up *= 3
    out, grad = rows(3, width, spare=64, dtype=dtype), rows(3, width, spare=64, dtype=dtype, seed=2)
    wanted = torch.empty(3, width)
    fused.swiglu(gate_up, out)
    plain.swiglu(twin(gate_up), wanted)
    assert close(out, wanted)
    both, product = twin(gate_up), twin(grad)
    plain.swiglu_backward(both, product)
    fused.swiglu_backward(gate_up, grad)
    assert close(gate_up, both)
    assert close(grad, product)
    assert all(map(untouched, (out, grad, gate_up)))


@pytest.mark.filterwarnings("ignore:overflow")
def test_swiglu_of_extreme_gates_is_finite() -> None:
    gate_up = torch.tensor([[-200.0, -90.0, 90.0, 200.0, 1.0, 1.0, 1.0, 1.0]])
    out = torch.empty(1, 4)
    fused.swiglu(gate_up, out)
    assert torch.allclose(out, torch.tensor([[0.0, 0.0, 90.0, 200.0]]), atol=1e-6)
    grad = torch.ones(1, 4)
    fused.swiglu_backward(gate_up, grad)
    assert torch.allclose(gate_up, torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 90.0, 200.0]]), atol=1e-5)


@DTYPES
@pytest.mark.parametrize("vocabulary", [37, 8192, 30080, 70016])
def test_cross_entropy(dtype: torch.dtype, vocabulary: int) -> None:
    logits = rows(3, vocabulary, spare=64, dtype=dtype, seed=1)
    logits *= 4
    logits[1] += 500
    targets = torch.tensor([0, vocabulary - 1, vocabulary // 2])
    gradient = twin(logits)
    losses = plain.cross_entropy(gradient, targets, grad=True)
    before = twin(logits)
    for result in (
        fused.cross_entropy(logits, targets, grad=False),
        fused.cross_entropy(logits, targets, grad=True),
    ):
        assert result.dtype == torch.float32
        assert torch.allclose(result, losses, rtol=1e-5, atol=1e-4)
    assert not torch.equal(logits, before)
    assert untouched(logits)
    # each of tens of thousands of small shares has to be right, not only the largest
    expected = gradient if dtype == torch.float32 else cut(gradient)
    assert torch.allclose(logits.float(), expected, rtol=1e-4 if dtype == torch.float32 else 2**-7, atol=1e-8)


def test_cross_entropy_without_gradient_leaves_the_logits() -> None:
    logits = rows(2, 100)
    before = twin(logits)
    fused.cross_entropy(logits, torch.tensor([1, 2]), grad=False)
    assert torch.equal(logits, before)


@DTYPES
def test_dropout_drops_its_share_and_keeps_the_expectation(dtype: torch.dtype) -> None:
    x = torch.ones(16, 5000, dtype=dtype)
    out = rows(16, 5000, spare=8, dtype=dtype)
    assert fused.dropout(x, out, torch.tensor([11]), 3, 0.3) is out
    assert untouched(out)
    dropped = out == 0
    kept = torch.full((int((~dropped).sum()),), 1 / 0.7)
    assert close(out[~dropped], kept)
    # five standard deviations, of the whole, of each row and of each quarter of the columns
    assert abs(float(dropped.double().mean()) - 0.3) < 5 * math.sqrt(0.21 / dropped.numel())
    assert (dropped.double().mean(1) - 0.3).abs().max() < 5 * math.sqrt(0.21 / 5000)
    quarters = dropped[:, :4096].view(16, 8, 512).double().mean((0, 2))
    assert (quarters - 0.3).abs().max() < 5 * math.sqrt(0.21 / (16 * 512))
    # neighbours in both directions are independent: 0.09 of the pairs are dropped together
    for pairs in (
        dropped[:, 1:] & dropped[:, :-1],
        dropped[1:] & dropped[:-1],
        dropped[:, 512:] & dropped[:, :-512],
    ):
        assert abs(float(pairs.double().mean()) - 0.09) < 0.006


def test_dropout_repeats_its_mask_and_no_other() -> None:
    x, seed = rows(4, 600), torch.tensor([2**40 + 5])

    def mask(seed: Tensor, salt: int) -> Tensor:
        return fused.dropout(x, torch.empty_like(x), seed, salt, 0.5) == 0

    first = mask(seed, 1)
    assert torch.equal(first, mask(seed, 1))
    for other in (mask(seed, 2), mask(seed + 1, 1), mask(torch.tensor([5]), 1)):
        assert 0.4 < float((first == other).double().mean()) < 0.6
    # in place, from rows that stand apart
    wide = rows(4, 600, spare=40)
    assert torch.equal(fused.dropout(wide, wide, seed, 1, 0.5) == 0, first)
    assert untouched(wide)


def packed(kind: str, *, nested: bool, blocksize: int, dtype: torch.dtype, shape: tuple[int, int]) -> Packed:
    weight = rows(*shape, seed=8).to(dtype)
    weight[0, :blocksize] = 0
    return Packed(
        *bnb.quantize_4bit(weight, quant_type=kind, blocksize=blocksize, compress_statistics=nested)  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("blocksize", [64, 128])
def test_decoding_is_that_of_bitsandbytes_to_the_bit(kind: str, nested: bool, blocksize: int) -> None:
    weight = packed(kind, nested=nested, blocksize=blocksize, dtype=torch.float32, shape=(150, 384))
    out = rows(150, 384, spare=64)
    assert fused.dequantize(weight, out) is out
    assert torch.equal(out, plain.dequantize(weight, torch.empty(150, 384)))
    assert len(out.unique()) > 1000
    assert untouched(out)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_decoding_to_half_precision(dtype: torch.dtype) -> None:
    weight = packed("nf4", nested=True, blocksize=64, dtype=dtype, shape=(20, 192))
    out = rows(20, 192, spare=64, dtype=dtype)
    fused.dequantize(weight, out)
    assert untouched(out)
    state: Any = weight.state
    state.dtype = torch.float32
    exact = plain.dequantize(weight, torch.empty(20, 192))
    assert torch.equal(out, (cut(exact) if dtype == torch.bfloat16 else exact).to(dtype))


def test_rows_of_broken_blocks_are_refused() -> None:
    weight = packed("nf4", nested=False, blocksize=64, dtype=torch.float32, shape=(4, 64))
    with pytest.raises(ValueError, match="32 weights are not whole blocks of 64"):
        fused.dequantize(weight, torch.empty(8, 32))
