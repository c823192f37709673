"""Host memory for the inputs of blocks: written while the card computes, fetched one block ahead.

Device memory is taken and given back on the computing stream only, and events order the copies, so that the
peak is what the plan says: at most two inputs of blocks are on the card beside the one in use.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Shelved:
    """A tensor put away: on the host, and on its way back once it was asked for."""

    host: Tensor
    coming: Tensor | None = None
    arrived: torch.cuda.Event | None = None


class Shelf:
    """Pinned host memory, where there is a card; on the CPU tensors merely stay where they are."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._leaving: tuple[Tensor, torch.cuda.Event] | None = None

    def put(self, x: Tensor) -> Shelved:
        """Copies x to the host. The tensor put before it is let go."""
        if self._stream is None:
            return Shelved(x)
        self._let_go()
        # pinned blocks are kept and handed out again by torch's own allocator
        host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            host.copy_(x, non_blocking=True)
        self._leaving = (x, self._stream.record_event())
        return Shelved(host)

    def get(self, shelved: Shelved, following: Shelved | None) -> Tensor:
        """The tensor on the device; that of `following` sets out."""
        if self._stream is None:
            return shelved.host
        self._let_go()
        self._fetch(shelved)
        x, arrived = shelved.coming, shelved.arrived
        assert x is not None
        assert arrived is not None
        shelved.coming = None
        torch.cuda.current_stream(self._device).wait_event(arrived)
        if following is not None:
            self._fetch(following)
        return x

    def _let_go(self) -> None:
        """The computing stream waits until the last copy has read its tensor, whose memory is then free."""
        if self._leaving is not None:
            torch.cuda.current_stream(self._device).wait_event(self._leaving[1])
            self._leaving = None

    def _fetch(self, shelved: Shelved) -> None:
        if shelved.coming is not None:
            return
        assert self._stream is not None
        shelved.coming = torch.empty(shelved.host.shape, dtype=shelved.host.dtype, device=self._device)
        # its memory may still be read by what the computing stream has yet to do
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            shelved.coming.copy_(shelved.host, non_blocking=True)
        shelved.arrived = self._stream.record_event()
