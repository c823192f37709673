"""Shapes: the published parameter counts, and what a config of any version says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.planner.shape import SHAPES, of_config

# model cards; polyglot-ko-12.8b's card says 12,898,631,680, which its own config.json does not give:
# transformers counts what stands here
PUBLISHED = {
    "polyglot-ko-1.3b": 1_331_810_304,
    "polyglot-ko-3.8b": 3_809_974_272,
    "polyglot-ko-5.8b": 5_885_059_072,
    "polyglot-ko-12.8b": 12_893_603_840,
    "llama-2-7b": 6_738_415_616,
    "llama-3-8b": 8_030_261_248,
}


def test_parameters_are_those_that_are_published() -> None:
    assert {name: shape.parameters for name, shape in SHAPES.items()} == PUBLISHED


def test_every_kind_of_base_has_as_many_parameters_as_transformers_makes() -> None:
    import torch
    import transformers

    sizes = {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }
    configs = [
        transformers.GPTNeoXConfig(**sizes, rotary_pct=0.5, tie_word_embeddings=False),
        transformers.GPTNeoXConfig(**sizes, tie_word_embeddings=True, attention_bias=False),
        transformers.LlamaConfig(**sizes, num_key_value_heads=2, tie_word_embeddings=True),
        transformers.LlamaConfig(**sizes, head_dim=16, attention_bias=True, tie_word_embeddings=False),
    ]
    for config in configs:
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
        assert of_config(config).parameters == sum(p.numel() for p in model.parameters()), config


def test_linears_are_those_of_the_architecture() -> None:
    from koalpaca_tune.models.architectures import ARCHITECTURES

    for shape in SHAPES.values():
        names = tuple(name for _, members in shape.linears for name, _ in members)
        assert names == ARCHITECTURES[shape.family].linears


# config.json of EleutherAI/polyglot-ko-5.8b, and what transformers 5 makes of it
OLD = {
    "model_type": "gpt_neox",
    "hidden_size": 4096,
    "intermediate_size": 16384,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "rotary_pct": 0.25,
    "vocab_size": 30080,
}
NEW = OLD | {"rope_parameters": {"partial_rotary_factor": 0.25, "rope_type": "default"}, "attention_bias": True}
del NEW["rotary_pct"]


@pytest.mark.parametrize("config", [OLD, NEW], ids=["config.json", "transformers 5"])
def test_a_config_of_either_age_gives_the_published_shape(config: dict[str, object]) -> None:
    assert of_config(SimpleNamespace(**config)) == SHAPES["polyglot-ko-5.8b"]


def test_grouped_heads_and_a_head_width_of_its_own() -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 512,
        "intermediate_size": 1024,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "num_hidden_layers": 2,
        "vocab_size": 100,
    }
    shape = of_config(SimpleNamespace(**config))
    assert (shape.query_width, shape.kv_width, shape.rotary) == (1024, 256, 128)
    assert shape.linears[0] == (512, (("q_proj", 1024), ("k_proj", 256), ("v_proj", 256)))
    assert shape.linears[1] == (1024, (("o_proj", 512),))


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"model_type": "gpt2"}, "architecture-unknown"),
        (OLD | {"num_hidden_layers": 0}, "base-config"),
        ({"model_type": "llama", "hidden_size": 64}, "base-config"),
    ],
)
def test_a_config_without_a_shape_is_refused(config: dict[str, object], code: str) -> None:
    with pytest.raises(KoalpacaError) as refused:
        of_config(SimpleNamespace(**config))
    assert refused.value.problems[0].code == code
