"""An adapter folder as a run leaves it, without training one: the hub reads files, not models."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, served

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Recipe

HOME = "/home/kim-cheolsu/비밀"


NAME = "base_model.model.gpt_neox.layers.0.attention.query_key_value.lora_{}.weight"


def weights(shapes: dict[str, tuple[int, int]] | None = None, value: bytes = b"\x00\x00\x80\x3f") -> bytes:
    """A safetensors file of float32 matrices that hold one number; by default LoRA's two, of rank 8."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    count = 0
    for name, shape in (shapes or {NAME.format("A"): (8, 3), NAME.format("B"): (9, 8)}).items():
        size = shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [4 * count, 4 * (count + size)]}
        count += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + value * count


@pytest.fixture(name="weights")
def make_weights() -> Callable[..., bytes]:
    return weights


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A Hub on this machine, and a client that may reach it: the suite as a whole is offline."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub-cache")))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with served() as server:
        yield server
    huggingface_hub.utils.close_session()


@pytest.fixture
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own back-off is a second or more a try; here the server is at hand."""
    import huggingface_hub.file_download as download
    import huggingface_hub.utils._http as client

    class Clock:
        @staticmethod
        def sleep(seconds: float) -> None:
            pass

    monkeypatch.setattr(client, "time", Clock)
    monkeypatch.setattr(download, "time", Clock)
    monkeypatch.setattr("koalpaca_tune.hub.remote.WAIT", 0.01)


@pytest.fixture
def record() -> dict[str, Any]:
    counts = {
        "examples": 1000,
        "too_long_dropped": 3,
        "too_long_cut": 0,
        "nothing_to_learn": 2,
        "kept": 995,
        "tokens": 54321,
        "learned_tokens": 23456,
    }
    recipe = Recipe.model_validate(
        {
            "name": "talk",
            "out": f"{HOME}/runs/talk",
            "base": {"path": "EleutherAI/polyglot-ko-1.3b"},
            "lora": {"targets": ["query_key_value"]},
            "data": {"train": f"{HOME}/prep/train.jsonl", "valid": "prep/valid.jsonl"},
            "training": {"epochs": 2.0},
        }
    )
    return {
        "name": recipe.name,
        "recipe": recipe.model_dump(),
        "versions": {"python": "3.11.9", "torch": "2.13.0"},
        "machine": {"device": "NVIDIA H200", "count": 1, "memory_gib": 139.8},
        "git": None,
        "started": "2025-01-01T00:00:00+00:00",
        "finished": "2025-01-01T01:00:00+00:00",
        "base": {
            "path": "EleutherAI/polyglot-ko-1.3b",
            "revision": "557e162cf6e944fdbae05bab2e45d066a125eacb",
            "fingerprint": "0123456789abcdef",
            "model_type": "gpt_neox",
        },
        "proof": {
            "linears_4bit": 96,
            "linears_other": 0,
            "quant_type": "nf4",
            "double_quant": True,
            "compute_dtype": "bfloat16",
            "dtypes": {"bfloat16": 123456789},
        },
        "template": {"name": "koalpaca", "sha256": "a" * 16},
        "tokenizer": {"sha256": "b" * 16},
        "data": {
            "train": {"path": f"{HOME}/prep/train.jsonl", "sha256": "c" * 64, "counts": counts},
            "valid": {"path": "prep/valid.jsonl", "sha256": "d" * 64, "counts": {**counts, "kept": 77}},
        },
        "trainable": {"query_key_value": 1572864},
        "result": {
            "steps": 250,
            "loss": 1.23456,
            "valid_loss": 1.5,
            "seconds": 1234.5,
            "tokens": 108642,
            "tokens_per_second": 4321.0,
            "peak_memory_gib": 9.87,
        },
    }


@pytest.fixture
def adapter(record: dict[str, Any], tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "talk" / "adapter"
    folder.mkdir(parents=True)
    jsonl.write_json(folder / "record.json", record)
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "EleutherAI/polyglot-ko-1.3b",
        "r": 8,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "target_modules": ["query_key_value"],
    }
    jsonl.write_json(folder / "adapter_config.json", config)
    (folder / "adapter_model.safetensors").write_bytes(weights())
    return folder
