"""From tokens to the text that may be shown: whole syllables, and nothing that a stop text may yet claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from koalpaca_tune.inference.decoding import HALF, first_of


class TextStream:
    """The text of one answer, as far as it is settled.

    Its pieces joined are the same text as `decoding.written` gives for the whole answer.

    Attributes:
        ended: a stop text has come; nothing follows.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], *, until: Sequence[str] = (), strip: bool = True
    ) -> None:
        """Begins an answer.

        Args:
            decode: ids to text.
            until: texts that end the answer, and are no part of it.
            strip: whether space around the answer belongs to the template.
        """
        self._decode = decode
        self._until = tuple(until)
        self._strip = strip
        self._ids: list[int] = []
        # decoded up to `read`; again from `start`, since a token's text may depend on the one before it
        self._start = self._read = 0
        self._held = ""
        self._begun = False
        self.ended = False

    def push(self, token: int) -> str:
        """The text that is settled with one more token."""
        assert not self.ended
        self._ids.append(token)
        text = self._window()
        if text.endswith(HALF):
            return ""
        self._held += text
        self._start, self._read = self._read, len(self._ids)
        return self._settled(last=False)

    def finish(self) -> str:
        """What is left when the answer is over; half a syllable is left out."""
        if self.ended:
            return ""
        self._held += self._window().rstrip(HALF)
        self._read = len(self._ids)
        return self._settled(last=True)

    def _window(self) -> str:
        before = self._decode(self._ids[self._start : self._read])
        return self._decode(self._ids[self._start :])[len(before) :]

    def _settled(self, *, last: bool) -> str:
        text, kept = self._held, ""
        cut = first_of(text, self._until)
        if cut is not None:
            self.ended = last = True
            text = text[:cut]
        elif not last:
            claimed = self._claimed(text)
            text, kept = text[: len(text) - claimed], text[len(text) - claimed :]
        if self._strip and not self._begun:
            # space that is held might yet be the start of a stop text
            found = text.lstrip()
            if not found and not last:
                return ""
            text = found
        if self._strip:
            body = text.rstrip()
            kept = text[len(body) :] + kept
            text = body
        self._begun = self._begun or bool(text)
        self._held = "" if last else kept
        return text

    def _claimed(self, text: str) -> int:
        """How many of the last characters may be the start of a stop text."""
        longest = max(map(len, self._until), default=0)
        for length in range(min(longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._until):
                return length
        return 0
