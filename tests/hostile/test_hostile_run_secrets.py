"""The Hub token and a judge's key beside real commands: in no argument, line, log, record or card."""

from __future__ import annotations

import logging
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from koalpaca_tune import jsonl, resources
from koalpaca_tune.cli.main import cli
from koalpaca_tune.records import Conversation

TOKEN = "hf_" + "Zx9qRun5ecret" * 2
COMMIT = "89abcdef" * 5
KEY = "sk-judge-" + "Qw7eRun5ecret" * 2


class Heard:
    """Arguments of every process that is started while it listens (Python's audit events), and of all that run.

    An audit hook cannot be taken away again, so it is silent while nobody listens.
    """

    def __init__(self) -> None:
        self.listening = False
        self.started: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self.listening and event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"):
            # the last is the environment of a child that does not get this process's
            self.started.append(repr(args[:2]))

    def watch(self, ended: threading.Event) -> None:
        """Command lines of all processes, until it ends."""
        while not ended.wait(0.2):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes()
                except OSError:
                    continue
                if TOKEN.encode() in line or KEY.encode() in line:
                    self.started.append(line.decode("utf-8", "replace"))


@pytest.fixture(scope="module")
def audit() -> Heard:
    return Heard()


@pytest.fixture
def heard(audit: Heard) -> Iterator[list[str]]:
    ended = threading.Event()
    thread = threading.Thread(target=audit.watch, args=(ended,))
    audit.started.clear()
    audit.listening = True
    thread.start()
    yield audit.started
    ended.set()
    thread.join()
    audit.listening = False


def commands(group: click.Command) -> Iterator[click.Command]:
    yield group
    if isinstance(group, click.Group):
        for inner in group.commands.values():
            yield from commands(inner)


def test_no_command_takes_a_token_or_a_key_as_an_argument() -> None:
    names = {option for command in commands(cli) for one in command.params for option in one.opts}
    assert len(names) > 40
    assert [name for name in names if name.endswith(("token", "key", "password", "secret"))] == []


@pytest.fixture
def hub_base(tiny_bases: dict[str, str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> str:
    """A Hub name whose commit lies in the cache."""
    import huggingface_hub.constants

    cache = tmp_path_factory.mktemp("hub")
    there = cache / "models--kim--small"
    (there / "refs").mkdir(parents=True)
    (there / "refs/main").write_text(COMMIT, encoding="utf-8")
    shutil.copytree(tiny_bases["gpt_neox"], there / "snapshots" / COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return "kim/small"


def test_train_card_and_push_leave_no_trace_of_token_and_key(
    hub_base: str,
    conversations: Sequence[Conversation],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    heard: list[str],
) -> None:
    for name, value in (("HF_TOKEN", TOKEN), ("HUGGING_FACE_HUB_TOKEN", TOKEN), ("JUDGE_KEY", KEY)):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    logging.getLogger("matplotlib").setLevel(logging.INFO)
    jsonl.write(tmp_path / "train.jsonl", (one.as_dict() for one in conversations))
    recipe = f"""\
name: small
out: run
base: {{path: {hub_base}}}
quantization: {{load_in_4bit: false}}
lora: {{r: 2, alpha: 4, targets: [query_key_value]}}
data: {{train: train.jsonl, max_length: 128}}
training: {{max_steps: 2, batch_size: 4, learning_rate: 0.01, log_every: 1}}
"""
    (tmp_path / "small.yaml").write_text(recipe, encoding="utf-8")
    shown = ""
    run: Callable[..., Any] = CliRunner().invoke
    for status, words in (
        (0, ["train", "small.yaml"]),
        (0, ["hub", "card", "run/adapter", "--repo", "me/small"]),
        (0, ["hub", "push", "run/adapter", "--repo", "me/small"]),
        # and where things go wrong
        (2, ["train", "small.yaml", "out=other", "base.path=no/such-base"]),
        (2, ["generate", "no/such-base", "안녕?"]),
    ):
        told = run(cli, words)
        assert told.exit_code == status, (words, told.output)
        shown += told.output + repr(told.exception)
    assert "me/small" in shown
    places = {"the terminal": shown, "the logs": caplog.text, "processes": "\n".join(heard)}
    places |= {
        str(path.relative_to(tmp_path)): path.read_bytes().decode("utf-8", "replace")
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert len(places) > 10
    found = [name for name, text in places.items() if TOKEN in text or KEY in text]
    assert found == []
    # it did listen: git is asked for the commit
    assert any("git" in one for one in heard) or not (resources.PACKAGE.parent / ".git").exists()
