"""What a record, a model or a file name says reaches the terminal as text, never as a command to it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.text import Text

from koalpaca_tune.cli import show
from koalpaca_tune.cli.main import cli
from koalpaca_tune.errors import MOST, KoalpacaError, Problem, shown

EVIL = "\x1b[2J\x1b]0;owned\x07가\x9b31m\u202e나\r\x08"
UNSEEN = [char for char in EVIL if char not in "가나[2J]0;owned31m"]


def test_a_problem_has_no_control_characters() -> None:
    said = str(Problem("x", f"'{EVIL}' is wrong.", f"a{EVIL}.csv:1", f"Not {EVIL}."))
    assert not any(char in said for char in UNSEEN)
    assert "␛[2J" in said
    assert "\\u202e" in said


def test_korean_lines_and_tabs_stay_as_they_are() -> None:
    assert shown("한글\n둘째 줄\t끝 😀") == "한글\n둘째 줄\t끝 😀"


def test_the_console_prints_no_escape_sequence_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="standard", width=200)
    hook = show.console._render_hooks[0]
    console.push_render_hook(hook)
    console.print(Text(EVIL, style="bold"))
    console.print(Text("질문  ", style="bold"), Text(EVIL), sep="")
    text = out.getvalue()
    assert "\x1b[1m" in text, "its own bold is still there"
    assert "\x1b[2J" not in text
    assert "\x1b]0" not in text
    assert "\x07" not in text
    assert "\u202e" not in text


def test_the_commands_own_console_has_the_hook() -> None:
    with show.console.capture() as captured:
        show.done(EVIL)
        show.table("t", [(EVIL, EVIL)])
    assert not any(char in captured.get() for char in UNSEEN)


def test_a_file_name_with_an_escape_sequence(tmp_path: Path) -> None:
    told = CliRunner().invoke(cli, ["train", str(tmp_path / "a\x1b[2Jb.yaml")])
    assert told.exit_code == 2
    assert "\x1b" not in told.output
    assert "a␛[2Jb.yaml" in told.output


def test_of_very_many_problems_the_first_are_told() -> None:
    error = KoalpacaError.of([Problem("config-value", f"{n}", "r.yaml") for n in range(5000)])
    assert len(error.problems) == MOST + 1
    assert str(error).endswith("r.yaml: ... and 4,980 more problems.")
