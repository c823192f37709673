"""LoRA: where it is asked for and nowhere else, alive after saving, refused where it does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from koalpaca_tune.config.recipe import Lora, Quantization
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import adapter, architectures
from koalpaca_tune.models.base import Loaded

Load = Callable[..., Loaded]
Attach = Callable[..., Any]
NF4 = Quantization()
IDS = torch.arange(4, 40)[None]


def linears(loaded: Loaded) -> list[str]:
    return list(architectures.ARCHITECTURES[loaded.model.config.model_type].linears)


def sizes(loaded: Loaded) -> dict[str, int]:
    """in + out of every linear module, summed by name."""
    found: dict[str, int] = {}
    for name, module in loaded.model.named_modules():
        last = name.rsplit(".", 1)[-1]
        if last in linears(loaded):
            found[last] = found.get(last, 0) + module.in_features + module.out_features
    return found


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(input_ids=IDS).logits
    return out


@pytest.mark.parametrize("quantization", [None, NF4], ids=["full", "4bit"])
def test_trainable_parameters_are_r_times_in_plus_out(tiny: str, load: Load, quantization: Any) -> None:
    loaded = load(tiny, quantization) if quantization else load(tiny)
    expected = {name: 4 * size for name, size in sizes(loaded).items()}
    assert len(expected) == len(linears(loaded))
    model = adapter.attach(loaded, Lora(r=4, targets=linears(loaded)), "some/base")
    assert adapter.trainable(model) == expected
    assert all(p.requires_grad == (".lora_" in name) for name, p in model.named_parameters())
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


def test_one_target_is_one_target(tiny: str, load: Load) -> None:
    """`dense` of GPT-NeoX must not take dense_h_to_4h along."""
    for target in linears(load(tiny)):
        loaded = load(tiny)
        expected = 8 * sizes(loaded)[target]
        assert adapter.trainable(adapter.attach(loaded, Lora(targets=[target]), "x")) == {target: expected}


def test_an_unknown_target_names_the_nearest(tiny_bases: dict[str, str], load: Load) -> None:
    with pytest.raises(KoalpacaError) as caught:
        adapter.attach(load(tiny_bases["gpt_neox"]), Lora(targets=["dense", "query_key_valeu"]), "x")
    assert caught.value.problems[0].code == "lora-target"
    assert str(caught.value) == (
        "lora.targets[1]: 'query_key_valeu' matches no linear module of gpt_neox. Did you mean 'query_key_value'?"
    )


@pytest.mark.parametrize(
    ("family", "target"),
    [("llama", "query_key_value"), ("gpt_neox", "q_proj"), ("llama", "lm_head"), ("gpt_neox", "embed_out")],
)
def test_a_target_of_another_family_or_the_head_is_refused(
    tiny_bases: dict[str, str], load: Load, family: str, target: str
) -> None:
    with pytest.raises(KoalpacaError, match=f"'{target}' matches no linear module of {family}"):
        adapter.attach(load(tiny_bases[family]), Lora(targets=[target]), "x")


def test_a_target_twice_is_refused(tiny_bases: dict[str, str], load: Load) -> None:
    with pytest.raises(KoalpacaError) as caught:
        adapter.attach(load(tiny_bases["llama"]), Lora(targets=["q_proj", "q_proj"]), "x")
    assert str(caught.value) == "lora.targets: 'q_proj' stands twice. Keep one."


@pytest.mark.parametrize("quantization", [None, NF4], ids=["full", "4bit"])
def test_a_fresh_adapter_changes_nothing_and_one_switched_off_neither(
    tiny: str, load: Load, attach: Attach, quantization: Any
) -> None:
    asked = [quantization] if quantization else []
    base = logits(load(tiny, *asked).model)
    loaded = load(tiny, *asked)
    model = attach(loaded, linears(loaded), alive=False)
    assert torch.equal(logits(model), base)
    assert adapter.is_zero(model)
    loaded = load(tiny, *asked)
    model = attach(loaded, linears(loaded))
    assert not adapter.is_zero(model)
    assert (logits(model) - base).abs().max() > 0.1
    with model.disable_adapter():
        assert torch.equal(logits(model), base)


@pytest.mark.parametrize("quantization", [None, NF4], ids=["full", "4bit"])
def test_a_saved_adapter_reads_back_as_it_was(
    tiny: str, load: Load, attach: Attach, tmp_path: Path, quantization: Any
) -> None:
    """alpaca-lora#446, #293 (443-byte file); peft#793 (tuned = base)."""
    asked = [quantization] if quantization else []
    loaded = load(tiny, *asked)
    model = attach(loaded, linears(loaded))
    adapter.save(model, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [adapter.CONFIG, adapter.WEIGHTS]
    parameters = sum(adapter.trainable(model).values())
    assert (tmp_path / adapter.WEIGHTS).stat().st_size > 4 * parameters
    again = adapter.load(load(tiny, *asked), tmp_path)
    assert torch.equal(logits(again), logits(model))
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert not again.training


def test_the_config_on_disk_is_pefts(tiny: str, load: Load, attach: Attach, tmp_path: Path) -> None:
    loaded = load(tiny)
    adapter.save(attach(loaded, linears(loaded)[:2]), tmp_path)
    config = json.loads((tmp_path / adapter.CONFIG).read_text(encoding="utf-8"))
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["lora_dropout"]) == ("LORA", 4, 16, 0.05)
    assert sorted(config["target_modules"]) == sorted(linears(loaded)[:2])
    assert config["base_model_name_or_path"] == "some/base"
    # axolotl's pythia examples set this for GPT-NeoX, whose weights are [out, in]
    assert config["fan_in_fan_out"] is False
    # vllm#9280: an adapter with whole modules is refused by servers
    assert config["modules_to_save"] is None


