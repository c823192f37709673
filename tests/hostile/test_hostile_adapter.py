"""An adapter from elsewhere: plain LoRA in safetensors, or one clear error; nothing else is done for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from targets_models import ASKS, CONFIG, matrices, weights

from koalpaca_tune.config.recipe import Base, Quantization
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import adapter, adapter_files, base

A = "base_model.model.gpt_neox.layers.0.attention.query_key_value.lora_A.weight"


def folder(at: Path, config: dict[str, Any], data: bytes) -> Path:
    (at / adapter_files.CONFIG).write_text(json.dumps(config), encoding="utf-8")
    (at / adapter_files.WEIGHTS).write_bytes(data)
    return at


def refused(at: Path) -> str:
    with pytest.raises(KoalpacaError) as caught:
        adapter_files.read(at)
    return caught.value.problems[0].code


def test_a_plain_adapter_is_read(tmp_path: Path) -> None:
    found = adapter_files.read(folder(tmp_path, CONFIG, matrices()))
    assert found == adapter_files.Plain(4, 16, 0.0, ("query_key_value",))


@pytest.mark.parametrize("asks", ASKS, ids=range(len(ASKS)))
def test_whatever_is_more_than_plain_lora_is_refused(asks: dict[str, Any], tmp_path: Path) -> None:
    expected = "adapter-load" if asks == {"r": 8} else "adapter-config"
    assert refused(folder(tmp_path, {**CONFIG, **asks}, matrices())) == expected


def test_no_module_that_a_config_names_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "koalpaca_hostile_module.py").write_text("ran = True\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    loaded = base.load(Base(path="embedded"), Quantization(load_in_4bit=False))
    folder(tmp_path, {**CONFIG, **ASKS[0]}, matrices())
    with pytest.raises(KoalpacaError) as caught:
        adapter.load(loaded, tmp_path)
    assert caught.value.problems[0].code == "adapter-config"
    assert "koalpaca_hostile_module" not in sys.modules


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04\x95",
        b"PK\x03\x04" + b"\0" * 60,
        matrices()[:-1],
        matrices() + b"\0",
        b"\xff" * 8 + matrices()[8:],
        weights({}),
        weights({A: ("I64", [4, 16], 512)}),
        weights({A: ("F64", [4, 16], 512)}),
        weights({A: ("F32", [8, 16], 512)}),
        weights({A: ("F32", [64], 256)}),
        weights({A: ("F32", [4, 1 << 60], 256)}),
        weights({A: ("F32", [4, -16], 256)}),
        weights({"base_model.model.gpt_neox.embed_in.weight": ("F32", [4, 16], 256)}),
        weights({"../../evil": ("F32", [4, 16], 256)}),
    ],
    ids=lambda data: f"{len(data)}-{data[:4].hex()}",
)
def test_weights_that_lie_are_refused(data: bytes, tmp_path: Path) -> None:
    assert refused(folder(tmp_path, CONFIG, data)) == "adapter-load"


def test_a_pickle_in_place_of_the_weights_is_not_read(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    pickle = b"cbuiltins\nopen\n(V" + str(ran).encode() + b"\nVw\ntR."
    (tmp_path / "adapter_model.bin").write_bytes(pickle)
    (tmp_path / adapter_files.CONFIG).write_text(json.dumps(CONFIG), encoding="utf-8")
    assert refused(tmp_path) == "adapter-missing"
    folder(tmp_path, CONFIG, pickle)
    assert refused(tmp_path) == "adapter-load"
    assert not ran.exists()


def test_matrices_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    loaded = base.load(Base(path="embedded"), Quantization(load_in_4bit=False))
    from koalpaca_tune.config.recipe import Lora

    model = adapter.attach(loaded, Lora(r=4, alpha=8, dropout=0.0, targets=["query_key_value"]), "embedded")
    adapter.save(model, tmp_path)
    stored = load_file(tmp_path / adapter_files.WEIGHTS)
    first = min(stored)
    stored[first][0, 0] = torch.nan
    save_file(stored, tmp_path / adapter_files.WEIGHTS)
    with pytest.raises(KoalpacaError, match="1 of its matrices hold NaN or infinity") as caught:
        adapter.load(base.load(Base(path="embedded"), Quantization(load_in_4bit=False)), tmp_path)
    assert caught.value.problems[0].code == "adapter-load"
