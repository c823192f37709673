"""Paging through records on a terminal: what a key does (`press`, a pure function), and the screen around it."""

from __future__ import annotations

import codecs
import os
import select
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from rich.cells import set_cell_size
from rich.text import Text

from koalpaca_tune.cli.show import console


class Book(Protocol):
    """What can be paged through. Positions count from 0."""

    def has(self, at: int) -> bool:
        """Whether there is a record at a position."""

    def all(self) -> int:
        """How many there are; may take a while."""

    def find(self, text: str, start: int) -> int | None:
        """The first record at or after a position that contains a text."""


@dataclass(frozen=True, slots=True)
class View:
    """What the screen shows.

    Attributes:
        at: the record.
        top: its first line on the screen.
        asking: whether keys are typed into a search or a number.
        typed: what has been typed.
        searched: the last text searched for.
        seek: whether the screen has yet to scroll to what was searched for.
        message: said once in the last line.
        tokens: the record as tokens, not as text.
        done: the end.
    """

    at: int = 0
    top: int = 0
    asking: Literal["", "search", "number"] = ""
    typed: str = ""
    searched: str = ""
    seek: bool = False
    message: str = ""
    tokens: bool = False
    done: bool = False


KEYS = "n 다음 p 이전 space 아래 /글 찾기 숫자⏎ 이동 t 토큰 q 끝 ? 도움말"
HELP = "n 다음  p 이전  space 아래  b 위  /글 찾기  숫자⏎ 이동  g 처음  G 끝  t 토큰  q 나가기"

# keys of a Korean keyboard left in Hangul
_HANGUL_KEYS = {"ㅜ": "n", "ㅔ": "p", "ㅠ": "b", "ㅎ": "g", "ㅅ": "t", "ㅂ": "q", "ㅓ": "j", "ㅏ": "k"}
_SAME_KEYS = {"j": "n", "right": "n", "k": "p", "left": "p", "home": "g", "end": "G", "pgdn": " ", "pgup": "b"}


def press(view: View, key: str, book: Book, lines: int, room: int) -> View:
    """The view after a key.

    Args:
        key: a character, or a name: enter, backspace, esc, up, down, left, right, home, end, pgup, pgdn, eof.
        lines: of the record shown, as wrapped on this screen.
        room: lines that the screen holds.
    """
    view = replace(view, message="")
    if key == "eof":
        return replace(view, done=True)
    if view.asking:
        return _typed(view, key, book)
    key = _HANGUL_KEYS.get(key, key)
    key = _SAME_KEYS.get(key, key)
    last = max(0, lines - room)
    match key:
        case "q":
            return replace(view, done=True)
        case "n":
            return _to(view, view.at + 1, book)
        case "p":
            return _to(view, view.at - 1, book)
        case " " | "enter":
            # at the end of a record, on to the next
            down = replace(view, top=min(last, view.top + max(1, room - 1)))
            return down if view.top < last else _to(view, view.at + 1, book)
        case "b":
            return replace(view, top=max(0, view.top - max(1, room - 1)))
        case "down":
            return replace(view, top=min(last, view.top + 1))
        case "up":
            return replace(view, top=max(0, view.top - 1))
        case "g":
            return replace(view, at=0, top=0)
        case "G":
            return replace(view, at=book.all() - 1, top=0)
        case "t":
            return replace(view, tokens=not view.tokens, top=0)
        case "/":
            return replace(view, asking="search", typed="")
        case _ if key.isascii() and key.isdigit():
            return replace(view, asking="number", typed=key)
    return replace(view, message=HELP)


def _typed(view: View, key: str, book: Book) -> View:
    if key == "esc":
        return replace(view, asking="", typed="")
    if key == "backspace":
        shorter = view.typed[:-1]
        return replace(view, typed=shorter, asking=view.asking if view.typed else "")
    if key == "enter":
        asked, view = view, replace(view, asking="", typed="")
        return _search(view, asked.typed, book) if asked.asking == "search" else _jump(view, asked.typed, book)
    if len(key) == 1 and key.isprintable() and (view.asking == "search" or (key.isascii() and key.isdigit())):
        return replace(view, typed=view.typed + key)
    return view


def _search(view: View, typed: str, book: Book) -> View:
    text = typed or view.searched
    if not text:
        return view
    found = book.find(text, view.at + 1)
    if found is None:
        return replace(view, searched=text, message=f"이 뒤에는 '{text}'이(가) 없습니다 (not found below)")
    return replace(view, at=found, top=0, searched=text, seek=True)


def _jump(view: View, typed: str, book: Book) -> View:
    at = int(typed) - 1 if typed.isdigit() else -1
    if at >= 0 and book.has(at):
        return replace(view, at=at, top=0)
    return replace(view, message=f"{typed}번째 기록은 없습니다 (no such record; there are {book.all():,})")


def _to(view: View, at: int, book: Book) -> View:
    if at < 0:
        return replace(view, message="첫 기록입니다 (the first record)")
    if not book.has(at):
        return replace(view, message="마지막 기록입니다 (the last record)")
    return replace(view, at=at, top=0)


