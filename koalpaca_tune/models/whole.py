"""Full fine-tuning: every weight of the base is trained, and the run's output is a base of its own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import transformers

from koalpaca_tune.config.recipe import Base
from koalpaca_tune.models import tokenizer
from koalpaca_tune.models.base import Loaded
from koalpaca_tune.templates.template import Template

SHARD = "5GB"


def release(loaded: Loaded) -> Any:
    """Makes every weight of a base trainable; the model itself is returned."""
    return loaded.model.requires_grad_(True)


def trainable(model: Any) -> dict[str, int]:
    """Trainable parameters by the name of their module, tied ones once."""
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            counts[name.rsplit(".", 2)[-2]] += parameter.numel()
    return dict(counts)


def save(model: Any, folder: Path, loaded: Loaded, base: Base, template: Template) -> None:
    """Writes weights in the model's own type (safetensors), tokenizer and generation settings.

    Args:
        model: as it was trained.
        folder: is there, and empty.
        loaded: the base that it was made from.
        base: where that came from, for its tokenizer.
        template: whose end of turn ends an answer.
    """
    vocabulary = loaded.vocabulary
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=vocabulary.id(vocabulary.bos) if vocabulary.bos else None,
        eos_token_id=vocabulary.stop_ids(template),
        pad_token_id=vocabulary.pad_id,
    )
    model.save_pretrained(folder, max_shard_size=SHARD)
    tokenizer.load_pretrained(base.path, base.revision).save_pretrained(folder)
