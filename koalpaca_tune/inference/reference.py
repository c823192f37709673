"""Log-likelihoods by transformers' own modules: the reference, and for what the engine cannot compute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from koalpaca_tune.models import forward
from koalpaca_tune.models.base import Loaded
from koalpaca_tune.records import Encoded
from koalpaca_tune.tokens.pack import collate

HEAD_ROWS = 1024
"""Scored positions per call of the output head: bounds the logits at 1024 x vocabulary."""


class Reference:
    """Every request alone in a padded row."""

    def __init__(self, model: Any, loaded: Loaded, pad_id: int) -> None:
        self._model = model
        self._loaded = loaded
        self._pad_id = pad_id

    def scores(self, encoded: Iterable[Encoded], most_tokens: int) -> list[float]:
        """Summed log-likelihood of the learned tokens of each, in nats.

        Args:
            encoded: each with a learned token.
            most_tokens: of a batch, padding included.
        """
        whole = list(encoded)
        scores = [0.0] * len(whole)
        with inferring(self._model, self._loaded):
            for part in batches([len(one.ids) for one in whole], most_tokens):
                for n, logprob in zip(part, self._logprobs([whole[n] for n in part]), strict=True):
                    scores[n] = logprob
        return scores

    def _logprobs(self, part: Sequence[Encoded]) -> list[float]:
        batch = collate([[one] for one in part], self._pad_id)
        ids, labels, positions = (
            torch.from_numpy(array).to(self._loaded.device) for array in (batch.ids, batch.labels, batch.positions)
        )
        architecture = self._loaded.architecture
        states, targets, rows = forward.learned(self._model, architecture, ids, labels, positions)
        sums = torch.zeros(len(part), dtype=torch.float64, device=states.device)
        for at in range(0, len(targets), HEAD_ROWS):
            here = slice(at, at + HEAD_ROWS)
            logits = forward.head(self._model, states[here])
            losses = functional.cross_entropy(logits, targets[here], reduction="none")
            sums.index_add_(0, rows[here], -losses.double())
        values: list[float] = sums.tolist()
        return values


@contextmanager
def inferring(model: Any, loaded: Loaded) -> Iterator[None]:
    """Eval mode (no dropout; recomputation, which would turn the cache off, is idle), no gradients."""
    trained = model.training
    model.eval()
    device = loaded.device.type
    half = device == "cuda" and loaded.compute_dtype == torch.bfloat16
    try:
        with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=half):
            yield
    finally:
        if trained:
            model.train()


def batches(costs: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in groups of similar cost, dearest first, so that memory runs out at the start or never.

    Args:
        costs: tokens of each item.
        budget: most tokens of a group, each item counted as the group's dearest; an item dearer than this
            goes alone.
    """
    group: list[int] = []
    for index in sorted(range(len(costs)), key=lambda n: -costs[n]):
        if group and costs[group[0]] * (len(group) + 1) > budget:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
