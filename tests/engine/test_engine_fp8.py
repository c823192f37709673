"""Products in 8 bits: what they stand for exactly, and how near the gradients stay to those without rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from peft_gradients import Tuned, by_engine, reference
from torch import Tensor

from koalpaca_tune.engine.balance import Balance
from koalpaca_tune.engine.block import Block
from koalpaca_tune.engine.buffers import Operand
from koalpaca_tune.engine.linear import Group
from koalpaca_tune.engine.members import Lora, Member
from koalpaca_tune.engine.narrow import Narrow
from koalpaca_tune.engine.objective import EngineObjective
from koalpaca_tune.kernels import plain
from koalpaca_tune.kernels.fp8 import Scaled
from koalpaca_tune.models.architectures import ARCHITECTURES
from koalpaca_tune.records import Encoded

FAMILIES = ("gpt_neox", "llama")
TARGETS = [
    (family, targets)
    for family in FAMILIES
    for targets in (ARCHITECTURES[family].linears, *[(one,) for one in ARCHITECTURES[family].linears])
]
Make = Callable[..., Tuned]
MakeEngine = Callable[..., EngineObjective]


def apart(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Relative error of all gradients as one vector."""
    assert found.keys() == wanted.keys()
    both = [torch.cat([one[name].flatten() for name in wanted]) for one in (found, wanted)]
    return float((both[0] - both[1]).norm() / both[1].norm())


def groups_of(objective: EngineObjective) -> list[Group]:
    blocks: Sequence[Block] = objective._body.blocks
    return [group for block in blocks for group in block.groups]


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("spread", [0.0, 1e-5, 1e-3, 0.1, 1.0])
def test_what_the_products_compute_is_what_their_operands_stand_for(fold: bool, spread: float) -> None:
    """Both layouts hold the same numbers, one power of two for all members; LoRA's are not rounded to 3 bits.

    `spread`: of B, far below the weights and far above them.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, spread: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=generator) * spread

    def member(outputs: int, weights: float) -> Member:
        a, b = random(4, 48, spread=0.1), random(outputs, 4, spread=spread)
        lora = Lora(a, b, torch.zeros_like(a), torch.zeros_like(b), 2.0, 0.0)
        return Member(random(outputs, 48, spread=weights), random(outputs), lora, outputs, 48)

    group = Group(
        members=(member(32, 0.02), member(16, 0.3)), dtype=torch.float32, multiple=1, kernels=plain, fold=fold,
        narrow=True, salt=0,
    )  # fmt: skip
    buffer = group.new_buffer()
    assert isinstance(buffer, Narrow)
    if fold:
        balance = Balance([group])
        (group.factors,) = balance.of
        balance.refresh()
    buffer.load(group)
    whole = torch.cat([one.weight for one in group.members if isinstance(one.weight, Tensor)]).double()
    rows = buffer_numbers(buffer, group)
    scale = torch.tensor(group.scale)
    assert torch.frexp(scale).mantissa == 0.5, "a power of two"
    assert 3.5 < float(whole.abs().max()) / group.scale <= 7.0
    assert float(((rows - whole).abs() / (whole.abs() + 2**-6 * group.scale)).max()) <= 2**-4

    x = random(7, 48)
    operand = group.operand(x)
    result, projected = group.forward(operand, buffer, None, bias=group.bias)
    assert group.bias is not None
    lora = sum_of_lora(group)
    assert operand.narrow is not None
    wanted = stands_for(operand.narrow.first(48)) @ rows.t() + group.bias.double() + x.double() @ lora.t()
    assert projected is not None
    assert error(result, wanted, x.double() @ lora.t()) < (5e-3 if fold else 1e-5)

    grad = random(7, 48)
    at = group.operand(grad)
    found, back = group.backward(at, buffer, None)
    assert at.narrow is not None
    assert found is not None
    wanted = stands_for(at.narrow.first(48)) @ rows + grad.double() @ lora
    assert error(found, wanted, grad.double() @ lora) < (5e-3 if fold else 1e-5)

    group.learn(at, back, x, projected, None)
    first = group.members[0].lora
    assert first is not None
    assert torch.allclose(first.b_grad, 2.0 * grad[:, :32].t() @ (x @ first.a.t()), rtol=1e-4, atol=1e-5)
    assert torch.allclose(first.a_grad, 2.0 * (grad[:, :32] @ first.b).t() @ x, rtol=1e-4, atol=1e-9)


def error(found: Tensor, wanted: Tensor, lora: Tensor) -> float:
    """Of what LoRA adds, but at least of a hundredth of the whole: its numbers are exact to a unit's 2^-10."""
    return float((found.double() - wanted).norm() / (lora.norm() + 1e-2 * wanted.norm()))


