"""Weights rounded to e4m3 by chance: on its grid, right in the mean, the same in Triton and in both layouts."""

from __future__ import annotations

import bitsandbytes.functional as bnb
import pytest
import torch
from torch import Tensor

from koalpaca_tune.kernels import chance, fused, plain
from koalpaca_tune.kernels.nf4 import Packed

E4M3 = torch.float8_e4m3fn


def packed(rows: int, width: int, dtype: torch.dtype = torch.bfloat16) -> Packed:
    weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(8)).to(dtype)
    data, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    return Packed(data, state)


def seeded(number: int) -> Tensor:
    return torch.tensor([number])


def test_draws_do_not_depend_on_each_other() -> None:
    """Each of 16 as often, whatever a neighbour is, and what the same place draws with the next key."""
    keys = torch.randint(-(2**62), 2**62, (2, 1), generator=torch.Generator().manual_seed(0))
    many = chance.bits(keys[0], 0, 20_000)
    others = [
        many.roll(1, 0),
        many.roll(1, 1),
        chance.bits(keys[1], 0, 20_000),
        chance.bits(keys[0], 1, 20_000),
        chance.bits(keys[0] + 1, 0, 20_000),
        chance.bits(keys[0] + 2**32, 0, 20_000),
    ]
    for other in others:
        table = torch.bincount((many * 16 + other).flatten(), minlength=256).double()
        # chi squared of 255 degrees of freedom: 394 is passed once in 10^7
        assert float(((table - 625.0) ** 2 / 625.0).sum()) < 394.0


def test_by_chance_the_mean_is_the_number_itself() -> None:
    """All 16 draws, each once: the odds are exact where e4m3 is normal, and near it below."""
    generator = torch.Generator().manual_seed(0)
    value = (torch.randn(500, generator=generator) * torch.logspace(-4, 2, 500)).bfloat16().float()
    drawn = torch.arange(16, dtype=torch.int32)[:, None].expand(16, 500)
    found = chance.rounded(value.expand(16, 500).contiguous(), drawn)
    assert torch.equal(found.to(E4M3).float(), found)
    error = (found.double().mean(0) - value.double()).abs()
    normal = value.abs() >= 2.0**-6
    assert float(error[normal].max()) == 0.0
    assert float(error.max()) <= 2.0**-9 / 32
    exact = value.to(E4M3).float().expand(16, 500).contiguous()
    assert torch.equal(chance.rounded(exact, drawn), exact), "what e4m3 holds stays"


@pytest.mark.parametrize("count", [16, 150])
def test_triton_draws_the_same_and_so_do_both_layouts(count: int) -> None:
    # the interpreter does not round to bfloat16 as a card does
    weight, factor, seed = packed(count, 192, torch.float32), 2.0, seeded(-5)
    wanted = plain.dequantize(weight, torch.empty(count, 192), factor, seed, 2)
    assert torch.equal(fused.dequantize(weight, torch.empty(count, 192), factor, seed, 2), wanted)
    assert torch.equal(fused.dequantize_columns(weight, torch.empty(192, count), factor, seed, 2), wanted.t())
    assert torch.equal(plain.dequantize_columns(weight, torch.empty(192, count), factor, seed, 2), wanted.t())
    assert torch.equal(
        plain.dequantize(weight, torch.empty(count, 192, dtype=E4M3), factor, seed, 2).float(), wanted
    )
    exact = plain.dequantize(weight, torch.empty(count, 192), factor)
    assert float(((wanted - exact).abs() / (exact.abs() + 2.0**-6)).max()) < 2.0**-3
    for other in ((seeded(-4), 2), (seed, 3), (seeded(-5 + 2**32), 2)):
        assert not torch.equal(plain.dequantize(weight, torch.empty(count, 192), factor, *other), wanted)


def test_many_draws_of_a_weight_have_its_mean() -> None:
    weight = packed(8, 128)
    exact = plain.dequantize(weight, torch.empty(8, 128), 2.0)
    sums = torch.zeros(8, 128, dtype=torch.float64)
    for number in range(400):
        sums += plain.dequantize(weight, torch.empty(8, 128), 2.0, seeded(number))
    nearest = exact.to(E4M3).float()
    error = float((sums / 400 - exact).norm() / exact.norm())
    assert error < 0.1 * float((nearest - exact).norm() / exact.norm())
