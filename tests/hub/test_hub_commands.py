"""`koalpaca hub` against a Hub on this machine, as a person types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hub_server import Hub

from koalpaca_tune import jsonl
from koalpaca_tune.cli.main import cli
from koalpaca_tune.hub import facts

SECRET = "hf_" + "Zq9" * 11


@pytest.fixture
def near(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The client finds the Hub and the token as it would from the environment."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
    files = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    return hub


def koalpaca(*words: str | Path) -> Result:
    done = CliRunner(env={"COLUMNS": "160"}).invoke(cli, ["hub", *map(str, words)], catch_exceptions=False)
    assert SECRET not in done.output
    return done


def test_card_push_and_pull(near: Hub, adapter: Path, record: dict[str, Any], weights: Any, tmp_path: Path) -> None:
    sizes = {"num_hidden_layers": 1, "hidden_size": 3, "intermediate_size": 12, "num_attention_heads": 1}
    base = near.repository(
        "EleutherAI/polyglot-ko-1.3b",
        {"config.json": jsonl.dumps({"model_type": "gpt_neox", "vocab_size": 9, **sizes}).encode()},
        private=False,
    )
    from koalpaca_tune.models import sources

    commit = base.branches["main"]
    found = sources.fingerprint("EleutherAI/polyglot-ko-1.3b", commit, None)
    record["base"].update(revision=commit, fingerprint=found)
    jsonl.write_json(adapter / facts.RECORD, record)

    done = koalpaca("card", adapter, "--repo", "me/talk", "--license", "apache-2.0", "--usd-per-hour", "2")
    assert done.exit_code == 0, done.output
    # adapter and base under Apache-2.0, and no sources: nothing to warn of
    assert "어댑터의 라이선스" not in done.output

    shown = koalpaca("push", adapter, "--repo", "me/talk")
    assert "아무것도 보내지 않았습니다" in shown.output
    assert near.asked == []

    done = koalpaca("push", adapter, "--repo", "me/talk", "--tag", "v1.0", "--yes")
    assert done.exit_code == 0, done.output
    assert f"올렸습니다 (sent): me/talk @ {near.commits()[0].oid}, v1.0" in done.output
    assert "열어 봄 (downloaded and compared): 4" in done.output
    assert "이미 그대로 있습니다" in koalpaca("push", adapter, "--repo", "me/talk", "--tag", "v1.0", "--yes").output

    done = koalpaca("pull", "me/talk", "--out", tmp_path / "got", "--revision", "v1.0")
    assert done.exit_code == 0, done.output
    assert "LoRA" in done.output
    assert f"--adapter {tmp_path / 'got'}" in done.output
    assert "기록이 없는" not in done.output
    assert "이미 받아 둔" in koalpaca("pull", "me/talk", "--out", tmp_path / "got").output


def test_what_a_user_gets_wrong_is_one_line(near: Hub, adapter: Path, tmp_path: Path) -> None:
    for words, code in (
        (("push", adapter, "--repo", "talk"), "hub-repo"),
        (("push", adapter), "hub-repo"),
        (("push", tmp_path, "--repo", "me/talk"), "hub-kind"),
        (("push", adapter, "--repo", "me/talk"), "hub-card-missing"),
        (("push", adapter, "--repo", "me/talk", "--tag", "가나다"), "hub-ref"),
        (("card", adapter, "--adapter", adapter), "card-adapter"),
        (("card", adapter, "--grams-per-kwh", "400"), "card-cost"),
        (("card", tmp_path), "hub-kind"),
        (("pull", "me/nothing"), "hub-read"),
        (("pull", "https://example.com/a/b"), "hub-repo"),
        (("pull", "me/talk", "--revision", "x/y"), "hub-read"),
    ):
        done = koalpaca(*words)
        assert done.exit_code == 2, done.output
        assert done.output.startswith(f"error [{code}]: "), (words, done.output)
        assert len(done.output.splitlines()) == 2


def test_data_has_no_use_for_the_options_of_a_model(tmp_path: Path) -> None:
    jsonl.write(tmp_path / "train.jsonl", [{"messages": []}])
    done = koalpaca("card", tmp_path, "--base-license", "mit")
    assert done.exit_code == 2
    assert "--base-license" in done.output


def test_the_environment_names_the_hub_and_the_token(near: Hub, adapter: Path) -> None:
    koalpaca("card", adapter, "--repo", "me/talk")
    own = {"HF_HUB_OFFLINE": "0", "HF_TOKEN": SECRET, "HF_ENDPOINT": near.address}
    done = subprocess.run(
        [sys.executable, "-m", "koalpaca_tune.cli.main", "hub", "push", str(adapter), "--repo", "me/talk", "--yes"],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert near.tokens == {f"Bearer {SECRET}"}
    assert SECRET not in done.stdout + done.stderr
    assert len(near.commits()) == 1