def possible() -> bool:
    """Whether a person sits at a terminal that can be drawn on."""
    try:
        import termios  # noqa: F401 - not on Windows
    except ImportError:
        return False
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def browse(
    book: Book, draw: Callable[[int, bool], Text], count: Callable[[], str], *, tokens: bool = False
) -> None:
    """Shows one record at a time until the person has seen enough.

    Args:
        draw: the record at a position, as text or as tokens.
        count: how many records there are, as far as is known, for the last line.
        tokens: begin with tokens.
    """
    view = View(tokens=tokens)
    shown: tuple[object, ...] = ()
    lines: list[Text] = []
    with _terminal() as keys:
        while not view.done:
            width, height = shutil.get_terminal_size()
            room = max(1, height - 1)
            wanted = (view.at, view.tokens, view.searched, width)
            if wanted != shown:
                lines, shown = _wrapped(draw(view.at, view.tokens), view.searched, width), wanted
            view = scrolled(view, [line.plain for line in lines], room)
            _paint(lines[view.top : view.top + room], _last_line(view, count(), len(lines), room), width, height)
            key = next(keys)
            if key:
                view = press(view, key, book, len(lines), room)


def scrolled(view: View, lines: Sequence[str], room: int) -> View:
    """The view with its first line where it can be; after a search, where the text is."""
    last = max(0, len(lines) - room)
    if not view.seek:
        return replace(view, top=min(view.top, last))
    needle = view.searched.casefold()
    at = next((n for n, line in enumerate(lines) if needle in line.casefold()), 0)
    # with a line before it, so that one sees where it stands
    return replace(view, seek=False, top=min(last, max(0, at - 1) if at >= room else 0))


def _wrapped(text: Text, searched: str, width: int) -> list[Text]:
    if searched:
        text.highlight_words([searched], "reverse", case_sensitive=False)
    text.rstrip()
    return list(text.wrap(console, max(1, width - 1)))


def _last_line(view: View, count: str, lines: int, room: int) -> str:
    if view.asking:
        return f"{'/' if view.asking == 'search' else '번호 (number): '}{view.typed}▏"
    if view.message:
        return view.message
    more = f"  {min(lines, view.top + room):,}/{lines:,}줄" if lines > room else ""
    return f"{view.at + 1:,} / {count}{more}   {KEYS}"


def _paint(lines: Sequence[Text], last: str, width: int, height: int) -> None:
    out = "\x1b[H"
    for line in lines:
        with console.capture() as captured:
            console.print(line, end="", no_wrap=True, overflow="ignore", crop=False)
        out += captured.get() + "\x1b[K\r\n"
    out += "\x1b[J" + f"\x1b[{height};1H\x1b[7m{set_cell_size(last, width - 1)}\x1b[0m\x1b[K"
    sys.stdout.write(out)
    sys.stdout.flush()


@contextmanager
def _terminal() -> Iterator[Iterator[str]]:
    """The other screen, keys one by one; all as it was afterwards, however it ends."""
    import termios
    import tty

    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    try:
        # keys that were struck while the program started count
        tty.setcbreak(file, termios.TCSADRAIN)
        sys.stdout.write("\x1b[?1049h\x1b[?25l")
        yield _keys(file)
    except KeyboardInterrupt:
        pass
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        termios.tcsetattr(file, termios.TCSADRAIN, before)


_RESIZED_AFTER_S = 0.5


def _keys(file: int) -> Iterator[str]:
    """Keys as `press` names them; "" now and then, so that a changed window is drawn anew."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while True:
        if not select.select([file], [], [], _RESIZED_AFTER_S)[0]:
            yield ""
            continue
        read = os.read(file, 1024)
        if not read:
            yield "eof"
            return
        yield from split_keys(decoder.decode(read))


_ARROWS = ("up", "down", "right", "left", "home", "end")
_NAMED = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x04": "eof", "\x03": "eof"}
_SEQUENCES = {
    **{f"\x1b{lead}{final}": name for lead in "[O" for final, name in zip("ABCDHF", _ARROWS, strict=True)},
    **{"\x1b[5~": "pgup", "\x1b[6~": "pgdn", "\x1b[1~": "home", "\x1b[4~": "end"},
}


def split_keys(text: str) -> Iterator[str]:
    """What a terminal sent, as keys; a sequence that is none of ours is passed over."""
    at = 0
    while at < len(text):
        if text[at] != "\x1b":
            yield _NAMED.get(text[at], text[at])
            at += 1
            continue
        end = at + 1
        if text[end : end + 1] in ("[", "O"):
            end += 1
            while end < len(text) and not "@" <= text[end] <= "~":
                end += 1
            end += 1
        sequence = text[at:end]
        at = end
        if sequence == "\x1b":
            yield "esc"
        elif sequence in _SEQUENCES:
            yield _SEQUENCES[sequence]