def stands_for(narrow: Scaled) -> Tensor:
    return narrow.data.double() * narrow.scale.double()


def buffer_numbers(buffer: Narrow, group: Group) -> Tensor:
    """W [N, K] as the forward product reads it: rows of one-hot inputs through it."""
    narrow = group.narrowed(torch.eye(group.inputs))
    assert narrow is not None
    basis = Operand(None, narrow.first(group.inputs))
    return buffer.forward(basis, None, None, None, None).t().double()


def sum_of_lora(group: Group) -> Tensor:
    """s B A of each member, one below the other."""
    parts = []
    for one in group.members:
        assert one.lora is not None
        parts.append(one.lora.scale * one.lora.b.double() @ one.lora.a.double())
    return torch.cat(parts)


@pytest.mark.parametrize("four_bit", [True, False], ids=["4bit", "full"])
@pytest.mark.parametrize(("family", "targets"), TARGETS)
def test_the_gradients_are_near_those_of_peft(
    tuned: Make, engine: MakeEngine, documents: list[Encoded], family: str, targets: Sequence[str], four_bit: bool
) -> None:
    """Three bits of mantissa are 2 to 4 % of noise in each product; a term that is missing would be far more."""
    made = tuned(family, targets, four_bit=four_bit)
    total, wanted = reference(made, documents)
    objective = engine(made, narrow=True)
    assert by_engine(objective, documents) == pytest.approx(total, rel=1e-2)
    assert 1e-3 < apart(made.gradients(), wanted) < 0.3
    for name, one in wanted.items():
        assert apart({name: made.gradients()[name]}, {name: one}) < 0.5


