"""Packed rows give the logits of each document alone: no document sees another, nor the padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from koalpaca_tune.config.recipe import Quantization
from koalpaca_tune.models import forward
from koalpaca_tune.models.base import Loaded
from koalpaca_tune.records import NOT_LEARNED, Encoded
from koalpaca_tune.tokens.pack import Batch, collate

Load = Callable[..., Loaded]


def documents(count: int, *, seed: int = 0) -> list[Encoded]:
    """Random documents of 1 to 23 tokens, of which the last two thirds are learned."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for n in range(count):
        length = 1 + (n * 7) % 23
        ids = tuple(torch.randint(8, 500, (length,), generator=generator).tolist())
        prompt = length // 3
        made.append(Encoded(ids, (NOT_LEARNED,) * prompt + ids[prompt:]))
    return made


def tensors(batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.from_numpy(batch.ids), torch.from_numpy(batch.labels), torch.from_numpy(batch.positions)


def logits(model: Any, loaded: Loaded, rows: Sequence[Sequence[Encoded]]) -> torch.Tensor:
    ids, _, positions = tensors(collate(rows, loaded.vocabulary.pad_id))
    with torch.no_grad():
        return forward.head(model, forward.hidden(model, loaded.architecture, ids, positions))


@pytest.mark.parametrize("quantization", [Quantization(load_in_4bit=False), Quantization()], ids=["full", "4bit"])
def test_packed_logits_equal_unpacked_ones(tiny: str, load: Load, attach: Any, quantization: Quantization) -> None:
    loaded = load(tiny, quantization)
    model = attach(loaded, list(loaded.architecture.linears))
    docs = documents(14)
    rows = [docs[:5], docs[5:6], docs[6:], []]
    packed = logits(model, loaded, rows)
    scale = float(packed.abs().max())
    for n, row in enumerate(rows):
        at = 0
        for document in row:
            alone = logits(model, loaded, [[document]])[0]
            assert torch.allclose(packed[n, at : at + len(document.ids)], alone, rtol=0, atol=1e-5 * scale)
            at += len(document.ids)


def test_a_document_changes_nothing_for_its_neighbours(tiny: str, load: Load) -> None:
    loaded = load(tiny)
    first, second, other, last = documents(4, seed=3)
    middle = Encoded(tuple(reversed(first.ids)) + other.ids, (NOT_LEARNED,) * (len(first.ids) + len(other.ids)))
    swapped = Encoded(middle.ids[::-1], middle.labels)
    one = logits(loaded.model, loaded, [[second, middle, last]])
    two = logits(loaded.model, loaded, [[second, swapped, last]])
    start, end = len(second.ids), len(second.ids) + len(middle.ids)
    assert torch.equal(one[:, :start], two[:, :start])
    assert torch.allclose(one[:, end:], two[:, end:], rtol=0, atol=1e-6)
    assert not torch.allclose(one[:, start:end], two[:, start:end], atol=1e-2)


def test_learned_gives_the_state_before_each_learned_token(tiny: str, load: Load) -> None:
    loaded = load(tiny)
    docs = documents(6)
    batch = collate([docs[:3], docs[3:]], loaded.vocabulary.pad_id)
    ids, labels, positions = tensors(batch)
    with torch.no_grad():
        states, targets, row = forward.learned(loaded.model, loaded.architecture, ids, labels, positions)
        whole = forward.hidden(loaded.model, loaded.architecture, ids, positions)
    places = [(n, at) for n in range(2) for at in range(1, ids.shape[1]) if labels[n, at] != NOT_LEARNED]
    assert len(targets) == batch.learned == len(places)
    assert row.tolist() == [n for n, _ in places]
    assert targets.tolist() == [int(ids[n, at]) for n, at in places]
    assert torch.equal(states, torch.stack([whole[n, at - 1] for n, at in places]))
