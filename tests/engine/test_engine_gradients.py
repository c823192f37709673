"""The engine computes what PEFT, bitsandbytes and autograd compute, however it is told to go about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from peft_gradients import Tuned, by_engine, reference
from torch import Tensor

from koalpaca_tune.engine.objective import EngineObjective
from koalpaca_tune.models.architectures import ARCHITECTURES
from koalpaca_tune.records import NOT_LEARNED, Encoded

FAMILIES = ("gpt_neox", "llama")
TARGETS = [
    (family, targets)
    for family in FAMILIES
    for targets in (ARCHITECTURES[family].linears, *[(one,) for one in ARCHITECTURES[family].linears])
]
WAYS = {
    "kept": {},
    "wide": {"recompute": "wide"},
    "blocks": {"recompute": "blocks"},
    "offload": {"recompute": "offload"},
    "cached": {"cached": 2},
    "partly cached": {"cached": 1, "recompute": "blocks"},
    "not folded": {"fold": False},
    "in pieces": {"micro_tokens": 40},
}

Make = Callable[..., Tuned]
Engine = Callable[..., EngineObjective]


def worst(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The largest relative error of a matrix's gradient."""
    assert found.keys() == wanted.keys()
    return max(float((found[name] - one).norm() / one.norm()) for name, one in wanted.items())


@pytest.mark.parametrize("four_bit", [True, False], ids=["4bit", "full"])
@pytest.mark.parametrize(("family", "targets"), TARGETS)
def test_the_gradients_are_those_of_peft(
    tuned: Make, engine: Engine, documents: list[Encoded], family: str, targets: Sequence[str], four_bit: bool
) -> None:
    made = tuned(family, targets, four_bit=four_bit)
    total, wanted = reference(made, documents)
    objective = engine(made)
    assert by_engine(objective, documents) == pytest.approx(total, rel=1e-5)
    assert worst(made.gradients(), wanted) < 1e-5
    with torch.no_grad():
        scored = sum(float(objective(*micro)) for micro in objective.arrange([documents], grad=False))
    assert scored == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("which", ["all", "first", "last"])
def test_no_way_of_computing_changes_the_gradients(
    tuned: Make, engine: Engine, documents: list[Encoded], family: str, way: str, which: str
) -> None:
    linears = ARCHITECTURES[family].linears
    made = tuned(family, {"all": linears, "first": linears[:1], "last": linears[-1:]}[which])
    total, wanted = reference(made, documents)
    assert by_engine(engine(made, **WAYS[way]), documents) == pytest.approx(total, rel=1e-5)
    assert worst(made.gradients(), wanted) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", WAYS)
def test_in_float64_nothing_is_missing(
    tuned: Make, engine: Engine, documents: list[Encoded], family: str, way: str
) -> None:
    """The differences of float32 are orders of sums, not a term: in float64 they shrink by a hundred and more.

    Not to nothing: transformers takes Llama's norms, and both rotary tables, in float32 whatever the type.
    """
    made = tuned(family, ARCHITECTURES[family].linears, four_bit=False)
    made.model.double()
    _, wanted = reference(made, documents)
    by_engine(engine(made, dtype=torch.float64, **WAYS[way]), documents)
    assert worst(made.gradients(), wanted) < {"gpt_neox": 1e-7, "llama": 1e-6}[family]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", ["kept", "blocks", "offload", "not folded"])
