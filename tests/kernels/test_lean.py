"""The functions without copies give what `plain` gives."""

from __future__ import annotations

import pytest
import torch

from koalpaca_tune.kernels import lean, plain


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_norms_and_activations() -> None:
    x, update = draw(7, 16), draw(16, 7).t().contiguous()
    affines = ((draw(16), draw(16) + 1), (draw(16) + 2, draw(16)))
    found = []
    for kernels in (plain, lean):
        wide = torch.zeros(2, 7, 20)
        places = (wide[0, :, :16], wide[1, :, :16])
        total = kernels.add_layer_norm(x, update.clone(), affines, places, 1e-5)
        active, product = torch.zeros(7, 16), torch.zeros(7, 8)
        kernels.gelu(total, active)
        kernels.swiglu(total, product)
        found.append((total, wide, active, product))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-6)
    assert bool((found[1][1][:, :, 16:] == 0).all())


@pytest.mark.parametrize("rows", [7, 37])
def test_activations_into_rows_that_stand_apart(rows: int) -> None:
    """As where LoRA's columns lie beside an activation. What was there must not be left."""
    x = draw(rows, 128)
    for name, width in (("gelu", 128), ("swiglu", 64)):
        found = []
        for kernels in (plain, lean):
            wide = torch.full((rows, width + 16), torch.nan)
            getattr(kernels, name)(x.clone(), wide[:, :width])
            found.append(wide[:, :width])
        torch.testing.assert_close(*found, atol=1e-6, rtol=1e-6)


def test_rotation_in_place() -> None:
    angles = torch.outer(torch.arange(30.0), torch.tensor([1.0, 0.3, 0.1]))
    positions = torch.tensor([0, 1, 2, 3, 0, 1, 29], dtype=torch.int32)
    # a view of q in a row of q, k and v; two of the eight dimensions are not turned
    rows = draw(7, 2, 3, 8)
    found = []
    for kernels in (plain, lean):
        q = rows.clone()[:, :, 0]
        assert kernels.rotate(q, q, angles.cos(), angles.sin(), positions) is q
        found.append(q)
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-6)
    assert not torch.equal(found[0], rows[:, :, 0])
