"""Every weight of the base is trained: reached, moved, saved, resumed; small updates do not round away."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.runs.train import Ready
from koalpaca_tune.training import checkpoint
from koalpaca_tune.training.loop import Trainer
from koalpaca_tune.training.probe import probe
from koalpaca_tune.training.trained import Whole

Make = Callable[..., Recipe]
Prepare = Callable[..., Ready]
CLOCK = ("seconds", "data_seconds", "tokens_per_second", "host_memory_gib", "notices")


@pytest.fixture(scope="session")
def make_full(make_recipe: Make) -> Make:
    def make(family: str = "gpt_neox", **sections: Any) -> Recipe:
        training = {"learning_rate": 1e-3, **sections.pop("training", {})}
        return make_recipe(family, kind="auto", lora=None, training=training, **sections)

    return make


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def trail(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in CLOCK} for line in lines]


def halved(made: Ready) -> Trainer:
    """The same run of a model in bfloat16, as it is on a card."""
    trainer = made.trainer
    return Trainer(
        made.recipe,
        made.loaded.model.bfloat16(),
        made.loaded.architecture,
        trainer.train,
        [],
        pad_id=made.examples.encoder.vocabulary.pad_id,
        accelerator=made.accelerator,
    )


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_the_probe_reaches_and_moves_every_weight_and_puts_all_of_it_back(
    make_full: Make, ready: Prepare, family: str
) -> None:
    made = ready(make_full(family))
    before = weights(made.loaded.model)
    assert (made.trainer.prepared.name, made.trainer.prepared.reason) == (
        "plain",
        "every weight is trained (lora: null)",
    )
    found = probe(made.trainer, made.loaded.architecture)
    assert found.matrices == found.moving == len(before)
    assert (found.unreached, found.idle) == ((), ())
    assert found.same_again
    assert found.loss_apart < 1e-5
    assert found.gradient_apart is not None
    assert found.gradient_apart < 1e-4
    after = weights(made.loaded.model)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert sum(made.trainable.values()) == sum(p.numel() for p in before.values())


def test_how_a_step_is_cut_changes_nothing(make_full: Make, ready: Prepare, tmp_path: Path) -> None:
    ends = []
    for name, engine in (("whole", {}), ("cut", {"micro_tokens": 60})):
        made = ready(make_full(engine={"kind": "plain", **engine}))
        made.trainer.run(tmp_path / name)
        ends.append(weights(made.loaded.model))
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=1e-4) for name in ends[0])
    assert any(not torch.equal(ends[0][name], ends[1][name]) for name in ends[0]), "it was not cut"


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_a_run_that_was_resumed_is_bit_for_bit_the_one_that_was_not(
    make_full: Make, ready: Prepare, tmp_path: Path, half: bool
) -> None:
    recipe = make_full(training={"max_steps": 4, "checkpoint_every": 2, "weight_decay": 0.1})
    made = ready(recipe)
    trainer = halved(made) if half else made.trainer
    trainer.run(tmp_path / "through")
    shutil.copytree(tmp_path / "through", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / "step-0000004")
    shutil.rmtree(tmp_path / "broken" / "model")
    again = ready(recipe)
    other = halved(again) if half else again.trainer
    other.run(tmp_path / "broken", resume=True)
    assert trail(tmp_path / "broken") == trail(tmp_path / "through")
    for one, two in zip(trainer.parameters, other.parameters, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, two)
    for name in ("model.safetensors", "state.safetensors"):
        last = Path("checkpoints") / "step-0000004" / name
        assert (tmp_path / "broken" / last).read_bytes() == (tmp_path / "through" / last).read_bytes()
    written = load_file(tmp_path / "through" / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {torch.bfloat16 if half else torch.float32}
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "through" / "model", dtype="auto")
    learned = dict(made.loaded.model.named_parameters())
    assert all(torch.equal(learned[name], p) for name, p in read.named_parameters())


def test_a_checkpoint_holds_all_weights_in_float32_and_tells_damage(
    make_full: Make, ready: Prepare, make_recipe: Make, tmp_path: Path
) -> None:
    made = ready(make_full(training={"max_steps": 1}))
    halved(made).run(tmp_path / "run")
    (folder,) = checkpoint.listed(tmp_path / "run" / "checkpoints")
    assert checkpoint.files_of(folder) == ("model.safetensors", "state.safetensors", "state.json", "metrics.jsonl")
    stored = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    assert stored.keys() == dict(made.loaded.model.named_parameters()).keys()
    assert checkpoint.fault(folder) == ""
    adapted = ready(make_recipe()).trainer
    with pytest.raises(KoalpacaError) as caught:
        checkpoint.restore(folder, adapted.trained, adapted.optimizer)
    assert caught.value.problems[0].code == "checkpoint-other"
    flipped = bytearray((folder / "model.safetensors").read_bytes())
    flipped[-1] ^= 1
    (folder / "model.safetensors").write_bytes(flipped)
    assert checkpoint.fault(folder) == "model.safetensors is not what was written"
    (folder / "model.safetensors").unlink()
    assert checkpoint.fault(folder) == "model.safetensors: No such file or directory"


def test_small_updates_do_not_round_away() -> None:
    """0.5 has a spacing of 2^-8 below it in bfloat16; forty steps of 1e-4 are 4e-3, one of them is nothing."""

    def steps(parameters: list[torch.nn.Parameter], model: Any, publish: Callable[[], None]) -> None:
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)
        for _ in range(40):
            model(torch.ones(1, 4, dtype=torch.bfloat16)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            publish()

    def made() -> Any:
        model = torch.nn.Linear(4, 2, bias=False).bfloat16()
        torch.nn.init.constant_(model.weight, 0.5)
        return model

    alone, ours = made(), made()
    steps(list(alone.parameters()), alone, lambda: None)
    assert torch.equal(alone.weight, torch.full((2, 4), 0.5, dtype=torch.bfloat16)), "bfloat16 alone learns nothing"
    trained = Whole(ours, lambda folder: None)
    assert bool(trained.idle().all())
    steps(trained.parameters, ours, trained.publish)
    assert trained.parameters[0].detach() == pytest.approx(torch.full((2, 4), 0.496), abs=1e-5)
    assert torch.equal(ours.weight, trained.parameters[0].detach().bfloat16())
    assert ours.weight[0, 0] < 0.5
    assert not bool(trained.idle().any())


def test_gradients_of_micro_steps_are_added_up_in_float32() -> None:
    """1 + 2^-9 is 1 in bfloat16, and eight times 2^-9 are 2^-6 in float32."""
    model = torch.nn.Linear(1, 1, bias=False).bfloat16()
    trained = Whole(model, lambda folder: None)
    for value in (1.0, *[2.0**-9] * 8):
        model(torch.full((1, 1), value, dtype=torch.bfloat16)).sum().backward()
        assert model.weight.grad is None
    gradient = trained.parameters[0].grad
    assert gradient is not None
    assert float(gradient) == 1.0 + 2.0**-6


def test_norms_and_biases_are_not_decayed(make_full: Make, make_recipe: Make, ready: Prepare) -> None:
    optimizer = ready(make_full(training={"weight_decay": 0.1})).trainer.optimizer
    matrices, others = optimizer.param_groups
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert {p.dim() for p in matrices["params"]} == {2}
    assert {p.dim() for p in others["params"]} == {1}
    (only,) = ready(make_recipe(training={"weight_decay": 0.1})).trainer.optimizer.param_groups
    assert only["weight_decay"] == 0.1


def test_a_run_that_changed_nothing_is_no_result(make_full: Make, ready: Prepare, tmp_path: Path) -> None:
    # Llama has no biases, which begin at zero and move by anything
    made = ready(make_full("llama", training={"max_steps": 1, "learning_rate": 1e-30}))
    with pytest.raises(KoalpacaError, match="every weight is as it was") as caught:
        made.trainer.run(tmp_path / "run")
    assert caught.value.problems[0].code == "adapter-dead"
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("section", [{"kind": "fast"}, {"attention": "documents"}, {"compute": "fp8"}])
def test_keys_of_the_fast_engine_are_refused(make_full: Make, ready: Prepare, section: dict[str, str]) -> None:
    with pytest.raises(KoalpacaError, match="every weight is trained") as caught:
        ready(make_full(engine={"kind": "auto", **section}))
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("engine-unsupported", f"engine.{next(iter(section))}")
