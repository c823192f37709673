"""Texts that come and go, written by transformers' own modules: for models that the engine cannot compute.

Each text has a cache of its own and goes alone through the model, so answers are right and not fast.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

from koalpaca_tune.inference.generation import choosing
from koalpaca_tune.inference.generation.request import End, Request, Token
from koalpaca_tune.models.forward import causal


@dataclass
class _Text:
    """One on its way: its keys and values, the ids that are not in them yet, and how many tokens it has."""

    ticket: int
    request: Request
    cache: Any
    pending: Sequence[int]
    count: int = 0


class PlainSession:
    """As `generation.session.Session`, from one thread."""

    def __init__(self, model: Any) -> None:
        """Wraps a causal language model, or PEFT's around it."""
        self._model = model
        self._device: torch.device = next(causal(model).parameters()).device
        self._tickets = itertools.count()
        self._live: dict[int, _Text] = {}

    def add(self, request: Request) -> int:
        """Takes a request; it begins at the next step."""
        ticket = next(self._tickets)
        cache = transformers.DynamicCache(config=causal(self._model).config)
        self._live[ticket] = _Text(ticket, request, cache, request.ids)
        return ticket

    def cancel(self, ticket: int) -> None:
        """Gives a text up; nothing more is heard of it."""
        self._live.pop(ticket, None)

    def step(self) -> list[Token]:
        """One token for each text."""
        found = []
        # an adapter is switched on once for all of its texts
        for text in sorted(self._live.values(), key=lambda text: text.request.adapter or ""):
            token = self._next(text)
            text.pending = (token,)
            text.count += 1
            end: End | None = None
            if token in text.request.stops:
                end = "stop"
            elif text.count == text.request.limit:
                end = "length"
            if end is not None:
                del self._live[text.ticket]
            found.append(Token(text.ticket, token, end))
        return found

    def _next(self, text: _Text) -> int:
        ids = torch.tensor([text.pending], device=self._device)
        with self._adapted(text.request.adapter):
            out = causal(self._model)(input_ids=ids, past_key_values=text.cache, use_cache=True, logits_to_keep=1)
        logits: Tensor = out.logits[:, -1].float()
        own = text.request.sampling
        if own is None:
            return int(choosing.likeliest(logits))
        like: dict[str, Any] = {"device": self._device}
        return int(
            choosing.drawn(
                logits,
                torch.tensor([own.temperature], **like),
                torch.tensor([own.top_p], **like),
                torch.tensor([own.seed], **like),
                torch.tensor([text.count], **like),
            )
        )

    def _adapted(self, adapter: str | None) -> Any:
        if adapter is not None:
            if self._model.active_adapter != adapter:
                self._model.set_adapter(adapter)
            return nullcontext()
        return self._model.disable_adapter() if hasattr(self._model, "disable_adapter") else nullcontext()
