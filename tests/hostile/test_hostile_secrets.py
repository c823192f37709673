"""Tokens stay where they are: not in an error line, a card, a record, or what a child process is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from targets_hub import RECORD, write
from targets_models import CONFIG

from koalpaca_tune.cli.main import cli
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import card, push
from koalpaca_tune.models import sources

TOKEN = "hf_" + "s3cr3tT0ken" * 3


@pytest.mark.parametrize(
    "said",
    [
        f"401 for url https://huggingface.co/api?token={TOKEN}",
        f"header Authorization: Bearer {TOKEN}",
        "clone https://kim:passw0rd@huggingface.co/a/b failed",
        "Authorization: Bearer abc.def-123",
        "token hf_AnotherOneThatIsNotInTheEnvironment",
    ],
)
def test_a_librarys_error_is_shown_without_its_secrets(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    shown = str(sources.hub_error(OSError(said), "a/b"))
    for secret in (TOKEN, "passw0rd", "abc.def-123", "hf_Another"):
        assert secret not in shown
    assert "***" in shown


def test_a_token_of_another_form_is_known_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "house-token-of-a-mirror")
    assert "house-token" not in str(sources.hub_error(OSError("sent house-token-of-a-mirror"), "a/b"))


def test_a_token_in_any_file_that_would_be_sent_stops_it(tmp_path: Path) -> None:
    for place in ("card", "record", "config"):
        folder = tmp_path / place
        folder.mkdir()
        record = json.loads(json.dumps(RECORD))
        config = dict(CONFIG)
        if place == "record":
            record["machine"]["device"] = f"CPU {TOKEN}"
        if place == "config":
            config["base_model_name_or_path"] = f"https://x:{TOKEN}@huggingface.co/a/b"
        write(folder, record, config)
        path = card.write(folder, None, repo=None, license=None, data_licenses=[])
        if place == "card":
            path.write_text(path.read_text(encoding="utf-8") + TOKEN, encoding="utf-8")
        with pytest.raises(KoalpacaError) as caught:
            push.plan(folder, "me/mine", True)
        assert caught.value.problems[0].code == "hub-secret"
        assert TOKEN not in str(caught.value)


def test_a_command_that_fails_says_nothing_of_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["generate", "no/such-model", "안녕?"])
    assert done.exit_code == 2
    assert "error [base-load]" in done.output
    assert TOKEN not in done.output
    assert not list(tmp_path.iterdir())


def test_no_source_of_ours_allows_code_from_elsewhere() -> None:
    package = Path(sources.__file__).parents[1]
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "trust_remote_code=True" not in text, path
        assert "allow_pickle=True" not in text, path
        assert "weights_only=False" not in text, path
        assert "torch.load(" not in text, path


def test_a_base_of_a_name_that_no_file_can_have_is_no_folder() -> None:
    assert not sources.is_local("9" * 400)
    with pytest.raises(KoalpacaError) as caught:
        sources.locate("9" * 400)
    assert caught.value.problems[0].code == "base-missing"