@pytest.fixture
def saved(tiny: str, load: Load, attach: Attach, tmp_path: Path) -> Path:
    loaded = load(tiny)
    adapter.save(attach(loaded, linears(loaded)), tmp_path)
    return tmp_path


def refused(loaded: Loaded, folder: Path) -> tuple[str, str]:
    with pytest.raises(KoalpacaError) as caught:
        adapter.load(loaded, folder)
    assert "\n" not in str(caught.value)
    return caught.value.problems[0].code, str(caught.value)


def test_an_adapter_of_the_other_family_is_one_clear_error(
    tiny: str, tiny_bases: dict[str, str], load: Load, saved: Path
) -> None:
    other = next(folder for folder in tiny_bases.values() if folder != tiny)
    name, message = refused(load(other), saved)
    assert name == "adapter-load"
    assert message.startswith(f"{saved}: the adapter does not fit the base: ")


@pytest.mark.parametrize("change", ["lacking", "extra"])
def test_matrices_without_a_counterpart_are_refused(tiny: str, load: Load, saved: Path, change: str) -> None:
    """PEFT warns only, and half of the adapter would be missing from every answer."""
    weights = load_file(saved / adapter.WEIGHTS)
    name = min(weights)
    if change == "lacking":
        del weights[name]
    else:
        name = name.replace("layers.0", "layers.9")
        weights[name] = torch.zeros(4, 64)
    save_file(weights, saved / adapter.WEIGHTS)
    assert refused(load(tiny), saved) == (
        "adapter-load",
        f"{saved}: the adapter does not fit the base: 1 of its matrices have no counterpart; first: {name}.",
    )


def test_matrices_of_another_width_are_refused(tiny: str, load: Load, saved: Path) -> None:
    weights = load_file(saved / adapter.WEIGHTS)
    save_file({**weights, min(weights): torch.zeros(4, 3)}, saved / adapter.WEIGHTS)
    assert refused(load(tiny), saved)[0] == "adapter-load"


@pytest.mark.parametrize("name", [adapter.WEIGHTS, adapter.CONFIG])
@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_file_is_one_clear_error(tiny: str, load: Load, saved: Path, name: str, text: str) -> None:
    (saved / name).write_text(text, encoding="utf-8")
    assert refused(load(tiny), saved)[0] == "adapter-load"


@pytest.mark.parametrize("name", [adapter.WEIGHTS, adapter.CONFIG])
def test_a_folder_that_is_no_adapter(tiny: str, load: Load, saved: Path, name: str) -> None:
    (saved / name).rename(saved / "adapter_model.bin")
    assert refused(load(tiny), saved) == (
        "adapter-missing",
        f"{saved}: there is no {name} in the folder. Give the 'adapter' folder of a run.",
    )


def test_a_file_that_differs_from_memory_is_seen(
    tiny: str, load: Load, attach: Attach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(tiny)
    model = attach(loaded, linears(loaded)[:1])
    real = adapter.load_file

    def one_bit_off(path: Path) -> dict[str, torch.Tensor]:
        weights = real(path)
        weights[min(weights)][0, 0] += 1.0
        return weights

    monkeypatch.setattr(adapter, "load_file", one_bit_off)
    with pytest.raises(KoalpacaError, match="the saved adapter differs from memory"):
        adapter.save(model, tmp_path)
