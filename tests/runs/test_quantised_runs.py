"""`quantization.load_in_8bit` and `lora: null` through the commands' own doors: train, judge, go on, compare."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from koalpaca_tune import jsonl
from koalpaca_tune.comparison.compare import compare
from koalpaca_tune.config.recipe import Base, Quantization, Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation
from koalpaca_tune.runs import (
    adapters,
    diagnose,
    evaluate,
    preflight,
    preflight_model,
    preflight_probe,
    record,
    resume,
)
from koalpaca_tune.runs import train as runs
from koalpaca_tune.suites.selection import Asked
from koalpaca_tune.training.probe import probe

Make = Callable[..., Recipe]
Go = Callable[..., dict[str, Any]]
EIGHT = {"load_in_4bit": False, "load_in_8bit": True}
FULL: dict[str, Any] = {"lora": None, "quantization": {"load_in_4bit": False}, "engine": {"kind": "auto"}}
SUITE = "{name: one, version: 1, title: 하나, title_en: one, tasks: [{task: ko-mini-sentiment, items: 4}]}"


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(KoalpacaError) as caught:
        action()
    (problem,) = caught.value.problems
    return f"{problem.code} | {problem}"


def test_an_8_bit_run_is_looked_at_recorded_and_scored_as_it_was_trained(
    on_files: Make, carry_out: Go, conversations: list[Conversation], tmp_path: Path
) -> None:
    recipe = on_files(quantization=EIGHT, engine={"kind": "auto"})
    ready = runs.make_ready(recipe, runs.read_examples(recipe))
    assert ready.trainer.prepared.words() == "plain (8-bit products are bitsandbytes' own)"
    found = {one.name: one for one in preflight_model.check(ready)}
    assert found["8비트 (8-bit)"].seen.startswith("8/8 LLM.int8, threshold 6")
    looked = [*found.values(), *preflight_probe.check(ready, probe(ready.trainer, ready.loaded.architecture))]
    assert {one.state for one in looked} == {"ok"}
    entry = carry_out(recipe)
    assert entry["proof"]["linears_8bit"] == 8
    assert entry["recipe"]["quantization"] == {**EIGHT, "llm_int8_threshold": 6.0}

    made = tmp_path / "run" / "adapter"
    for four_bit in (True, False):
        wrong = refused(partial(adapters.choose, recipe.base.path, made, None, four_bit))
        assert wrong.startswith(f"adapter-differs | {made}: the adapter was trained with an 8-bit base.")
    lm = adapters.open_model(adapters.choose(recipe.base.path, made, None, None))
    assert lm.loaded.proof.linears_8bit == 8
    texts = [lm.encoder.render(one) for one in conversations[:3]]
    assert lm.score(texts) == [score for text in texts for score in lm.score([text])]
    assert diagnose.of(tmp_path / "run")[1].verdict


def test_an_8_bit_run_that_was_broken_off_ends_as_one_that_was_not(
    on_files: Make, carry_out: Go, tmp_path: Path
) -> None:
    training = {"max_steps": 3, "checkpoint_every": 1}
    sections = {"quantization": EIGHT, "training": training, "engine": {"kind": "auto"}}
    carry_out(on_files(**sections, out=str(tmp_path / "through")))
    shutil.copytree(tmp_path / "through", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / "step-0000003")
    recipe = on_files(**sections, out=str(tmp_path / "broken"))
    # the copy's own recipe names the other folder
    (tmp_path / "broken" / "run.yaml").write_text(
        (tmp_path / "through" / "run.yaml").read_text(encoding="utf-8").replace("/through", "/broken"),
        encoding="utf-8",
    )
    carry_out(recipe, resume=True)
    one, two = (load_file(tmp_path / name / "adapter/adapter_model.safetensors") for name in ("through", "broken"))
    assert all(bool((one[name] == two[name]).all()) for name in one)


@pytest.fixture
def whole(on_files: Make, carry_out: Go, tmp_path: Path) -> tuple[Recipe, Path]:
    recipe = on_files("llama", **FULL, evaluation={"heldout_limit": 1, "max_new_tokens": 2})
    carry_out(recipe)
    return recipe, tmp_path / "run" / "model"


def test_the_output_of_full_fine_tuning_is_a_base(
    whole: tuple[Recipe, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, model = whole
    names = {path.name for path in model.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "record.json"} <= names
    assert not (tmp_path / "run" / "adapter").exists()
    entry, again = record.of_adapter(model)
    assert again == recipe
    assert sum(entry["trainable"].values()) == sum(
        t.numel() for t in load_file(model / "model.safetensors").values()
    )

    # alone, as a base: its template is the one it was trained with
    choices = adapters.choose(str(model), None, None, None)
    assert (choices.template, choices.adapter) == (recipe.template, None)
    lm = adapters.open_model(choices)
    assert lm.loaded.fingerprint != entry["base"]["fingerprint"]

    # before and after in one command; scored by itself it scores the same
    (tmp_path / "one.yaml").write_text(SUITE, encoding="utf-8")
    asked = adapters.choose(recipe.base.path, model, None, None, whole=True)
    prepared = evaluate.prepare(asked, Asked(str(tmp_path / "one.yaml")), heldout=None, data_root=None)
    before, after = evaluate.evaluate(prepared, tmp_path / "judged", progress=lambda *_: None)
    told = [jsonl.read_json(folder / "identity.json")["identity"] for folder in (before, after)]
    assert told[0]["adapter"] is None
    assert told[1] == {**told[0], "adapter": record.weights_hash(model)}
    found = compare(before, after)
    assert not [notice for notice in found.warnings if notice.code in ("other-settings", "same-model")]
    (row,) = [row for row in found.rows if row.task == "heldout-nll"]
    assert row.paired.difference < 0, "it learned from the same conversations"

    other = replace(asked, base=Base(path="embedded"))
    assert refused(lambda: adapters.open_model(other)).startswith("adapter-wrong-base")
    assert "Give it as the base" in refused(lambda: adapters.choose(recipe.base.path, model, None, None))
    (model / "config.json").unlink()
    assert "there is no adapter_config.json" in refused(lambda: record.of_adapter(model))


def test_an_adapter_and_none_are_two_runs(whole: tuple[Recipe, Path], on_files: Make) -> None:
    recipe, _ = whole
    adapted = on_files("llama", quantization={"load_in_4bit": False}, evaluation=recipe.evaluation.model_dump())
    adapted = adapted.model_copy(update={"engine": recipe.engine})
    said = refused(lambda: resume.check_folder(adapted, resume=True, allow=["lora"]))
    assert said.startswith("resume-differs")
    assert "--allow" not in said


def test_preflight_of_full_fine_tuning_and_its_diagnosis(whole: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, _ = whole
    high = recipe.model_copy(update={"training": recipe.training.model_copy(update={"learning_rate": 5e-4})})
    assert [one.state for one in preflight.of_recipe(high)] == ["ok", "note"]
    ready = runs.make_ready(recipe, runs.read_examples(recipe))
    found = {one.name: one for one in preflight_model.check(ready)}
    measured = probe(ready.trainer, ready.loaded.architecture)
    found |= {one.name: one for one in preflight_probe.check(ready, measured)}
    assert {one.state for one in found.values()} == {"ok"}
    count = len(ready.trainer.parameters)
    assert found["모든 가중치 (all weights)"].seen.endswith(f"{count:,} matrices")
    assert found["가중치 (weights)"].seen == f"{count}/{count} 움직임 (moved)"
    assert "trained weights" in found["자료형 (dtypes)"].seen
    assert "LoRA" not in found
    next(ready.loaded.model.parameters()).requires_grad_(False)
    worse = {one.name: one for one in preflight_model.check(ready)}
    assert worse["모든 가중치 (all weights)"].state == "bad"
    read, judged = diagnose.of(tmp_path / "run")
    assert "recipe.scale" not in read.signals
    assert "curve.adapter_zero" not in read.signals
    assert judged.verdict


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"lora": None}, "every weight is trained, and weights in 4 bits cannot be"),
        ({"lora": None, "quantization": EIGHT}, "every weight is trained, and weights in 8 bits cannot be"),
        ({"quantization": {"load_in_4bit": True, "load_in_8bit": True}}, "exclude each other"),
        ({"quantization": {"llm_int8_threshold": 3.0}}, "llm_int8_threshold has no effect"),
        ({"quantization": {**EIGHT, "bnb_4bit_quant_type": "fp4"}}, "bnb_4bit_quant_type has no effect"),
    ],
)
def test_what_cannot_be_together_is_refused(on_files: Make, sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        on_files(**sections)


def test_8_bits_take_the_place_of_4() -> None:
    assert Quantization(load_in_8bit=True).model_dump() == {**EIGHT, "llm_int8_threshold": 6.0}
    # results that were judged before there were 8 bits keep their identity
    assert Quantization(load_in_4bit=False).model_dump() == {"load_in_4bit": False}
