"""Products of a few rows and attention of one: the reference by hand, and the Triton versions by the interpreter.

The interpreter cannot multiply in bfloat16, so several rows are tested in float32; a card tests the rest.
"""

from __future__ import annotations

import math
from typing import Any

import bitsandbytes.functional as bnb
import pytest
import torch
from torch import Tensor

from koalpaca_tune.kernels import decode, matvec, triton_decode, triton_matvec
from koalpaca_tune.kernels.decode import Heads
from koalpaca_tune.kernels.matvec import Beside
from koalpaca_tune.kernels.nf4 import Packed

WIDTH, OUTPUTS = 64, 10


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def packed(kind: str, *, nested: bool, dtype: torch.dtype = torch.float32) -> Packed:
    weight = draw(OUTPUTS, WIDTH, seed=1, dtype=dtype)
    return Packed(*bnb.quantize_4bit(weight, blocksize=64, compress_statistics=nested, quant_type=kind))


def test_the_reference_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    a = torch.tensor([[[1.0, 1.0]], [[2.0, 0.0]]])
    b = torch.tensor([[[1.0, 0.0, 10.0]], [[0.0, 1.0, 0.0]]])
    which = torch.tensor([0, 1, -1], dtype=torch.int32)
    projected = torch.empty(3, 1)
    matvec.project(x, a, which, projected)
    assert projected.tolist() == [[3.0], [6.0], [0.0]]
    out = torch.empty(3, 3)
    matvec.linear(x, weight, out, bias=torch.tensor([0.0, 0.0, 1.0]), beside=Beside(projected, b, which))
    assert out.tolist() == [[4.0, 2.0, 34.0], [3.0, 10.0, 8.0], [5.0, 6.0, 12.0]]
    # what is added may stand where the result goes; GELU comes before it
    matvec.linear(x[:1], weight, out[:1], gelu=True, added=out[:1])
    wanted = [4.0, 2.0, 34.0]
    for n, value in enumerate((1.0, 2.0, 3.0)):
        wanted[n] += 0.5 * value * (1.0 + math.erf(value / math.sqrt(2.0)))
    assert out[0].tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("kind", ["whole", "nf4", "nf4 nested", "fp4 nested"])
@pytest.mark.parametrize("count", [1, 3, triton_matvec.MOST_OWN + 1])
def test_triton_products_equal_the_reference(count: int, kind: str) -> None:
    weight: Any = draw(OUTPUTS, WIDTH, seed=1)
    if kind != "whole":
        weight = packed(kind.split()[0], nested=kind.endswith("nested"))
    x = draw(count, WIDTH + 8)[:, :WIDTH]
    bias, added = draw(OUTPUTS, seed=2), draw(count, OUTPUTS, seed=3)
    a, b = draw(2, 4, WIDTH, seed=4), draw(2, 4, OUTPUTS + 4, seed=5)[:, :, 4:]
    which = (torch.arange(count).int() + 2) % 3 - 1
    projected, wanted = torch.empty(count, 4), torch.empty(count, 4)
    triton_matvec.project(x, a, which, projected)
    matvec.project(x, a, which, wanted)
    assert torch.allclose(projected, wanted, atol=1e-5)
    for given in ({}, {"bias": bias, "gelu": True}, {"added": added, "beside": Beside(wanted, b, which)}):
        found, expected = torch.full((count, OUTPUTS + 2), 7.0), torch.empty(count, OUTPUTS)
        # on few outputs several rows of 4-bit weights would be left to cuBLAS
        tile = (16, 4, 4, 1) if kind != "whole" and count == 3 else None
        triton_matvec.linear(x, weight, found[:, :OUTPUTS], tile=tile, **given)  # type: ignore[arg-type]
        matvec.linear(x, weight, expected, **given)  # type: ignore[arg-type]
        assert torch.allclose(found[:, :OUTPUTS], expected, rtol=1e-5, atol=2e-5), list(given)
        assert bool((found[:, OUTPUTS:] == 7.0).all())


