"""The plain kernels are what their names say: against autograd in float64, and against bitsandbytes."""

from __future__ import annotations

import bitsandbytes as bnb
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from koalpaca_tune.kernels import plain
from koalpaca_tune.kernels.nf4 import Packed

EPS = 1e-5


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def close(one: Tensor, two: Tensor) -> bool:
    return torch.allclose(one, two, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("norms", [1, 2])
def test_layer_norms_of_a_sum_and_their_gradient(norms: int) -> None:
    x, update = random(5, 12), random(5, 12)
    affines = tuple((random(12), random(12)) for _ in range(norms))
    grads, passing = tuple(random(5, 12) for _ in affines), random(5, 12)
    total = (x + update).requires_grad_()
    wanted = [functional.layer_norm(total, (12,), *affine, eps=EPS) for affine in affines]
    outs = tuple(torch.empty(5, 12, dtype=torch.float64) for _ in affines)
    given = update.clone()
    found = plain.add_layer_norm(x, given, affines, outs, EPS)
    assert found is given
    assert close(found, total.detach())
    assert all(close(out, one.detach()) for out, one in zip(outs, wanted, strict=True))
    (back,) = torch.autograd.grad(wanted, total, grads)
    residual = passing.clone()
    plain.layer_norm_backward(found, tuple(weight for weight, _ in affines), grads, residual, EPS)
    assert close(residual, passing + back)


def test_rms_norm_of_a_sum_and_its_gradient() -> None:
    x, update, weight, grad, passing = random(5, 12), random(5, 12), random(12), random(5, 12), random(5, 12)
    total = (x + update).requires_grad_()
    wanted = functional.rms_norm(total, (12,), weight, EPS)
    out, given = torch.empty(5, 12, dtype=torch.float64), update.clone()
    assert plain.add_rms_norm(x, given, weight, out, EPS) is given
    assert close(given, total.detach())
    assert close(out, wanted.detach())
    (back,) = torch.autograd.grad(wanted, total, grad)
    residual = passing.clone()
    plain.rms_norm_backward(given, weight, grad, residual, EPS)
    assert close(residual, passing + back)


def test_a_norm_without_an_update_leaves_its_input() -> None:
    x = random(3, 8)
    before, out = x.clone(), torch.empty(3, 8, dtype=torch.float64)
    assert plain.add_layer_norm(x, None, ((torch.ones(8), torch.zeros(8)),), (out,), EPS) is x
    assert plain.add_rms_norm(x, None, torch.ones(8), None, EPS) is x
    assert torch.equal(x, before)


@pytest.mark.parametrize("rotated", [0, 4, 8])
def test_rotation_is_transformers_own_and_turns_back(rotated: int) -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    rows = random(6, 3, 3 * 8)
    x = rows[:, :, 8:16]  # a view into a wider tensor, as q, k and v are
    positions = torch.tensor([0, 1, 2, 0, 1, 5], dtype=torch.int32)
    angles = torch.outer(torch.arange(9.0), 10000.0 ** -(torch.arange(rotated // 2) / max(1, rotated // 2)))
    cos, sin = angles.cos(), angles.sin()
    out = torch.full_like(x, 7.0)
    plain.rotate(x, out, cos, sin, positions)
    if rotated:
        double = [torch.cat((table[positions], table[positions]), -1)[None] for table in (cos, sin)]
        turned, _ = apply_rotary_pos_emb(*[x[None, :, :, :rotated].transpose(1, 2)] * 2, *double)
        assert torch.allclose(out[..., :rotated], turned[0].transpose(0, 1), rtol=1e-6)
    assert torch.equal(out[..., rotated:], x[..., rotated:])
    again = torch.empty_like(out)
    plain.rotate(out, again, cos, sin, positions, inverse=True)
    assert torch.allclose(again, x, rtol=1e-6, atol=1e-7)
    kept = rows.clone()
    plain.rotate(x, x, cos, sin, positions)
    assert torch.equal(x, out)
    assert torch.equal(rows[:, :, :8], kept[:, :, :8])
    assert torch.equal(rows[:, :, 16:], kept[:, :, 16:])


def test_gelu_and_its_gradient() -> None:
    x, grad = random(4, 10), random(4, 10)
    leaf = x.clone().requires_grad_()
    wanted = functional.gelu(leaf)
    out, before = torch.empty_like(x), grad.clone()
    plain.gelu(x, out)
    assert close(out, wanted.detach())
    (back,) = torch.autograd.grad(wanted, leaf, grad)
    plain.gelu_backward(x, grad, out)
    assert close(out, back)
    assert torch.equal(grad, before)
    plain.gelu_backward(x, grad, grad)
    assert close(grad, back)


def test_swiglu_and_its_gradient() -> None:
    x, grad = random(4, 20), random(4, 10)
    leaf = x.clone().requires_grad_()
    gate, up = leaf.chunk(2, -1)
    wanted = functional.silu(gate) * up
    out = torch.empty(4, 10, dtype=torch.float64)
    plain.swiglu(x, out)
    assert close(out, wanted.detach())
    (back,) = torch.autograd.grad(wanted, leaf, grad)
    both, place = x.clone(), grad.clone()
    plain.swiglu_backward(both, place)
    assert close(both, back)
    assert close(place, wanted.detach())


def test_cross_entropy_and_its_gradient() -> None:
    logits, targets = random(6, 11), torch.tensor([0, 10, 3, 3, 7, 1])
    leaf = logits.clone().requires_grad_()
    wanted = functional.cross_entropy(leaf, targets, reduction="none")
    kept = logits.clone()
    losses = plain.cross_entropy(kept, targets, grad=False)
    assert torch.allclose(losses.double(), wanted.detach(), rtol=1e-6)
    assert torch.equal(kept, logits)
    assert torch.equal(plain.cross_entropy(logits, targets, grad=True), losses)
    assert close(logits, torch.autograd.grad(wanted.sum(), leaf)[0])


def test_dropout_repeats_itself_for_a_seed_and_keeps_the_mean() -> None:
    x = torch.ones(200, 100)

    def drop(seed: int, salt: int) -> Tensor:
        return plain.dropout(x, torch.empty_like(x), torch.tensor([seed]), salt, 0.25)

    first = drop(5, 1)
    assert torch.equal(first, drop(5, 1))
    assert not torch.equal(first, drop(5, 2))
    assert not torch.equal(first, drop(6, 1))
    assert first.unique().tolist() == pytest.approx([0.0, 4 / 3])
    # 20,000 draws: five standard deviations of the mean
    assert abs(float(first.mean()) - 1.0) < 5 * (0.25 / 0.75 / 20000) ** 0.5
    agree = ((first == 0) == (drop(6, 1) == 0)).float().mean()
    assert abs(float(agree) - (0.75**2 + 0.25**2)) < 0.02


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [True, False])
def test_dequantised_weights_are_bitsandbytes_own(kind: str, nested: bool) -> None:
    weight = torch.randn(24, 128)
    packed = bnb.nn.Params4bit(weight, requires_grad=False, quant_type=kind, compress_statistics=nested).to("cpu")
    place = torch.full((30, 140), 3.0)
    plain.dequantize(Packed(packed.data, packed.quant_state), place[2:26, :128])
    assert torch.equal(place[2:26, :128], bnb.functional.dequantize_4bit(packed.data, packed.quant_state))
    assert (place[:2] == 3.0).all()
    assert (place[:, 128:] == 3.0).all()
