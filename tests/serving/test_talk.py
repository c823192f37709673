"""A talk: what the model is shown of it, settings, commands; and a line edited on a real terminal."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from koalpaca_tune.cli import talk
from koalpaca_tune.cli.main import cli
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import tokenizer
from koalpaca_tune.records import Turn
from koalpaca_tune.serving.memory import Memory, composed
from koalpaca_tune.serving.settings import Settings
from koalpaca_tune.tokens.encode import Encoder


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    vocabulary = tokenizer.load("embedded")
    return Encoder(vocabulary, vocabulary.template("koalpaca"))


def test_a_talk_is_cut_by_whole_exchanges(encoder: Encoder) -> None:
    memory = Memory(encoder, 10_000, "짧게 답하세요.")
    for n in range(6):
        memory.keep(f"질문 {n}", f"답 {n}")
    everything = memory.ask("마지막 질문", 20)
    assert everything.left_out == 0
    assert len(everything.conversation.turns) == 14
    memory.room = everything.tokens + 20 - 1
    shorter = memory.ask("마지막 질문", 20)
    assert shorter.left_out == 1, "one token too many takes one whole exchange"
    assert shorter.conversation.turns[:2] == (Turn("system", "짧게 답하세요."), Turn("user", "질문 1"))
    assert shorter.conversation.turns[-1] == Turn("user", "마지막 질문")
    assert shorter.tokens + 20 <= memory.room


def test_a_question_that_does_not_fit_alone_is_an_error(encoder: Encoder) -> None:
    memory = Memory(encoder, 30)
    memory.keep("앞", "말")
    with pytest.raises(KoalpacaError, match="room for 30") as error:
        memory.ask("아주 긴 질문 " * 30, 10)
    assert error.value.problems[0].code == "context-too-long"


def test_an_empty_answer_is_not_remembered_and_reset_keeps_the_system_text(encoder: Encoder) -> None:
    memory = Memory(encoder, 100, "짧게.")
    memory.keep("질문", "  ")
    assert memory.exchanges == []
    memory.keep("질문", "답\n")
    assert memory.exchanges == [("질문", "답")]
    memory.reset()
    assert (memory.exchanges, memory.system) == ([], "짧게.")


def test_settings_by_name() -> None:
    warm = Settings().changed(["temperature=0.7", "top_p=0.5", "max_new_tokens=9"])
    assert warm.sampling == (0.7, 0.5, 42)
    assert warm.max_new_tokens == 9
    assert warm.changed(["temperature=off"]) == Settings(max_new_tokens=9)


@pytest.mark.parametrize(
    "word",
    [
        "temperature=0",
        "temperature=hot",
        "temperature=nan",
        "top_p=2",
        "seed=-1",
        "max_new_tokens=0",
        "top_k=3",
        "x",
    ],
)
def test_a_setting_that_cannot_be(word: str) -> None:
    with pytest.raises(KoalpacaError) as error:
        Settings(temperature=1.0).changed([word])
    assert error.value.problems[0].code == "chat-setting"


def test_top_p_without_a_temperature_is_an_error() -> None:
    with pytest.raises(KoalpacaError, match="temperature"):
        Settings().changed(["top_p=0.5"])


def test_commands() -> None:
    assert talk.command("안녕하세요?") is None
    assert talk.command("//주석은 뭐야?") is None
    assert talk.command("/system 짧게 답해") == ("/system", "짧게 답해")
    with pytest.raises(KoalpacaError, match="/settings"):
        talk.command("/settigns")


def test_decomposed_hangul_is_composed() -> None:
    assert composed("한글") == "한글"


def test_a_talk_through_a_pipe(adapter_folders: dict[str, Path]) -> None:
    lines = [
        "하나?",
        "/compare",
        "둘?",
        "/compare",
        "/system 짧게",
        "/settings temperature=0.5 seed=7",
        "셋?",
        "/settings",
        "/nothing",
        "/exit",
        "넷?",
    ]
    words = ["chat", "embedded", "--adapter", str(adapter_folders["말투"]), "--max-new-tokens", "4"]
    told = CliRunner().invoke(cli, words, input="\n".join(lines), catch_exceptions=False)
    assert told.exit_code == 0
    assert told.output.count("모델> ") == 2, "two alone, one beside the base, none after /exit"
    assert "템플릿 kullm-v2" in told.output
    assert "기반 (base)" in told.output
    assert "시스템 문장 (system): 짧게" in told.output
    assert "temperature=0.5 top_p=0.9 seed=8" in told.output, "the next answer is drawn anew"
    assert "error [chat-command]: there is no command '/nothing'." in told.output


# a real terminal

TMUX = shutil.which("tmux")
PROGRAM = """
from koalpaca_tune.cli.typing_line import lines
for line in lines("나> ", ("/system", "/reset")):
    print("GOT", ascii(line), flush=True)
"""


class Screen:
    """A program in tmux."""

    def __init__(self, socket: Path, *command: str) -> None:
        self._tmux = [str(TMUX), "-u", "-f", "/dev/null", "-S", str(socket)]
        self("new-session", "-d", "-s", "s", "-x", "60", "-y", "12", *command)

    def __call__(self, *words: str) -> str:
        return subprocess.run([*self._tmux, *words], capture_output=True, text=True, check=True).stdout

    def type(self, text: str) -> None:
        self("send-keys", "-t", "s", "-l", text)

    def key(self, *names: str) -> None:
        self("send-keys", "-t", "s", *names)

    def until(self, true: Callable[[str, int], bool]) -> tuple[str, int]:
        """Text and the cursor's column, once they are as wanted."""
        give_up = time.monotonic() + 30
        while True:
            seen = self("capture-pane", "-p", "-t", "s"), int(self("display", "-p", "-t", "s", "#{cursor_x}"))
            if true(*seen):
                return seen
            assert time.monotonic() < give_up, seen
            time.sleep(0.02)


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    if TMUX is None:
        pytest.skip("tmux is not installed")
    # no locale at all, as in a bare container
    made = Screen(tmp_path / "tmux", "env", "-u", "LANG", "LC_ALL=C", sys.executable, "-c", PROGRAM)
    yield made
    made("kill-server")


def test_hangul_is_edited_by_syllables_on_a_terminal(screen: Screen) -> None:
    screen.until(lambda text, column: "나>" in text and column == 4)
    screen.type("비가 옵니닭")
    screen.until(lambda text, column: column == 15)
    screen.key("BSpace")
    screen.until(lambda text, column: column == 13 and "나> 비가 옵니\n" in text)
    screen.type("다")
    screen.key("Left", "Left", "Left")
    screen.until(lambda text, column: column == 9)
    screen.type("또 ")
    screen.until(lambda text, column: "나> 비가 또 옵니다" in text)
    screen.key("Enter")
    screen.until(lambda text, column: ascii("비가 또 옵니다") in text.replace("\n", ""))
    # decomposed, as macOS hands over file names: three code points, one syllable
    screen.type("\u1112\u1161\u11ab")
    screen.until(lambda text, column: column == 6)
    screen.key("BSpace")
    screen.until(lambda text, column: column == 4)
    screen.key("Up")
    screen.until(lambda text, column: text.count("나> 비가 또 옵니다") == 2)
