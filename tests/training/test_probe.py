"""Three steps before a run: they show what is wrong, and leave no trace."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.engine.neox import NeoxBlock
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.runs.train import Ready
from koalpaca_tune.training import objective
from koalpaca_tune.training.probe import Probe, probe

# notices: a busy machine is told of as slow
TIMES = {"seconds", "data_seconds", "tokens_per_second", "host_memory_gib", "notices"}


def probed(ready: Ready) -> Probe:
    return probe(ready.trainer, ready.loaded.architecture)


def trail(ready: Ready, folder: Path) -> list[dict[str, Any]]:
    """Trains; the lines of metrics without what a clock says."""
    rows = ready.trainer.run(folder).rows
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def state(ready: Ready) -> list[torch.Tensor]:
    """All that the next step would depend on: adapter, moments, gradients, generators."""
    trainer = ready.trainer
    moments = [value for p in trainer.parameters for value in trainer.optimizer.state[p].values()]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trainer.parameters]
    kept = [*trainer.parameters, *moments, *gradients, torch.get_rng_state()]
    drawn = torch.tensor([random.random(), float(np.random.rand())], dtype=torch.float64)
    return [one.detach().clone() for one in [*kept, drawn]]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", ["fast", "plain"])
@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_a_run_after_a_probe_is_the_same_to_the_last_bit(
    family: str, kind: str, make_recipe: Callable[..., Recipe], ready: Callable[..., Ready], tmp_path: Path
) -> None:
    """With dropout, so that the generators matter; packed; with a validation loss and a warm-up."""
    recipe = make_recipe(
        family,
        kind=kind,
        lora={"dropout": 0.1},
        data={"packing": True, "valid": "valid.jsonl"},
        training={"warmup_steps": 2, "max_steps": 4, "batch_size": 2},
    )
    without = ready(recipe)
    wanted = trail(without, tmp_path / "without")
    end = state(without)
    with_it = ready(recipe)
    steps = with_it.trainer.steps
    probed(with_it)
    assert with_it.trainer.steps is steps
    assert trail(with_it, tmp_path / "with") == wanted
    assert same(state(with_it), end)
    weights = "adapter/adapter_model.safetensors"
    assert (tmp_path / "with" / weights).read_bytes() == (tmp_path / "without" / weights).read_bytes()


def test_a_resumed_run_after_a_probe_is_the_same_to_the_last_bit(
    make_recipe: Callable[..., Recipe], ready: Callable[..., Ready], tmp_path: Path
) -> None:
    recipe = make_recipe(
        "gpt_neox", kind="fast", lora={"dropout": 0.1}, training={"max_steps": 4, "checkpoint_every": 2}
    )
    wanted = trail(ready(recipe), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole/checkpoints/step-0000002", tmp_path / "cut/checkpoints/step-0000002")
    cut = ready(recipe)
    probed(cut)
    rows = cut.trainer.run(tmp_path / "cut", resume=True).rows
    assert [{key: value for key, value in row.items() if key not in TIMES} for row in rows] == wanted
    weights = "adapter/adapter_model.safetensors"
    assert (tmp_path / "cut" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


def test_a_probe_that_fails_leaves_no_trace_either(
    make_recipe: Callable[..., Recipe], ready: Callable[..., Ready], tmp_path: Path
) -> None:
    """The second step is not finite: the first has moved the adapter already."""
    recipe = make_recipe("gpt_neox", kind="fast", lora={"dropout": 0.1})
    without = ready(recipe)
    wanted = trail(without, tmp_path / "without")
    with_it = ready(recipe)
    trainer, take = with_it.trainer, with_it.trainer.take

    def poisoned(number: int, window: Any) -> None:
        if number == 1:
            with torch.no_grad():
                trainer.parameters[0].fill_(float("nan"))
        take(number, window)

    trainer.take = poisoned  # type: ignore[method-assign]
    with pytest.raises(KoalpacaError, match="the loss is nan"):
        probed(with_it)
    trainer.take = take  # type: ignore[method-assign]
    assert trail(with_it, tmp_path / "with") == wanted


@pytest.mark.parametrize("kind", ["fast", "plain"])
def test_a_healthy_run_shows_nothing(
    kind: str, make_recipe: Callable[..., Recipe], ready: Callable[..., Ready]
) -> None:
    recipe = make_recipe("gpt_neox", kind=kind, data={"packing": True})
    found = probed(ready(recipe))
    # two blocks of two targets, an A and a B each
    assert (found.matrices, found.unreached, found.idle) == (8, (), ())
    assert found.loss_apart < 1e-5
    assert found.gradient_apart is not None
    assert 0.0 < found.gradient_apart < 1e-4
    assert (found.same_again, found.loss_again, found.norm_again) == (True, 0.0, 0.0)
    if kind == "fast":
        assert found.against_transformers is not None
        assert found.against_transformers < 1e-5
    else:
        assert found.against_transformers is None
    assert len(found.losses) == len(found.norms) == 3
    assert found.peak_bytes is None


def test_axolotl_312_a_matrix_without_gradient_stays_zero_and_is_named(
    make_recipe: Callable[..., Recipe], ready: Callable[..., Ready]
) -> None:
    made = ready(make_recipe("gpt_neox", kind="plain"))
    names = [name for name, p in made.trainer.model.named_parameters() if p.requires_grad]
    dead = next(name for name in names if ".lora_B." in name)
    dict(made.trainer.model.named_parameters())[dead].register_hook(torch.zeros_like)
    found = probed(made)
    # of its A, the gradient is a product with that B
    assert found.unreached == (dead.replace("lora_B", "lora_A"), dead)
    assert found.idle == (dead,)


def mean_of_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each micro-step's loss is divided by its own tokens."""
    plain = objective.Objective.forward

    def mean(self: Any, ids: Any, positions: Any, rows: Any, targets: Any) -> Any:
        return plain(self, ids, positions, rows, targets) / len(targets) * 20

    monkeypatch.setattr(objective.Objective, "forward", mean)


