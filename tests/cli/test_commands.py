"""The commands as a person meets them: help with an example, and one clear line for what they can mend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from koalpaca_tune import jsonl
from koalpaca_tune.cli.main import ERRORS_PAGE, cli
from koalpaca_tune.config import load
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.records import Conversation

COMMANDS = {
    "",
    "data",
    "data prepare",
    "data look",
    "data preparation",
    "data source",
    "data sources",
    "data tokens",
    "train",
    "eval",
    "compare",
    "generate",
    "merge",
    "hub",
    "hub card",
    "hub push",
    "hub pull",
    "recipe",
    "recipe list",
    "recipe show",
    "recipe copy",
    "doctor",
    "diagnose",
    "sweep",
}


def paths(command: click.Command = cli, path: str = "") -> Iterator[str]:
    yield path
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from paths(inner, f"{path} {name}".strip())


def koalpaca(*words: str | Path) -> Result:
    """Runs a command in this process; an exception that is no user's error fails the test."""
    return CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)


def refused(*words: str | Path) -> str:
    """What a command prints when it refuses: exit status 2, nothing on stdout, no traceback."""
    done = koalpaca(*words)
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    return done.stderr


def test_the_commands_are_those_that_scripts_rely_on() -> None:
    assert set(paths()) >= COMMANDS


@pytest.mark.parametrize("path", sorted(paths()))
def test_each_command_has_help_with_an_example(path: str) -> None:
    done = koalpaca(*path.split(), "--help")
    assert done.exit_code == 0
    if path:
        assert "예 (example):\n" in done.stdout
        assert f"\n  koalpaca {path}" in done.stdout.replace("    koalpaca", "  koalpaca")
    assert koalpaca(*path.split(), "-h").stdout == done.stdout


@pytest.mark.parametrize("path", sorted(paths()))
def test_each_option_says_what_it_does(path: str) -> None:
    command: click.Command = cli
    for name in path.split():
        assert isinstance(command, click.Group)
        command = command.commands[name]
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert [option.name for option in options if not option.help and not option.show_default] == []


def test_the_version() -> None:
    assert koalpaca("--version").stdout.startswith("koalpaca, version 0.")


