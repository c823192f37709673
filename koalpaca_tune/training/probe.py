"""Three steps before a run, and what they show; afterwards everything is as it was.

What it costs: four steps, none larger than two micro-steps, one micro-step computed twice more with its gradients,
and one forward pass of a short document by transformers. Of a 12.8B base on one card that is seconds, beside
minutes of loading. What is trained is copied to host memory, so that the card needs no more than the plan says.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from koalpaca_tune.models.architectures import Architecture
from koalpaca_tune.training import agreement, generators, optimizer
from koalpaca_tune.training.loop import Trainer
from koalpaca_tune.training.steps import Step
from koalpaca_tune.training.trained import digest
from koalpaca_tune.training.window import Window

STEPS = 3
"""B leaves zero at the first; A, whose gradient is a product with B, is reached from the second on."""
MICRO_STEPS = 2
"""Of a probed step: a larger one would only take longer."""
CPU_TOKENS = 512
"""Of a probed step on the CPU, where there is no peak of memory to be met."""


@dataclass(frozen=True)
class Probe:
    """What three steps showed.

    Attributes:
        losses: mean of each step, in nats per learned token.
        norms: of each step's gradients, before clipping.
        matrices: LoRA matrices, or weights, that are trained.
        unreached: those that no step had a gradient for.
        moving: how many of them must leave what they begin at: B matrices, or all weights.
        idle: those of them that have not, after the last step.
        rows: of a probed step.
        loss_apart: relative difference of the loss when each document is computed alone.
        gradient_apart: the same of the gradients; None where it was not measured.
        loss_again, norm_again: relative differences of the first step, taken a second time.
        same_again: whether that left what is trained the same to the last bit.
        against_transformers: relative difference of some documents' loss to that of transformers and PEFT; None
            where they compute the run, or lack the memory.
        step_seconds, step_tokens: of a probed step, the first aside.
        peak_bytes: allocated on the card; None on the CPU.
    """

    losses: tuple[float, ...]
    norms: tuple[float, ...]
    matrices: int
    unreached: tuple[str, ...]
    moving: int
    idle: tuple[str, ...]
    rows: int
    loss_apart: float
    gradient_apart: float | None
    loss_again: float
    norm_again: float
    same_again: bool
    against_transformers: float | None
    step_seconds: float
    step_tokens: float
    peak_bytes: int | None


def probe(trainer: Trainer, architecture: Architecture) -> Probe:
    """Takes the first steps of a run that has not begun, looks, and puts everything back.

    Weights, optimizer, generators, gradients, modes and plan are as before, also when it ends with an error.

    Raises:
        KoalpacaError: loss or gradient not finite (loss-not-finite).
    """
    before = _Before(trainer)
    try:
        return _look(trainer, architecture, before)
    finally:
        before.put_back()


class _Before:
    """A trainer as it stands before its first step."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._steps = trainer.steps
        self._weights = trainer.trained.held()
        self._generators = generators.take()
        self._modes = [(module, module.training) for module in trainer.model.modules()]

    def put_back(self) -> None:
        """All of it."""
        self.put_back_state()
        self._trainer.steps = self._steps
        for module, mode in self._modes:
            module.training = mode
        if self._trainer.accelerator.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def put_back_state(self) -> None:
        """What a step depends on: weights, optimizer, generators."""
        trainer = self._trainer
        trainer.forget()
        trainer.trained.put(self._weights)
        for parameter in trainer.parameters:
            parameter.grad = None
        # a new one: bitsandbytes' cannot be emptied
        trainer.optimizer = optimizer.build(trainer.parameters, trainer.training, trainer.accelerator.device)
        generators.put(self._generators)


