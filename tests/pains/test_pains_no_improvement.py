"""Trained, and nothing improved: frozen or empty adapters, and answers asked otherwise than they were learned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.runs import adapters, preflight

Make = Callable[..., Recipe]
QUESTION = "대한민국의 수도는 어디인가요?"


@pytest.fixture(scope="module")
def reloaded(trained_neox: Any) -> Any:
    """The adapter of the shared run on its base, from the disk, as every later command opens it."""
    return adapters.open_model(adapters.choose(trained_neox.base, trained_neox.adapter, None, None))


def test_koalpaca_29_kullm_26_an_answer_is_asked_for_as_it_was_learned(
    trained_neox: Any, reloaded: Any, make_ready: Any
) -> None:
    """The loss is fine and the answers are terrible: another prompt than in training."""
    assert reloaded.encoder.template.name == trained_neox.recipe.template == "kullm-v2"
    asked = reloaded.encoder.prompt(reloaded.encoder.render(Conversation((Turn("user", QUESTION),))))
    learned = make_ready(trained_neox.recipe).examples.train[0]
    assert learned.ids[: len(asked)] == tuple(asked)
    assert learned.labels[len(asked)] == learned.ids[len(asked)], "what follows the prompt is what was learned"
    with pytest.raises(KoalpacaError, match="template 'kullm-v2', not 'koalpaca'") as caught:
        adapters.choose(trained_neox.base, trained_neox.adapter, "koalpaca", None)
    assert caught.value.problems[0].code == "adapter-differs"


def test_peft_193_324_492_koalpaca_13_every_matrix_of_a_neox_adapter_is_alive(trained_neox: Any) -> None:
    """A GPT-NeoX adapter that does nothing, or that does not go onto its base."""
    weights = load_file(trained_neox.adapter / "adapter_model.safetensors")
    blocks, targets = 2, trained_neox.recipe.lora.targets
    assert len(weights) == 2 * blocks * len(targets)
    assert all(bool(matrix.any()) for name, matrix in weights.items() if ".lora_B." in name)
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in weights} == set(targets)


def test_alpaca_lora_446_293_an_adapter_file_of_443_bytes_is_refused(trained_neox: Any, tmp_path: Path) -> None:
    """A file with a header and nothing in it: it loads, and the tuned model is the base."""
    whole = trained_neox.adapter / "adapter_model.safetensors"
    assert whole.stat().st_size > 4 * sum(trained_neox.record["trainable"].values())
    for name in ("adapter_config.json", "record.json"):
        (tmp_path / name).write_bytes((trained_neox.adapter / name).read_bytes())
    header = json.dumps({"__metadata__": {"format": "pt", "note": ""}}).encode().ljust(435)
    empty = len(header).to_bytes(8, "little") + header
    assert len(empty) == 443
    (tmp_path / "adapter_model.safetensors").write_bytes(empty)
    with pytest.raises(KoalpacaError, match="it holds no matrices") as caught:
        adapters.open_model(adapters.choose(trained_neox.base, tmp_path, None, None))
    assert caught.value.problems[0].code == "adapter-load"


def test_open_unlearning_178_axolotl_312_recomputed_blocks_still_learn(trained_neox: Any) -> None:
    """B stays zero: blocks are recomputed, and their input, which needs no gradient, cuts the graph off."""
    assert trained_neox.recipe.engine.recompute == "blocks"
    rows = [row for _, row in jsonl.read(trained_neox.folder / "metrics.jsonl")]
    assert [row["adapter_zero"] for row in rows] == [0.0] * 6
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_open_unlearning_178_a_b_matrix_that_does_not_move_stops_the_run(
    pains_recipe: Make, make_ready: Any, tmp_path: Path
) -> None:
    recipe = pains_recipe(tmp_path / "run", watch={"policy": "stop"})
    ready = make_ready(recipe)
    for name, parameter in ready.trainer.model.named_parameters():
        if ".query_key_value.lora_A." in name:
            # without A there is no gradient for B; the other targets learn, and the loss falls
            parameter.data.zero_()
    with pytest.raises(KoalpacaError, match="50% of the LoRA B matrices are still zero") as caught:
        ready.trainer.run(tmp_path / "run")
    assert caught.value.problems[0].code == "run-stopped"
    rows = [row for _, row in jsonl.read(tmp_path / "run" / "metrics.jsonl")]
    assert len(rows) == 2
    assert "dead-adapter" in rows[-1]["notices"]


def test_transformers_26098_a_frozen_matrix_is_found_before_the_run(
    pains_recipe: Make, make_ready: Any, tmp_path: Path
) -> None:
    """LoRA frozen by a later call: the run ends with what it began with."""
    ready = make_ready(pains_recipe(tmp_path / "run"))
    assert all(one.state != "bad" for one in preflight.of_probe(ready, tmp_path))
    (frozen, *_) = [p for name, p in ready.trainer.model.named_parameters() if ".lora_B." in name]
    frozen.requires_grad_(False)
    bad = [one.name for one in preflight.of_probe(ready, tmp_path) if one.state == "bad"]
    assert any("B 행렬" in name for name in bad)


def test_peft_793_llama_factory_8242_the_tuned_model_is_not_the_base(trained_neox: Any, reloaded: Any) -> None:
    """Tuned and base answer alike: the adapter was saved, or loaded, without effect."""
    prompt = [reloaded.encoder.render(Conversation((Turn("user", QUESTION),)))]
    (tuned,) = reloaded.logits(prompt)
    with reloaded.without_adapter():
        (base,) = reloaded.logits(prompt)
    assert float((tuned - base).abs().mean()) > 0.05
    # what was learned came back from the disk: the answers of training are likelier than they were
    learned = [
        reloaded.encoder.render(one)
        for one in (Conversation((Turn("user", QUESTION), Turn("assistant", "서울입니다."))),)
    ]
    (after,) = reloaded.score(learned)
    with reloaded.without_adapter():
        (before,) = reloaded.score(learned)
    assert after.logprob > before.logprob + 1.0
    assert torch.isfinite(tuned).all()
