"""The web server around the app: connections that say nothing are cut, and it stops without losing an answer."""

from __future__ import annotations

import asyncio
import socket
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.serving.app import app
from koalpaca_tune.serving.parts import Parts

GRACE_S = 2.0
"""Seconds that connections get beyond the answers, to be told of the end."""


class Impatient(H11Protocol):
    """A connection that is cut when its client says nothing, or does not read, for too long.

    uvicorn itself waits for ever for the first bytes of a request, and for a reader.
    """

    silence = 20.0
    _reading: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client is there."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget("_reading")
        elif self._reading is None:
            self._expect()

    def on_response_complete(self) -> None:
        """A reply is out; another request may follow, and uvicorn itself times how soon it begins."""
        self._forget("_reading")
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""
        super().pause_writing()
        self._forget("_writing")
        self._writing = self.loop.call_later(self.silence, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        self._forget("_writing")

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._forget("_reading")
        self._forget("_writing")
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._reading = self.loop.call_later(self.silence, self.transport.abort)

    def _forget(self, which: str) -> None:
        timer = getattr(self, which)
        if timer is not None:
            timer.cancel()
            setattr(self, which, None)


class Server(uvicorn.Server):
    """uvicorn's server, with the scheduler told of the end."""

    def __init__(self, parts: Parts) -> None:
        """Over the parts; `run(sockets=...)` serves until it is stopped."""
        limits = parts.limits
        self._parts = parts
        protocol = type("Connection", (Impatient,), {"silence": limits.silence})
        super().__init__(
            uvicorn.Config(
                app(parts),
                http=protocol,
                ws="none",
                lifespan="off",
                access_log=False,
                log_level="warning",
                server_header=False,
                limit_concurrency=limits.connections,
                timeout_keep_alive=10,
                timeout_graceful_shutdown=round(limits.stopping + GRACE_S),
            )
        )
        parts.scheduler.on_break = self._end

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: nothing new is taken, what is under way may end."""
        self._parts.scheduler.stop(self._parts.limits.stopping)
        super().handle_exit(sig, frame)

    def _end(self) -> None:
        self.should_exit = True


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address; before the model is read, so that a port that is taken is told at once.

    Raises:
        KoalpacaError: it cannot be had (serve-address).
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        raise KoalpacaError(
            "serve-address",
            f"it cannot be listened at ({error.strerror or error}).",
            where=f"{host}:{port}",
            fix="Give another --port, or --port 0 for any that is free.",
        ) from error
    return found
