"""What writes for many: the engine's decoder where it can compute the model, transformers' modules elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import peft
import torch

from koalpaca_tune.inference.generation import writer
from koalpaca_tune.inference.generation.decoder import Decoder
from koalpaca_tune.inference.generation.session import Session
from koalpaca_tune.inference.plain_session import PlainSession
from koalpaca_tune.inference.reference import inferring
from koalpaca_tune.models.base import Loaded
from koalpaca_tune.models.forward import causal


@dataclass(frozen=True)
class Opened:
    """A session over a model.

    Attributes:
        writer: for one thread.
        within: what that thread works within.
        engine: what computes, in a few words.
    """

    writer: Session | PlainSession
    within: Callable[[], AbstractContextManager[object]]
    engine: str


def obstacle_of(loaded: Loaded) -> str | None:
    """Why the decoder cannot write with a base, in a few words; asked before adapters are put on it."""
    return writer.obstacle_of(loaded.model, loaded)


def open_session(
    model: Any, loaded: Loaded, adapters: Sequence[str], *, slots: int, room: int, obstacle: str | None
) -> Opened:
    """A session of so many texts at a time.

    Args:
        model: the base, or PEFT's model around it.
        loaded: the base.
        adapters: PEFT's names of the adapters that may be asked for.
        slots: texts at a time.
        room: tokens of each, the prompt included.
        obstacle: of the base, from `obstacle_of`.
    """
    why = obstacle or _beyond(model, loaded)
    if why is not None:
        return Opened(PlainSession(model), lambda: inferring(model, loaded), f"transformers: {why}")
    # on the CPU decoding 4-bit weights takes far longer than a step; a card reads them as they are
    decoded = loaded.device.type != "cuda" and bool(loaded.proof.linears_4bit)
    decoder = Decoder(
        model,
        loaded.architecture,
        dtype=loaded.compute_dtype,
        adapters=adapters,
        slots=slots,
        room=room,
        decoded=decoded,
    )
    return Opened(Session(decoder), torch.inference_mode, f"slots {slots} x {decoder.room} tokens")


def _beyond(model: Any, loaded: Loaded) -> str | None:
    inside = set(getattr(causal(model), loaded.architecture.body).layers.modules())
    layers = [module for module in model.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    return None if all(layer in inside for layer in layers) else "an adapter beyond the blocks"
