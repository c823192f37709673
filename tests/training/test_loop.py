"""The loop on the CPU: what a step does, what is written, and what stops it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from koalpaca_tune.config.recipe import Recipe, Training
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Encoded
from koalpaca_tune.runs.train import Ready
from koalpaca_tune.training import optimizer

FAMILIES = ("gpt_neox", "llama")
Make = Callable[..., Recipe]
Prepare = Callable[..., Ready]
Adapter = dict[str, torch.Tensor]
Train = Callable[..., tuple[list[Any], Adapter]]


@pytest.fixture(scope="module", params=["plain", "fast"])
def make_recipe(request: pytest.FixtureRequest, make_recipe: Make) -> Make:
    """Every test of this file runs on both engines."""
    return partial(make_recipe, kind=request.param)


def watched(ready: Ready) -> list[dict[str, torch.Tensor]]:
    """A list that gets the adapter's gradients as the optimizer sees them, step by step."""
    seen: list[dict[str, torch.Tensor]] = []

    def look(*_: Any) -> None:
        seen.append({n: p.grad.clone() for n, p in ready.trainer.model.named_parameters() if p.grad is not None})

    ready.trainer.optimizer.register_step_pre_hook(look)
    return seen


def rows_of(ready: Ready) -> list[list[list[Encoded]]]:
    """The documents of each row of each step."""
    train = ready.trainer.train
    return [[[train[index] for index in row] for row in step.rows] for step in ready.trainer.steps]


def close(one: Adapter, two: Adapter, tolerance: float) -> bool:
    assert one.keys() == two.keys()
    return all(torch.allclose(one[name], two[name], rtol=0, atol=tolerance) for name in one)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("packing", [False, True])
def test_transformers_34191_a_step_is_the_same_however_it_is_cut(
    make_recipe: Make,
    ready: Prepare,
    adapter_of: Callable[[Ready], Adapter],
    tmp_path: Path,
    family: str,
    packing: bool,
) -> None:
    """transformers PR#34191: the loss depends on the accumulation, because means of means are taken."""
    data = {"packing": packing, "max_length": 48}
    training = {"batch_size": 8, "max_steps": 2, "max_grad_norm": 1e9}
    results, calls = [], []
    for micro_tokens in (1, 10_000):
        made = ready(make_recipe(family, data=data, training=training, engine={"micro_tokens": micro_tokens}))
        calls.append([made.trainer.engine.count(rows, grad=True) for rows in rows_of(made)])
        seen = watched(made)
        metrics = made.trainer.run(tmp_path / f"{micro_tokens}")
        results.append((seen, adapter_of(made), [row["loss"] for row in metrics.rows]))
    if made.trainer.prepared.fast:
        pieces = [sum(len(row) for row in rows) for rows in rows_of(made)]
    else:
        pieces = [len(rows) for rows in rows_of(made)]
    assert calls == [pieces, [1, 1]], "one document (or padded row) at a time, and all at once"
    (first, adapter, losses), (second, other, other_losses) = results
    for one, two in zip(first, second, strict=True):
        assert close(one, two, 1e-6)
    assert close(adapter, other, 1e-5)
    assert losses == pytest.approx(other_losses, rel=1e-6)


