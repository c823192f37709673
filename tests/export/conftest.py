"""Models to export: random ones of both families, with the tokenizers of the tiny bases."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

FAMILIES = ("gpt_neox", "llama")


@pytest.fixture(scope="session")
def model_folders(tiny_bases: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> a folder with a random model; Llama's has grouped heads and longer positions, as Llama-3.1."""
    import torch
    import transformers

    from koalpaca_tune.models import tokenizer

    top = tmp_path_factory.mktemp("models")
    words = {family: tokenizer.load_pretrained(tiny_bases[family]) for family in FAMILIES}
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    longer = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    for family in FAMILIES:
        more = {"vocab_size": len(words[family]), "max_position_embeddings": 512, "initializer_range": 0.08}
        config: Any
        if family == "llama":
            rope = {**longer, "rope_theta": 10000.0, "original_max_position_embeddings": 64}
            config = transformers.LlamaConfig(**shape, **more, num_key_value_heads=2, rope_parameters=rope)
        else:
            rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
            config = transformers.GPTNeoXConfig(**shape, **more, rope_parameters=rope, tie_word_embeddings=True)
        torch.manual_seed(5)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.data.add_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(top / family)
        words[family].save_pretrained(top / family)
    return {family: top / family for family in FAMILIES}


@pytest.fixture(scope="session", params=FAMILIES)
def model_folder(request: pytest.FixtureRequest, model_folders: dict[str, Path]) -> Path:
    return model_folders[request.param]


@pytest.fixture
def no_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without llama-cpp-python."""
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
