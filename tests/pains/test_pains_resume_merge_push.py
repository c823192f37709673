"""Resumed, merged, pushed, served: what gets lost on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from koalpaca_tune import jsonl
from koalpaca_tune.cli.main import cli
from koalpaca_tune.config.preparation import Input
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.data import licences
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models.architectures import ARCHITECTURES
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.runs import adapters
from koalpaca_tune.runs import train as runs
from koalpaca_tune.templates.registry import TEMPLATES
from koalpaca_tune.templates.template import Markers

Make = Callable[..., Recipe]
TEXT = "아래는 작업을 설명하는 명령어입니다. 대한민국의 수도는 어디인가요?"


class Pulled(BaseException):
    """The plug."""


def test_transformers_29383_peft_859_a_resumed_run_trains_what_the_first_did(
    trained_neox: Any, pains_recipe: Make, make_ready: Any, tmp_path: Path
) -> None:
    """Resume fails, or goes on with nothing trainable. Here it ends with the bytes of the run that was not cut."""
    recipe = pains_recipe(tmp_path / "run")

    def pull(done: int, total: int, row: Any) -> None:
        if done == 3:
            raise Pulled

    folder = runs.check_folder(recipe, False)
    with pytest.raises(Pulled):
        runs.run(make_ready(recipe), folder, resume=False, progress=pull)
    again = make_ready(recipe)
    runs.check_folder(recipe, True)
    record = runs.run(again, folder, resume=True)
    assert record["trainable"] == trained_neox.record["trainable"] != {}
    assert [one["step"] for one in record["resumed"]] == [2]
    name = "adapter/adapter_model.safetensors"
    assert (folder / name).read_bytes() == (trained_neox.folder / name).read_bytes()


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([tokenizer(TEXT)["input_ids"]])).logits[0]
    return found


@pytest.fixture(scope="module")
def theirs(trained_neox: Any) -> dict[str, torch.Tensor]:
    """Base and adapter as transformers and PEFT read them, without a line of ours."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained_neox.base)
    base = transformers.AutoModelForCausalLM.from_pretrained(trained_neox.base)
    found = {"base": logits(base, tokenizer)}
    tuned = peft.PeftModel.from_pretrained(base, str(trained_neox.adapter)).eval()
    return {**found, "adapter": logits(tuned, tokenizer)}


@pytest.fixture(scope="module")
def merged_logits(merged_neox: Path) -> torch.Tensor:
    tokenizer = transformers.AutoTokenizer.from_pretrained(merged_neox)
    return logits(transformers.AutoModelForCausalLM.from_pretrained(merged_neox), tokenizer)


def test_peft_2321_2105_1043_merged_is_base_with_adapter(
    theirs: dict[str, torch.Tensor], merged_logits: torch.Tensor
) -> None:
    assert torch.allclose(merged_logits, theirs["adapter"], atol=1e-4)


def test_unsloth_869_merged_is_not_the_base(
    theirs: dict[str, torch.Tensor], merged_logits: torch.Tensor, trained_neox: Any, tmp_path: Path
) -> None:
    assert float((merged_logits - theirs["base"]).abs().mean()) > 0.05
    # an adapter that does nothing would give such a model: it is refused, and nothing is written
    dead = Path(shutil.copytree(trained_neox.adapter, tmp_path / "dead"))
    weights = load_file(dead / "adapter_model.safetensors")
    still = {name: value * 0 if ".lora_B." in name else value for name, value in weights.items()}
    save_file(still, dead / "adapter_model.safetensors", metadata={"format": "pt"})
    done = CliRunner().invoke(cli, ["merge", trained_neox.base, str(dead), "--out", str(tmp_path / "merged")])
    assert (done.exit_code, "error [adapter-dead]" in done.output) == (2, True)
    assert not (tmp_path / "merged").exists()


def test_transformers_33922_an_adapter_of_a_local_base_is_not_pushed(trained_neox: Any) -> None:
    """The push fails in the middle, or the page names a folder of somebody's machine."""
    words = ["hub", "push", str(trained_neox.adapter), "--repo", "me/small"]
    done = CliRunner().invoke(cli, words, env={"HF_TOKEN": ""})
    assert done.exit_code == 2
    assert "error [hub-local-base]" in done.output
    assert "koalpaca merge" in done.output


def test_vllm_9280_an_adapter_holds_lora_matrices_and_nothing_else(trained_neox: Any, tmp_path: Path) -> None:
    """Servers refuse whole modules (`modules_to_save`) beside the matrices."""
    config = jsonl.read_json(trained_neox.adapter / "adapter_config.json")
    assert not config["modules_to_save"]
    assert config["bias"] == "none"
    assert all(".lora_" in name for name in load_file(trained_neox.adapter / "adapter_model.safetensors"))
    other = Path(shutil.copytree(trained_neox.adapter, tmp_path / "other"))
    jsonl.write_json(other / "adapter_config.json", {**config, "modules_to_save": ["embed_out"]})
    with pytest.raises(KoalpacaError, match="'modules_to_save' is") as caught:
        adapters.open_model(adapters.choose(trained_neox.base, other, None, None))
    assert caught.value.problems[0].code == "adapter-config"


@pytest.fixture(scope="module")
def carded(trained_neox: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The card of the shared run's adapter, as if its data had come from a set that is not for business."""
    folder = Path(shutil.copytree(trained_neox.adapter, tmp_path_factory.mktemp("card") / "adapter"))
    given = Input.model_validate({"path": "source:koalpaca-v1.0"})
    record = jsonl.read_json(folder / "record.json")
    record["data"]["sources"] = licences.entries([licences.Taken("koalpaca", given, None, 9)])
    jsonl.write_json(folder / "record.json", record)
    done = CliRunner().invoke(cli, ["hub", "card", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return (folder / "README.md").read_text(encoding="utf-8")


def test_vllm_neox_the_card_says_that_the_adapter_must_be_merged(carded: str) -> None:
    """vLLM has no LoRA for GPTNeoXForCausalLM: the server starts, and answers as the base."""
    assert "koalpaca merge" in ARCHITECTURES["gpt_neox"].merged_only
    assert "vLLM" in carded
    assert "koalpaca merge" in carded
    assert not ARCHITECTURES["llama"].merged_only


def test_ollama_6823_a_merged_model_knows_its_template(trained_neox: Any, merged_neox: Path) -> None:
    """Nonsense from an exported model: the template was lost, and another one asks."""
    asked = adapters.choose(str(merged_neox), None, None, None)
    assert asked.template == trained_neox.recipe.template == "kullm-v2"
    assert adapters.DEFAULT_TEMPLATE != "kullm-v2"
    # other tools ask the tokenizer: its chat template writes what was learned
    question = Conversation((Turn("user", "한글은 누가 만들었나요?"),))
    words = transformers.AutoTokenizer.from_pretrained(merged_neox)
    spoken = words.apply_chat_template(
        [{"role": "user", "content": question.turns[0].content}], add_generation_prompt=True, tokenize=False
    )
    assert spoken == TEMPLATES["kullm-v2"].render(question, Markers(None, words.eos_token)).text


def test_koalpaca_97_14_kullm_13_the_card_says_what_the_data_allow(carded: str, trained_neox: Any) -> None:
    """Which licence is it? The data's own go from the files through the run to the page."""
    assert "CC-BY-NC-4.0" in carded
    assert "비상업" in carded
    # data of one's own, of which nothing was said, are unknown: not free
    (own,) = trained_neox.record["data"]["sources"]
    assert (own["licence"], own["noncommercial"]) == ("unknown", "unknown")
    assert json.dumps(own, ensure_ascii=False)