def test_the_loss_of_a_step_is_the_mean_over_its_learned_tokens(
    make_recipe: Make, ready: Prepare, tmp_path: Path
) -> None:
    made = ready(make_recipe(training={"max_steps": 1, "batch_size": 5}, engine={"micro_tokens": 1}))
    seen = [made.trainer.train[i] for row in made.trainer.steps[0].rows for i in row]
    expected = made.trainer.mean_loss(seen)
    row = made.trainer.run(tmp_path).rows[0]
    assert row["loss"] == pytest.approx(expected, rel=1e-6)
    assert row["learned_tokens"] == sum(one.learned for one in seen)
    assert row["tokens"] == sum(len(one.ids) for one in seen)
    assert expected != pytest.approx(sum(made.trainer.mean_loss([one]) for one in seen) / len(seen), rel=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("four_bit", [True, False], ids=["4bit", "full"])
def test_the_loss_falls_and_only_the_adapter_changes(
    make_recipe: Make, ready: Prepare, tmp_path: Path, family: str, four_bit: bool
) -> None:
    """transformers#26098 (LoRA frozen); open-unlearning#178 (B stays zero)."""

    def base_bytes(ready: Ready) -> dict[str, str]:
        found = {}
        for name, tensor in ready.trainer.model.state_dict().items():
            if ".lora_" not in name:
                raw = tensor.detach().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else b""
                found[name] = hashlib.sha256(raw).hexdigest()
        return found

    made = ready(make_recipe(family, quantization={"load_in_4bit": four_bit}, training={"max_steps": 25}))
    before = base_bytes(made)
    matrices = {n: p.detach().clone() for n, p in made.trainer.model.named_parameters() if p.requires_grad}
    rows = made.trainer.run(tmp_path).rows
    assert base_bytes(made) == before
    assert len(before) > 10
    changed = dict(made.trainer.model.named_parameters())
    assert all(not torch.equal(changed[name], old) for name, old in matrices.items())
    assert sum(row["loss"] for row in rows[-3:]) < 0.9 * sum(row["loss"] for row in rows[:3])


def test_what_a_run_writes(make_recipe: Make, trained: Train, tmp_path: Path) -> None:
    recipe = make_recipe(
        data={"valid": "valid.jsonl"},
        training={"max_steps": 5, "log_every": 2, "eval_every": 3, "checkpoint_every": 2, "keep_checkpoints": 2},
    )
    rows, _ = trained(recipe)
    written = [
        json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert written == rows
    assert [(row["step"], "loss" in row, "valid_loss" in row) for row in rows] == [
        (2, True, False),
        (3, False, True),
        (4, True, False),
        (5, True, True),
    ]
    assert set(rows[0]) == {
        "worst_loss",
        "grad_norm_mean",
        "clipped",
        "adapter_zero",
        "data_seconds",
        "memory_gib",
        "step",
        "epoch",
        "loss",
        "learning_rate",
        "grad_norm",
        "tokens",
        "learned_tokens",
        "seconds",
        "tokens_per_second",
        "mfu",
        "peak_memory_gib",
        "host_memory_gib",
    }
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == [
        "step-0000004",
        "step-0000005",
    ]
    assert sorted(path.name for path in (tmp_path / "run/adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    plot = (tmp_path / "run/report/loss.svg").read_text(encoding="utf-8")
    assert plot.lstrip().startswith("<")
    assert "</svg>" in plot


def test_a_line_of_two_steps_weighs_by_tokens(make_recipe: Make, trained: Train) -> None:
    each, _ = trained(make_recipe(training={"max_steps": 4}), "each")
    pairs, _ = trained(make_recipe(training={"max_steps": 4, "log_every": 2}), "pairs")
    for pair, (one, two) in zip(pairs, (each[:2], each[2:]), strict=True):
        tokens = one["learned_tokens"] + two["learned_tokens"]
        expected = (one["loss"] * one["learned_tokens"] + two["loss"] * two["learned_tokens"]) / tokens
        assert pair["loss"] == pytest.approx(expected, rel=1e-9)
        assert pair["learned_tokens"] == tokens
        assert pair["tokens"] == one["tokens"] + two["tokens"]
        assert pair["grad_norm"] == max(one["grad_norm"], two["grad_norm"])


def test_progress_is_told_of_every_step(make_recipe: Make, ready: Prepare, tmp_path: Path) -> None:
    told: list[tuple[int, int, bool]] = []
    made = ready(make_recipe(training={"log_every": 2}))
    made.trainer.run(tmp_path, progress=lambda done, total, row: told.append((done, total, "loss" in row)))
    assert told == [(1, 3, False), (2, 3, True), (3, 3, True)]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_validation_loss_is_that_of_each_example_alone(make_recipe: Make, ready: Prepare, family: str) -> None:
    made = ready(make_recipe(family, data={"valid": "valid.jsonl", "max_length": 40}, lora={"dropout": 0.5}))
    with torch.no_grad():
        for parameter in made.trainer.parameters:
            parameter.normal_(std=0.2)  # dropout before a B of zeros would not be seen
    valid = made.trainer.valid
    made.trainer.model.train()
    total = sum(made.trainer.mean_loss([one]) * one.learned for one in valid)
    made.trainer.model.train()
    assert made.trainer.mean_loss(valid) == pytest.approx(total / sum(one.learned for one in valid), rel=1e-6)


GOLDEN = {
    "cosine": [0.25, 0.5, 0.75, 1.0, 1.0, 0.853553, 0.5, 0.146447],
    "linear": [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25],
    "constant": [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0],
}


@pytest.mark.parametrize("schedule", GOLDEN)
def test_the_rates_of_a_schedule(make_recipe: Make, ready: Prepare, tmp_path: Path, schedule: str) -> None:
    training = Training(epochs=1.0, learning_rate=0.1, warmup_steps=4, schedule=schedule)  # type: ignore[arg-type]
    rates = [optimizer.rate(training, step, 8) for step in range(8)]
    assert rates == pytest.approx([0.1 * share for share in GOLDEN[schedule]], abs=1e-6)
    made = ready(
        make_recipe(training={"max_steps": 8, "learning_rate": 0.1, "warmup_steps": 4, "schedule": schedule})
    )
    used: list[float] = []
    made.trainer.optimizer.register_step_pre_hook(lambda o, *_: used.append(o.param_groups[0]["lr"]))
    rows = made.trainer.run(tmp_path).rows
    assert used == rates == [row["learning_rate"] for row in rows]


def test_without_warm_up_the_first_step_has_the_peak_rate() -> None:
    training = Training(epochs=1.0, learning_rate=0.1)
    assert optimizer.rate(training, 0, 8) == 0.1


def test_gradients_are_clipped_to_the_norm(make_recipe: Make, ready: Prepare, tmp_path: Path) -> None:
    norms = {}
    for limit in (1e9, 1e-3):
        made = ready(make_recipe(training={"max_steps": 1, "max_grad_norm": limit}))
        seen = watched(made)
        row = made.trainer.run(tmp_path / str(limit)).rows[0]
        norms[limit] = (row["grad_norm"], math.sqrt(sum(float(g.square().sum()) for g in seen[0].values())))
    assert norms[1e9][0] == pytest.approx(norms[1e9][1], rel=1e-5)
    assert norms[1e-3][0] == pytest.approx(norms[1e9][0], rel=1e-5), "the norm before clipping is what is logged"
    assert norms[1e-3][1] == pytest.approx(1e-3, rel=1e-2)


def test_alpaca_lora_170_a_loss_that_is_not_finite_stops_the_run(
    make_recipe: Make, ready: Prepare, adapter_of: Callable[[Ready], Adapter], tmp_path: Path
) -> None:
    """alpaca-lora#170, LLaMA-Factory#506: loss 0 or NaN, and the run goes on."""
    made = ready(make_recipe())
    before = adapter_of(made)
    with torch.no_grad():
        made.loaded.model.get_output_embeddings().weight[5] = float("nan")
    with pytest.raises(KoalpacaError) as caught:
        made.trainer.run(tmp_path)
    assert caught.value.problems[0].code == "loss-not-finite"
    assert str(caught.value).startswith("at step 1 the loss is nan and the gradient norm nan.")
    assert all(torch.equal(before[name], value) for name, value in adapter_of(made).items())
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / "checkpoints").exists()
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8") == ""


def test_a_validation_loss_that_is_no_number_stops_the_run(
    make_recipe: Make, ready: Prepare, tmp_path: Path
) -> None:
    made = ready(make_recipe(training={"max_steps": 4, "eval_every": 2}, data={"valid": "valid.jsonl"}))
    trainer = made.trainer
    learned = {token for one in trainer.train for token in one.ids}
    strange = next(token for one in trainer.valid for token in one.ids if token not in learned)
    with torch.no_grad():
        made.loaded.model.get_input_embeddings().weight[strange] = float("nan")
    with pytest.raises(KoalpacaError) as caught:
        trainer.run(tmp_path)
    assert caught.value.problems[0].code == "loss-not-finite"
    assert str(caught.value).startswith("after step 2 the validation loss is nan.")
    assert "nan" not in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").lower()


def test_open_unlearning_178_an_adapter_that_did_not_move_is_an_error(
    make_recipe: Make, ready: Prepare, tmp_path: Path
) -> None:
    """open-unlearning#178, axolotl#312: B stays zero, and nobody is told."""
    made = ready(make_recipe(training={"learning_rate": 1e-60}))
    with pytest.raises(KoalpacaError) as caught:
        made.trainer.run(tmp_path)
    assert caught.value.problems[0].code == "adapter-dead"
    assert not (tmp_path / "adapter").exists()


def test_the_8_bit_optimizer_needs_a_card(make_recipe: Make, ready: Prepare) -> None:
    recipe = make_recipe(training={"optimizer": "paged_adamw_8bit"})
    with pytest.raises(KoalpacaError) as caught:
        ready(recipe)
    assert caught.value.problems[0].code == "optimizer-device"
    assert str(caught.value) == (
        "training.optimizer: 'paged_adamw_8bit' needs a CUDA card; this run is on the cpu. Use auto or adamw."
    )
