"""A run that was interrupted and resumed is, on the CPU, the run that was not: bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.runs.train import Ready, make_ready
from koalpaca_tune.training import checkpoint

FAMILIES = ("gpt_neox", "llama")
Make = Callable[..., Recipe]
Prepare = Callable[..., Ready]


@pytest.fixture(scope="module", params=["plain", "fast"])
def make_recipe(request: pytest.FixtureRequest, make_recipe: Make) -> Make:
    """Every test of this file runs on both engines."""
    return partial(make_recipe, kind=request.param)


class Pulled(BaseException):
    """The plug."""


def run(ready: Ready, folder: Path, *, kill_at: int | None = None, resume: bool = False) -> None:
    def progress(done: int, total: int, row: dict[str, Any]) -> None:
        if done == kill_at:
            raise Pulled

    ready.trainer.run(folder, resume=resume, progress=progress)


def trail(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    # notices: a busy machine is told of as slow
    clock = ("seconds", "data_seconds", "tokens_per_second", "host_memory_gib", "notices")
    return [{key: value for key, value in json.loads(line).items() if key not in clock} for line in lines]


def files(folder: Path) -> dict[str, bytes]:
    return {
        f"{part}/{file.name}": file.read_bytes()
        for part in ("adapter", "checkpoints/step-0000007")
        for file in sorted((folder / part).glob("*.safetensors"))
    }


SETTINGS = {
    "gpt_neox": {"lora": {"dropout": 0.3}, "quantization": {"load_in_4bit": True}, "data": {"packing": True}},
    # several micro-steps, each with a draw of its own
    "llama": {"lora": {"dropout": 0.3}, "data": {"valid": "valid.jsonl"}, "engine": {"micro_tokens": 60}},
}
TRAINING = {"max_steps": 7, "checkpoint_every": 2, "eval_every": 3, "warmup_steps": 2, "weight_decay": 0.1}
LOG_EVERY = {"gpt_neox": 3, "llama": 1}
"""With 3, a line of metrics spans checkpoints."""


@pytest.fixture(scope="module")
def wholes(
    make_recipe: Make, encoded: Callable[[Recipe], Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Recipe, Path]]:
    """For each family a run that was not interrupted."""
    top = tmp_path_factory.mktemp("wholes")
    made = {}
    for family in FAMILIES:
        training = {**TRAINING, "log_every": LOG_EVERY[family]}
        recipe = make_recipe(family, training=training, **SETTINGS[family])
        run(make_ready(recipe, encoded(recipe)), top / family)
        made[family] = (recipe, top / family)
    return made


@pytest.mark.parametrize("kill_at", [3, 4, 5])
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_29383_a_resumed_run_is_the_run_that_was_not_interrupted(
    ready: Prepare, tmp_path: Path, wholes: dict[str, tuple[Recipe, Path]], family: str, kill_at: int
) -> None:
    """transformers#29383, peft#859: resume fails, or goes on with nothing trainable.

    The progress is told before the checkpoint of a step: 3 is after the first checkpoint, 4 the very moment
    before the second is written, 5 after it.
    """
    recipe, expected = wholes[family]
    made = ready(recipe)
    with pytest.raises(Pulled):
        run(made, tmp_path, kill_at=kill_at)
    assert not (tmp_path / "adapter").exists()
    run(ready(recipe), tmp_path, resume=True)
    assert trail(tmp_path) == trail(expected)
    assert files(tmp_path) == files(expected)
    states = [
        json.loads((f / "checkpoints/step-0000007/state.json").read_text("utf-8")) for f in (tmp_path, expected)
    ]
    assert states[0]["optimizer"] == states[1]["optimizer"]
    assert states[0]["rng"] == states[1]["rng"]


def test_interrupted_twice(make_recipe: Make, ready: Prepare, tmp_path: Path) -> None:
    recipe = make_recipe(training=TRAINING, lora={"dropout": 0.3})
    run(ready(recipe), tmp_path / "whole")
    for kill_at, resume in ((3, False), (5, True)):
        made = ready(recipe)
        with pytest.raises(Pulled):
            run(made, tmp_path / "part", kill_at=kill_at, resume=resume)
    run(ready(recipe), tmp_path / "part", resume=True)
    assert trail(tmp_path / "part") == trail(tmp_path / "whole")
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_finished_run_resumed_writes_the_same_adapter(make_recipe: Make, ready: Prepare, tmp_path: Path) -> None:
    recipe = make_recipe()
    run(ready(recipe), tmp_path)
    before = (trail(tmp_path), (tmp_path / "adapter/adapter_model.safetensors").read_bytes())
    run(ready(recipe), tmp_path, resume=True)
    assert (trail(tmp_path), (tmp_path / "adapter/adapter_model.safetensors").read_bytes()) == before


@pytest.mark.parametrize("kill_at", [1, 2])
def test_interrupted_before_the_first_checkpoint_it_begins_again(
    make_recipe: Make, ready: Prepare, tmp_path: Path, kill_at: int
) -> None:
    recipe = make_recipe(training={"checkpoint_every": 2}, lora={"dropout": 0.3})
    run(ready(recipe), tmp_path / "whole")
    made = ready(recipe)
    with pytest.raises(Pulled):
        run(made, tmp_path / "part", kill_at=kill_at)
    told: list[str] = []
    ready(recipe).trainer.run(tmp_path / "part", resume=True, progress=lambda *a: told.extend(a[2].get("told", [])))
    assert told == ["아직 체크포인트가 없어 처음부터 합니다 (no checkpoint yet: from the first step)"]
    assert trail(tmp_path / "part") == trail(tmp_path / "whole")
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_checkpoint_half_written_is_not_taken(make_recipe: Make, ready: Prepare, tmp_path: Path) -> None:
    recipe = make_recipe(training=TRAINING)
    run(ready(recipe), tmp_path / "whole")
    made = ready(recipe)
    with pytest.raises(Pulled):
        run(made, tmp_path / "part", kill_at=4)
    aside = tmp_path / "part/checkpoints/.step-0000004.tmp"
    aside.mkdir()
    (aside / "state.json").write_text("{", encoding="utf-8")
    run(ready(recipe), tmp_path / "part", resume=True)
    assert trail(tmp_path / "part") == trail(tmp_path / "whole")
    assert not aside.exists()


@pytest.fixture(scope="module")
def finished(
    make_recipe: Make, encoded: Callable[[Recipe], Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, Path]:
    """A run of two steps that tests copy and spoil."""
    recipe = make_recipe(training={"max_steps": 2})
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(make_ready(recipe, encoded(recipe)), folder)
    return recipe, folder


@pytest.mark.parametrize("content", [b"", b"[]", b"half", None])
@pytest.mark.parametrize("name", checkpoint.FILES)
def test_without_a_whole_checkpoint_nothing_is_gone_on_with(
    finished: tuple[Recipe, Path], ready: Prepare, tmp_path: Path, name: str, content: bytes | None
) -> None:
    recipe, whole = finished
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    file = folder / "checkpoints/step-0000002" / name
    if content is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] if content == b"half" else content)
    with pytest.raises(KoalpacaError) as caught:
        run(ready(recipe), folder, resume=True)
    assert caught.value.problems[0].code == "checkpoint-damaged"
    assert f"step-0000002: {name}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert file.parent.is_dir(), "it stays where it was"


def test_a_checkpoint_of_another_adapter_is_one_clear_error(
    finished: tuple[Recipe, Path], ready: Prepare, make_recipe: Make, tmp_path: Path
) -> None:
    _, whole = finished
    made = ready(make_recipe(training={"max_steps": 2}, lora={"targets": ["dense"]}))
    with pytest.raises(KoalpacaError) as caught:
        run(made, shutil.copytree(whole, tmp_path / "run"), resume=True)
    assert caught.value.problems[0].code == "checkpoint-other"


def test_without_the_last_checkpoint_the_one_before_it_is_used(
    make_recipe: Make, ready: Prepare, tmp_path: Path
) -> None:
    recipe = make_recipe(training=TRAINING)
    run(ready(recipe), tmp_path)
    before = trail(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints/step-0000007")
    run(ready(recipe), tmp_path, resume=True)
    assert trail(tmp_path) == before
