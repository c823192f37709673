"""A request on its way through the scheduler, and what it hears."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from koalpaca_tune.inference.generation.request import Request, Token
from koalpaca_tune.serving.text import TextStream


class Writer(Protocol):
    """What writes: `inference.generation.session.Session`, or `inference.plain_session.PlainSession`."""

    def add(self, request: Request) -> int:
        """Takes a request, which begins at the next step; its ticket."""

    def cancel(self, ticket: int) -> None:
        """Gives a text up."""

    def step(self) -> list[Token]:
        """Tokens that are there now, at most a few of each text."""


class Piece(NamedTuple):
    """Text that is settled."""

    text: str


class Done(NamedTuple):
    """The answer is over; `tokens`: how many were written, the stop token not counted."""

    reason: Literal["stop", "length"]
    tokens: int


class Failed(NamedTuple):
    """There will be no (more) answer."""

    why: Literal["late", "never-began", "stopping", "broken"]


Heard = Piece | Done | Failed


class Full(Exception):  # noqa: N818  # not a mistake of anyone's
    """The queue is full; `seconds` until it is likely not to be."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Stopping(Exception):  # noqa: N818
    """The server takes nothing more: it is being stopped, or its model broke."""


@dataclass(eq=False)
class Job:
    """A request on its way.

    Attributes:
        request: for the writer.
        stream: its text.
        hear: is told what becomes of it, from the scheduler's thread.
        model: its name, for the metrics.
        until: on the clock: when it is given up.
        since: when it came.
        tokens: written so far.
    """

    request: Request
    stream: TextStream
    hear: Callable[[Heard], None]
    model: str
    until: float
    since: float
    tokens: int = 0
    ticket: int | None = None
    cancelled: bool = False
