"""What a preflight finds. Each fault is made for real; tests are named after the rows of the pains they answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.models import base
from koalpaca_tune.records import NOT_LEARNED, Encoded
from koalpaca_tune.runs import finding, preflight, preflight_data, preflight_probe
from koalpaca_tune.runs import train as runs
from koalpaca_tune.runs.finding import Finding
from koalpaca_tune.runs.train import Examples, Ready
from koalpaca_tune.training.probe import Probe

Recipes = Callable[..., Recipe]


def ready_of(recipe: Recipe) -> Ready:
    return runs.make_ready(recipe, runs.read_examples(recipe))


def named(findings: list[Finding], word: str) -> Finding:
    """The one finding whose name has a word."""
    (one,) = [one for one in findings if word in one.name]
    return one


def whole(recipe: Recipe, ready: Ready) -> list[Finding]:
    return [
        *preflight.of_recipe(recipe),
        *preflight.of_data(recipe, ready.examples),
        *preflight.of_model(ready),
        *preflight.of_probe(ready, Path(recipe.folder)),
    ]


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_a_sound_run_is_green_throughout(family: str, on_files: Recipes) -> None:
    recipe = on_files(family, training={"learning_rate": 2e-4}, engine={"kind": "auto"})
    found = whole(recipe, ready_of(recipe))
    assert [one for one in found if one.state != "ok"] == []
    said = {one.name: one.seen for one in found}
    modules = {"gpt_neox": 8, "llama": 14}[family]
    assert said["4비트 (4-bit)"] == f"{modules}/{modules} nf4, double 예 (yes), compute float32"
    assert said["학습 데이터 (train)"].startswith("9 of 9 examples, ")
    assert said["B 행렬 (B matrices)"].startswith({"gpt_neox": "2/2 ", "llama": "4/4 "}[family])
    assert ("query_key_value" in said) == (family == "gpt_neox")
    assert not Path(recipe.folder).exists()
    assert finding.error(found) is None


# data


@pytest.fixture
def examples(on_files: Recipes) -> Callable[..., tuple[Recipe, Examples]]:
    """(change=of one example, family) -> the recipe, and its examples so changed."""

    def make(change: Callable[[Encoded], Encoded], family: str = "gpt_neox", **sections: Any) -> Any:
        recipe = on_files(family, **sections)
        read = runs.read_examples(recipe)
        return recipe, replace(read, train=[change(one) for one in read.train])

    return make


def test_trl_1623_an_answer_that_never_learns_to_stop_is_red(examples: Callable[..., Any]) -> None:
    """Padding with EOS and masking by id takes every EOS from what is learned."""

    def unlearned(one: Encoded) -> Encoded:
        eos = one.ids[-1]
        return Encoded(one.ids, tuple(NOT_LEARNED if label == eos else label for label in one.labels), one.origin)

    recipe, changed = examples(unlearned)
    found = named(preflight_data.check(recipe, changed), "EOS")
    assert (found.state, " 0/9 " in found.seen) == ("bad", True)


def test_trl_2059_some_answers_without_an_end_are_told_of(examples: Callable[..., Any]) -> None:
    recipe, changed = examples(lambda one: one, data={"max_length": 20, "too_long": "cut"})
    found = preflight_data.check(recipe, changed)
    ended = sum(one.ids[-1] == changed.encoder.vocabulary.id("<|endoftext|>") for one in changed.train)
    assert 0 < ended < len(changed.train)
    assert named(found, "EOS").state == "note"
    assert f" {ended}/{len(changed.train)} " in named(found, "EOS").seen
    assert named(found, "(train)").state == "note"


def test_trl_1400_a_doubled_bos_is_red(examples: Callable[..., Any]) -> None:
    def twice(one: Encoded) -> Encoded:
        return Encoded((one.ids[0], *one.ids), (NOT_LEARNED, *one.labels), one.origin)

    recipe, changed = examples(twice, "llama")
    found = named(preflight_data.check(recipe, changed), "BOS")
    assert (found.state, "9개에 두 번" in found.seen) == ("bad", True)
    assert "talks.jsonl:1" in found.fix
    recipe, once = examples(lambda one: one, "llama")
    assert named(preflight_data.check(recipe, once), "BOS").seen == "<|begin_of_text|> 9/9"


def test_nfd_text_from_macos_that_doubles_the_tokens_is_told_of(on_files: Recipes, tmp_path: Path) -> None:
    recipe = on_files(data={"max_length": 512})
    train = Path(recipe.data.train)
    read = runs.read_examples(recipe)
    assert named(preflight_data.check(recipe, read), "NFC").state == "ok"
    apart = unicodedata.normalize("NFD", train.read_text(encoding="utf-8"))
    train.write_text(apart, encoding="utf-8")
    found = named(preflight_data.check(recipe, runs.read_examples(recipe)), "NFC")
    assert (found.state, found.seen) == ("note", "9/9개가 풀린 자모 (decomposed): talks.jsonl:1")


def test_trl_4879_examples_with_nothing_to_learn_are_counted(on_files: Recipes) -> None:
    recipe = on_files(data={"max_length": 34, "too_long": "drop"})
    found = named(preflight_data.check(recipe, runs.read_examples(recipe)), "(train)")
    assert (found.state, "dropped" in found.seen) == ("note", True)


# the recipe


def test_alpaca_lora_391_a_high_rate_is_told_of(on_files: Recipes) -> None:
    def rates(value: float) -> list[str]:
        recipe = on_files(training={"learning_rate": value})
        return [one.state for one in preflight.of_recipe(recipe) if "rate" in one.name]

    assert rates(3e-3) == ["note"]
    assert rates(3e-4) == []


def test_qlora_290_many_epochs_without_a_validation_loss_are_told_of(on_files: Recipes) -> None:
    epochs = {"training": {"epochs": 5, "max_steps": None}}
    blind = ready_of(on_files(data={"valid": None}, **epochs))
    assert named(preflight.of_model(blind), "(steps)").state == "note"
    assert named(preflight.of_model(ready_of(on_files(**epochs))), "(steps)").state == "ok"


def test_a_warm_up_longer_than_the_run_is_told_of(on_files: Recipes) -> None:
    found = named(preflight.of_model(ready_of(on_files(training={"warmup_steps": 2}))), "(steps)")
    assert (found.state, "warmup_steps" in found.fix) == ("note", True)


# the model


def test_the_blog_an_option_that_was_swallowed_is_red(on_files: Recipes) -> None:
    """`bnb_4bit_use_double_quany`: what is loaded differs from what is asked, whoever let it through."""
    ready = ready_of(on_files())
    changed = replace(ready.loaded, proof=replace(ready.loaded.proof, double_quant=False))
    assert named(preflight.of_model(replace(ready, loaded=changed)), "4비트").state == "bad"


def test_a_base_that_was_loaded_without_4_bit_is_red(on_files: Recipes) -> None:
    """A tutorial builds the config and never passes it."""
    ready = ready_of(on_files())
    full = base.load(ready.recipe.base, ready.recipe.quantization.model_copy(update={"load_in_4bit": False}))
    found = named(preflight.of_model(replace(ready, loaded=full)), "4비트")
    assert (found.state, found.seen.startswith("0/8 None")) == ("bad", True)


def test_transformers_26098_a_frozen_adapter_is_red(on_files: Recipes) -> None:
    ready = ready_of(on_files())
    for parameter in ready.trainer.parameters[:2]:
        parameter.requires_grad_(False)
    ready.trainer.parameters = ready.trainer.parameters[2:]
    assert named(preflight.of_model(ready), "LoRA").state == "bad"


def test_embeddings_that_learn_unasked_are_red(on_files: Recipes) -> None:
    """vllm 9280: an adapter with more than LoRA in it is refused by servers."""
    ready = ready_of(on_files())
    ready.trainer.model.get_input_embeddings().weight.requires_grad_(True)
    assert named(preflight.of_model(ready), "LoRA").state == "bad"


def lora_layers(ready: Ready) -> list[Any]:
    return [module for module in ready.trainer.model.modules() if hasattr(module, "lora_A")]


def test_axolotl_pythia_fan_in_fan_out_is_red(on_files: Recipes) -> None:
    ready = ready_of(on_files())
    lora_layers(ready)[0].fan_in_fan_out = True
    found = named(preflight.of_model(ready), "LoRA")
    assert (found.state, "fan_in_fan_out" in found.seen) == ("bad", True)


def test_peft_193_a_target_that_one_block_lacks_is_red(on_files: Recipes) -> None:
    ready = ready_of(on_files())
    for path, module in ready.trainer.model.named_modules():
        if path.endswith("layers.1.attention"):
            module.query_key_value = module.query_key_value.base_layer
    found = named(preflight.of_model(ready), "LoRA")
    assert (found.state, "query_key_value 1" in found.seen) == ("bad", True)


def test_transformers_17452_half_precision_beside_4_bit_is_red(on_files: Recipes) -> None:
    ready = ready_of(on_files())
    assert named(preflight.of_model(ready), "dtypes").seen == "norms, embeddings, head, adapter float32"
    for module in ready.trainer.model.modules():
        if "LayerNorm" in type(module).__name__:
            module.half()
    found = named(preflight.of_model(ready), "dtypes")
    assert (found.state, found.seen) == ("bad", "norms float16; embeddings, head, adapter float32")


def test_koalpaca_20_weights_on_the_meta_device_are_red(on_files: Recipes) -> None:
    ready = ready_of(on_files())
    head = ready.trainer.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.to("meta"), requires_grad=False)
    assert named(preflight.of_model(ready), "device").state == "bad"


def test_an_id_beyond_the_embedding_is_red(on_files: Recipes) -> None:
    ready = ready_of(on_files())
    embedding = ready.trainer.model.get_input_embeddings()
    embedding.weight = torch.nn.Parameter(embedding.weight[:300].clone(), requires_grad=False)
    assert named(preflight.of_model(ready), "vocabulary").state == "bad"


def test_query_key_value_of_another_width_is_red(on_files: Recipes) -> None:
    ready = ready_of(on_files())
    ready.loaded.model.config.num_attention_heads = 3
    assert named(preflight.of_model(ready), "query_key_value").state == "bad"


# three steps


def test_open_unlearning_178_b_that_stays_zero_is_red(on_files: Recipes) -> None:
    ready = ready_of(on_files())
    for name, parameter in ready.trainer.model.named_parameters():
        if ".lora_B." in name:
            parameter.register_hook(torch.zeros_like)
    found = preflight.of_probe(ready, Path(ready.recipe.folder))
    assert named(found, "B matrices").state == "bad"
    assert named(found, "gradient").state == "bad"
    error = preflight.agree(ready, found)
    assert error is not None
    assert {problem.code for problem in error.problems} == {"preflight"}


def test_alpaca_lora_170_a_loss_that_is_not_finite_is_red(on_files: Recipes) -> None:
    ready = ready_of(on_files())
    with torch.no_grad():
        ready.trainer.model.get_output_embeddings().weight.fill_(float("inf"))
    found = preflight.of_probe(ready, Path(ready.recipe.folder))
    assert (named(found, "(loss)").state, "nan" in named(found, "(loss)").seen) == ("bad", True)


HEALTHY = Probe((3.0, 3.0, 3.0), (1.0, 1.0, 1.0), 4, (), 2, (), 2, 0.0, 0.0, 0.0, 0.0, True, 0.0, 1.0, 10.0, None)
A, B = "blocks.0.q.lora_A.default.weight", "blocks.0.q.lora_B.default.weight"


@pytest.mark.parametrize(
    ("change", "kind", "states"),
    [
        ({}, "float32", "ok ok ok ok ok ok"),
        ({"loss_apart": 1e-4}, "float32", "ok ok ok note ok ok"),
        ({"loss_apart": 1e-2}, "float32", "ok ok ok bad ok ok"),
        ({"loss_apart": 1e-2}, "half", "ok ok ok ok ok ok"),
        ({"loss_apart": float("nan")}, "half", "ok ok ok bad ok ok"),
        ({"gradient_apart": 1e-3}, "float32", "ok ok ok note ok ok"),
        ({"gradient_apart": 0.6}, "half", "ok ok ok bad ok ok"),
        ({"gradient_apart": None}, "half", "ok ok ok ok ok ok"),
        ({"same_again": False}, "float32", "ok ok ok ok note ok"),
        ({"norm_again": 1e-6}, "float32", "ok ok ok ok note ok"),
        ({"same_again": False, "norm_again": 1e-4}, "half", "ok ok ok ok ok ok"),
        ({"loss_again": 0.1}, "half", "ok ok ok ok bad ok"),
        ({"against_transformers": 0.02}, "half", "ok ok ok ok ok note"),
        ({"against_transformers": None}, "half", "ok ok ok ok ok"),
        # float16 may lose the product of two small numbers; no gradient at B is a fault in any type
        ({"unreached": (A,)}, "half", "ok note ok ok ok ok"),
        ({"unreached": (A,)}, "float32", "ok bad ok ok ok ok"),
        ({"unreached": (B,)}, "half", "ok bad ok ok ok ok"),
        ({"idle": (B,)}, "half", "ok ok bad ok ok ok"),
        # in int8 a document's numbers depend on those beside it
        ({"loss_apart": 0.02, "gradient_apart": 0.25}, "int8", "ok ok ok ok ok ok"),
        ({"loss_apart": 0.2}, "int8", "ok ok ok bad ok ok"),
    ],
)
def test_what_is_rounding_and_what_is_a_fault(
    change: dict[str, Any], kind: str, states: str, on_files: Recipes
) -> None:
    found = preflight_probe.of(replace(HEALTHY, **change), kind)
    assert " ".join(one.state for one in found) == states


# disk


def test_a_folder_that_cannot_be_written_to_is_red(on_files: Recipes, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    ready = ready_of(on_files(out=str(tmp_path / "file/run")))
    found = named(preflight.of_probe(ready, Path(ready.recipe.folder)), "disk")
    assert (found.state, str(tmp_path / "file") in found.seen) == ("bad", True)


def test_checkpoints_that_the_disk_cannot_hold_are_red(on_files: Recipes) -> None:
    ready = ready_of(on_files(training={"keep_checkpoints": 10**12}))
    assert named(preflight.of_probe(ready, Path(ready.recipe.folder)), "disk").state == "bad"


@pytest.mark.parametrize(("seconds", "said"), [(7, "7 s"), (120, "2 min"), (5400, "1.5 h"), (57600, "16.0 h")])
def test_durations(seconds: float, said: str) -> None:
    assert preflight.duration(seconds) == said
