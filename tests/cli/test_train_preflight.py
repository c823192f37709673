"""`koalpaca train` looks first: the screen of --dry-run, what a run says of it, and that it leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from koalpaca_tune import jsonl
from koalpaca_tune.cli import preflight as screen
from koalpaca_tune.cli.main import cli
from koalpaca_tune.config import load
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.records import Conversation
from koalpaca_tune.runs import doctor
from koalpaca_tune.runs import train as runs
from koalpaca_tune.runs.finding import Finding


def koalpaca(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def mine(
    tiny_bases: dict[str, str],
    conversations: Sequence[Conversation],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., str]:
    """(section={changes}) -> the name of a recipe file in the current folder."""
    monkeypatch.chdir(tmp_path)
    # an open tmux would give its width
    monkeypatch.setenv("COLUMNS", "80")
    jsonl.write(tmp_path / "train.jsonl", (one.as_dict() for one in conversations))

    def write(**sections: object) -> str:
        values: dict[str, object] = {
            "name": "mine",
            "base": {"path": tiny_bases["gpt_neox"]},
            "lora": {"targets": ["query_key_value"], "dropout": 0.1},
            "data": {"train": "train.jsonl", "max_length": 128},
            "training": {"max_steps": 3, "batch_size": 2, "log_every": 1},
        }
        jsonl.replace(tmp_path / "mine.yaml", [load.dump(Recipe.model_validate({**values, **sections}))])
        return "mine.yaml"

    return write


def test_a_dry_run_is_one_screen_of_checks_and_a_batch(mine: Callable[..., str]) -> None:
    done = koalpaca("train", mine(), "--dry-run")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    checks = [line for line in lines if line.startswith(("좋음 ", "참고 ", "문제 "))]
    for name in ("레시피", "버전", "4비트", "자료형", "LoRA", "템플릿", "BOS", "EOS", "pad", "learned", "memory"):
        assert any(name in line for line in checks), name
    for name in ("accumulation", "determinism", "gradient", "B matrices", "time", "disk", "query_key_value"):
        assert any(name in line for line in checks), name
    assert "⟦ " in done.stdout, "learned tokens are marked where there is no colour"
    assert "of the first batch" in done.stdout
    assert not Path("runs").exists()


def test_what_was_seen_until_an_error_is_shown_with_it(mine: Callable[..., str]) -> None:
    """The target is wrong: data and template were fine, and the screen says so before the line that does not."""
    done = koalpaca("train", mine(lora={"targets": ["query_key_valeu"]}), "--dry-run")
    assert done.exit_code == 2
    assert "12 of 12 examples" in done.stdout
    assert "문제 lora.targets[0]" in done.stdout
    assert "→ Did you mean 'query_key_value'?" in done.stdout
    assert done.stderr.startswith("error [lora-target]: lora.targets[0]: ")


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_red_ends_with_status_2_and_writes_nothing(words: Sequence[str], mine: Callable[..., str]) -> None:
    done = koalpaca("train", mine(), "training.keep_checkpoints=1000000000000", *words)
    assert done.exit_code == 2
    assert done.stderr.startswith("error [preflight]: 디스크 (disk): ")
    assert "training.keep_checkpoints" in done.stderr
    assert "문제 디스크 (disk)" in done.stdout
    assert "Traceback" not in done.output
    assert not Path("runs").exists()


def test_a_run_says_only_what_is_not_green(mine: Callable[..., str]) -> None:
    done = koalpaca("train", mine(), "training.learning_rate=0.01", "training.max_steps=1")
    assert done.exit_code == 0
    said = next(line for line in done.stdout.splitlines() if "preflight" in line)
    good, count = said.split(": ")[1].split(" ")[0].split("/")
    assert int(good) == int(count) - 1
    assert "참고 학습률 (learning rate)" in done.stdout
    assert "determinism" not in done.stdout


def test_a_run_of_the_command_is_that_without_preflight_to_the_last_bit(mine: Callable[..., str]) -> None:
    name = mine()
    assert koalpaca("train", name, "out=with").exit_code == 0
    recipe = load.load(name, ["out=without"])
    ready = runs.make_ready(recipe, runs.read_examples(recipe))
    runs.run(ready, runs.check_folder(recipe, False), resume=False)
    weights = "adapter/adapter_model.safetensors"
    assert Path("with", weights).read_bytes() == Path("without", weights).read_bytes()

    def losses(folder: str) -> list[tuple[float, float]]:
        return [(row["loss"], row["grad_norm"]) for _, row in jsonl.read(Path(folder) / "metrics.jsonl")]

    assert losses("with") == losses("without")


def test_a_difference_is_accepted_by_name(mine: Callable[..., str]) -> None:
    """--allow KEY goes on all the same; without it the difference is shown."""
    name = mine()
    assert koalpaca("train", name, "training.checkpoint_every=1").exit_code == 0
    more = ("train", name, "training.checkpoint_every=1", "training.max_steps=4", "--resume")
    refused = koalpaca(*more)
    assert (refused.exit_code, "training.max_steps" in refused.stderr) == (2, True)
    assert koalpaca(*more, "--allow", "training.max_steps").exit_code == 0
    steps = [row["step"] for _, row in jsonl.read(Path("runs/mine/metrics.jsonl"))]
    assert steps == [1, 2, 3, 4]


@pytest.mark.parametrize("width", ["80", "120"])
def test_no_line_is_wider_than_the_screen(
    width: str, mine: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.cells import cell_len
    from rich.console import Console

    narrow = Console(highlight=False, width=int(width))
    monkeypatch.setattr(screen, "console", narrow)
    long = Finding("아주 긴 이름 (a very long name)", "bad", "가나다 " * 60, "할 일 " * 60)
    with narrow.capture() as caught:
        screen.screen([long, Finding("x", "ok", "y")])
    assert max(cell_len(line) for line in caught.get().splitlines()) <= int(width)


# doctor


def test_doctor_tries_what_it_speaks_of_and_shows_no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_thisIsNotToBeSeen")
    done = koalpaca("doctor")
    assert done.exit_code == 0
    for word in ("versions", "bitsandbytes", "nf4 0.0", "fp4 0.1", "disk", "found, not shown", "Hugging Face Hub"):
        assert word in done.stdout
    assert "hf_this" not in done.output


def test_doctor_does_not_wait_for_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that takes the connection and says nothing: what a firewall that drops packets looks like."""
    import socket

    from huggingface_hub import constants

    monkeypatch.setattr(doctor, "HUB_SECONDS", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        (found,) = [one for one in doctor.examine(Path.cwd()) if one.name == "Hugging Face Hub"]
    assert (found.state, found.seen) == ("note", "닿지 않음 (not reached): ReadTimeout")


def test_doctor_is_red_where_4_bit_products_are_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """bitsandbytes 2087: a prebuilt library whose products have nothing to do with the weights."""
    import bitsandbytes as bnb

    right = bnb.nn.Linear4bit.forward
    monkeypatch.setattr(bnb.nn.Linear4bit, "forward", lambda self, x: right(self, x.flip(-1)))
    monkeypatch.chdir(tmp_path)
    done = koalpaca("doctor")
    assert done.exit_code == 1
    assert "문제 bitsandbytes 4-bit" in done.stdout
