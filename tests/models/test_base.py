"""A base is loaded as the recipe says, or there is an error: nothing is believed, the modules are asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from koalpaca_tune.config.recipe import Quantization
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import base, forward
from koalpaca_tune.models import proof as proofs
from koalpaca_tune.models.base import Loaded

Load = Callable[..., Loaded]
FULL = Quantization(load_in_4bit=False)
LINEARS = {"gpt_neox": 2 * 4, "llama": 2 * 7}


def family(loaded: Loaded) -> str:
    return str(loaded.model.config.model_type)


def code(action: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(KoalpacaError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return caught.value.problems[0].code, str(caught.value)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bits_as_asked(tiny: str, load: Load, kind: Any, double: bool) -> None:
    loaded = load(tiny, Quantization(bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=double))
    proof = loaded.proof
    assert (proof.linears_4bit, proof.linears_other) == (LINEARS[family(loaded)], 0)
    assert (proof.quant_type, proof.double_quant, proof.compute_dtype) == (kind, double, "float32")
    assert set(proof.dtypes) == {"float32"}


def test_full_precision_as_asked(tiny: str, load: Load) -> None:
    loaded = load(tiny)
    proof = loaded.proof
    assert (proof.linears_4bit, proof.linears_other) == (0, LINEARS[family(loaded)])
    assert (proof.quant_type, proof.double_quant, proof.compute_dtype) == (None, None, None)
    assert proof.dtypes == {"float32": sum(p.numel() for p in loaded.model.parameters())}


@pytest.mark.parametrize(
    ("asked", "compute", "resident"),
    [
        ("bfloat16", torch.bfloat16, "bfloat16"),
        ("float16", torch.float16, "float32"),
        ("auto", torch.float32, "float32"),
    ],
)
def test_the_compute_dtype_as_asked(tiny: str, load: Load, asked: Any, compute: torch.dtype, resident: str) -> None:
    """FasterTransformer#602: attention scores of GPT-NeoX overflow float16, so the rest stays in float32."""
    loaded = load(tiny, Quantization(bnb_4bit_compute_dtype=asked))
    assert loaded.compute_dtype == compute
    assert loaded.proof.compute_dtype == str(compute).removeprefix("torch.")
    assert set(loaded.proof.dtypes) == {resident}


def test_the_embedded_base_in_four_bits(load: Load) -> None:
    loaded = load("embedded", Quantization())
    assert (loaded.proof.linears_4bit, loaded.proof.linears_other) == (7 * 4, 0)
    assert family(loaded) == "gpt_neox"


def test_four_bit_weights_are_near_the_full_ones(tiny: str, load: Load) -> None:
    ids = torch.arange(20)[None]
    with torch.no_grad():
        full, four = (load(tiny, q).model(ids).logits for q in (FULL, Quantization()))
    error = float((full - four).norm() / full.norm())
    assert 0.0 < error < 0.5


def test_a_base_is_frozen_and_in_eval_mode(tiny: str, load: Load) -> None:
    model = load(tiny).model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


NF4 = Quantization()


@pytest.mark.parametrize(
    ("loaded_as", "asked", "said"),
    [
        (FULL, NF4, "linear modules are not 4-bit, 0 are"),
        (NF4, FULL, "modules are 4-bit, asked none"),
        (NF4, Quantization(bnb_4bit_quant_type="fp4"), "quant type is nf4, asked fp4"),
        (NF4, Quantization(bnb_4bit_use_double_quant=False), "double quantisation is True, asked False"),
        (Quantization(bnb_4bit_use_double_quant=False), NF4, "double quantisation is False, asked True"),
    ],
)
def test_a_base_loaded_otherwise_than_asked_is_refused(
    tiny: str, load: Load, loaded_as: Quantization, asked: Quantization, said: str
) -> None:
    """A tutorial builds BitsAndBytesConfig and never passes it; transformers#35581."""
    proof = load(tiny, loaded_as).proof
    name, message = code(lambda: base._compare(proof, asked, torch.float32, "some/base"))
    assert name == "quantization-not-applied"
    assert message.startswith("some/base: the base was not loaded as asked: ")
    assert said in message


@pytest.mark.parametrize(
    ("asked", "said"), [(NF4, "quant type is fp4, asked nf4"), (FULL, "modules are 4-bit, asked none")]
)
def test_transformers_35581_a_base_quantised_on_disk_overrules_what_is_asked(
    tiny: str, load: Load, tmp_path: Path, asked: Quantization, said: str
) -> None:
    """transformers keeps the settings stored in the folder, and only warns that ours are not used."""
    fp4 = load(tiny, Quantization(bnb_4bit_quant_type="fp4"))
    shutil.copytree(tiny, tmp_path / "base")
    fp4.model.save_pretrained(tmp_path / "base")
    name, message = code(lambda: load(tmp_path / "base", asked))
    assert name == "quantization-not-applied"
    assert said in message


