"""One tiny GPT-NeoX run that most of the pains are shown on, and recipes for those that need a run of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from click.testing import CliRunner

from koalpaca_tune import jsonl
from koalpaca_tune.cli.main import cli
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.records import Conversation
from koalpaca_tune.runs import train as runs

TARGETS = {"gpt_neox": ["query_key_value", "dense_4h_to_h"], "llama": ["q_proj", "v_proj"]}


class Trained(NamedTuple):
    """A finished run."""

    recipe: Recipe
    folder: Path
    record: dict[str, Any]

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def base(self) -> str:
        return self.recipe.base.path


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Tiny products are quicker on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def pains_data(conversations: Sequence[Conversation], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl and valid.jsonl, as `koalpaca data prepare` leaves it."""
    folder = tmp_path_factory.mktemp("prepared")
    jsonl.write(folder / "train.jsonl", (one.as_dict() for one in conversations[:-3]))
    jsonl.write(folder / "valid.jsonl", (one.as_dict() for one in conversations[-3:]))
    return folder


@pytest.fixture(scope="session")
def pains_recipe(tiny_bases: dict[str, str], pains_data: Path) -> Callable[..., Recipe]:
    """(run folder, family, section=changes, ...) -> a recipe of six steps of four rows, recomputed in backward."""

    def make(out: Path, family: str = "gpt_neox", **sections: Any) -> Recipe:
        values: dict[str, Any] = {
            "name": "small",
            "out": str(out),
            "template": "kullm-v2",
            "base": {"path": tiny_bases[family]},
            "quantization": {"load_in_4bit": False},
            "lora": {"r": 4, "alpha": 16, "dropout": 0.0, "targets": TARGETS[family]},
            "data": {
                "train": str(pains_data / "train.jsonl"),
                "valid": str(pains_data / "valid.jsonl"),
                "max_length": 256,
                "packing": False,
            },
            "training": {
                "max_steps": 6,
                "batch_size": 4,
                "learning_rate": 0.01,
                "log_every": 1,
                "checkpoint_every": 2,
            },
            "engine": {"kind": "plain", "recompute": "blocks"},
        }
        for section, changes in sections.items():
            values[section] = {**values.get(section, {}), **changes} if isinstance(changes, dict) else changes
        return Recipe.model_validate(values)

    return make


def ready_of(recipe: Recipe) -> runs.Ready:
    return runs.make_ready(recipe, runs.read_examples(recipe))


def carried_out(recipe: Recipe) -> Trained:
    """What `koalpaca train` does, without the printing."""
    folder = runs.check_folder(recipe, False)
    record = runs.run(ready_of(recipe), folder, resume=False)
    return Trained(recipe, folder, record)


@pytest.fixture(scope="session")
def make_ready() -> Callable[[Recipe], runs.Ready]:
    return ready_of


@pytest.fixture(scope="session")
def train_it() -> Callable[[Recipe], Trained]:
    return carried_out


@pytest.fixture(scope="session")
def trained_neox(pains_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The shared run: GPT-NeoX, KULLM's template, so that a forgotten template is not the default one."""
    return carried_out(pains_recipe(tmp_path_factory.mktemp("pains") / "run"))


@pytest.fixture(scope="session")
def by_heart(pains_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run that knows its nine examples by heart after many epochs, and was validated on the way."""
    training = {
        "max_steps": None,
        "epochs": 14,
        "batch_size": 3,
        "schedule": "linear",
        "eval_every": 12,
        "checkpoint_every": 1000,
    }
    every = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
    lora = {"r": 32, "alpha": 64, "targets": every}
    return carried_out(pains_recipe(tmp_path_factory.mktemp("pains") / "heart", training=training, lora=lora))


@pytest.fixture(scope="session")
def merged_neox(trained_neox: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared run's adapter, merged by the command."""
    out = tmp_path_factory.mktemp("pains") / "merged"
    words = ["merge", trained_neox.base, str(trained_neox.adapter), "--out", str(out), "--dtype", "float32"]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return out