@pytest.mark.parametrize("kind", ["whole", "nf4"])
def test_one_row_in_bfloat16(kind: str) -> None:
    weight: Any = draw(OUTPUTS, WIDTH, seed=1, dtype=torch.bfloat16)
    if kind != "whole":
        weight = packed(kind, nested=True, dtype=torch.bfloat16)
    x = draw(1, WIDTH, dtype=torch.bfloat16)
    found, expected = torch.empty(1, OUTPUTS), torch.empty(1, OUTPUTS)
    triton_matvec.linear(x, weight, found)
    wide = bnb.dequantize_4bit(weight.data, weight.state) if isinstance(weight, Packed) else weight
    matvec.linear(x.float(), wide.float(), expected)
    # decoded weights are not rounded to 16 bits where one row is multiplied
    assert torch.allclose(found, expected, atol=0.05 if kind == "nf4" else 1e-4)


def test_what_the_kernels_do_not_take_is_an_error() -> None:
    with pytest.raises(ValueError, match="whole blocks"):
        triton_matvec.linear(draw(1, 32), packed("nf4", nested=False), torch.empty(1, 2 * OUTPUTS))


def test_attention_by_hand() -> None:
    """One head of two dimensions, turned by a quarter at position 1: (x, y) becomes (-y, x)."""
    heads = Heads(1, 1, 2, True)
    cos, sin = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
    keys, values = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    keys[1, 0, 0] = torch.tensor([1.0, 0.0])
    values[1, 0, 0] = torch.tensor([8.0, 0.0])
    rows = torch.tensor([[0.0, -2.0, 3.0, 0.0, 0.0, 4.0]])
    out = torch.empty(1, 2)
    decode.attend(rows, heads, cos, sin, keys, values, torch.tensor([1]), torch.tensor([1]), out)
    assert keys[1, 0, 1].tolist() == [0.0, 3.0]
    assert values[1, 0, 1].tolist() == [0.0, 4.0]
    # q becomes (2, 0): scores 2 and 0, over the root of 2
    first = math.exp(math.sqrt(2.0)) / (math.exp(math.sqrt(2.0)) + 1.0)
    assert out[0].tolist() == pytest.approx([8.0 * first, 4.0 * (1.0 - first)])
    assert not keys[0].any()


@pytest.mark.parametrize(
    ("heads", "shares"), [(Heads(1, 1, 16, True), 1), (Heads(2, 1, 12, False), 4)], ids=["neox", "llama"]
)
def test_triton_attention_equals_the_reference(heads: Heads, shares: int) -> None:
    lengths, slots = torch.tensor([0, 70, 33]), torch.tensor([3, 0, 2])
    rows = draw(3, heads.outputs)
    angles = draw(80, 4, seed=1)
    caches = [draw(4, heads.keys, 80, heads.width, seed=n) for n in (2, 3)]
    own, theirs = [one.clone() for one in caches], [one.clone() for one in caches]
    found, expected = (torch.empty(3, heads.queries * heads.width) for _ in range(2))
    triton_decode.attend(rows, heads, angles.cos(), angles.sin(), *own, slots, lengths, found, shares=shares)
    decode.attend(rows, heads, angles.cos(), angles.sin(), *theirs, slots, lengths, expected)
    assert torch.allclose(found, expected, atol=1e-5)
    for here, there, before in zip(own, theirs, caches, strict=True):
        assert torch.allclose(here, there, atol=1e-5)
        # a new key and value in each of three slots, and nothing else
        assert int((here != before).any(-1).sum()) == 3 * heads.keys


def test_the_reference_takes_slots_in_any_order() -> None:
    heads = Heads(2, 1, 8, False)
    rows, angles = draw(4, heads.outputs), draw(20, 2, seed=1)
    caches = [draw(5, 1, 20, 8, seed=n) for n in (2, 3)]
    lengths = torch.tensor([3, 9, 0, 14])
    together, alone = torch.empty(4, 16), torch.empty(4, 16)
    for slots in (torch.tensor([1, 2, 3, 4]), torch.tensor([4, 0, 2, 1])):
        copies = [one.clone() for one in caches]
        decode.attend(rows, heads, angles.cos(), angles.sin(), *copies, slots, lengths, together)
        for n in range(4):
            part = slice(n, n + 1)
            copies = [one.clone() for one in caches]
            decode.attend(
                rows[part], heads, angles.cos(), angles.sin(), *copies, slots[part], lengths[part], alone[part]
            )
        assert torch.allclose(together, alone, atol=1e-6)
