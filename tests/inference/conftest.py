"""Tiny random bases of both families, with a byte-level BPE trained on a handful of Korean sentences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Base, Lora, Quantization
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.models import adapter, base
from koalpaca_tune.models.base import Loaded
from koalpaca_tune.tokens.encode import Encoder

TEXTS = (
    "대한민국의 수도는 서울이다.",
    "봄에는 꽃이 피고 가을에는 단엽이 아니라 단풍이 든다.",
    "### 질문: 물은 몇 도에서 끓나요?\n\n### 답변: 섭씨 백 도에서 끓습니다.",
    "배가 고파서 밥을 먹었고, 잠이 와서 일찍 잤다.",
    "그 영화는 정말 재미있었어요. 다시 보고 싶네요!",
)
TARGETS = {"gpt_neox": ["query_key_value", "dense"], "llama": ["q_proj", "v_proj", "down_proj"]}
FULL = Quantization(load_in_4bit=False)


def tokenizer() -> Any:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|pad|>"
    )


def config(family: str, vocab_size: int) -> Any:
    shape = {
        "vocab_size": vocab_size,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
        "eos_token_id": 0,
        "bos_token_id": None,
    }
    if family == "llama":
        return transformers.LlamaConfig(**shape, num_key_value_heads=2)
    return transformers.GPTNeoXConfig(**shape)


def build(folder: Path, family: str, seed: int) -> Path:
    words = tokenizer()
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config(family, len(words)))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def with_random_adapter(loaded: Loaded, family: str, seed: int = 3) -> Any:
    model = adapter.attach(loaded, Lora(r=4, alpha=16, dropout=0.05, targets=TARGETS[family]), "base")
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


@pytest.fixture(scope="session", params=["gpt_neox", "llama"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def base_folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("bases") / family, family, seed=1)


@pytest.fixture(scope="session")
def loaded(base_folder: Path) -> Loaded:
    return base.load(Base(path=str(base_folder)), FULL)


@pytest.fixture(scope="session")
def lm(loaded: Loaded) -> TorchLanguageModel:
    encoder = Encoder(loaded.vocabulary, loaded.vocabulary.template("koalpaca"))
    return TorchLanguageModel(loaded.model, loaded, encoder)


@pytest.fixture(scope="session")
def tuned(family: str, base_folder: Path) -> TorchLanguageModel:
    loaded = base.load(Base(path=str(base_folder)), FULL)
    model = with_random_adapter(loaded, family)
    assert isinstance(model, peft.PeftModel)
    encoder = Encoder(loaded.vocabulary, loaded.vocabulary.template("koalpaca"))
    return TorchLanguageModel(model, loaded, encoder)


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
def four_bit_run(family: str, base_folder: Path, tmp_path: Path) -> Path:
    """The adapter of a 4-bit run."""
    four_bit = Quantization(load_in_4bit=True)
    loaded = base.load(Base(path=str(base_folder)), four_bit)
    return save_run(tmp_path / "run" / "adapter", with_random_adapter(loaded, family), loaded, four_bit)


@pytest.fixture
def other_base(family: str, tmp_path: Path) -> Path:
    """Another base of the same family and shape."""
    return build(tmp_path / "other", family, seed=2)