# errors


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["train", "polyglot"], "recipe-missing", "there is no such file or shipped recipe: 'polyglot'."),
        (["train", "demo", "sede=1"], "config-unknown-key", "unknown key 'sede'. Did you mean 'seed'?"),
        (["train", "demo", "training.learning_rate=2e-4"], "config-type", "Did you mean 2.0e-4?"),
        (["train", "demo", "data.train=lacking.jsonl"], "file-missing", "lacking.jsonl"),
        (["train", "demo", "template=koalpacca"], "template-unknown", "Did you mean 'koalpaca'?"),
        (["train", "demo", "base.path=./lacking"], "base-missing", "./lacking: there is no such model folder."),
        (["recipe", "show", "dem"], "recipe-missing", "Did you mean 'demo'?"),
        (["recipe", "copy", "dem", "x.yaml"], "recipe-missing", "Did you mean 'demo'?"),
        (["data", "prepare", "lacking.csv", "--out", "out"], "file-missing", "lacking.csv"),
        (["data", "look", "lacking.jsonl"], "file-missing", "lacking.jsonl"),
        (["eval", "embedded", "--suite", "ko-minni", "--out", "out"], "suite-missing", "ko-minni"),
        (["eval", "./lacking", "--out", "out"], "base-missing", "./lacking"),
        (["compare", "lacking", "lacking", "--out", "out"], None, "lacking"),
        (["generate", "embedded", "물음", "--adapter", "lacking"], "adapter-missing", "lacking"),
        (
            ["generate", "embedded", "물음", "--template", "koalpacca"],
            "template-unknown",
            "Did you mean 'koalpaca'?",
        ),
        (["merge", "embedded", "lacking", "--out", "out"], "adapter-missing", "lacking"),
        (["hub", "card", "lacking"], "hub-kind", "lacking: there is no such folder"),
        (["hub", "push", "lacking"], "hub-kind", "lacking: there is no such folder"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_status_2(
    words: Sequence[str], code: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = refused(*words).strip().splitlines()
    assert first.startswith(f"error [{code}]: " if code else "error [")
    assert said in first
    assert second.startswith(f"설명: {ERRORS_PAGE}#{code or ''}")
    assert list(tmp_path.iterdir()) == [], "nothing is written on the way to an error"


@pytest.mark.parametrize(
    "words",
    [
        ["trian"],
        ["train"],
        ["train", "demo", "--dryrun"],
        ["eval", "embedded"],
        ["generate", "embedded"],
        ["generate", "embedded", "물음", "--seed", "1"],
        ["generate", "embedded", "물음", "--temperature", "-1"],
        ["data", "look", "x.jsonl", "--count", "0"],
        ["merge", "embedded", "x", "--out", "y", "--dtype", "int8"],
    ],
)
def test_a_command_line_that_is_wrong_is_status_2(words: Sequence[str]) -> None:
    assert "Usage: " in refused(*words)


def test_all_problems_of_a_recipe_are_printed(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = load.find("demo").read_text(encoding="utf-8")
    file.write_text(text.replace("seed: 42", "seed: 4e1") + "sede: 1\n", encoding="utf-8")
    lines = refused("train", file).strip().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"error [config-type]: {file}:")
    assert lines[0].endswith("Did you mean 40?")
    assert lines[1].startswith(f"error [config-unknown-key]: {file}:")
    assert lines[2] == f"설명: {ERRORS_PAGE}#config-type, {ERRORS_PAGE}#config-unknown-key"


def test_a_folder_where_a_file_is_wanted_is_one_line(tmp_path: Path) -> None:
    assert "error [" in refused("data", "prepare", tmp_path, "--out", tmp_path / "out")


# recipes


def test_recipe_list_has_every_recipe_with_a_line_about_it() -> None:
    lines = koalpaca("recipe", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines if line and not line.startswith(" ")] == load.names()


@pytest.mark.parametrize("name", load.names())
def test_recipe_show_fills_in_every_default_and_reads_back(name: str, tmp_path: Path) -> None:
    done = koalpaca("recipe", "show", name)
    file = tmp_path / "shown.yaml"
    file.write_text(done.stdout, encoding="utf-8")
    assert load.load(str(file)) == load.load(name)
    assert "max_grad_norm:" in done.stdout


def test_recipe_copy_is_the_file_itself_and_writes_over_nothing(tmp_path: Path) -> None:
    to = tmp_path / "mine.yaml"
    assert koalpaca("recipe", "copy", "demo", to).exit_code == 0
    assert to.read_bytes() == load.find("demo").read_bytes()
    to.write_text("내 것", encoding="utf-8")
    assert refused("recipe", "copy", "demo", to).startswith(f"error [out-exists]: {to}: there is a file already.")
    assert to.read_text(encoding="utf-8") == "내 것"


# training


@pytest.fixture
def mine(tiny: str, conversations: Sequence[Conversation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe file for a tiny base, with its data, in the current folder."""
    monkeypatch.chdir(tmp_path)
    jsonl.write(tmp_path / "train.jsonl", (one.as_dict() for one in conversations))
    recipe = Recipe.model_validate(
        {
            "name": "mine",
            "base": {"path": tiny},
            "lora": {"targets": ["query_key_value" if "gpt_neox" in Path(tiny).name else "q_proj"]},
            "data": {"train": "train.jsonl", "max_length": 128},
            "training": {"max_steps": 2, "batch_size": 2, "log_every": 1},
        }
    )
    jsonl.replace(tmp_path / "mine.yaml", [load.dump(recipe)])
    return tmp_path / "mine.yaml"


def test_a_dry_run_proves_the_base_shows_an_example_and_writes_nothing(mine: Path) -> None:
    before = sorted(mine.parent.rglob("*"))
    done = koalpaca("train", mine, "--dry-run")
    assert done.exit_code == 0
    assert sorted(mine.parent.rglob("*")) == before
    shown = " ".join(done.stdout.split())
    for words in ("nf4, double 예 (yes), compute float32", "12 of 12 examples", "좋음", "문제 0"):
        assert words in shown
    assert "### 질문: " in done.stdout
    assert "nothing was written" in done.stdout


def test_train_writes_a_run_that_is_not_written_over(mine: Path) -> None:
    done = koalpaca("train", mine, "training.max_steps=1")
    assert done.exit_code == 0
    folder = mine.parent / "runs/mine"
    assert (folder / "adapter/adapter_model.safetensors").is_file()
    assert "어댑터 (adapter): runs/mine/adapter" in done.stdout
    assert load.load(str(folder / "run.yaml")).training.max_steps == 1
    before = (folder / "record.json").read_bytes()
    assert refused("train", mine, "training.max_steps=1").startswith("error [run-exists]: runs/mine: ")
    assert "error [resume-differs]: runs/mine/run.yaml: training.max_steps: " in refused("train", mine, "--resume")
    assert (folder / "record.json").read_bytes() == before


def test_an_unknown_lora_target_is_one_line(mine: Path) -> None:
    said = refused("train", mine, "lora.targets=[query_key_valeu]")
    assert said.startswith("error [lora-target]: lora.targets[0]: 'query_key_valeu' matches no linear module of ")
    assert not (mine.parent / "runs").exists()


def test_data_look_prints_the_learned_tokens_apart(mine: Path, tiny: str) -> None:
    done = koalpaca("data", "look", "train.jsonl", "--base", tiny, "--count", "2", "--skip", "1")
    assert done.exit_code == 0
    assert "### 질문: 비 오는 날에는 뭘 하면 좋을까?" in done.stdout
    assert "대한민국" not in done.stdout
    assert "### 답변:⟦ 따뜻한 차를 마시며 책을 읽어 보세요.<|endoftext|>⟧" in done.stdout
    assert (done.stdout.count("⟦ "), done.stdout.count("talks.jsonl:")) == (4, 2), "two examples, each with its key"
    assert "error [look-nothing]: train.jsonl: " in refused(
        "data", "look", "train.jsonl", "--base", tiny, "--skip", "99"
    )
