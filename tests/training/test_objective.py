"""The loss: a plain sum over learned tokens, the same in every arrangement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.records import NOT_LEARNED, Encoded
from koalpaca_tune.runs.train import Ready
from koalpaca_tune.training import objective as objectives

FAMILIES = ("gpt_neox", "llama")
Make = Callable[..., Recipe]
Prepare = Callable[..., Ready]


def loss(ready: Ready, rows: Sequence[Sequence[Encoded]]) -> torch.Tensor:
    """Of one micro-step, without room for another."""
    (arguments,) = ready.trainer.engine.arrange(rows, grad=True)
    total: torch.Tensor = ready.trainer.objective(*arguments)
    return total


def gradients(ready: Ready, rows: Sequence[Sequence[Encoded]]) -> tuple[float, dict[str, torch.Tensor]]:
    """The summed loss, and its gradient in every matrix of the adapter."""
    model = ready.trainer.model
    model.zero_grad(set_to_none=True)
    total = loss(ready, rows)
    total.backward()
    return float(total.detach()), {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }


def alive(ready: Ready) -> Ready:
    """With random B matrices, so that the A matrices get gradients too."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in ready.trainer.model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.2)
    return ready


def rows_of(ready: Ready) -> list[list[Encoded]]:
    train = ready.trainer.train
    return [list(train[:3]), list(train[3:4]), list(train[4:])]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sum_is_that_of_plain_log_probabilities(make_recipe: Make, ready: Prepare, family: str) -> None:
    made = alive(ready(make_recipe(family)))
    made.trainer.model.eval()
    expected = 0.0
    with torch.no_grad():
        for one in made.trainer.train:
            logs = made.trainer.model(input_ids=torch.tensor([one.ids])).logits[0].log_softmax(-1)
            expected -= sum(
                float(logs[at - 1, label]) for at, label in enumerate(one.labels) if at and label != NOT_LEARNED
            )
        found = float(loss(made, rows_of(made)))
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mean_is_transformers_own_loss(make_recipe: Make, ready: Prepare, family: str) -> None:
    made = ready(make_recipe(family))
    one = max(made.trainer.train, key=lambda one: one.learned)
    with torch.no_grad():
        ids, labels = torch.tensor([one.ids]), torch.tensor([one.labels])
        expected = float(made.trainer.model(input_ids=ids, labels=labels).loss) * one.learned
        assert float(loss(made, [[one]])) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", [1, 5, 7])
def test_a_head_in_chunks_is_the_whole_head(
    make_recipe: Make, ready: Prepare, monkeypatch: pytest.MonkeyPatch, family: str, rows: int
) -> None:
    made = alive(ready(make_recipe(family)))
    whole, expected = gradients(made, rows_of(made))
    monkeypatch.setattr(objectives, "ROWS", rows)
    total, found = gradients(made, rows_of(made))
    assert total == pytest.approx(whole, rel=1e-6)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_gradients_equal_the_sum_of_each_alone(make_recipe: Make, ready: Prepare, family: str) -> None:
    made = alive(ready(make_recipe(family)))
    total, packed = gradients(made, rows_of(made))
    alone = [gradients(made, [[one]]) for one in made.trainer.train]
    assert total == pytest.approx(sum(value for value, _ in alone), rel=1e-5)
    for name, gradient in packed.items():
        summed = sum(of_one[name] for _, of_one in alone)
        assert torch.allclose(summed, gradient, rtol=1e-3, atol=2e-6 * float(gradient.abs().max()))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_computed_again_give_the_same_gradients(make_recipe: Make, ready: Prepare, family: str) -> None:
    plain = alive(ready(make_recipe(family)))
    again = alive(ready(make_recipe(family, engine={"recompute": "blocks"})))
    results: list[Any] = []
    for made in (plain, again):
        made.trainer.model.train()
        results.append(gradients(made, rows_of(made)))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(results[1][1][name], gradient) for name, gradient in results[0][1].items())


@pytest.mark.parametrize(
    ("grad", "engine", "groups"),
    [
        (True, {}, [[3, 0, 1, 2]]),
        (True, {"micro_tokens": 39}, [[3], [0, 1, 2]]),
        (True, {"micro_tokens": 24}, [[3], [0, 1], [2]]),
        (True, {"micro_tokens": 1}, [[3], [0], [1], [2]]),
        (False, {"micro_tokens": 1}, [[3, 0, 1, 2]]),
    ],
)
def test_rows_of_like_length_within_the_tokens_of_a_micro_step(
    make_recipe: Make, ready: Prepare, grad: bool, engine: dict[str, Any], groups: list[list[int]]
) -> None:
    made = ready(make_recipe(engine=engine))
    first = [9, 8, 7, 20]
    rows = [[Encoded((at,) * length, (NOT_LEARNED,) * length)] for at, length in enumerate(first)]
    rows[3] = [Encoded((3,) * 11, (NOT_LEARNED,) * 11), Encoded((3,) * 9, (NOT_LEARNED,) * 9)]
    arranged = made.trainer.engine.arrange(rows, grad=grad)
    assert [ids[:, 0].tolist() for ids, *_ in arranged] == groups
    assert made.trainer.engine.count(rows, grad=grad) == len(groups)


def test_micro_steps_beyond_the_rows_learn_nothing(make_recipe: Make, ready: Prepare) -> None:
    made = ready(make_recipe())
    rows = rows_of(made)[1:2]
    arranged = made.trainer.engine.arrange(rows, grad=True, count=3)
    assert made.trainer.engine.count(rows, grad=True) == 1
    assert [len(targets) for *_, targets in arranged] == [rows[0][0].learned, 0, 0]
    assert len(made.trainer.engine.arrange([], grad=True, count=2)) == 2


def test_nothing_learned_is_zero_with_a_gradient(make_recipe: Make, ready: Prepare) -> None:
    """A rank whose rows ran out must still take part in the reduction of gradients."""
    made = alive(ready(make_recipe()))
    total, found = gradients(made, [[]])
    assert total == 0.0
    assert set(found) == {name for name, p in made.trainer.model.named_parameters() if p.requires_grad}
    assert all(not gradient.any() for gradient in found.values())
