"""Runs on tiny bases, and tiny bases that differ from the usual ones in their config."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.models import tokenizer
from koalpaca_tune.models.architectures import ARCHITECTURES
from koalpaca_tune.records import Conversation
from koalpaca_tune.runs.train import Examples, Ready, make_ready
from koalpaca_tune.tokens.encode import Encoder
from koalpaca_tune.tokens.limit import limit


def small_recipe(base: str | Path, family: str, **sections: dict[str, Any]) -> Recipe:
    """Three steps of four packed rows on the CPU, with LoRA on every linear and the fast engine."""
    values: dict[str, Any] = {
        "name": "small",
        "base": {"path": str(base)},
        "lora": {"r": 4, "alpha": 16, "dropout": 0.0, "targets": list(ARCHITECTURES[family].linears)},
        "data": {"train": "train.jsonl", "max_length": 64, "too_long": "cut"},
        "training": {"max_steps": 3, "batch_size": 4, "learning_rate": 0.01, "log_every": 1},
        "engine": {"kind": "fast"},
    }
    for section, changes in sections.items():
        values[section] = {**values.get(section, {}), **changes}
    return Recipe.model_validate(values)


def small_run(recipe: Recipe, conversations: Sequence[Conversation]) -> Ready:
    """All that is loaded before the first step, with the conversations as training set."""
    vocabulary = tokenizer.load(recipe.base.path)
    encoder = Encoder(vocabulary, vocabulary.template("koalpaca"))
    train, counts = limit(
        encoder.conversations(conversations), recipe.data.max_length, recipe.data.too_long, "talks.jsonl"
    )
    return make_ready(recipe, Examples(encoder, train, counts, [], None))


def variant(base: str | Path, folder: Path, **changes: Any) -> Path:
    """A random base whose config differs from that of `base`, with the same tokenizer, in a new folder."""
    shutil.copytree(base, folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    for name, value in changes.items():
        assert hasattr(config, name), name
        setattr(config, name, value)
    torch.manual_seed(1)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
