"""The same loss and gradients, however documents are put together and whoever computes them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from koalpaca_tune.models import forward
from koalpaca_tune.models.architectures import Architecture
from koalpaca_tune.records import NOT_LEARNED, Encoded
from koalpaca_tune.tokens.pack import collate
from koalpaca_tune.training import objective
from koalpaca_tune.training.loop import Trainer

ALONE = 8
"""Documents that are also computed one by one, and by transformers."""
SHORT = 512
"""Tokens of each document that transformers computes."""


def micro_tokens(trainer: Trainer) -> int:
    """The most tokens that the run computes at once."""
    choice, recipe = trainer.prepared.choice, trainer.recipe
    if choice is not None:
        return choice.micro_tokens
    return recipe.engine.micro_tokens or max(objective.MICRO_TOKENS, recipe.data.max_length)


def apart(trainer: Trainer) -> tuple[float, float | None]:
    """Relative differences of loss and gradients: documents together as the run has them, and each alone.

    Packing, padding, and how a step is cut into micro-steps must not change what is learned; a mean of means would.
    """
    rows: list[list[Encoded]] = []
    count, room = 0, micro_tokens(trainer)
    for row in (row for step in trainer.steps for row in step.rows):
        documents = [trainer.train[index] for index in row]
        room -= sum(len(one.ids) for one in documents)
        # one document alone would be compared with itself
        if count > 1 and (room < 0 or count + len(documents) > ALONE):
            break
        rows.append(documents)
        count += len(documents)
    alone = [[[one]] for row in rows for one in row]
    if not _gradients_comparable(trainer):
        return relative(_loss(trainer, alone), _loss(trainer, [rows])), None
    learned = sum(one.learned for row in rows for one in row)
    together, wanted = _loss_and_gradient(trainer, [rows], learned)
    apart, got = _loss_and_gradient(trainer, alone, learned)
    difference = torch.stack([(x - y).norm() for x, y in zip(got, wanted, strict=True)]).norm()
    size = torch.stack([x.norm() for x in wanted]).norm()
    return relative(apart, together), float(difference / size)


def _gradients_comparable(trainer: Trainer) -> bool:
    """Not where it would need more memory than the run, differ by rounding, or wait for other processes."""
    choice = trainer.prepared.choice
    graphs = choice is not None and choice.graphs
    # with dropout the gradients are those of eval mode, in which transformers keeps all activations; without an
    # adapter they are as large as the model, and are kept in host memory twice
    room = (_dropout(trainer) == 0.0 and not trainer.recipe.full) or trainer.accelerator.device.type == "cpu"
    return room and not graphs and trainer.prepared.compute != "fp8" and trainer.accelerator.num_processes == 1


def _dropout(trainer: Trainer) -> float:
    lora = trainer.recipe.lora
    return 0.0 if lora is None else lora.dropout


@torch.no_grad()
def _loss(trainer: Trainer, parts: Sequence[Sequence[Sequence[Encoded]]]) -> float:
    trainer.engine.eval()
    total = torch.zeros((), dtype=torch.float64, device=trainer.accelerator.device)
    for rows in parts:
        for arguments in trainer.engine.arrange(rows, grad=False):
            with trainer.accelerator.autocast():
                total += trainer.engine(*arguments)
    return float(total)


def _loss_and_gradient(
    trainer: Trainer, parts: Sequence[Sequence[Sequence[Encoded]]], learned: int
) -> tuple[float, list[Tensor]]:
    """Without dropout, which would differ; otherwise in the mode of a run."""
    trainer.engine.train(_dropout(trainer) == 0.0)
    for parameter in trainer.parameters:
        parameter.grad = None
    total = torch.zeros((), dtype=torch.float64, device=trainer.accelerator.device)
    for rows in parts:
        for arguments in trainer.engine.arrange(rows, grad=True):
            # as in a step: our own blocks have their types, and go without
            with contextlib.nullcontext() if trainer.prepared.fast else trainer.accelerator.autocast():
                loss = trainer.engine(*arguments)
            trainer.accelerator.backward(loss / learned)
            total += loss.detach()
    # to host memory: on the card the second pass must fit into what the plan says
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in trainer.parameters]
    return float(total), [gradient.detach().to("cpu", copy=True) for gradient in found]


@torch.no_grad()
def against_transformers(trainer: Trainer, architecture: Architecture) -> float:
    """Our blocks against transformers and PEFT on the beginnings of some documents, one by one.

    Wrong places of q, k and v in a fused product, of rotary halves or of a norm would show here, whatever the base.
    Several documents: of the few learned tokens of one the rounding of 16 bits can be 2 % (12.8B, random weights).
    """
    trainer.model.eval()
    ours = theirs = 0.0
    for one in islice((trainer.train[index] for row in trainer.steps[0].rows for index in row), ALONE):
        start = next(n for n, label in enumerate(one.labels[1:], 1) if label != NOT_LEARNED)
        end = max(SHORT, start + 1)
        short = Encoded(one.ids[:end], one.labels[:end], one.origin)
        theirs += _loss_of_transformers(trainer, architecture, short)
        ours += _loss(trainer, [[[short]]])
    return relative(ours, theirs)


def _loss_of_transformers(trainer: Trainer, architecture: Architecture, one: Encoded) -> float:
    """Summed over the learned tokens of a document."""
    batch = collate([[one]], one.ids[0])
    device = trainer.accelerator.device
    places = np.flatnonzero(batch.labels[0] != NOT_LEARNED)
    targets = torch.from_numpy(batch.labels[0][places]).to(device)
    with trainer.accelerator.autocast():
        states = forward.hidden(
            trainer.model,
            architecture,
            torch.from_numpy(batch.ids).to(device),
            torch.from_numpy(batch.positions).to(device),
        )
        logits = forward.head(trainer.model, states[0, torch.from_numpy(places - 1).to(device)])
    return float(torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum"))


def relative(value: float, wanted: float) -> float:
    """Relative difference."""
    return abs(value - wanted) / max(abs(wanted), 1e-12)
