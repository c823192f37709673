"""The tiny bases as language models, without an adapter and with a random one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Base, Lora, Quantization
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.models import adapter, base
from koalpaca_tune.models.base import Loaded
from koalpaca_tune.tokens.encode import Encoder

TARGETS = {
    "gpt_neox": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
    "llama": ["q_proj", "v_proj", "down_proj"],
}
FULL = Quantization(load_in_4bit=False)


def with_random_adapter(loaded: Loaded, seed: int = 3) -> Any:
    targets = TARGETS[loaded.model.config.model_type]
    model = adapter.attach(loaded, Lora(r=4, alpha=16, dropout=0.05, targets=targets), "base")
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.1)
    return model.eval()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """These models are too small to share out; on a busy machine threads that wait cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def base_folder(tiny: str) -> Path:
    return Path(tiny)


@pytest.fixture(scope="session")
def loaded(base_folder: Path) -> Loaded:
    return base.load(Base(path=str(base_folder)), FULL)


@pytest.fixture(scope="session")
def lm(loaded: Loaded) -> TorchLanguageModel:
    encoder = Encoder(loaded.vocabulary, loaded.vocabulary.template("koalpaca"))
    return TorchLanguageModel(loaded.model, loaded, encoder)


@pytest.fixture(scope="session")
def tuned(base_folder: Path) -> TorchLanguageModel:
    loaded = base.load(Base(path=str(base_folder)), FULL)
    model = with_random_adapter(loaded)
    assert isinstance(model, peft.PeftModel)
    encoder = Encoder(loaded.vocabulary, loaded.vocabulary.template("koalpaca"))
    return TorchLanguageModel(model, loaded, encoder)


@pytest.fixture(scope="session")
def tuned_base(tiny_bases: dict[str, str]) -> Callable[..., TorchLanguageModel]:
    """(family, four_bit=) -> a tiny base with a random adapter, no norm or bias of which is ones or zeros."""

    def made(family: str, *, four_bit: bool) -> TorchLanguageModel:
        loaded = base.load(Base(path=tiny_bases[family]), Quantization(load_in_4bit=four_bit))
        torch.manual_seed(4)
        for name, parameter in loaded.model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.1)  # ones and zeros would hide a swapped pair
        encoder = Encoder(loaded.vocabulary, loaded.vocabulary.template("koalpaca"))
        return TorchLanguageModel(with_random_adapter(loaded), loaded, encoder)

    return made


def save_run(folder: Path, model: Any, loaded: Loaded, quantization: Quantization) -> Path:
    """An adapter folder as a run leaves it, as far as inference reads it."""
    adapter.save(model, folder)
    record = {
        "name": "tiny",
        "recipe": {"quantization": quantization.model_dump()},
        "base": {
            "path": "someone/tiny",
            "revision": None,
            "fingerprint": loaded.fingerprint,
            "model_type": loaded.model.config.model_type,
        },
        "template": {"name": "koalpaca", "sha256": "0" * 16},
        "tokenizer": {"sha256": "0" * 16},
    }
    jsonl.write_json(folder / "record.json", record)
    return folder


@pytest.fixture(scope="session")
def adapter_folder(tuned: TorchLanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("run") / "adapter", tuned.model, tuned.loaded, FULL)


@pytest.fixture
def four_bit_run(base_folder: Path, tmp_path: Path) -> Path:
    """The adapter of a 4-bit run."""
    four_bit = Quantization(load_in_4bit=True)
    loaded = base.load(Base(path=str(base_folder)), four_bit)
    return save_run(tmp_path / "run" / "adapter", with_random_adapter(loaded), loaded, four_bit)


@pytest.fixture
def other_base(base_folder: Path, tmp_path: Path) -> Path:
    """Another base of the same family and shape: one weight differs."""
    folder = Path(shutil.copytree(base_folder, tmp_path / "other"))
    weights = load_file(folder / "model.safetensors")
    weights[min(weights)].view(-1)[0] += 1.0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
