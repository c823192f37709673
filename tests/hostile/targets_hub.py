"""What the hub's commands read: the record and config of an adapter, a comparison, and the card made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from targets_models import CONFIG, lie, matrices

from koalpaca_tune.hub import card as cards
from koalpaca_tune.hub import facts, push

_COUNTS = {
    "examples": 10,
    "too_long_dropped": 0,
    "too_long_cut": 0,
    "nothing_to_learn": 0,
    "kept": 10,
    "tokens": 100,
    "learned_tokens": 50,
}
RECORD: dict[str, Any] = {
    "name": "talk",
    "recipe": {
        "name": "talk",
        "seed": 1,
        "base": {"path": "EleutherAI/polyglot-ko-1.3b"},
        "data": {"max_length": 64, "packing": True},
        "training": {
            "epochs": 1.0,
            "max_steps": None,
            "batch_size": 8,
            "learning_rate": 2e-4,
            "schedule": "cosine",
            "warmup_steps": 0,
            "optimizer": "auto",
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
        },
    },
    "base": {
        "path": "EleutherAI/polyglot-ko-1.3b",
        "revision": "5" * 40,
        "fingerprint": "0" * 16,
        "model_type": "gpt_neox",
    },
    "proof": {
        "linears_4bit": 96,
        "quant_type": "nf4",
        "double_quant": True,
        "compute_dtype": "bfloat16",
        "dtypes": {"bfloat16": 1},
    },
    "template": {"name": "koalpaca"},
    "data": {
        "train": {"path": "train.jsonl", "sha256": "c" * 64, "counts": _COUNTS},
        "valid": None,
        "sources": [
            {
                "name": "a",
                "title": "어떤 말뭉치",
                "licence": "CC-BY-4.0",
                "url": "https://example.org",
                "records": 10,
                "obligations": [{"ko": "출처를 밝힌다.", "en": "Name it."}],
                "made_with": ["gpt-4"],
            }
        ],
    },
    "trainable": {"query_key_value": 100},
    "result": {"steps": 10, "loss": 1.5},
    "machine": {"device": "CPU"},
    "versions": {"torch": "2"},
}


def write(folder: Path, record: dict[str, Any], config: dict[str, Any]) -> None:
    """An adapter folder as a run leaves it."""
    (folder / facts.RECORD).write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    (folder / facts.CONFIG).write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    (folder / facts.WEIGHTS).write_bytes(matrices())


def card(chance: Random, folder: Path) -> None:
    """The model card of a record that lies about the types of its parts."""
    record, config = json.loads(json.dumps(RECORD)), json.loads(json.dumps(CONFIG))
    for _ in range(chance.randint(1, 3)):
        lie(chance.choice((record, record, config)), chance)
    write(folder, record, config)
    cards.write(folder, None, repo=None, license=None, data_licenses=[])


def sent(chance: Random, folder: Path) -> None:
    """What would be sent, of such an adapter."""
    record, config = json.loads(json.dumps(RECORD)), json.loads(json.dumps(CONFIG))
    write(folder, record, config)
    cards.write(folder, None, repo=None, license=None, data_licenses=[])
    lie(record, chance)
    write(folder, record, config)
    push.plan(folder, "me/mine", True)


TARGETS: dict[str, Callable[[Random, Path], None]] = {"card": card, "sent": sent}
"""What is broken -> one try."""
