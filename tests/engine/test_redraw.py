"""Weights in 8 bits that are drawn anew in turn: which, when, and that a resumed run sees the same ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft_gradients import Tuned, by_engine
from torch import Tensor

from koalpaca_tune.engine.linear import Group
from koalpaca_tune.engine.narrow import Narrow
from koalpaca_tune.engine.objective import EngineObjective
from koalpaca_tune.engine.redraw import TURNS
from koalpaca_tune.models.architectures import ARCHITECTURES
from koalpaca_tune.records import Encoded

Make = Callable[..., Tuned]
MakeEngine = Callable[..., EngineObjective]


def groups_of(objective: EngineObjective) -> list[Group]:
    return [group for block in objective._body.blocks for group in block.groups]


def weights(group: Group) -> Tensor:
    """[N, K] as the forward product reads them, whose other layout holds the same."""
    buffer: Any = group.buffer
    assert isinstance(buffer, Narrow)
    rows = buffer._rows._numbers[:, : group.inputs].float()
    assert torch.equal(buffer._columns._numbers[:, : group.outputs].float().t(), rows)
    return rows.clone()


@pytest.fixture
def made(tuned: Make) -> Tuned:
    return tuned("llama", ARCHITECTURES["llama"].linears)


def test_in_so_many_steps_each_group_is_drawn_anew_once(made: Tuned, engine: MakeEngine) -> None:
    objective = engine(made, narrow=True, cached=2, seed=1)
    objective.begin(0)
    groups = groups_of(objective)
    before = [weights(group) for group in groups]
    seen = []
    for step in range(1, TURNS + 1):
        objective.begin(step)
        now = [weights(group) for group in groups]
        seen += [n for n, pair in enumerate(zip(before, now, strict=True)) if not torch.equal(*pair)]
        before = now
    assert sorted(seen) == list(range(len(groups)))


def test_a_resumed_run_sees_the_same_weights(made: Tuned, engine: MakeEngine, documents: list[Encoded]) -> None:
    through, fresh, other = (engine(made, narrow=True, cached=2, seed=seed) for seed in (1, 1, 2))
    for step in range(12):
        through.begin(step)
    fresh.begin(11)
    other.begin(11)
    for one, two, three in zip(*map(groups_of, (through, fresh, other)), strict=True):
        assert torch.equal(weights(one), weights(two))
        assert not torch.equal(weights(one), weights(three))
    # weights that are not kept are decoded with the same seeds
    wanted = by_engine(through, documents)
    for way in ({}, {"recompute": "blocks"}, {"cached": 1}):
        objective = engine(made, narrow=True, seed=1, **way)
        objective.begin(11)
        assert by_engine(objective, documents) == pytest.approx(wanted, rel=1e-6)
        objective.begin(11 + TURNS)
        assert by_engine(objective, documents) != pytest.approx(wanted, rel=1e-6)


def test_in_the_mean_the_weights_are_the_base(made: Tuned, engine: MakeEngine) -> None:
    """Far nearer than those that are rounded to the nearest."""
    objective, nearest = engine(made, narrow=True, cached=2, seed=1), engine(made, narrow=True, cached=2)
    exact = engine(made, cached=2)
    groups = groups_of(objective)
    sums = [torch.zeros(group.outputs, group.inputs) for group in groups]
    for step in range(0, 100 * TURNS, TURNS):
        objective.begin(step)
        for total, group in zip(sums, groups, strict=True):
            total += weights(group) * group.scale / 100
    for total, group, wanted in zip(sums, groups_of(nearest), groups_of(exact), strict=True):
        whole: Any = wanted.buffer
        base = whole._all[: group.outputs, : group.inputs]
        assert (total - base).norm() < 0.25 * (weights(group) * group.scale - base).norm()


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_a_loss_outside_of_training_is_in_ordinary_products(
    tuned: Make, engine: MakeEngine, documents: list[Encoded], family: str
) -> None:
    made = tuned(family, ARCHITECTURES[family].linears)

    @torch.no_grad()
    def loss(objective: EngineObjective) -> float:
        return sum(float(objective(*one)) for one in objective.arrange([documents], grad=False))

    narrow = engine(made, narrow=True, cached=1)
    training = loss(narrow)
    narrow.eval()
    ordinary = loss(engine(made))
    assert loss(narrow) == pytest.approx(ordinary, rel=1e-6)
    assert training != pytest.approx(ordinary, rel=2e-5)
    narrow.train()
    assert loss(narrow) == training
