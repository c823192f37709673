"""What is sent, what never is; and the real client against a small Hub on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import card, push
from koalpaca_tune.hub.public import file_name, is_hub_name, scrub

SECRET = "hf_" + "Zq9" * 11


@pytest.fixture
def ready(adapter: Path) -> Path:
    card.write(adapter, None, repo="me/talk", license=None, data_licenses=[])
    return adapter


def refused(code: str, adapter: Path, repo: str = "me/talk") -> str:
    with pytest.raises(KoalpacaError) as caught:
        push.plan(adapter, repo, True)
    assert caught.value.problems[0].code == code
    return str(caught.value)


def test_plan_lists_four_files_with_the_sizes_that_go(ready: Path) -> None:
    plan = push.plan(ready, "me/talk", True)
    assert [name for name, _ in plan.files] == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "record.json",
    ]
    sizes = dict(plan.files)
    assert sizes["README.md"] == (ready / "README.md").stat().st_size
    # places are taken out of it
    assert 0 < sizes["record.json"] < (ready / "record.json").stat().st_size
    assert plan.private


@pytest.mark.parametrize(
    "repo",
    ["talk", "a/b/c", "me/ta lk", "me/.talk", "me/a--b", "me/talk.git", "", "https://huggingface.co/me/talk"],
)
def test_names_that_are_none(ready: Path, repo: str) -> None:
    assert "user/name" in refused("hub-repo", ready, repo)


@pytest.mark.parametrize("base", ["embedded", "/models/polyglot", "./polyglot", "polyglot", "C:\\models\\polyglot"])
def test_a_base_that_nobody_could_load(ready: Path, record: dict[str, Any], base: str) -> None:
    record["base"]["path"] = base
    jsonl.write_json(ready / "record.json", record)
    assert "koalpaca merge" in refused("hub-local-base", ready)


def test_a_folder_named_like_a_hub_model_is_local(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_hub_name("EleutherAI/polyglot-ko-1.3b")
    (tmp_path / "EleutherAI" / "polyglot-ko-1.3b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    refused("hub-local-base", ready)


def test_no_card_no_push(adapter: Path) -> None:
    assert "koalpaca hub card" in refused("hub-card-missing", adapter)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("adapter_model.bin", "hub-pickle"),
        ("optimizer.pt", "hub-pickle"),
        ("train.jsonl", "hub-extra-file"),
        (".env", "hub-extra-file"),
        ("checkpoints", "hub-extra-file"),
    ],
)
def test_nothing_else_goes(ready: Path, name: str, code: str) -> None:
    (ready / name).write_bytes(b"x")
    assert name in refused(code, ready)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "record.json"])
def test_a_missing_file(ready: Path, name: str) -> None:
    (ready / name).unlink()
    assert name in refused("adapter-missing", ready)


@pytest.mark.parametrize("kept", [0, 5, 40, -1])
def test_a_cut_off_adapter(ready: Path, kept: int) -> None:
    file = ready / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    refused("hub-adapter-damaged", ready)


def test_an_empty_adapter(ready: Path) -> None:
    header = b'{"__metadata__":{"format":"pt"}}'
    (ready / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "without LoRA matrices" in refused("hub-adapter-damaged", ready)


def test_a_token_in_the_card(ready: Path) -> None:
    file = ready / "README.md"
    file.write_text(file.read_text(encoding="utf-8") + f"\n{SECRET}\n", encoding="utf-8")
    assert SECRET not in refused("hub-secret", ready)


def test_no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(KoalpacaError, match="hf auth login"):
        push.token()
    monkeypatch.setattr("huggingface_hub.get_token", lambda: SECRET)
    assert push.token() == SECRET


def test_scrubbed_records_keep_all_but_places(record: dict[str, Any]) -> None:
    clean = scrub(record)
    text = json.dumps(clean, ensure_ascii=False)
    assert "kim" not in text
    assert "prep/" not in text
    assert clean["data"]["train"]["path"] == clean["recipe"]["data"]["train"] == "train.jsonl"
    assert clean["recipe"]["out"] == "talk"
    assert clean["base"] == record["base"]
    assert clean["proof"] == record["proof"]
    # later commands read it back
    assert Recipe.model_validate(clean["recipe"]).base.path == "EleutherAI/polyglot-ko-1.3b"


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/b.csv", "b.csv"), ("C:\\a\\b.csv", "b.csv"), ("~/b", "b"), ("file:///a/b", "b"), ("b.csv", "b.csv")],
)
def test_file_names_of_any_system(path: str, name: str) -> None:
    assert file_name(path) == name
    assert scrub({"anything": [path]}) == {"anything": [name]}