def test_transformers_34191_a_mean_of_means_is_seen(
    make_recipe: Callable[..., Recipe], ready: Callable[..., Ready], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Divided by each micro-step's own tokens, the loss depends on how a step is cut."""
    mean_of_means(monkeypatch)
    found = probed(ready(make_recipe("gpt_neox", kind="plain")))
    assert found.loss_apart > 0.1
    assert found.gradient_apart is not None
    assert found.gradient_apart > 0.1


def test_transformers_34191_is_seen_with_a_batch_of_one_row(
    make_recipe: Callable[..., Recipe], ready: Callable[..., Ready], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One document per step: the documents of the next steps are taken too."""
    mean_of_means(monkeypatch)
    assert probed(ready(make_recipe("gpt_neox", kind="plain", training={"batch_size": 1}))).loss_apart > 0.1


def test_documents_of_a_row_that_see_each_other_are_seen(
    make_recipe: Callable[..., Recipe], ready: Callable[..., Ready], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions that do not restart: transformers then takes a packed row for one document."""
    collate = objective.collate

    def through(*arguments: Any) -> Any:
        batch = collate(*arguments)
        return replace(batch, positions=np.broadcast_to(np.arange(batch.ids.shape[1]), batch.ids.shape).copy())

    monkeypatch.setattr(objective, "collate", through)
    found = probed(ready(make_recipe("gpt_neox", kind="plain", data={"packing": True})))
    assert found.loss_apart > 1e-3


def test_a_wrong_order_of_query_key_value_is_seen(
    make_recipe: Callable[..., Recipe], ready: Callable[..., Ready], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All q, all k, all v, as other families have it: GPT-NeoX holds them head by head."""

    def in_thirds(self: NeoxBlock, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = qkv.view(len(qkv), 3, self.heads, self.head_dim)
        return rows[:, 0], rows[:, 1], rows[:, 2]

    monkeypatch.setattr(NeoxBlock, "_heads", in_thirds)
    found = probed(ready(make_recipe("gpt_neox", kind="fast")))
    assert found.against_transformers is not None
    assert found.against_transformers > 1e-3


def test_noise_of_the_machine_is_seen(
    make_recipe: Callable[..., Recipe], ready: Callable[..., Ready], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = objective.Objective.forward, iter(range(1000))

    def noisy(self: Any, *arguments: Any) -> Any:
        return plain(self, *arguments) * (1.0 + 1e-3 * next(calls))

    monkeypatch.setattr(objective.Objective, "forward", noisy)
    found = probed(ready(make_recipe("gpt_neox", kind="plain")))
    assert found.loss_again > 1e-3
    assert not found.same_again


def test_large_steps_are_cut_and_rates_are_those_of_the_run(
    make_recipe: Callable[..., Recipe], ready: Callable[..., Ready]
) -> None:
    """Nine examples of 15 to 50 tokens: two micro-steps of 64 hold fewer."""
    recipe = make_recipe("gpt_neox", kind="plain", engine={"micro_tokens": 64}, training={"batch_size": 9})
    made = ready(recipe)
    rates: list[float] = []
    take = made.trainer.take

    def noted(number: int, window: Any) -> None:
        rates.append(made.trainer.rate(number))
        take(number, window)

    wanted = [made.trainer.rate(number) for number in range(3)]
    made.trainer.take = noted  # type: ignore[method-assign]
    found = probed(made)
    assert 1 <= found.rows < 9
    assert found.step_tokens <= 128
    assert rates == [*wanted, wanted[0]]
