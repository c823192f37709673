"""Rounding to e4m3, and products of it, against what they stand for in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import bitsandbytes.functional as bnb
import pytest
import torch
from torch import Tensor

from koalpaca_tune.kernels import fused, plain
from koalpaca_tune.kernels.fp8 import LARGEST, Scaled, room
from koalpaca_tune.kernels.nf4 import Packed

E4M3 = torch.float8_e4m3fn
BYTES = torch.arange(256, dtype=torch.uint8).view(E4M3).double()
NUMBERS = torch.tensor(sorted({float(x) for x in BYTES[BYTES.isfinite()]}), dtype=torch.float64)
"""Every e4m3 number, in order."""


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def stands_for(x: Scaled) -> Tensor:
    return x.data.double() * x.scale.double()


def nearest(x: Tensor) -> Tensor:
    """The e4m3 numbers next to x; of two equally near the one whose last digit is even."""
    above = torch.bucketize(x, NUMBERS).clamp(1, len(NUMBERS) - 1)
    low, high = NUMBERS[above - 1], NUMBERS[above]
    # 0 is in the middle, and neighbours are even and odd by turns
    even_low = (above - 1 - (len(NUMBERS) - 1) // 2) % 2 == 0
    down = (x - low < high - x) | ((x - low == high - x) & even_low)
    return torch.where(down, low, high)


def test_every_number_and_every_middle_is_rounded_to_the_nearest_even() -> None:
    assert len(NUMBERS) == 253
    middles = (NUMBERS[1:] + NUMBERS[:-1]) / 2
    # 448 among them: the scale is 1
    x = torch.cat((NUMBERS, middles, middles * (1 + 2**-20), middles * (1 - 2**-20)))[None].float()
    found = plain.quantize(x, room(1, x.shape[1], "cpu"))
    assert float(found.scale) == 1.0
    assert torch.equal(found.data.double(), nearest(x.double()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_row_is_within_half_a_step_of_what_it_was(dtype: torch.dtype) -> None:
    whole = (torch.randn(7, 120) * torch.logspace(-20, 6, 7)[:, None]).to(dtype)
    x = whole[:, :100]  # rows that stand apart
    before, place = whole.clone(), room(7, 100, "cpu")
    found = plain.quantize(x, place)
    assert found is place
    assert torch.equal(whole, before)
    wide = x.double()
    assert torch.allclose(found.scale.double(), wide.abs().amax(1, keepdim=True) / 448, rtol=1e-6)
    assert found.data.double().abs().amax(1).tolist() == [LARGEST] * 7
    # half a step of three binary digits, or of the smallest number
    step = torch.maximum(wide.abs() * 2**-4, found.scale.double() * 2**-10)
    assert ((stands_for(found) - wide).abs() <= step * (1 + 1e-6)).all()


def test_rows_of_zeros_and_next_to_nothing_have_scale_one() -> None:
    x = torch.zeros(3, 8)
    x[1, 3], x[2, 3] = 1e-36, 1e-30
    found = plain.quantize(x, room(3, 8, "cpu"))
    assert found.scale[:2].tolist() == [[1.0], [1.0]]
    assert (found.data[:2].float() == 0).all()
    assert stands_for(found)[2, 3] == pytest.approx(1e-30)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_makes_its_row_nan_and_no_other(value: float) -> None:
    x = torch.randn(3, 8)
    x[1, 5] = value
    found = stands_for(plain.quantize(x, room(3, 8, "cpu")))
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()


@pytest.mark.parametrize("kernels", [plain, fused], ids=["plain", "fused"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_product_is_that_of_what_the_operands_stand_for(
    kernels: object, biased: bool, dtype: torch.dtype
) -> None:
    x = plain.quantize(torch.randn(16, 64) * torch.logspace(-3, 3, 16)[:, None], room(16, 64, "cpu"))
    weight, scale = (torch.randn(32, 64) * 100).to(E4M3), torch.rand(1, 32) + 0.1
    bias = torch.randn(32).to(dtype) if biased else None
    found = kernels.scaled_mm(x, weight, scale, bias, dtype)  # type: ignore[attr-defined]
    wanted = stands_for(x) @ (weight.double() * scale.double().t()).t()
    if bias is not None:
        wanted = wanted + bias.double()
    assert found.dtype == dtype
    # sums of 64 in float32 may cancel
    tiny = 1e-5 * x.scale.double() * scale.double() * 448 * 448
    assert (
        (found.double() - wanted).abs() <= wanted.abs() * (2**-8 if dtype == torch.bfloat16 else 1e-6) + tiny
    ).all()


Write = Callable[[Tensor | None, Scaled | None], object]
WIDTH = 24


def writers() -> dict[str, tuple[int, Write]]:
    """Functions whose result goes to `out`, `narrow` or both, and its width."""
    x, update, grad = (torch.randn(5, WIDTH) for _ in range(3))
    gate_up = torch.randn(5, 2 * WIDTH)
    weight, bias = torch.randn(WIDTH), torch.randn(WIDTH)

    def both_norms(out: Tensor | None, narrow: Scaled | None) -> None:
        affines = ((bias, weight), (weight, bias))
        plain.add_layer_norm(x, update.clone(), affines, (torch.empty(5, WIDTH), out), 1e-5, (None, narrow))

    def root_norm(out: Tensor | None, narrow: Scaled | None) -> None:
        plain.add_rms_norm(x, update.clone(), weight, out, 1e-5, narrow)

    def back(out: Tensor | None, narrow: Scaled | None) -> None:
        mine = torch.empty(5, 2 * WIDTH) if out is None else out
        plain.swiglu_backward(mine.copy_(gate_up), grad.clone(), narrow)

    return {
        "add_layer_norm": (WIDTH, both_norms),
        "add_rms_norm": (WIDTH, root_norm),
        "gelu": (WIDTH, partial(plain.gelu, x)),
        "gelu_backward": (WIDTH, partial(plain.gelu_backward, x, grad)),
        "swiglu": (WIDTH, partial(plain.swiglu, gate_up)),
        "swiglu_backward": (2 * WIDTH, back),
    }


@pytest.mark.parametrize("name", list(writers()))
def test_a_result_in_e4m3_is_the_full_one_rounded(name: str) -> None:
    width, write = writers()[name]
    full, beside = torch.empty(5, width), torch.empty(5, width)
    alone, both = room(5, width, "cpu"), room(5, width, "cpu")
    write(full, None)
    write(None, alone)
    write(beside, both)
    assert torch.equal(full, beside)
    wanted = plain.quantize(full, room(5, width, "cpu"))
    for found in (alone, both):
        assert torch.equal(found.scale, wanted.scale)
        assert torch.equal(found.data.float(), wanted.data.float())


def packed(kind: str, *, nested: bool, rows: int, width: int) -> Packed:
    weight = torch.randn(rows, width) * 0.02
    data, state = bnb.quantize_4bit(weight, blocksize=64, quant_type=kind, compress_statistics=nested)
    return Packed(data, state)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_decoded_weight_is_rounded_once_and_transposed(kind: str, nested: bool) -> None:
    weight = packed(kind, nested=nested, rows=10, width=128)
    exact = plain.dequantize(weight, torch.empty(10, 128)).double()
    factor = 2.0**12
    rows = plain.dequantize(weight, torch.empty(10, 128, dtype=E4M3), factor)
    assert torch.equal(rows.double(), nearest(exact * factor))
    # among those of the other members of a group
    columns = torch.zeros(128, 16, dtype=E4M3)
    plain.dequantize_columns(weight, columns[:, 3:13], factor)
    assert torch.equal(columns[:, 3:13].float(), rows.t().float())
    assert (columns[:, :3].float() == 0).all()
    assert (columns[:, 13:].float() == 0).all()
    assert torch.equal(plain.dequantize_columns(weight, torch.empty(128, 10)).double(), exact.t())


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_a_product_of_sums_of_two_is_nearly_exact(size: float) -> None:
    """Three products of e4m3 numbers, where one alone would be 3 to 4 % off."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 6, generator=generator) * 20, torch.randn(50, 6, generator=generator) * size
    scale = torch.rand(40, 1, generator=generator) + 0.5
    sides = [torch.empty(len(one), 32, dtype=torch.float8_e4m3fn) for one in (x, y)]
    plain.split(x, scale, torch.tensor([0.5]), sides[0], left=True)
    plain.split(y, None, torch.tensor([2.0]), sides[1], left=False)
    found = sides[0].double() @ sides[1].double().t()
    wanted = (x / scale).double() @ y.double().t()
    # below 2^-6 e4m3 has no more than its smallest step, 2^-9
    assert float((found - wanted).norm() / wanted.norm()) < (0.3 if size < 0.01 else 5e-3)


def test_numbers_beyond_e4m3_become_nan_on_either_side() -> None:
    for left in (False, True):
        out = torch.zeros(2, 16, dtype=torch.float8_e4m3fn)
        plain.split(torch.tensor([[449.0], [448.0]]), None, torch.ones(1), out, left=left)
        assert out[0].float().isnan()[:3].all()
        assert out[1].float().isfinite().all()
