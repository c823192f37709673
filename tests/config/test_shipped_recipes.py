"""Every shipped recipe is read, and fits the model that it names."""

from __future__ import annotations

import pytest

from koalpaca_tune import resources
from koalpaca_tune.config import load
from koalpaca_tune.models.architectures import ARCHITECTURES
from koalpaca_tune.templates.registry import TEMPLATES

FAMILIES = {
    "demo": "gpt_neox",
    "llama2-7b": "llama",
    "llama2-ko-7b": "llama",
    "llama3-8b": "llama",
    "llama3-8b-all": "llama",
    "polyglot-ko-1.3b": "gpt_neox",
    "polyglot-ko-12.8b": "gpt_neox",
    "polyglot-ko-5.8b": "gpt_neox",
}


def test_each_shipped_recipe_has_its_row_here() -> None:
    assert load.names() == sorted(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_shipped_recipe(name: str) -> None:
    recipe = load.load(name)
    assert recipe.name == name
    assert set(recipe.lora.targets) <= set(ARCHITECTURES[FAMILIES[name]].linears)
    assert recipe.template in TEMPLATES
    assert (resources.EVAL / "suites" / f"{recipe.evaluation.suite}.yaml").is_file()
    assert recipe.quantization.load_in_4bit
    assert recipe.quantization.bnb_4bit_quant_type == "nf4"
    assert recipe.quantization.bnb_4bit_use_double_quant
    first = load.find(name).read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# "), "the first line is what `koalpaca recipe list` prints"


@pytest.mark.parametrize("name", [name for name in FAMILIES if name.startswith("polyglot")])
def test_polyglot_recipes_are_those_of_the_issue(name: str) -> None:
    lora = load.load(name).lora
    assert (lora.r, lora.alpha, lora.dropout, lora.targets) == (8, 32, 0.05, ["query_key_value"])


def test_llama_recipes_adapt_qkv_or_every_linear() -> None:
    assert load.load("llama3-8b").lora.targets == ["q_proj", "k_proj", "v_proj"]
    assert load.load("llama3-8b-all").lora.targets == list(ARCHITECTURES["llama"].linears)
