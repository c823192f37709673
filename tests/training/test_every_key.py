"""Every key of the sections training, engine, lora and data takes effect: changed, it changes what is stated here.

Of the engine, what the plain one takes; the keys of the fast one alone are in tests/engine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from koalpaca_tune.config.recipe import Data, Engine, Lora, Recipe, Training
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.runs.train import Ready

START: dict[str, dict[str, Any]] = {
    "lora": {"r": 4, "alpha": 16, "dropout": 0.0, "targets": ["query_key_value"]},
    "data": {"valid": "valid.jsonl", "max_length": 48, "too_long": "cut", "packing": False},
    "training": {
        "max_steps": 3,
        "batch_size": 4,
        "learning_rate": 0.01,
        "schedule": "constant",
        "log_every": 1,
        "checkpoint_every": 1,
        "keep_checkpoints": 3,
    },
    "engine": {"kind": "plain"},
}


def observe(ready: Ready, folder: Path) -> dict[str, Any]:
    """All that can be seen of a run."""
    trainer = ready.trainer
    seen: dict[str, Any] = {"shapes": [], "block calls": 0, "rates": [], "gradient": None}

    def micro_batch(_: Any, tensors: tuple[torch.Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            seen["shapes"].append(tensors[0].shape[0])

    def block(*_: Any) -> None:
        seen["block calls"] += 1

    def step(optimizer: Any, *_: Any) -> None:
        seen["rates"].append(optimizer.param_groups[0]["lr"])
        gradients = [p.grad for p in trainer.parameters]
        seen["gradient"] = float(torch.cat([g.flatten() for g in gradients]).norm())

    trainer.objective.register_forward_pre_hook(micro_batch)
    ready.loaded.model.gpt_neox.layers[0].attention.register_forward_hook(block)
    trainer.optimizer.register_step_pre_hook(step)
    metrics = trainer.run(folder)
    return {
        **seen,
        "optimizer": type(trainer.optimizer).__name__,
        "examples": [len(one.ids) for one in trainer.train],
        "rows": [len(row) for planned in trainer.steps for row in planned.rows],
        "steps": len(trainer.steps),
        "losses": [row["loss"] for row in metrics.rows if "loss" in row],
        "valid": [row["step"] for row in metrics.rows if "valid_loss" in row],
        "checkpoints": sorted(path.name for path in (folder / "checkpoints").iterdir()),
        "trainable": ready.trainable,
    }


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "training.epochs": ({"epochs": 2.0, "max_steps": None}, "steps"),
    "training.max_steps": ({"max_steps": 2}, "steps"),
    "training.batch_size": ({"batch_size": 2}, "shapes"),
    "training.learning_rate": ({"learning_rate": 0.02}, "rates"),
    "training.schedule": ({"schedule": "linear"}, "rates"),
    "training.warmup_steps": ({"warmup_steps": 2}, "rates"),
    "training.weight_decay": ({"weight_decay": 9.0}, "losses"),
    "training.max_grad_norm": ({"max_grad_norm": 0.01}, "gradient"),
    "training.optimizer": ({"optimizer": "paged_adamw_8bit"}, "error: optimizer-device"),
    "training.log_every": ({"log_every": 2}, "losses"),
    "training.eval_every": ({"eval_every": 1}, "valid"),
    "training.checkpoint_every": ({"checkpoint_every": 2}, "checkpoints"),
    "training.keep_checkpoints": ({"keep_checkpoints": 1}, "checkpoints"),
    "engine.micro_tokens": ({"micro_tokens": 100}, "shapes"),
    "engine.recompute": ({"recompute": "blocks"}, "block calls"),
    "lora.r": ({"r": 8}, "trainable"),
    "lora.alpha": ({"alpha": 64}, "losses"),
    "lora.dropout": ({"dropout": 0.5}, "losses"),
    "lora.targets": ({"targets": ["dense"]}, "trainable"),
    "data.valid": ({"valid": None}, "valid"),
    "data.max_length": ({"max_length": 30}, "examples"),
    "data.too_long": ({"too_long": "drop"}, "examples"),
    "data.packing": ({"packing": True}, "rows"),
}

ELSEWHERE = {
    "data.train": "tests/runs",
    "engine.kind": "tests/engine",
    "engine.memory_budget": "tests/engine",
    "engine.cached_blocks": "tests/engine",
    "engine.attention": "tests/engine",
    "engine.kernels": "tests/engine",
    "engine.compute": "tests/engine",
    "engine.fold_lora": "tests/engine",
    "engine.graphs": "tests/engine",
}
"""Where the other keys are shown to take effect."""


def test_no_key_is_left_out() -> None:
    sections = {"training": Training, "engine": Engine, "lora": Lora, "data": Data}
    every = {f"{section}.{key}" for section, model in sections.items() for key in model.model_fields}
    assert CHANGES.keys() | ELSEWHERE.keys() == every
    assert not CHANGES.keys() & ELSEWHERE.keys()
    assert set(Engine.model_fields) - {key.removeprefix("engine.") for key in ELSEWHERE} == {*Engine.plain_keys} - {
        "kind"
    }, "what the plain engine takes is shown here"


@pytest.fixture(scope="module")
def before() -> dict[str, Any]:
    """What is seen without a change; filled by the first test that needs it."""
    return {}


@pytest.mark.parametrize("key", CHANGES)
def test_the_key_takes_effect(
    make_recipe: Callable[..., Recipe],
    ready: Callable[..., Ready],
    tmp_path: Path,
    before: dict[str, Any],
    key: str,
) -> None:
    section = key.partition(".")[0]
    changes, changed = CHANGES[key]
    recipe = make_recipe(**{**START, section: {**START[section], **changes}})
    if changed.startswith("error: "):
        with pytest.raises(KoalpacaError) as caught:
            ready(recipe)
        assert caught.value.problems[0].code == changed.removeprefix("error: ")
        return
    if not before:
        before.update(observe(ready(make_recipe(**START)), tmp_path / "before"))
    after = observe(ready(recipe), tmp_path / "after")
    assert after[changed] != before[changed]


def test_the_seed_takes_effect_and_the_same_seed_gives_the_same_run(
    make_recipe: Callable[..., Recipe], ready: Callable[..., Ready], tmp_path: Path
) -> None:
    start = {**START, "lora": {**START["lora"], "dropout": 0.3}}
    first = observe(ready(make_recipe(**start)), tmp_path / "first")
    again = observe(ready(make_recipe(**start)), tmp_path / "again")
    other = observe(ready(make_recipe(**start, seed=7)), tmp_path / "other")
    assert first == again
    assert first["losses"] != other["losses"]
