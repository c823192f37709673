"""Settings that are ignored in silence: misspelt, built and never passed, or without effect."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from koalpaca_tune.config import load as recipes
from koalpaca_tune.config.check import gone, keys
from koalpaca_tune.config.elsewhere import ELSEWHERE
from koalpaca_tune.config.preparation import Preparation
from koalpaca_tune.config.recipe import Base, Quantization, Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import base
from koalpaca_tune.training import launch

Make = Callable[..., Recipe]


def test_blog_a_misspelt_quantisation_key_is_refused_at_its_line(tmp_path: Path) -> None:
    """`bnb_4bit_use_double_quany` went into `**kwargs` and was never heard of again, for 16 hours."""
    file = tmp_path / "mine.yaml"
    text = recipes.dump(recipes.load("demo")).replace("bnb_4bit_use_double_quant:", "bnb_4bit_use_double_quany:")
    file.write_text(text, encoding="utf-8")
    line = text[: text.index("bnb_4bit_use_double_quany")].count("\n") + 1
    with pytest.raises(KoalpacaError) as caught:
        recipes.load(str(file))
    (problem,) = caught.value.problems
    assert problem.code == "config-unknown-key"
    assert problem.where.startswith(f"{file}:{line}:")
    assert problem.fix == "Did you mean 'bnb_4bit_use_double_quant'?"


def test_tutorial_a_quantisation_config_that_is_never_passed_is_noticed(
    tiny_bases: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tutorial builds BitsAndBytesConfig and forgets to hand it over: the base is loaded in full precision."""
    real = transformers.AutoModelForCausalLM.from_pretrained

    def forgetful(*arguments: Any, **named: Any) -> Any:
        assert named.pop("quantization_config").load_in_4bit
        return real(*arguments, **named)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", forgetful)
    with pytest.raises(KoalpacaError, match="8 linear modules are not 4-bit, 0 are") as caught:
        base.load(Base(path=tiny_bases["gpt_neox"]), Quantization())
    assert caught.value.problems[0].code == "quantization-not-applied"


@pytest.mark.parametrize(("kind", "double"), [("nf4", True), ("fp4", False)])
def test_transformers_35581_what_is_asked_of_quantisation_is_read_back_from_the_weights(
    tiny_bases: dict[str, str], caplog: pytest.LogCaptureFixture, kind: Any, double: bool
) -> None:
    """ "Unused kwargs", a warning among hundreds of lines: the option had no effect."""
    asked = Quantization(bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=double)
    transformers.utils.logging.enable_propagation()
    try:
        with caplog.at_level(logging.INFO, logger="transformers"):
            proof = base.load(Base(path=tiny_bases["gpt_neox"]), asked).proof
    finally:
        transformers.utils.logging.disable_propagation()
    assert (proof.linears_4bit, proof.linears_other) == (8, 0)
    assert (proof.quant_type, proof.double_quant, proof.compute_dtype) == (kind, double, "float32")
    assert "nused" not in caplog.text


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("quantization", {"load_in_4bit": False, "bnb_4bit_quant_type": "nf4"}),
        ("engine", {"kind": "plain", "fold_lora": False}),
    ],
)
def test_kullm_10_a_setting_that_would_have_no_effect_is_refused(section: str, value: dict[str, Any]) -> None:
    """Flags that something else overrules."""
    with pytest.raises(ValueError, match="has no effect"):
        Recipe.model_validate({**recipes.load("demo").model_dump(), section: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_MIXED_PRECISION", "fp16"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
    ],
)
def test_kullm_10_a_flag_of_the_launcher_that_the_recipe_overrules_is_refused(name: str, value: str) -> None:
    """`accelerate launch --mixed_precision fp16` beside a recipe that computes in another type."""
    with pytest.raises(KoalpacaError, match=f"{name}={value}") as caught:
        launch.check({name: value}, "bf16")
    assert caught.value.problems[0].code == "launch-option"
    # what the launcher writes when nothing is asked of it
    usual = {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_DYNAMO_BACKEND": "NO", "ACCELERATE_USE_CPU": "False"}
    launch.check(usual, "bf16")
    launch.check({**usual, "ACCELERATE_MIXED_PRECISION": "no"}, "no")


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("lora.target_modules=[q_proj]", "targets"),
        ("lora.lora_alpha=16", "alpha"),
        ("training.learning_rat=1.0e-4", "learning_rate"),
        ("data.max_seq_length=512", "max_length"),
        ("sequence_len=2048", "data.max_length"),
        ("training.gradient_accumulation_steps=8", "training.batch_size"),
        ("training.group_by_length=true", "always shuffled"),
        ("fsdp=full_shard", "accelerate launch"),
        ("anything=1", "Known: name, out, seed"),
        ("engine.flash_attention=true", "attention"),
        ("quantization.load_in_4_bit=true", "load_in_4bit"),
    ],
)
def test_axolotl_trl_unknown_keys_are_errors_at_every_depth(override: str, meant: str) -> None:
    """axolotl, TRL's script and others drop keys that they do not know."""
    with pytest.raises(KoalpacaError) as caught:
        recipes.load("demo", (override,))
    (problem,) = caught.value.problems
    assert problem.code == "config-unknown-key"
    assert meant in problem.fix


def test_axolotl_trl_names_of_other_trainers_lead_to_keys_that_there_are() -> None:
    """The nearest of our names would mislead: `warmup_steps` for `gradient_accumulation_steps`."""
    known = keys(Recipe)
    said = [key for hint in ELSEWHERE.values() for key in re.findall(r"Write ([a-z0-9_.]+[a-z0-9_])", hint)]
    assert len(said) > 30
    assert [key for key in said if key not in known] == []
    assert not set(ELSEWHERE) & {key.rsplit(".", 1)[-1] for key in known}, "a key of ours would be called foreign"
    # a preparation has other keys, of which this says nothing
    assert gone(Preparation, ("fp16",)) == ""


def test_axolotl_trl_what_is_computed_is_what_the_recipe_says(
    trained_neox: Any, pains_recipe: Make, make_ready: Any, tmp_path: Path
) -> None:
    """The resolved recipe beside the adapter is the one that was trained, with every default spelt out."""
    stored = recipes.load(str(trained_neox.folder / "run.yaml"))
    assert stored == trained_neox.recipe
    optimizer = make_ready(pains_recipe(tmp_path / "run", training={"weight_decay": 0.25})).trainer.optimizer
    assert optimizer.defaults["weight_decay"] == 0.25
    assert isinstance(optimizer, torch.optim.AdamW)
