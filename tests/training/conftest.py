"""Runs small enough to do many: a tiny base, a dozen conversations, through the same door as the command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.models import tokenizer
from koalpaca_tune.records import Conversation, Encoded
from koalpaca_tune.runs.train import Examples, Ready, make_ready
from koalpaca_tune.tokens.encode import Encoder
from koalpaca_tune.tokens.limit import limit

TARGETS = {"gpt_neox": ["query_key_value", "dense_4h_to_h"], "llama": ["q_proj", "v_proj", "down_proj"]}

Set = dict[str, Any]


@pytest.fixture(scope="session")
def make_recipe(tiny_bases: dict[str, str]) -> Callable[..., Recipe]:
    """(family, kind=engine, section=changes, ...) -> a recipe of three steps of four unpacked rows, no dropout."""

    def make(family: str = "gpt_neox", *, kind: str = "plain", **sections: Set) -> Recipe:
        values: dict[str, Any] = {
            "name": "small",
            "base": {"path": tiny_bases[family]},
            "quantization": {"load_in_4bit": False},
            "lora": {"r": 4, "alpha": 16, "dropout": 0.0, "targets": TARGETS[family]},
            "data": {"train": "train.jsonl", "max_length": 128, "packing": False},
            "training": {
                "max_steps": 3,
                "batch_size": 4,
                "learning_rate": 0.01,
                "log_every": 1,
            },
            "engine": {"kind": kind},
        }
        for section, changes in sections.items():
            values[section] = {**values.get(section, {}), **changes} if isinstance(changes, dict) else changes
        if sections.get("training", {}).get("epochs"):
            del values["training"]["max_steps"]
        return Recipe.model_validate(values)

    return make


@pytest.fixture(scope="session")
def encoded(tiny_bases: dict[str, str], conversations: Sequence[Conversation]) -> Callable[[Recipe], Examples]:
    """The shared conversations, the last three of them for validation."""
    cache: dict[str, Encoder] = {}

    def encode(recipe: Recipe) -> Examples:
        if recipe.base.path not in cache:
            vocabulary = tokenizer.load(recipe.base.path)
            cache[recipe.base.path] = Encoder(vocabulary, vocabulary.template("koalpaca"))
        encoder = cache[recipe.base.path]

        def take(part: Sequence[Conversation]) -> Any:
            return limit(encoder.conversations(part), recipe.data.max_length, recipe.data.too_long, "talks.jsonl")

        valid, valid_counts = take(conversations[-3:]) if recipe.data.valid else ([], None)
        train, train_counts = take(conversations[:-3])
        return Examples(encoder, train, train_counts, valid, valid_counts)

    return encode


@pytest.fixture
def ready(encoded: Callable[[Recipe], Examples]) -> Callable[..., Ready]:
    """(recipe, train=other examples) -> all that is loaded before the first step."""

    def make(recipe: Recipe, train: Sequence[Encoded] | None = None) -> Ready:
        examples = encoded(recipe)
        if train is not None:
            examples = Examples(examples.encoder, list(train), examples.train_counts, [], None)
        return make_ready(recipe, examples)

    return make


@pytest.fixture
def adapter_of() -> Callable[[Ready], dict[str, torch.Tensor]]:
    """The adapter's matrices, copied."""

    def take(ready: Ready) -> dict[str, torch.Tensor]:
        return {
            name: parameter.detach().clone()
            for name, parameter in ready.trainer.model.named_parameters()
            if ".lora_" in name
        }

    return take


@pytest.fixture
def trained(
    ready: Callable[..., Ready], adapter_of: Callable[[Ready], dict[str, torch.Tensor]], tmp_path: Path
) -> Callable[..., tuple[list[Any], dict[str, torch.Tensor]]]:
    """(recipe, name of its folder) -> (lines of metrics, adapter)."""

    def train(recipe: Recipe, name: str = "run") -> tuple[list[Any], dict[str, torch.Tensor]]:
        made = ready(recipe)
        metrics = made.trainer.run(tmp_path / name)
        return list(metrics.rows), adapter_of(made)

    return train


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Tiny products are quicker on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
