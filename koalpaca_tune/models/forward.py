"""One forward pass for training and scoring alike: states of packed rows, and the head only where needed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from koalpaca_tune.models.architectures import Architecture
from koalpaca_tune.records import NOT_LEARNED


def causal(model: Any) -> Any:
    """The causal language model inside a PEFT model (or the model itself)."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def hidden(model: Any, architecture: Architecture, ids: Tensor, positions: Tensor) -> Tensor:
    """Last hidden states [rows, length, width] of int64 ids and positions [rows, length].

    No attention mask and no cache: attention is then block-diagonal where positions restart (tokens.pack).
    """
    body = getattr(causal(model), architecture.body)
    states: Tensor = body(
        input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False
    ).last_hidden_state
    return states


def head(model: Any, states: Tensor) -> Tensor:
    """Logits in float32 [n, vocabulary] of states [n, width]."""
    logits: Tensor = causal(model).get_output_embeddings()(states)
    return logits.float()


def learned(
    model: Any, architecture: Architecture, ids: Tensor, labels: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The states that predict a learned token.

    Returns:
        (states [n, width], tokens [n], row of each [n]), in row order.
    """
    states = hidden(model, architecture, ids, positions)[:, :-1]
    targets = labels[:, 1:]
    chosen = targets != NOT_LEARNED
    return states[chosen], targets[chosen], chosen.nonzero()[:, 0]