def test_dropout_drops_the_same_places_again_in_backward(
    tuned: Make, engine: Engine, documents: list[Encoded], family: str, way: str
) -> None:
    """The gradient is the slope of the loss: along it, the loss with the same mask moves as it says."""
    made = tuned(family, ARCHITECTURES[family].linears, dropout=0.4)
    objective = engine(made, **WAYS[way])

    def loss() -> float:
        torch.manual_seed(11)  # the seed of the masks is drawn from torch's generator
        made.clear()
        return by_engine(objective, documents)

    before = loss()
    gradients = made.gradients()
    step = 0.02 / float(torch.stack([g.norm() for g in gradients.values()]).norm())
    slopes = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            for name, p in made.model.named_parameters():
                if name in gradients:
                    p.add_(gradients[name], alpha=sign * step)
        slopes.append(loss())
        with torch.no_grad():
            for name, p in made.model.named_parameters():
                if name in gradients:
                    p.sub_(gradients[name], alpha=sign * step)
    expected = 2 * step * sum(float(g.square().sum()) for g in gradients.values())
    assert slopes[0] - slopes[1] == pytest.approx(expected, rel=0.02)
    torch.manual_seed(12)
    assert by_engine(objective, documents) != pytest.approx(before, rel=1e-4)
    objective.eval()
    made.model.eval()
    total, _ = reference(made, documents)
    with torch.no_grad():
        scored = sum(float(objective(*micro)) for micro in objective.arrange([documents], grad=False))
    assert scored == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mean_gradient_under_dropout_is_that_of_peft(tuned: Make, engine: Engine, family: str) -> None:
    """Two hundred masks of each: their mean B gradients agree as far as 200 draws can say."""
    document = Encoded(ids=tuple(range(10, 26)), labels=(NOT_LEARNED, *range(11, 26)))
    made = tuned(family, ARCHITECTURES[family].linears[:1], dropout=0.3)
    made.model.train()
    objective = engine(made)
    draws: dict[str, list[Tensor]] = {"peft": [], "engine": []}
    torch.manual_seed(0)
    for _ in range(200):
        draws["peft"].append(torch.cat([g.flatten() for g in reference(made, [document])[1].values()]))
        by_engine(objective, [document])
        draws["engine"].append(torch.cat([g.flatten() for g in made.gradients().values()]))
        made.clear()
    means = {name: torch.stack(one).mean(0) for name, one in draws.items()}
    spread = sum(torch.stack(one).var(0).sum() / 200 for one in draws.values())
    assert float((means["peft"] - means["engine"]).square().sum()) < 1.5 * float(spread)
    assert float(torch.stack(draws["engine"]).std(0).norm()) == pytest.approx(
        float(torch.stack(draws["peft"]).std(0).norm()), rel=0.15
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_documents_of_a_stream_never_see_each_other(
    tuned: Make, engine: Engine, documents: list[Encoded], family: str
) -> None:
    made = tuned(family, ARCHITECTURES[family].linears)
    objective = engine(made)
    states = []
    other = Encoded(ids=tuple(reversed(documents[1].ids)), labels=documents[1].labels)
    for second in (documents[1], other):
        (micro,) = objective.arrange([[documents[0], second, documents[2]]], grad=False)
        states.append(objective.residual(*micro))
    first, last = len(documents[0].ids), len(documents[2].ids)
    assert torch.equal(states[0][:first], states[1][:first])
    assert torch.equal(states[0][-last:], states[1][-last:])
    assert not torch.equal(states[0][first:-last], states[1][first:-last])


def test_gradients_that_were_cleared_are_put_back(tuned: Make, engine: Engine, documents: list[Encoded]) -> None:
    made = tuned("gpt_neox", ["query_key_value"])
    objective = engine(made)
    by_engine(objective, documents)
    once = made.gradients()
    by_engine(objective, documents)
    assert worst(made.gradients(), {name: 2 * one for name, one in once.items()}) < 1e-6
    made.model.zero_grad(set_to_none=True)
    by_engine(objective, documents)
    assert worst(made.gradients(), once) < 1e-6


def test_a_stream_with_nothing_learned_adds_nothing(tuned: Make, engine: Engine) -> None:
    made = tuned("llama", ["q_proj"])
    objective = engine(made)
    assert by_engine(objective, []) == 0.0
    assert all(not gradient.any() for gradient in made.gradients().values())
