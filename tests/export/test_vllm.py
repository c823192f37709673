"""What vLLM is given: adapters where it takes them, merged weights where it does not, and always the template."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Base, Lora, Quantization
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.export import vllm
from koalpaca_tune.export.model import open_model
from koalpaca_tune.models import adapter, base

FULL = Quantization(load_in_4bit=False)


def make_adapter(model: Path, to: Path, *, name: str, r: int = 4, template: str = "koalpaca") -> Path:
    """A random adapter as a run leaves it."""
    loaded = base.load(Base(path=str(model)), FULL)
    targets = list(loaded.architecture.linears[:2])
    tuned: Any = adapter.attach(loaded, Lora(r=r, alpha=16, dropout=0.0, targets=targets), "base")
    assert isinstance(tuned, peft.PeftModel)
    torch.manual_seed(r)
    with torch.no_grad():
        for key, parameter in tuned.named_parameters():
            if ".lora_" in key:
                parameter.normal_(std=0.1)
    adapter.save(tuned, to)
    record = {
        "name": name,
        "recipe": {"quantization": FULL.model_dump()},
        "base": {"path": "someone/tiny", "revision": None, "fingerprint": loaded.fingerprint},
        "template": {"name": template},
        "tokenizer": {},
    }
    jsonl.write_json(to / "record.json", record)
    return to


@pytest.fixture(scope="module")
def llama_adapters(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    top = tmp_path_factory.mktemp("adapters")
    return [
        make_adapter(model_folders["llama"], top / "a", name="상담 Counsel"),
        make_adapter(model_folders["llama"], top / "b", name="summary_v2", r=12),
    ]


def options(command: str) -> dict[str, str]:
    words = shlex.split(command)
    return {
        word: words[n + 1] if n + 1 < len(words) and not words[n + 1].startswith("--") else ""
        for n, word in enumerate(words)
        if word.startswith("--")
    }


def test_adapters_of_llama_stand_side_by_side(
    model_folders: dict[str, Path], llama_adapters: list[Path], tmp_path: Path
) -> None:
    folder = model_folders["llama"]
    made = vllm.adapters(Base(path=str(folder)), llama_adapters, tmp_path / "my served")
    [command] = made.commands
    words, given = shlex.split(command), options(command)
    assert words[:3] == ["vllm", "serve", str(folder)]
    assert "--enable-lora" in given
    # ranks 4 and 12; vLLM takes 8, 16, 32, ...
    assert given["--max-lora-rank"] == "16"
    assert given["--max-loras"] == "2"
    at = words.index("--lora-modules")
    modules = dict(word.split("=", 1) for word in words[at + 1 : at + 3])
    assert list(modules) == ["counsel", "summary-v2"]
    for place, adapter_folder in zip(modules.values(), llama_adapters, strict=True):
        assert Path(place).is_absolute()
        names = {file.name for file in Path(place).iterdir()}
        assert names == {"adapter_config.json", "adapter_model.safetensors"}
        ours, theirs = (load_file(Path(one) / "adapter_model.safetensors") for one in (place, adapter_folder))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    template = Path(given["--chat-template"]).read_text(encoding="utf-8")
    # its tokenizer puts BOS in front, and a chat template is tokenised without that
    assert template.startswith('{{- "<|begin_of_text|>" -}}')
    settings = jsonl.read_json(Path(given["--generation-config"]) / "generation_config.json")
    vocabulary = open_model(Base(path=str(folder)), "koalpaca").vocabulary
    assert settings["eos_token_id"] == [vocabulary.id(vocabulary.eos)]
    script = made.folder / "serve.sh"
    assert script.read_text(encoding="utf-8").rstrip().endswith(command)
    assert os.access(script, os.X_OK)
    assert not made.merged


def test_neox_is_merged_and_the_reason_is_said(model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = model_folders["gpt_neox"]
    adapters = [make_adapter(folder, tmp_path / name, name=name) for name in ("one", "two")]
    made = vllm.adapters(Base(path=str(folder)), adapters, tmp_path / "served")
    assert "GPT-NeoX의 LoRA가 없어" in made.why
    assert [shlex.split(command)[2] for command in made.commands] == [
        str(tmp_path / "served" / name) for name in ("one", "two")
    ]
    assert [options(command).get("--port") for command in made.commands] == [None, "8001"]
    assert all("--enable-lora" not in command for command in made.commands)
    assert len(made.merged) == 2
    for command in made.commands:
        place = Path(shlex.split(command)[2])
        transformers.AutoModelForCausalLM.from_pretrained(place)
        assert options(command)["--chat-template"] == str(place / "chat_template.jinja")
        assert jsonl.read_json(place / "generation_config.json")["eos_token_id"]
    script = (tmp_path / "served" / "serve.sh").read_text(encoding="utf-8").splitlines()
    assert script[-2].endswith(" &")
    assert script[-1].startswith("exec vllm serve ")


def refused(call: Any) -> str:
    with pytest.raises(KoalpacaError) as caught:
        call()
    return caught.value.problems[0].code


def test_refusals(model_folders: dict[str, Path], llama_adapters: list[Path], tmp_path: Path) -> None:
    llama = Base(path=str(model_folders["llama"]))
    one, two = llama_adapters
    assert refused(lambda: vllm.adapters(llama, [one, one], tmp_path / "s")) == "export-names"
    other = Base(path=str(model_folders["gpt_neox"]))
    assert refused(lambda: vllm.adapters(other, [one], tmp_path / "s")) == "adapter-wrong-base"
    shaped = Path(shutil.copytree(two, tmp_path / "shaped"))
    record = jsonl.read_json(shaped / "record.json")
    jsonl.write_json(shaped / "record.json", {**record, "template": {"name": "llama3"}})
    assert refused(lambda: vllm.adapters(llama, [one, shaped], tmp_path / "s")) == "export-template-differs"
    assert not (tmp_path / "s").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    assert refused(lambda: vllm.adapters(llama, [one], tmp_path / "full")) == "export-out"


def test_a_whole_model(model_folders: dict[str, Path], tmp_path: Path) -> None:
    model = open_model(Base(path=str(model_folders["llama"])), "llama3")
    made = vllm.whole(model, tmp_path / "served")
    [command] = made.commands
    assert shlex.split(command)[2] == str(model_folders["llama"])
    assert options(command)["--dtype"] == "bfloat16"
    settings = jsonl.read_json(tmp_path / "served" / "generation_config.json")
    # a server that stops at EOS alone goes on after <|eot_id|>
    assert model.vocabulary.id("<|eot_id|>") in settings["eos_token_id"]


def test_what_was_merged_in_float32_is_served_in_it(model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folders["gpt_neox"], tmp_path / "merged"))
    record = {"name": "faint", "template": {"name": "koalpaca"}, "merge": {"dtype": "float32"}}
    jsonl.write_json(folder / "record.json", record)
    [command] = vllm.whole(open_model(Base(path=str(folder)), "koalpaca"), tmp_path / "served").commands
    assert options(command)["--dtype"] == "float32"
    assert options(command)["--served-model-name"] == "faint"
