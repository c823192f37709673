"""What is asked of a decoder, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from koalpaca_tune.inference.decoding import Sampling

End = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Request:
    """A text to continue.

    Attributes:
        ids: the prompt, at least one token.
        limit: most new tokens, the stop token included.
        stops: ids that end it, at most `decoder.MOST_STOPS`.
        sampling: None for the likeliest token each time.
        adapter: name of the adapter; None: the base alone.
        prefix: how many of the first ids are likely to come again in other requests, as a system text does; their
            keys are kept. 0: none.
    """

    ids: tuple[int, ...]
    limit: int
    stops: tuple[int, ...] = ()
    sampling: Sampling | None = None
    adapter: str | None = None
    prefix: int = 0


class Token(NamedTuple):
    """One token of a text.

    Attributes:
        ticket: the text's, from `Session.add`.
        id: of the token, -1 where the text was cancelled.
        end: why the text is over with it; None: it goes on.
    """

    ticket: int
    id: int
    end: End | None