def _look(trainer: Trainer, architecture: Architecture, before: _Before) -> Probe:
    names, watched = trainer.trained.names, trainer.trained.watched
    cuda = trainer.accelerator.device.type == "cuda"
    trainer.steps = _small(trainer)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    reach = _Reach(trainer)
    taken = [_take(trainer, 0)]
    first = digest(trainer.parameters)
    began = time.perf_counter()
    taken += [_take(trainer, number) for number in range(1, STEPS)]
    seconds = (time.perf_counter() - began) / (STEPS - 1)
    peak = torch.cuda.max_memory_allocated() if cuda else None
    reached = reach.finish()
    idle = tuple(name for name, still in zip(watched, trainer.trained.idle().tolist(), strict=True) if still)
    loss_apart, gradient_apart = agreement.apart(trainer)
    against = _against(trainer, architecture) if trainer.prepared.fast else None
    before.put_back_state()
    again = _take(trainer, 0)
    same = digest(trainer.parameters) == first
    tokens = [
        sum(len(trainer.train[index].ids) for row in step.rows for index in row) for step in trainer.steps[:STEPS]
    ]
    return Probe(
        losses=tuple(one.loss / one.learned for one in taken),
        norms=tuple(one.grad_norm for one in taken),
        matrices=len(names),
        unreached=tuple(name for name, found in zip(names, reached, strict=True) if not found),
        moving=len(watched),
        idle=idle,
        rows=len(trainer.steps[0].rows),
        loss_apart=loss_apart,
        gradient_apart=gradient_apart,
        loss_again=agreement.relative(again.loss, taken[0].loss),
        norm_again=agreement.relative(again.grad_norm, taken[0].grad_norm),
        same_again=same,
        against_transformers=against,
        step_seconds=seconds,
        step_tokens=sum(tokens[1:]) / (STEPS - 1),
        peak_bytes=peak,
    )


def _against(trainer: Trainer, architecture: Architecture) -> float | None:
    try:
        return agreement.against_transformers(trainer, architecture)
    except torch.OutOfMemoryError:
        # transformers may want more than a plan that fills the card leaves; the run itself does not
        torch.cuda.empty_cache()
        return None


def _take(trainer: Trainer, number: int) -> Window:
    """One step as the run takes it, waited for."""
    window = Window()
    trainer.take(number, window)
    trainer.settle(window)
    return window


def _small(trainer: Trainer) -> list[Step]:
    """The plan with its first steps cut; as long as before, so that their rates are those of the run."""
    steps = list(trainer.steps)
    while len(steps) < STEPS:
        steps.append(steps[0])
    for number in range(STEPS):
        steps[number] = replace(steps[number], rows=_first_rows(trainer, steps[number].rows))
    return steps


def _first_rows(trainer: Trainer, rows: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """As many as two micro-steps of every process hold, and one for each process."""
    ranks = trainer.accelerator.num_processes
    room = MICRO_STEPS * ranks * agreement.micro_tokens(trainer)
    if trainer.accelerator.device.type == "cpu":
        room = min(room, ranks * CPU_TOKENS)
    kept: list[tuple[int, ...]] = []
    for row in rows:
        room -= sum(len(trainer.train[index].ids) for index in row)
        if room < 0 and len(kept) >= ranks:
            break
        kept.append(row)
    return tuple(kept)


class _Reach:
    """Which matrices get a gradient, read where the optimizer reads it."""

    def __init__(self, trainer: Trainer) -> None:
        self._parameters = trainer.parameters
        self._largest = torch.zeros(len(trainer.parameters), device=trainer.accelerator.device)
        self._handle = trainer.optimizer.register_step_pre_hook(self._read)

    def _read(self, *_: Any) -> None:
        nothing = self._largest.new_zeros(())
        largest = [nothing if p.grad is None else p.grad.abs().amax() for p in self._parameters]
        # nothing is waited for: the numbers are read after the last step
        self._largest = torch.maximum(self._largest, torch.stack(largest))

    def finish(self) -> list[bool]:
        """Of each matrix, whether it was."""
        self._handle.remove()
        return [value > 0.0 for value in self._largest.tolist()]
