"""Texts that come and go: each waits for a slot, is written with whoever is there, and leaves when it is over."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from koalpaca_tune.inference.generation.decoder import Decoder
from koalpaca_tune.inference.generation.request import End, Request, Token
from koalpaca_tune.inference.generation.state import MOST_STOPS, OVER, Tokens


@dataclass
class _Text:
    """One that has a slot; `asked` counts tokens that were asked for, `read` those that the host has seen."""

    ticket: int
    request: Request
    slot: int
    asked: int = 0
    read: int = 0
    over: bool = False


class Session:
    """Requests over a decoder, from one thread.

    `step` gives the tokens of the step before while the next one is computed: a token comes one call later.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._tickets = itertools.count()
        self._waiting: deque[tuple[int, Request]] = deque()
        self._live: dict[int, _Text] = {}
        self._free = list(range(decoder.slots))[::-1]
        self._pending: list[tuple[Tokens, list[_Text]]] = []
        self._cancelled: list[int] = []

    @property
    def busy(self) -> bool:
        """Whether there is anything to step for."""
        return bool(self._waiting or self._live or self._pending or self._cancelled)

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return len(self._waiting)

    @property
    def live(self) -> int:
        """Texts that are being written."""
        return len(self._live)

    def add(self, request: Request) -> int:
        """Takes a request; it begins at the next step if there is a free slot.

        Returns:
            Its ticket.

        Raises:
            ValueError: it is longer than a slot, has too many stops, or names an adapter that is not there.
        """
        room = self._decoder.room + 1
        if not request.ids or request.limit < 1 or len(request.ids) + request.limit > room:
            raise ValueError(f"{len(request.ids)} tokens and {request.limit} new ones; there is room for {room}")
        if request.adapter is not None and request.adapter not in self._decoder.names:
            raise ValueError(f"no adapter '{request.adapter}'")
        if len(request.stops) > MOST_STOPS:
            raise ValueError(f"{len(request.stops)} stop ids; at most {MOST_STOPS} are handled")
        ticket = next(self._tickets)
        self._waiting.append((ticket, request))
        return ticket

    def cancel(self, ticket: int) -> None:
        """Gives a text up; its last token is told at the next step, with id -1. One that is over is left alone."""
        for entry in self._waiting:
            if entry[0] == ticket:
                self._waiting.remove(entry)
                self._cancelled.append(ticket)
                return
        text = self._live.get(ticket)
        if text is not None:
            self._decoder.leave(text.slot)
            self._end(text)
            self._cancelled.append(ticket)

    def step(self) -> list[Token]:
        """Fills free slots, starts a step, and returns the tokens of the one before and of new texts."""
        found = [Token(ticket, OVER, "cancelled") for ticket in self._cancelled]
        self._cancelled.clear()
        before, self._pending = self._pending, []
        joined = self._join()
        texts = [text for text in self._live.values() if text.asked < text.request.limit]
        if texts:
            tokens = self._decoder.step([text.slot for text in texts])
            for text in texts:
                text.asked += 1
            self._pending.append((tokens, texts))
        for tokens, those in (*before, *joined):
            found += self._read(tokens, those)
        return found

    def run(self) -> Iterator[Token]:
        """Steps until nothing is left."""
        while self.busy:
            yield from self.step()

    def _join(self) -> list[tuple[Tokens, list[_Text]]]:
        new = []
        while self._waiting and self._free:
            ticket, request = self._waiting.popleft()
            text = _Text(ticket, request, self._free.pop(), asked=1)
            self._live[ticket] = text
            new.append(text)
        if not new:
            return []
        return [(self._decoder.prefill([(text.slot, text.request) for text in new]), new)]

    def _read(self, tokens: Tokens, texts: Sequence[_Text]) -> Iterator[Token]:
        for text, token in zip(texts, tokens.read(), strict=True):
            if text.over or token == OVER:
                continue
            text.read += 1
            end: End | None = None
            if token in text.request.stops:
                end = "stop"
            elif text.read == text.request.limit:
                end = "length"
            if end is not None:
                self._end(text)
            yield Token(text.ticket, token, end)

    def _end(self, text: _Text) -> None:
        text.over = True
        del self._live[text.ticket]
        self._free.append(text.slot)
