"""Merged equals unmerged, as read back from the disk (peft#2321, unsloth#869); wrong merges are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Base
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference import merge as merging
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.inference.merge import MergeReport, merge
from koalpaca_tune.records import Rendered
from koalpaca_tune.templates.template import content

SHORT = ("물은 몇 도에서 끓나요?", "서울은 대한민국의 수도이다.")


def run(base: Path, adapter: Path, out: Path, dtype: str = "float32") -> MergeReport:
    return merge(Base(path=str(base)), adapter, out, dtype=dtype, texts=SHORT)


def test_merged_equals_adapter_and_is_a_plain_model(
    base_folder: Path, adapter_folder: Path, tuned: TorchLanguageModel, tmp_path: Path
) -> None:
    stages: list[str] = []
    report = merge(
        Base(path=str(base_folder)), adapter_folder, tmp_path / "merged", dtype="float32", say=stages.append
    )
    assert report.merged.largest < 1e-4
    assert report.merged.same_argmax == 1.0
    assert report.effect.mean > 0.01
    assert report.trained is None
    assert len(report.lines()) == 3
    assert len(stages) == 2
    # by transformers alone, as a reader of the folder would
    model = transformers.AutoModelForCausalLM.from_pretrained(report.out)
    words = transformers.AutoTokenizer.from_pretrained(report.out)
    ids = words("대한민국의 수도는", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        theirs = model(ids).logits[0]
    ours = tuned.logits([Rendered((content("대한민국의 수도는"),))])[0]
    assert torch.allclose(theirs, ours, atol=1e-4)


def test_what_lies_in_the_folder(base_folder: Path, adapter_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "merged"
    run(base_folder, adapter_folder, out)
    names = {file.name for file in out.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "record.json"} <= names
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pkl", ".tmp"))}
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == [0]
    record = jsonl.read_json(out / "record.json")
    assert record["kind"] == "merged"
    assert record["template"]["name"] == "koalpaca"
    assert record["base"]["path"] == base_folder.name
    assert str(tmp_path.parent) not in (out / "record.json").read_text()
    assert [one.name for one in out.parent.iterdir()] == ["merged"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_says_its_rounding(
    base_folder: Path, adapter_folder: Path, tmp_path: Path, dtype: str
) -> None:
    report = run(base_folder, adapter_folder, tmp_path / "merged", dtype)
    assert 0.0 < report.merged.mean < report.effect.mean
    weights = load_file(report.out / "model.safetensors")
    assert {str(value.dtype) for value in weights.values()} == {f"torch.{dtype}"}


def test_adapter_of_a_4bit_run_is_held_against_the_4bit_base(
    base_folder: Path, four_bit_run: Path, tmp_path: Path
) -> None:
    report = run(base_folder, four_bit_run, tmp_path / "merged")
    assert report.merged.largest < 1e-4
    assert report.trained is not None
    assert report.trained.mean > report.merged.mean
    assert len(report.lines()) == 4
    assert jsonl.read_json(report.out / "record.json")["merge"]["trained"]["mean"] == report.trained.mean


def test_wrong_base_is_refused_before_anything_is_written(
    other_base: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(KoalpacaError, match="the adapter was trained on someone/tiny") as caught:
        run(other_base, adapter_folder, tmp_path / "merged")
    assert caught.value.problems[0].code == "adapter-wrong-base"
    assert not (tmp_path / "merged").exists()


def test_existing_folder_is_refused_an_empty_one_is_used(
    base_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    (tmp_path / "empty").mkdir()
    with pytest.raises(KoalpacaError, match="not an empty folder"):
        run(base_folder, adapter_folder, tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"
    run(base_folder, adapter_folder, tmp_path / "empty")
    assert (tmp_path / "empty" / "model.safetensors").is_file()


def refused(code: str, base_folder: Path, adapter_folder: Path, out: Path, dtype: str = "float32") -> None:
    with pytest.raises(KoalpacaError) as caught:
        run(base_folder, adapter_folder, out, dtype)
    assert caught.value.problems[0].code == code
    assert not out.exists()
    assert not list(out.parent.glob(".*.tmp"))


def test_refusals(base_folder: Path, adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused("merge-dtype", base_folder, adapter_folder, tmp_path / "m", "int8")
    refused("adapter-missing", base_folder, tmp_path, tmp_path / "m")
    monkeypatch.setattr(merging, "_size", lambda config, dtype: 1 << 60)
    refused("merge-space", base_folder, adapter_folder, tmp_path / "m")


def test_an_adapter_that_does_nothing_is_said(base_folder: Path, adapter_folder: Path, tmp_path: Path) -> None:
    dead = changed(adapter_folder, tmp_path / "dead", 0.0)
    refused("adapter-dead", base_folder, dead, tmp_path / "m")


def test_an_adapter_below_the_rounding_is_not_merged_away(
    base_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    faint = changed(adapter_folder, tmp_path / "faint", 1e-5)
    refused("merge-lost", base_folder, faint, tmp_path / "m", "float16")
    assert run(base_folder, faint, tmp_path / "m").effect.mean < 1e-3


def changed(adapter_folder: Path, to: Path, factor: float) -> Path:
    """The adapter with its B matrices scaled."""
    shutil.copytree(adapter_folder, to)
    weights = load_file(to / "adapter_model.safetensors")
    scaled = {name: value * factor if ".lora_B." in name else value for name, value in weights.items()}
    save_file(scaled, to / "adapter_model.safetensors", metadata={"format": "pt"})
    return to
