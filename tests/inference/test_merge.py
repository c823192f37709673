"""Merged equals unmerged, as read back from the disk (peft#2321, unsloth#869); wrong merges are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Base, Quantization
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.inference.merging import merge as merging
from koalpaca_tune.inference.merging import shards, weights
from koalpaca_tune.inference.merging.merge import merge
from koalpaca_tune.inference.merging.report import MergeReport, Onto
from koalpaca_tune.models import adapter as adapters
from koalpaca_tune.models import base as bases
from koalpaca_tune.models import tokenizer
from koalpaca_tune.records import Rendered
from koalpaca_tune.templates.template import content
from koalpaca_tune.tokens.encode import Encoder

SHORT = ("물은 몇 도에서 끓나요?", "서울은 대한민국의 수도이다.")


def run(base: Path, adapter: Path, out: Path, dtype: str = "float32", onto: Onto = "base") -> MergeReport:
    return merge(Base(path=str(base)), adapter, out, dtype=dtype, texts=SHORT, onto=onto)


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
    assert stages[-2:] == ["합치기 (merging): 1/1 파일", "다시 읽어 비교 (reading it back)"]
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


def test_koalpaca_7_the_merged_tokenizer_makes_no_token_types(
    base_folder: Path, adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KoAlpaca#7: `generate(**tokenizer(text))` ends on token_type_ids, which GPT-NeoX does not take."""
    read = tokenizer.load_pretrained

    def with_types(path: str, revision: str | None = None) -> Any:
        words = read(path, revision)
        words.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
        return words

    monkeypatch.setattr(tokenizer, "load_pretrained", with_types)
    out = run(base_folder, adapter_folder, tmp_path / "merged").out
    words = transformers.AutoTokenizer.from_pretrained(out)
    assert set(words("물은?")) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_says_its_rounding(
    base_folder: Path, adapter_folder: Path, tmp_path: Path, dtype: str
) -> None:
    report = run(base_folder, adapter_folder, tmp_path / "merged", dtype)
    assert 0.0 < report.merged.mean < report.effect.mean
    stored = load_file(report.out / "model.safetensors")
    assert {str(value.dtype) for value in stored.values()} == {f"torch.{dtype}"}


def test_adapter_of_a_4bit_run_is_held_against_the_4bit_base(
    base_folder: Path, four_bit_run: Path, tmp_path: Path
) -> None:
    report = run(base_folder, four_bit_run, tmp_path / "merged")
    assert report.merged.largest < 1e-4
    assert report.trained is not None
    assert report.trained.mean > report.merged.mean
    assert len(report.lines()) == 5
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
    assert not list(out.parent.glob(f".{out.name}.*"))


