"""Whatever config and quantisation the engine does not refuse, it computes as transformers and PEFT do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_gradients import Tuned, by_engine, reference
from small_runs import variant

from koalpaca_tune.config.recipe import Base, Lora, Quantization
from koalpaca_tune.engine.objective import EngineObjective
from koalpaca_tune.models import adapter, base
from koalpaca_tune.models.architectures import ARCHITECTURES
from koalpaca_tune.planner.support import obstacle
from koalpaca_tune.records import Encoded

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "neox rotary quarter": (
        "gpt_neox",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}},
    ),
    "neox rotary whole": (
        "gpt_neox",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 1.0}},
    ),
    "neox linear rotary": ("gpt_neox", {"rope_parameters": {**LINEAR, "partial_rotary_factor": 0.5}}),
    "neox without attention biases": ("gpt_neox", {"attention_bias": False}),
    "neox tied": ("gpt_neox", {"tie_word_embeddings": True}),
    "neox eps": ("gpt_neox", {"layer_norm_eps": 0.1}),
    "neox one layer": ("gpt_neox", {"num_hidden_layers": 1}),
    "llama 3 rotary": ("llama", {"rope_parameters": LLAMA3}),
    "llama linear rotary": ("llama", {"rope_parameters": LINEAR}),
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "llama one key head": ("llama", {"num_key_value_heads": 1}),
    "llama as many key heads": ("llama", {"num_key_value_heads": 4}),
    "llama wide heads": ("llama", {"head_dim": 32}),
    "llama eps": ("llama", {"rms_norm_eps": 0.1}),
}
QUANTIZATIONS = {
    "fp4": Quantization(bnb_4bit_quant_type="fp4"),
    "single": Quantization(bnb_4bit_use_double_quant=False),
    "whole": Quantization(load_in_4bit=False),
}


def check(
    folder: str | Path,
    family: str,
    quantization: Quantization,
    engine: Callable[..., EngineObjective],
    documents: list[Encoded],
) -> None:
    """Loss and gradients of all linears, whatever is kept."""
    loaded = base.load(Base(path=str(folder)), quantization)
    assert obstacle(loaded.model.config, "float32") is None
    torch.manual_seed(3)
    for name, parameter in loaded.model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            parameter.add_(torch.randn_like(parameter) * 0.1)
    lora = Lora(r=4, alpha=16, dropout=0.0, targets=list(ARCHITECTURES[family].linears))
    made = Tuned(loaded, adapter.attach(loaded, lora, "tiny"))
    with torch.no_grad():
        for name, parameter in made.model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.1)
    total, wanted = reference(made, documents)
    for way in ({"recompute": "none"}, {"recompute": "wide", "cached": 1}, {"recompute": "blocks", "fold": False}):
        made.clear()
        assert by_engine(engine(made, **way), documents) == pytest.approx(total, rel=1e-5)
        found = made.gradients()
        assert found.keys() == wanted.keys()
        for name, one in wanted.items():
            assert float((found[name] - one).norm()) < 1e-5 * float(one.norm()), name


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_is_not_refused_is_computed_as_transformers_does(
    tiny_bases: dict[str, str],
    engine: Callable[..., EngineObjective],
    documents: list[Encoded],
    tmp_path: Path,
    name: str,
) -> None:
    family, changes = CONFIGS[name]
    folder = variant(tiny_bases[family], tmp_path / "base", **changes)
    check(folder, family, Quantization(load_in_4bit=False), engine, documents)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_every_quantisation(
    tiny_bases: dict[str, str],
    engine: Callable[..., EngineObjective],
    documents: list[Encoded],
    family: str,
    quantization: str,
) -> None:
    check(tiny_bases[family], family, QUANTIZATIONS[quantization], engine, documents)
