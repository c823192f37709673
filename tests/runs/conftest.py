"""A recipe on files: conversations as `koalpaca data prepare` writes them, a tiny base, a folder for the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.records import Conversation
from koalpaca_tune.runs import train as runs

TARGETS = {"gpt_neox": ["query_key_value"], "llama": ["q_proj", "v_proj"]}


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Tiny products are quicker on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def on_files(
    tiny_bases: dict[str, str], conversations: Sequence[Conversation], tmp_path: Path
) -> Callable[..., Recipe]:
    """(family, section=changes, ...) -> a recipe of two steps, its data and run folder under tmp_path."""
    jsonl.write(tmp_path / "train.jsonl", (one.as_dict() for one in conversations[:-3]))
    jsonl.write(tmp_path / "valid.jsonl", (one.as_dict() for one in conversations[-3:]))

    def make(family: str = "gpt_neox", **sections: Any) -> Recipe:
        values: dict[str, Any] = {
            "name": "small",
            "out": str(tmp_path / "run"),
            "base": {"path": tiny_bases[family]},
            "lora": {"r": 4, "alpha": 16, "dropout": 0.0, "targets": TARGETS[family]},
            "data": {
                "train": str(tmp_path / "train.jsonl"),
                "valid": str(tmp_path / "valid.jsonl"),
                "max_length": 128,
            },
            "training": {"max_steps": 2, "batch_size": 4, "learning_rate": 0.01, "log_every": 1},
            "engine": {"kind": "plain"},
        }
        for section, changes in sections.items():
            values[section] = {**values.get(section, {}), **changes} if isinstance(changes, dict) else changes
        return Recipe.model_validate(values)

    return make


@pytest.fixture
def carry_out() -> Callable[..., dict[str, Any]]:
    """(recipe, resume, progress) -> the finished record: what `koalpaca train` does, without the printing."""

    def go(recipe: Recipe, *, resume: bool = False, progress: Any = None) -> dict[str, Any]:
        folder = runs.check_folder(recipe, resume)
        ready = runs.make_ready(recipe, runs.read_examples(recipe))
        return runs.run(ready, folder, resume=resume, progress=progress)

    return go
