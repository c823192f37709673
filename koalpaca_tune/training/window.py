"""What a line of metrics adds up, and the numbers of a step on their way from the card."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Work:
    """A step ready to be computed.

    Attributes:
        micro_steps: arguments of this process's micro-steps, as many as in every other process.
        learned, tokens: of the whole step, over all processes.
        seconds: that reading and arranging its documents took.
    """

    micro_steps: list[tuple[Any, ...]]
    learned: int
    tokens: int
    seconds: float = 0.0


@dataclass
class Window:
    """Sums since the last line of metrics.

    Attributes:
        loss: in nats, over learned tokens.
        learned, tokens: of all processes.
        grad_norm: the largest, before clipping.
        norms: their sum.
        steps: added up here.
        clipped: of these, with gradients that were clipped.
        worst: the largest mean loss of a step.
        data_seconds: spent reading and arranging documents.
        started: by time.perf_counter.
    """

    loss: float = 0.0
    learned: int = 0
    tokens: int = 0
    grad_norm: float = 0.0
    norms: float = 0.0
    steps: int = 0
    clipped: int = 0
    worst: float = 0.0
    data_seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def add(self, work: Work, total: float, norm: float, longest: float) -> None:
        """One step: its summed loss, the norm of its gradients, and what they were clipped to."""
        self.loss += total
        self.learned += work.learned
        self.tokens += work.tokens
        self.grad_norm = max(self.grad_norm, norm)
        self.norms += norm
        self.steps += 1
        self.clipped += norm > longest
        self.worst = max(self.worst, total / work.learned)
        self.data_seconds += work.seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done meanwhile does not count in its seconds."""
        began = time.perf_counter()
        yield
        self.started += time.perf_counter() - began

    def row(self) -> dict[str, Any]:
        """Its part of a line of metrics."""
        seconds = time.perf_counter() - self.started
        return {
            "loss": self.loss / self.learned,
            "worst_loss": self.worst,
            "grad_norm": self.grad_norm,
            "grad_norm_mean": self.norms / self.steps,
            "clipped": self.clipped / self.steps,
            "tokens": self.tokens,
            "learned_tokens": self.learned,
            "seconds": round(seconds, 4),
            "data_seconds": round(self.data_seconds, 4),
            "tokens_per_second": round(self.tokens / seconds, 1),
        }

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint between two lines: the next line counts these steps too."""
        sums = dict(vars(self))
        return {"seconds": time.perf_counter() - sums.pop("started"), **sums}

    @classmethod
    def from_dict(cls, sums: dict[str, Any]) -> Window:
        """Raises KeyError or TypeError for anything that `as_dict` did not write."""
        others = {name: value for name, value in sums.items() if name != "seconds"}
        return cls(**others, started=time.perf_counter() - sums["seconds"])


@dataclass(frozen=True)
class Reading:
    """A step's summed loss, how many processes were asked to stop, and its gradient norm, on their way to the host.

    Attributes:
        there: float32 [3], on the device.
        here: the same, pinned, on CUDA; whole once `arrived`.
        number, work: of the step.
    """

    there: Tensor
    here: Tensor | None
    arrived: torch.cuda.Event | None
    number: int
    work: Work

    @classmethod
    def of(cls, there: Tensor, number: int, work: Work) -> Reading:
        """Sets out."""
        if there.device.type != "cuda":
            return cls(there, None, None, number, work)
        here = torch.empty(3, pin_memory=True)
        here.copy_(there, non_blocking=True)
        return cls(there, here, torch.cuda.current_stream().record_event(), number, work)

    def values(self) -> tuple[float, float, float]:
        """Waits for this step, and for nothing that was launched after it."""
        if self.arrived is not None:
            self.arrived.synchronize()
        total, asked, norm = (self.there if self.here is None else self.here).tolist()
        return total, asked, norm

    def not_finite(self) -> Tensor:
        """float32 scalar on the device: 1 where one of them is not finite."""
        return (~torch.isfinite(self.there).all()).float()
