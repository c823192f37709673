"""Paging: what each key does, and the real loop on a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koalpaca_tune import jsonl
from koalpaca_tune.cli.browse import HELP, View, press, scrolled, split_keys
from koalpaca_tune.records import Conversation, Turn

TEXTS = ("하나", "둘", "셋 떡볶이", "넷", "다섯 떡볶이")


@dataclass(frozen=True)
class Pages:
    """A book of a few words."""

    texts: Sequence[str] = TEXTS

    def has(self, at: int) -> bool:
        return 0 <= at < len(self.texts)

    def all(self) -> int:
        return len(self.texts)

    def find(self, text: str, start: int) -> int | None:
        return next((n for n in range(start, len(self.texts)) if text in self.texts[n]), None)


def after(keys: Iterable[str], view: View | None = None, lines: int = 5, room: int = 10) -> View:
    view = view or View()
    for key in keys:
        view = press(view, key, Pages(), lines, room)
    return view


@pytest.mark.parametrize(
    ("keys", "at"),
    [
        (["n"], 1),
        (["n", "n", "p"], 1),
        (["ㅜ", "ㅜ", "ㅔ"], 1),
        (["right", "j", "left"], 1),
        ([" "], 1),
        (["enter", "enter"], 2),
        (["G"], 4),
        (["end", "home"], 0),
        (["4", "enter"], 3),
        (["4", "esc"], 0),
        (["4", "backspace", "5", "enter"], 4),
        (["/", *"떡볶이", "enter"], 2),
        (["/", *"떡볶이", "enter", "/", "enter"], 4),
        (["/", *"떡닭", "backspace", "backspace", "셋", "enter"], 2),
        (["/", *"n", "q", "esc"], 0),
    ],
)
def test_where_keys_lead(keys: Sequence[str], at: int) -> None:
    view = after(keys)
    assert (view.at, view.asking, view.message, view.done) == (at, "", "", False)


@pytest.mark.parametrize(
    ("keys", "at", "said"),
    [
        (["p"], 0, "첫 기록"),
        (["G", "n"], 4, "마지막 기록"),
        (["9", "enter"], 0, "9번째 기록은 없습니다 (no such record; there are 5)"),
        (["0", "enter"], 0, "없습니다"),
        (["/", *"없음", "enter"], 0, "없습니다"),
        (["?"], 0, HELP),
        (["x"], 0, HELP),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(keys: Sequence[str], at: int, said: str) -> None:
    view = after(keys)
    assert view.at == at
    assert said in view.message
    assert not after(["t"], view).message, "said once"


def test_the_ends() -> None:
    assert after(["q"]).done
    assert after(["ㅂ"]).done
    assert after(["eof"]).done
    assert after(["/", "eof"]).done


def test_a_long_record_is_read_to_its_end_before_the_next() -> None:
    tops = []
    view = View(at=1)
    for _ in range(4):
        view = after([" "], view, lines=25, room=10)
        tops.append((view.at, view.top))
    assert tops == [(1, 9), (1, 15), (2, 0), (2, 9)]
    assert after(["down", "down", "up"], lines=25).top == 1
    assert after(["pgup"], View(top=15), lines=25).top == 6
    assert after(["n"], View(top=15), lines=25).top == 0


def test_a_search_scrolls_to_what_it_found() -> None:
    lines = ["글"] * 30
    lines[20] = "여기 Seoul이 있다"
    found = View(searched="seoul", seek=True)
    assert scrolled(found, lines, 10) == replace(found, seek=False, top=19)
    assert scrolled(found, lines, 25).top == 0, "it is on the first screen"
    assert scrolled(View(top=99), lines, 10).top == 20
    assert scrolled(View(top=3), lines, 40).top == 0


def test_tokens_and_back() -> None:
    assert after(["t"]).tokens
    assert not after(["t", "ㅅ"]).tokens


KEYS = st.one_of(st.sampled_from(["n", "p", " ", "b", "g", "G", "t", "/", "up", "down", "enter", "esc"]), st.text())


@given(st.lists(KEYS), st.integers(1, 40), st.integers(1, 20))
def test_no_keys_lead_out_of_the_book(keys: list[str], lines: int, room: int) -> None:
    view = View()
    for key in keys:
        view = press(view, key, Pages(), lines, room)
        assert Pages().has(view.at)
        assert view.top >= 0


def test_what_a_terminal_sends_is_split_into_keys() -> None:
    sent = "n\x1b[A\x1bOB떡\r\x7f\x1b[6~\x1b[1;5C\x04\x1b"
    assert list(split_keys(sent)) == ["n", "up", "down", "떡", "enter", "backspace", "pgdn", "eof", "esc"]


# a real terminal


class Terminal:
    """`koalpaca data look` on a pseudo-terminal, with what it has written so far."""

    def __init__(self, *words: str) -> None:
        self.master, slave = pty.openpty()
        program = "from koalpaca_tune.cli.main import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "data", "look", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "60", "LINES": "12"},
        )
        os.close(slave)
        self.seen = ""

    def until(self, text: str) -> str:
        """Reads until it has written a text; what it wrote since the last call."""
        written = b""
        give_up = time.monotonic() + 30
        while text not in written.decode("utf-8", "ignore"):
            assert time.monotonic() < give_up, f"{text!r} never came: {written.decode('utf-8', 'ignore')!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                written += os.read(self.master, 65536)
        return written.decode("utf-8", "ignore")

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())


def test_a_person_pages_searches_in_korean_and_leaves(tmp_path: Path) -> None:
    talks = [
        Conversation((Turn("user", text), Turn("assistant", f"{text}이군요")), f"a.csv:{n}", "a")
        for n, text in enumerate(TEXTS, 2)
    ]
    jsonl.write(tmp_path / "train.jsonl", (one.as_dict() for one in talks))
    terminal = Terminal(str(tmp_path / "train.jsonl"))
    first = terminal.until("1 / …")
    assert "\x1b[?1049h" in first, "the other screen"
    assert "하나이군요" in first
    terminal.press("n")
    assert "둘이군요" in terminal.until("2 / …")
    terminal.press("/떡볶이\r")
    assert "a.csv:4" in terminal.until("3 / …")
    terminal.press("5\r")
    terminal.until("5 / …")
    terminal.press("n")
    terminal.until("마지막 기록입니다")
    terminal.press("q")
    last = terminal.until("\x1b[?1049l")
    assert "\x1b[?25h" in last, "the cursor is back"
    assert terminal.process.wait(timeout=30) == 0


def test_ctrl_c_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    jsonl.write(tmp_path / "train.jsonl", [Conversation((Turn("user", "물음"),), "a.csv:2").as_dict()])
    terminal = Terminal(str(tmp_path / "train.jsonl"))
    terminal.until("1 / …")
    terminal.process.send_signal(2)
    terminal.until("\x1b[?1049l")
    assert terminal.process.wait(timeout=30) == 0
