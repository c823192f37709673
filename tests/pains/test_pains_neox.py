"""GPT-NeoX and polyglot-ko: token_type_ids, float16, one matrix for q, k and v, other names, no memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from koalpaca_tune import jsonl
from koalpaca_tune.cli.main import cli
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import forward
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.runs import adapters, preflight, preflight_model

Make = Callable[..., Recipe]
QUESTION = Conversation((Turn("user", "가장 높은 산은?"),))


def changed(base: str, to: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> str:
    """A base with other weights."""
    folder = Path(shutil.copytree(base, to))
    weights = {
        name: change(name, value).contiguous() for name, value in load_file(folder / "model.safetensors").items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def test_koalpaca_7_token_type_ids_never_reach_the_model(trained_neox: Any, tmp_path: Path) -> None:
    """Tokenizers of the polyglot kind made them, and `generate` ended with an error."""
    folder = Path(shutil.copytree(trained_neox.base, tmp_path / "base"))
    settings = jsonl.read_json(folder / "tokenizer_config.json")
    names = ["input_ids", "token_type_ids", "attention_mask"]
    jsonl.write_json(folder / "tokenizer_config.json", {**settings, "model_input_names": names})
    lm = adapters.open_model(adapters.choose(str(folder), None, None, None))
    (answer,) = lm.write([lm.encoder.render(QUESTION)], 4)
    assert answer.tokens == 4
    assert lm.score([lm.encoder.render(Conversation((*QUESTION.turns, Turn("assistant", "백두산"))))])[0].tokens > 1


def test_transformers_17452_fastertransformer_602_attention_scores_do_not_overflow_float16(
    tiny_bases: dict[str, str], pains_recipe: Make, make_ready: Any, tmp_path: Path
) -> None:
    """NaN from products of q and k beyond 65,504, the largest of float16; the products of weights may be in it."""
    base = changed(
        tiny_bases["gpt_neox"],
        tmp_path / "large",
        lambda name, value: value * 1000 if name.endswith("query_key_value.weight") else value,
    )
    half = {"load_in_4bit": True, "bnb_4bit_compute_dtype": "float16"}
    ready = make_ready(pains_recipe(tmp_path / "run", base={"path": base}, quantization=half))
    assert ready.loaded.proof.compute_dtype == "float16"
    assert set(ready.loaded.proof.dtypes) == {"float32"}
    seen: list[torch.Tensor] = []
    first = next(
        m for path, m in ready.loaded.model.named_modules() if path.endswith("0.attention.query_key_value")
    )
    first.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    assert torch.isfinite(torch.tensor(ready.trainer.mean_loss(ready.examples.train)))
    heads = ready.loaded.model.config.num_attention_heads
    query, key, _ = seen[0].reshape(*seen[0].shape[:2], heads, 3, -1).unbind(3)
    assert float(seen[0].abs().max()) < 65_504
    assert float((query * key).sum(-1).abs().max()) > 65_504


def test_neox_query_key_value_is_read_head_by_head(
    tiny_bases: dict[str, str], pains_recipe: Make, make_ready: Any, tmp_path: Path
) -> None:
    """It holds q, k and v of one head, then of the next; scripts that read [Q; K; V] train on noise."""

    def loss(base: str, kind: str) -> float:
        ready = make_ready(
            pains_recipe(tmp_path / "run", base={"path": base}, engine={"kind": kind, "recompute": "auto"})
        )
        found: float = ready.trainer.mean_loss(ready.examples.train)
        return found

    def regrouped(name: str, value: torch.Tensor) -> torch.Tensor:
        if ".query_key_value." not in name:
            return value
        return value.reshape(4, 3, 16, *value.shape[1:]).transpose(0, 1).reshape(value.shape)

    base = tiny_bases["gpt_neox"]
    plain = loss(base, "plain")
    assert loss(base, "fast") == pytest.approx(plain, rel=1e-5)
    assert abs(loss(changed(base, tmp_path / "other", regrouped), "fast") - plain) > 1e-3


def test_neox_names_are_its_own(pains_recipe: Make, make_ready: Any, tmp_path: Path, trained_neox: Any) -> None:
    """`embed_in`, `embed_out`, `query_key_value`: names of Llama match nothing, and nothing is trained."""
    for target, said in (("q_proj", "query_key_value"), ("embed_out", "'embed_out' matches no linear module")):
        with pytest.raises(KoalpacaError, match=said) as caught:
            make_ready(pains_recipe(tmp_path / "run", lora={"targets": [target]}))
        assert caught.value.problems[0].code == "lora-target"
    ready = make_ready(trained_neox.recipe)
    model = forward.causal(ready.loaded.model)
    assert model.get_input_embeddings() is model.gpt_neox.embed_in
    (entries,) = [one for one in preflight_model.check(ready) if "vocabulary" in one.name]
    assert (entries.state, f"{model.gpt_neox.embed_in.num_embeddings:,}" in entries.seen) == ("ok", True)


def test_axolotl_fan_in_fan_out_is_false_for_linear_layers(trained_neox: Any, make_ready: Any) -> None:
    """axolotl's pythia examples set it: the update is transposed, or does not fit."""
    assert json.loads((trained_neox.adapter / "adapter_config.json").read_text())["fan_in_fan_out"] is False
    ready = make_ready(trained_neox.recipe)
    lora = next(module for module in ready.trainer.model.modules() if hasattr(module, "lora_A"))
    lora.fan_in_fan_out = True
    bad = [one for one in preflight_model.check(ready) if one.state == "bad"]
    assert [one.name for one in bad] == ["LoRA"]
    assert "fan_in_fan_out" in bad[0].seen


def test_koalpaca_20_67_what_does_not_fit_is_said_before_anything_is_loaded(
    pains_recipe: Make, make_ready: Any, tmp_path: Path
) -> None:
    """Weights on the meta device, or no memory left after an hour of loading."""
    words = ["plan", "polyglot-ko-12.8b", "--shape", "polyglot-ko-12.8b", "--card", "3090", "--budget", "6"]
    done = CliRunner().invoke(cli, words)
    assert (done.exit_code, "error [memory-short]" in done.output) == (2, True)
    ready = make_ready(pains_recipe(tmp_path / "run", quantization={"load_in_4bit": True}))
    assert {p.device.type for p in ready.trainer.model.parameters()} == {"cpu"}
    (device,) = [one for one in preflight.of_model(ready) if "device" in one.name]
    assert device.state == "ok"
    ready.trainer.model.get_input_embeddings().to("meta")
    (device,) = [one for one in preflight.of_model(ready) if "device" in one.name]
    assert device.state == "bad"
