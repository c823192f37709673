"""A line typed by a person: Hangul is edited by syllables, whatever the locale says.

GNU readline follows the locale and, where there is none (a bare container), erases single bytes of a syllable;
prompt_toolkit draws the line itself and knows that a syllable takes two columns.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prompt_toolkit.buffer import Buffer


def lines(prompt: str, words: tuple[str, ...]) -> Iterator[str]:
    """Lines until the input ends: from a terminal with editing and history, else as they come.

    Args:
        prompt: shown before each line on a terminal.
        words: that Tab completes at the start of a line.
    """
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    read = _terminal(prompt, words) if at_terminal else _plain
    while True:
        try:
            line = read()
        except EOFError:
            return
        except KeyboardInterrupt:
            if not at_terminal:
                raise
            # the line is given up, not the talk
            continue
        yield line


def _plain() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _terminal(prompt: str, words: tuple[str, ...]) -> Callable[[], str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.formatted_text import HTML
    from prompt_toolkit.history import InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.key_binding.key_processor import KeyPressEvent

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(
        HTML("<b>{}</b>").format(prompt),
        history=InMemoryHistory(),
        # a sentence with a space: only the first word is a command
        completer=WordCompleter(list(words), sentence=True),
        complete_while_typing=False,
        key_bindings=keys,
        # what is typed is drawn over several lines rather than scrolled sideways
        wrap_lines=True,
    )
    session.default_buffer.on_text_insert += compose
    return session.prompt


def compose(buffer: Buffer) -> None:
    """Joins decomposed Hangul as it is typed or pasted, so that one backspace takes one syllable."""
    from prompt_toolkit.document import Document

    before, after = (
        unicodedata.normalize("NFC", text)
        for text in (buffer.document.text_before_cursor, buffer.document.text_after_cursor)
    )
    if before + after != buffer.text:
        buffer.document = Document(before + after, len(before))
