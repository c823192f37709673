"""Triton's rounding of rows to e4m3, in its interpreter on the CPU.

The interpreter itself converts to e4m3 wrongly: it loses the carry of a mantissa that is rounded up (31.9 becomes
16), rounds ties up, cuts off below the normal numbers, and makes a number of NaN. The kernels round to the type
of what they write to, so here that is float32: what would be rounded is compared exactly, and the rounding
itself, one instruction, is checked on a GPU (`bench/kernel_times.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import bitsandbytes.functional as bnb
import pytest
import torch
from torch import Tensor

from koalpaca_tune.kernels import fused, plain
from koalpaca_tune.kernels.fp8 import Scaled, room
from koalpaca_tune.kernels.nf4 import Packed

MARK = 7.0
OUTPUTS = pytest.mark.parametrize(
    ("full", "narrow"), [(False, True), (True, False), (True, True)], ids=["e4m3", "full", "both"]
)
WIDTHS = pytest.mark.parametrize("width", [96, 1000, 2056])
ROWS = 3


def unrounded(width: int) -> Scaled:
    # rows stand apart, as they do where a folded product has room
    return Scaled(torch.full((ROWS, width + 16), MARK)[:, :width], torch.full((ROWS, 1), MARK))


def rows(width: int, *, spare: int = 0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    whole = torch.full((ROWS, width + spare), MARK)
    # rows of very different size: a scale of another row would show
    whole[:, :width] = torch.randn(ROWS, width, generator=generator) * torch.tensor([[1.0], [100.0], [0.01]])
    return whole[:, :width]


def untouched(view: Tensor) -> bool:
    assert view._base is not None
    return bool((view._base[:, view.shape[1] :] == MARK).all())


def same(found: Tensor, wanted: Tensor) -> bool:
    """Equal but for a few roundings of float32, row by row."""
    return bool(((found - wanted).abs() <= 3e-6 * wanted.abs().amax(1, keepdim=True)).all())


Places = list[tuple[Tensor | None, Scaled | None]]


def compare(call: Callable[[ModuleType, Places], Any], widths: list[int], full: bool, narrow: bool) -> None:
    """Calls both versions, and compares every place that was to be written."""
    found, wanted = (
        [(rows(width, spare=24) if full else None, unrounded(width) if narrow else None) for width in widths]
        for _ in range(2)
    )
    call(fused, found)
    call(plain, wanted)
    for (out, scaled), (out_wanted, scaled_wanted) in zip(found, wanted, strict=True):
        if out is not None and out_wanted is not None:
            assert same(out, out_wanted)
            assert untouched(out)
        if scaled is not None and scaled_wanted is not None:
            assert torch.allclose(scaled.scale, scaled_wanted.scale, rtol=3e-6)
            assert same(scaled.data, scaled_wanted.data)
            assert scaled.data.abs().amax(1).tolist() == pytest.approx([448.0] * ROWS)


@OUTPUTS
@WIDTHS
@pytest.mark.parametrize("adds", [False, True])
def test_layer_norm(full: bool, narrow: bool, width: int, adds: bool) -> None:
    affines = tuple((rows(width, seed=n)[0], rows(width, seed=9 + n)[0]) for n in range(2))
    for norms in (1, 2):

        def call(kernels: ModuleType, places: Places, norms: int = norms) -> None:
            outs, narrows = zip(*places, strict=True)
            update = rows(width, seed=2) if adds else None
            kernels.add_layer_norm(rows(width, seed=1), update, affines[:norms], outs, 1e-5, narrows)

        compare(call, [width] * norms, full, narrow)


def test_two_layer_norms_may_go_to_different_places() -> None:
    affines = tuple((rows(96, seed=n)[0], rows(96, seed=9 + n)[0]) for n in range(2))
    x = rows(96, seed=1)
    for outs, narrows in (
        ((torch.empty(ROWS, 96), None), (None, unrounded(96))),
        ((None, torch.empty(ROWS, 96)), (unrounded(96), unrounded(96))),
    ):
        fused.add_layer_norm(x, None, affines, outs, 1e-5, narrows)
        for affine, out, scaled in zip(affines, outs, narrows, strict=True):
            wanted, wanted_scaled = torch.empty(ROWS, 96), unrounded(96)
            plain.add_layer_norm(x, None, (affine,), (wanted,), 1e-5, (wanted_scaled,))
            assert out is None or same(out, wanted)
            assert scaled is None or same(scaled.data, wanted_scaled.data)


@OUTPUTS
@WIDTHS
@pytest.mark.parametrize("adds", [False, True])
def test_rms_norm(full: bool, narrow: bool, width: int, adds: bool) -> None:
    weight = rows(width, seed=3)[0]

    def call(kernels: ModuleType, places: Places) -> None:
        ((out, scaled),) = places
        update = rows(width, seed=2) if adds else None
        kernels.add_rms_norm(rows(width, seed=1), update, weight, out, 1e-5, scaled)

    compare(call, [width], full, narrow)


@pytest.mark.filterwarnings("ignore:overflow")
@OUTPUTS
@WIDTHS
@pytest.mark.parametrize("name", ["gelu", "gelu_backward", "swiglu"])
def test_activations(full: bool, narrow: bool, width: int, name: str) -> None:
    x = rows(2 * width if name == "swiglu" else width, spare=8, seed=1)
    grad = rows(width, spare=16, seed=2)
    inputs = (x, grad) if name == "gelu_backward" else (x,)
    before = [one.clone() for one in inputs]
    compare(lambda kernels, places: getattr(kernels, name)(*inputs, *places[0]), [width], full, narrow)
    assert all(torch.equal(one, kept) for one, kept in zip(inputs, before, strict=True))


@pytest.mark.filterwarnings("ignore:overflow")
@WIDTHS
def test_swiglu_gradient(width: int) -> None:
    changed: list[Tensor] = []

    def call(kernels: ModuleType, places: Places) -> None:
        gate_up, grad = rows(2 * width, spare=8, seed=1), rows(width, spare=16, seed=2)
        kernels.swiglu_backward(gate_up, grad, places[0][1])
        assert untouched(gate_up)
        assert untouched(grad)
        changed.extend((gate_up, grad))

    compare(call, [2 * width], False, True)
    assert same(changed[0], changed[2])
    assert same(changed[1], changed[3])


@pytest.mark.parametrize("width", [96, 1000, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_to_the_bit(width: int, dtype: torch.dtype) -> None:
    x = rows(width, spare=8, seed=1).to(dtype)
    place, wanted = unrounded(width), plain.quantize(x, unrounded(width))
    assert fused.quantize(x, place) is place
    assert torch.equal(place.data, wanted.data)
    assert torch.equal(place.scale, wanted.scale)
    assert untouched(place.data)


def test_numbers_that_the_interpreter_rounds_rightly() -> None:
    """Into e4m3 itself: the numbers of e4m3 that are not smaller than the normal ones."""
    x = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()[None]
    x = x[:, x[0].isfinite() & (x[0].abs() >= 2**-6)]
    place = fused.quantize(x, room(1, x.shape[1], "cpu"))
    assert float(place.scale) == 1.0
    assert torch.equal(place.data.float(), x)


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero", "ignore:overflow")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_not_hidden(value: float) -> None:
    x = rows(96, seed=1)
    x[1, 50] = value
    gate_up, grad = rows(192, seed=1), rows(96, seed=2)
    grad[1, 50] = value
    written = [unrounded(width) for width in (96, 96, 96, 192)]
    weight = torch.ones(96)
    fused.quantize(x, written[0])
    fused.add_rms_norm(x, None, weight, None, 1e-5, written[1])
    fused.add_layer_norm(x, None, ((weight, weight),), (None,), 1e-5, (written[2],))
    fused.swiglu_backward(gate_up, grad, written[3])
    for one in written:
        product = one.data * one.scale
        assert product[1].isnan().all()
        assert product[[0, 2]].isfinite().all()


def test_rows_of_zeros_and_next_to_nothing_have_scale_one() -> None:
    x = torch.zeros(ROWS, 96)
    x[1, 3], x[2, 3] = 1e-36, 1e-30
    found, wanted = unrounded(96), plain.quantize(x, unrounded(96))
    fused.quantize(x, found)
    assert found.scale[:2].tolist() == [[1.0], [1.0]]
    assert torch.equal(found.scale, wanted.scale)
    assert torch.equal(found.data, wanted.data)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("count", "rank", "spare"), [(300, 5, 16), (7, 8, 32), (40, 40, 128)])
def test_numbers_as_sums_of_two(count: int, rank: int, spare: int, scaled: bool, left: bool) -> None:
    """Into bfloat16, which the interpreter cuts off rather than rounds: the second number makes up for it."""
    generator = torch.Generator().manual_seed(0)
    factor = torch.tensor([0.25])
    scale = torch.rand(count, 1, generator=generator) + 0.5 if scaled else None
    for x in (torch.randn(count, rank, generator=generator), torch.randn(rank, count, generator=generator).t()):
        value = x * factor / (1.0 if scale is None else scale)
        for kernels in (fused, plain):
            out = torch.full((count, spare + 8), MARK, dtype=torch.bfloat16)
            kernels.split(x, scale, factor, out[:, :spare], left=left)
            first, second, third = (out[:, n * rank : (n + 1) * rank].float() for n in range(3))
            high, low = (first, second) if left else (first, third)
            assert torch.equal(first, third if left else second)
            assert torch.allclose(high, value, rtol=2**-7)
            assert torch.allclose(high + low, value, rtol=2**-14)
            assert not out[:, 3 * rank : spare].any()
            assert bool((out[:, spare:] == MARK).all())
    with pytest.raises(ValueError, match="three times"):
        fused.split(x, scale, factor, torch.zeros(count, 3 * rank - 1, dtype=torch.bfloat16), left=left)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("factor", [1.0, 2.0**9])
@pytest.mark.parametrize("count", [16, 150])
def test_decoding_times_a_factor_and_transposed(kind: str, nested: bool, factor: float, count: int) -> None:
    weight = torch.randn(count, 192, generator=torch.Generator().manual_seed(8))
    data, state = bnb.quantize_4bit(weight, blocksize=64, quant_type=kind, compress_statistics=nested)
    four = Packed(data, state)
    wanted = plain.dequantize(four, torch.empty(count, 192), factor)
    assert torch.equal(fused.dequantize(four, torch.empty(count, 192), factor), wanted)
    whole = torch.full((192, count + 40), MARK)
    out = whole[:, 16 : 16 + count]
    assert fused.dequantize_columns(four, out, factor) is out
    assert torch.equal(out, wanted.t())
    assert (whole[:, :16] == MARK).all()
    assert (whole[:, 16 + count :] == MARK).all()


def test_columns_of_broken_blocks_are_refused() -> None:
    data, state = bnb.quantize_4bit(torch.randn(4, 64), blocksize=64, quant_type="nf4")
    with pytest.raises(ValueError, match="32 weights are not whole blocks of 64"):
        fused.dequantize_columns(Packed(data, state), torch.empty(32, 8))