def test_refusals(base_folder: Path, adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused("merge-dtype", base_folder, adapter_folder, tmp_path / "m", "int8")
    refused("adapter-missing", base_folder, tmp_path, tmp_path / "m")
    monkeypatch.setattr(merging, "MARGIN", 1 << 60)
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


def logits_of(folder: Path, text: str) -> torch.Tensor:
    """By transformers alone, as a reader of the folder would."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits: torch.Tensor = model(words(text, return_tensors="pt")["input_ids"]).logits[0]
    return logits


def test_onto_trained_is_the_4bit_model_itself(base_folder: Path, four_bit_run: Path, tmp_path: Path) -> None:
    report = run(base_folder, four_bit_run, tmp_path / "merged", onto="trained")
    # products in another order: bitsandbytes' and ours
    assert report.merged.largest < 1e-3
    loaded = bases.load(Base(path=str(base_folder)), Quantization(load_in_4bit=True))
    template = loaded.vocabulary.template("koalpaca")
    model = adapters.load(loaded, four_bit_run)
    lm = TorchLanguageModel(model, loaded, Encoder(loaded.vocabulary, template))
    [as_trained] = lm.logits([Rendered((content(SHORT[0]),))])
    ours = logits_of(report.out, SHORT[0])
    assert torch.allclose(ours, as_trained, atol=2e-3)
    full = logits_of(run(base_folder, four_bit_run, tmp_path / "full").out, SHORT[0])
    assert float((full - as_trained).abs().mean()) > 20 * float((ours - as_trained).abs().mean())


def test_there_is_nothing_trained_beside_without_a_4bit_run(
    base_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(KoalpacaError, match="not trained on a 4-bit base") as caught:
        run(base_folder, adapter_folder, tmp_path / "m", onto="trained")
    assert caught.value.problems[0].code == "merge-onto"


def test_a_merge_that_was_stopped_goes_on_and_ends_in_the_same_bytes(
    base_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    pieces = {"dtype": "bfloat16", "texts": SHORT, "limit": 100_000}
    merge(Base(path=str(base_folder)), adapter_folder, whole, **pieces)  # type: ignore[arg-type]
    files = sorted(file.name for file in whole.glob("model-*.safetensors"))
    assert len(files) > 3
    index = json.loads((whole / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index.values()) == set(files)

    def stop(what: str) -> None:
        if "2/" in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(Base(path=str(base_folder)), adapter_folder, out, say=stop, **pieces)  # type: ignore[arg-type]
    assert not out.exists()
    aside = tmp_path / ".stopped.merging"
    kept = aside / files[0]
    before = kept.stat().st_mtime_ns
    # the second file is damaged while the machine is off: it is written again, the first is not
    (aside / files[1]).write_bytes(b"half")
    counts: list[str] = []
    merge(Base(path=str(base_folder)), adapter_folder, out, say=counts.append, **pieces)  # type: ignore[arg-type]
    assert counts[0].startswith("합치기 (merging): 1/")
    assert (out / files[0]).stat().st_mtime_ns == before
    for name in (*files, "model.safetensors.index.json", "config.json", "tokenizer.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert not aside.exists()
    assert not (out / "progress.json").exists()
    assert torch.equal(logits_of(out, SHORT[0]), logits_of(whole, SHORT[0]))


def test_what_another_merge_left_is_not_taken_over(base_folder: Path, adapter_folder: Path, tmp_path: Path) -> None:
    def stop(what: str) -> None:
        if "1/1" in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(Base(path=str(base_folder)), adapter_folder, tmp_path / "m", dtype="bfloat16", texts=SHORT, say=stop)
    run(base_folder, adapter_folder, tmp_path / "m", "float32")
    stored = load_file(tmp_path / "m" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float32}


def test_two_merges_into_one_folder_at_once(base_folder: Path, adapter_folder: Path, tmp_path: Path) -> None:
    with shards.workplace(tmp_path / "m", {}), pytest.raises(KoalpacaError, match="another merge writes there"):
        run(base_folder, adapter_folder, tmp_path / "m")


def test_an_index_that_points_elsewhere_is_refused(base_folder: Path, adapter_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base_folder, tmp_path / "base"))
    for where in ("../outside.safetensors", "/etc/passwd", "model.bin"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a.weight": where}}))
        with pytest.raises(KoalpacaError) as caught:
            weights.read(folder)
        assert caught.value.problems[0].code == "base-load"


def test_quantised_files_and_older_buffers(tmp_path: Path) -> None:
    whole = {
        "gpt_neox.layers.0.attention.bias": torch.ones(4, 4, dtype=torch.bool),
        "gpt_neox.layers.0.attention.dense.bias": torch.zeros(4),
    }
    save_file(whole, tmp_path / "model.safetensors")
    assert list(weights.read(tmp_path).entries) == ["gpt_neox.layers.0.attention.dense.bias"]
    save_file({"a.weight": torch.zeros(4, dtype=torch.uint8)}, tmp_path / "model.safetensors")
    with pytest.raises(KoalpacaError, match="quantised already"):
        weights.read(tmp_path)


def test_the_folder_says_its_template_and_any_user_may_read_it(
    base_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    out = run(base_folder, adapter_folder, tmp_path / "m").out
    words = transformers.AutoTokenizer.from_pretrained(out)
    asked = [{"role": "user", "content": "물은 몇 도에서 끓나요?"}]
    text = words.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    begin = words.bos_token or ""
    assert text == f"{begin}### 질문: 물은 몇 도에서 끓나요?\n\n### 답변:"
    modes = {file.stat().st_mode & 0o777 for file in out.iterdir()}
    assert len(modes) == 1


def test_a_base_with_code_of_its_own_is_refused_before_anything_is_written(
    base_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(base_folder, tmp_path / "base"))
    config = jsonl.read_json(folder / "config.json")
    jsonl.write_json(folder / "config.json", {**config, "auto_map": {"AutoConfig": "mine.Mine"}})
    with pytest.raises(KoalpacaError):
        run(folder, adapter_folder, tmp_path / "m")
    with pytest.raises(KoalpacaError, match="asks for code of its own") as caught:
        merging._check_plain(folder, Base(path=str(folder)))
    assert caught.value.problems[0].code == "merge-base"
    assert not list(tmp_path.glob("*m*"))
