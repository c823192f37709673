"""`koalpaca export` as a user calls it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from koalpaca_tune import jsonl
from koalpaca_tune.cli.main import cli


def koalpaca(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def merged(model_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A model that `koalpaca merge` might have left."""
    folder = Path(shutil.copytree(model_folders["gpt_neox"], tmp_path / "merged"))
    jsonl.write_json(
        folder / "record.json", {"kind": "merged", "name": "상담 bot", "template": {"name": "koalpaca"}}
    )
    return folder


def test_gguf_tells_what_was_compared(merged: Path, tmp_path: Path, no_llama_cpp: None) -> None:
    pytest.importorskip("gguf", reason="needs the package gguf (extra: export)")
    result = koalpaca("export", "gguf", merged, "--out", tmp_path / "m.gguf", "--type", "q8_0")
    assert result.exit_code == 0, result.output
    assert "llama.cpp의 로짓과는 비교하지 않았습니다" in result.output
    assert "같은 토큰" in result.output
    assert (tmp_path / "m.gguf").stat().st_size > 10_000
    again = koalpaca("export", "gguf", merged, "--out", tmp_path / "m.gguf")
    assert again.exit_code == 2
    assert "error [export-out]" in again.output


def test_ollama_has_a_modelfile_beside_the_weights(merged: Path, tmp_path: Path, no_llama_cpp: None) -> None:
    pytest.importorskip("gguf", reason="needs the package gguf (extra: export)")
    out = tmp_path / "for ollama"
    result = koalpaca("export", "ollama", merged, "--out", out)
    assert result.exit_code == 0, result.output
    assert sorted(file.name for file in out.iterdir()) == ["Modelfile", "bot.gguf"]
    text = (out / "Modelfile").read_text(encoding="utf-8")
    assert text.startswith("FROM ./bot.gguf\n")
    assert "### 질문: " in text
    assert 'PARAMETER stop "<|endoftext|>"' in text


def test_vllm_of_a_merged_model(merged: Path, tmp_path: Path) -> None:
    result = koalpaca("export", "vllm", merged, "--out", tmp_path / "served")
    assert result.exit_code == 0, result.output
    assert f"vllm serve {merged}" in result.output.replace("\n", "")
    assert (tmp_path / "served" / "chat_template.jinja").is_file()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["gguf", "ADAPTER", "--out", "OUT"], "export-adapter"),
        (["gguf", "MERGED", "--out", "OUT", "--template", "llama2"], "export-template"),
        (["ollama", "embedded", "--out", "OUT", "--template", "tokenizer"], "template-own"),
        (["vllm", "MERGED", "ADAPTER", "--out", "OUT"], "adapter-missing"),
        (["vllm", "no/such/model/folder", "--out", "OUT"], "base-missing"),
    ],
)
def test_mistakes_are_one_line(words: list[str], code: str, merged: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    places = {"ADAPTER": str(adapter), "MERGED": str(merged), "OUT": str(tmp_path / "out")}
    result = koalpaca("export", *(places.get(word, word) for word in words))
    assert result.exit_code == 2
    assert result.output.startswith(f"error [{code}]: ")
    assert len(result.output.strip().splitlines()) == 2
    assert not (tmp_path / "out").exists()


def test_options_that_have_no_effect_are_refused(merged: Path, tmp_path: Path) -> None:
    for words in (["--onto", "trained"], ["ADAPTER", "--template", "koalpaca"]):
        result = koalpaca("export", "vllm", merged, *words, "--out", tmp_path / "out")
        assert result.exit_code == 2
        assert "Usage: " in result.output
