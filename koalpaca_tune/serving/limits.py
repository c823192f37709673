"""How much of a server one request, and all of them, may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a server.

    Attributes:
        body: bytes of a request.
        seconds: a request may take from its first byte to the end of its answer.
        waiting: requests that may wait for a slot.
        silence: seconds without a byte, of a request that comes in or of a client that does not read, after which
            the connection is cut.
        connections: open at a time.
        stopping: seconds that answers under way get when the server is stopped.
    """

    body: int = 1 << 20
    seconds: float = 300.0
    waiting: int = 128
    silence: float = 20.0
    connections: int = 1024
    stopping: float = 30.0