class Rounded(torch.autograd.Function):
    """y = x W' with x, W and the gradient at y rounded to e4m3 as the engine rounds them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: float) -> Tensor:
        weight = (weight / scale).to(torch.float8_e4m3fn).float() * scale
        ctx.save_for_backward(weight)
        return rounded(x) @ weight.t()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return rounded(grad) @ weight, None, None


def rounded(x: Tensor) -> Tensor:
    scale = x.abs().amax(-1, keepdim=True) / 448.0
    scale = torch.where(scale == 0.0, 1.0, scale)
    return (x / scale).to(torch.float8_e4m3fn).float() * scale


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("targets", [targets for family, targets in TARGETS if family == "gpt_neox"])
def test_the_gradients_are_those_of_autograd_through_the_same_rounding(
    tuned: Make, engine: MakeEngine, documents: list[Encoded], targets: Sequence[str], fold: bool
) -> None:
    """GPT-NeoX, whose linears are a group each; the few values that lie between two roundings go either way."""
    made = tuned("gpt_neox", targets)
    objective = engine(made, narrow=True, fold=fold)
    found = 0
    for module in made.model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weight = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            scale = next(
                group.scale
                for group in groups_of(objective)
                if group.members[0].weight.data.data_ptr() == module.weight.data.data_ptr()
            )
            module.forward = partial(through, weight.float(), module.bias, scale)
            found += 1
    assert found == len(groups_of(objective))
    total, wanted = reference(made, documents)
    assert by_engine(objective, documents) == pytest.approx(total, rel=1e-3 if fold else 1e-4)
    assert apart(made.gradients(), wanted) < (5e-2 if fold else 1e-2)


def through(weight: Tensor, bias: Tensor, scale: float, x: Tensor) -> Tensor:
    product: Tensor = Rounded.apply(x, weight, scale)  # type: ignore[no-untyped-call]
    return product + bias


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "way",
    [
        {"recompute": "wide"},
        {"recompute": "blocks"},
        {"recompute": "offload"},
        {"cached": 2},
        {"cached": 1, "recompute": "blocks"},
        {"micro_tokens": 40},
    ],
    ids=str,
)
@pytest.mark.parametrize("which", ["all", "first", "last"])
def test_however_it_is_computed_it_is_the_same(
    tuned: Make, engine: MakeEngine, documents: list[Encoded], family: str, way: dict[str, object], which: str
) -> None:
    linears = ARCHITECTURES[family].linears
    made = tuned(family, {"all": linears, "first": linears[:1], "last": linears[-1:]}[which])
    total = by_engine(engine(made, narrow=True), documents)
    wanted = made.gradients()
    made.clear()
    assert by_engine(engine(made, narrow=True, **way), documents) == pytest.approx(total, rel=1e-6)
    assert apart(made.gradients(), wanted) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_is_that_of_wider_products(
    tuned: Make, engine: MakeEngine, documents: list[Encoded], family: str
) -> None:
    """With the same seed the same places are dropped."""
    made = tuned(family, ARCHITECTURES[family].linears, dropout=0.3)
    losses = []
    for narrow in (False, True, True):
        torch.manual_seed(5)
        losses.append(by_engine(engine(made, narrow=narrow), documents))
        made.clear()
    torch.manual_seed(6)
    other = by_engine(engine(made, narrow=True), documents)
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)
    assert losses[2] == losses[1]
    assert other != losses[1]


def test_lora_changes_what_a_cached_block_computes(
    tuned: Make, engine: MakeEngine, documents: list[Encoded]
) -> None:
    """The base is decoded once; the matrices that learn are read at every pass."""
    made = tuned("llama", ARCHITECTURES["llama"].linears)
    objective = engine(made, narrow=True, cached=2)
    first = by_engine(objective, documents)
    with torch.no_grad():
        for name, parameter in made.model.named_parameters():
            if ".lora_B." in name:
                parameter.mul_(2.0)
    second = by_engine(objective, documents)
    made.clear()
    assert second != pytest.approx(first, rel=1e-3)
    assert by_engine(engine(made, narrow=True), documents) == pytest.approx(second, rel=1e-6)


def test_documents_of_a_stream_never_see_each_other(
    tuned: Make, engine: MakeEngine, documents: list[Encoded]
) -> None:
    """A scale belongs to one token: another document's outlier rounds nothing of its neighbours."""
    made = tuned("gpt_neox", ARCHITECTURES["gpt_neox"].linears)
    objective = engine(made, narrow=True)
    other = replace(documents[1], ids=tuple(reversed(documents[1].ids)))
    states = []
    for second in (documents[1], other):
        (micro,) = objective.arrange([[documents[0], second, documents[2]]], grad=False)
        states.append(objective.residual(*micro))
    first, last = len(documents[0].ids), len(documents[2].ids)
    assert torch.equal(states[0][:first], states[1][:first])
    assert torch.equal(states[0][-last:], states[1][-last:])
    assert not torch.equal(states[0][first:-last], states[1][first:-last])


def test_a_product_of_its_own_where_lora_is_not_folded(tuned: Make, engine: MakeEngine) -> None:
    made = tuned("gpt_neox", ["query_key_value"])
    for fold, spare in ((True, 128), (False, 0)):
        groups = groups_of(engine(made, narrow=True, fold=fold))
        assert {group.room for group in groups} == {0}
        assert {group.spare for group in groups if group.learns} == {spare}
        assert {group.spare for group in groups if not group.learns} == {0}


def test_weights_next_to_zero_leave_lora_room() -> None:
    lora = Lora(
        torch.full((4, 64), 0.1), torch.full((16, 4), 0.5), torch.zeros(4, 64), torch.zeros(16, 4), 2.0, 0.0
    )
    for weight in (torch.zeros(16, 64), torch.full((16, 64), 1e-9)):
        member = Member(weight, None, lora, 16, 64)
        group = Group(
            members=(member,), dtype=torch.float32, multiple=1, kernels=plain, fold=True, narrow=True, salt=0
        )
        balance = Balance([group])
        (group.factors,) = balance.of
        balance.refresh()
        buffer = group.new_buffer()
        buffer.load(group)
        x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
        result, _ = group.forward(group.operand(x), buffer, None, bias=None)
        assert torch.allclose(result, x @ (2.0 * lora.b @ lora.a).t(), rtol=1e-2, atol=1e-2)


def test_what_e4m3_cannot_hold_is_not_hidden() -> None:
    """An adapter that has grown past every bound gives NaN, which stops a run, not a number cut off."""
    out = torch.zeros(1, 16, dtype=torch.float8_e4m3fn)
    plain.split(torch.tensor([[1e5, 1.0]]), None, torch.ones(1), out, left=True)
    assert out.float().isnan()[0, :6].tolist() == [True, False, True, False, True, False]