def test_another_compute_dtype_than_asked_is_refused(tiny: str, load: Load) -> None:
    proof = load(tiny, NF4).proof
    _, message = code(lambda: base._compare(proof, NF4, torch.bfloat16, "x"))
    assert "compute dtype is float32, asked torch.bfloat16" in message


def test_a_single_module_left_out_is_seen(tiny: str, load: Load) -> None:
    loaded = load(tiny, NF4)
    block = next(m for m in loaded.model.modules() if type(m).__name__.endswith("MLP"))
    name = next(iter(dict(block.named_children())))
    old = getattr(block, name)
    setattr(block, name, torch.nn.Linear(old.in_features, old.out_features))
    name, message = code(lambda: base._compare(base.prove(loaded.model), NF4, torch.float32, "x"))
    assert name == "quantization-not-applied"
    assert f"1 linear modules are not 4-bit, {LINEARS[family(loaded)] - 1} are" in message


def test_modules_that_disagree_are_seen(tiny: str, load: Load) -> None:
    proof = replace(load(tiny, NF4).proof, quant_type=proofs._only({"nf4", "fp4"}))
    assert (
        "quant type is mixed: fp4, nf4, asked nf4" in code(lambda: base._compare(proof, NF4, torch.float32, "x"))[1]
    )


@pytest.fixture
def copied(tiny: str, tmp_path: Path) -> Path:
    """A folder of the base that a test may spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "base"))


def test_pickled_weights_are_refused(copied: Path, load: Load) -> None:
    weights = load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    torch.save(weights, copied / "pytorch_model.bin")
    name, message = code(lambda: load(copied))
    assert name == "base-load"
    assert "no file named model.safetensors" in message


@pytest.mark.parametrize("quantization", [FULL, NF4], ids=["full", "4bit"])
def test_a_weight_that_the_files_lack_is_not_made_up(copied: Path, load: Load, quantization: Quantization) -> None:
    weights = load_file(copied / "model.safetensors")
    lacking = sorted(name for name in weights if "mlp" in name and name.endswith("weight"))[-1]
    del weights[lacking]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    name, message = code(lambda: load(copied, quantization))
    assert name == "base-incomplete"
    assert f"first: {lacking}." in message


def test_a_weight_of_another_shape_is_not_made_up(copied: Path, load: Load) -> None:
    weights = load_file(copied / "model.safetensors")
    name = sorted(name for name in weights if "mlp" in name and name.endswith("weight"))[0]
    weights[name] = weights[name][:5].clone()
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert code(lambda: load(copied))[0] == "base-incomplete"


def test_damaged_weights_are_one_clear_error(copied: Path, load: Load) -> None:
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert code(lambda: load(copied))[0] == "base-load"


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "nonsense"}', "{}"])
def test_a_config_that_is_none_is_one_clear_error(copied: Path, load: Load, text: str) -> None:
    (copied / "config.json").write_text(text, encoding="utf-8")
    assert code(lambda: load(copied))[0] == "base-load"


def test_another_family_is_named(copied: Path, load: Load) -> None:
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    (copied / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}), encoding="utf-8")
    name, message = code(lambda: load(copied))
    assert name == "architecture-unknown"
    assert message == f"{copied}: the base is of type 'gpt2'. Supported: gpt_neox, llama."


def test_a_base_without_a_tokenizer(copied: Path, load: Load) -> None:
    for file in copied.glob("tokenizer*"):
        file.unlink()
    assert code(lambda: load(copied))[0] in ("base-load", "tokenizer-kind")


@pytest.mark.parametrize("path", ["./lacking", "/lacking/model", "embeded", "a/b/c", "weights/model.safetensors"])
def test_a_path_that_is_no_model(load: Load, path: str) -> None:
    assert code(lambda: load(path)) == (
        "base-missing",
        f"{path}: there is no such model folder. Give a folder with config.json, a Hub name such as "
        "EleutherAI/polyglot-ko-1.3b, or 'embedded'.",
    )


def test_a_folder_without_a_config(tmp_path: Path, load: Load) -> None:
    assert code(lambda: load(tmp_path)) == ("base-missing", f"{tmp_path}: there is no config.json in the folder.")


def test_a_hub_name_that_cannot_be_reached_is_one_line_without_the_token(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "huggingface.co")
    name, message = code(lambda: load("nobody/nothing"))
    assert name == "base-load"
    assert message.startswith("nobody/nothing: the model cannot be loaded: ")
    assert "huggingface.co" not in message


def test_the_fingerprint_is_that_of_the_weights(tiny: str, copied: Path, load: Load) -> None:
    same = load(tiny).fingerprint
    assert load(copied).fingerprint == same
    weights = load_file(copied / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name] + 1e-3
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert load(copied).fingerprint != same


def test_the_head_and_the_body_are_those_of_the_model(tiny: str, load: Load) -> None:
    loaded = load(tiny)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        expected = loaded.model(ids).logits
        states = forward.hidden(loaded.model, loaded.architecture, ids, ids)
        assert torch.equal(forward.head(loaded.model, states), expected)
