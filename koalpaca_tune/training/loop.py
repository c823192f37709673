"""The training loop, on accelerate: one process or several, one loss."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import accelerate
import torch
from torch import Tensor

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import base
from koalpaca_tune.models.architectures import Architecture
from koalpaca_tune.models.forward import causal
from koalpaca_tune.records import Encoded
from koalpaca_tune.training import engines, guard, launch, optimizer
from koalpaca_tune.training.course import Course, Event, Progress
from koalpaca_tune.training.engines import Prepared
from koalpaca_tune.training.guard import Rollback
from koalpaca_tune.training.metrics import Metrics, resident_gib
from koalpaca_tune.training.signals import Signals
from koalpaca_tune.training.steps import Step, deal, steps
from koalpaca_tune.training.trained import Adapter, Trained, Whole
from koalpaca_tune.training.window import Reading, Window, Work

SCORED_AT_ONCE = 512
"""Examples arranged together for a mean loss: a long validation set does not lie on the device whole."""


def accelerator(compute: torch.dtype, device: torch.device) -> accelerate.Accelerator:
    """bfloat16 autocast on CUDA; none on the CPU, where float32 is exact and faster.

    Raises:
        KoalpacaError: the launcher asks for something else (launch-option).
    """
    cpu = device.type == "cpu"
    mixed = "bf16" if compute == torch.bfloat16 and not cpu else "no"
    launch.check(os.environ, mixed)
    return accelerate.Accelerator(mixed_precision=mixed, cpu=cpu)


def plan(recipe: Recipe, train: Sequence[Encoded], accelerator: accelerate.Accelerator) -> list[Step]:
    """All steps of a run."""
    return steps(
        train,
        recipe.training,
        max_length=recipe.data.max_length,
        packing=recipe.data.packing,
        seed=recipe.seed,
        ranks=accelerator.num_processes,
    )


class Trainer:
    """One run in memory: model, data, plan. `run` goes from the first step, or a checkpoint, to the end.

    Attributes:
        trained: what the run trains, and `parameters`, what of it the optimizer updates.
        steps: every step of the plan.
        shift: steps done in another plan, beyond those that this one has behind it (`position`).
        rollbacks: those of the run so far.
        signals: what ends the run between two steps.
        asked: whether some process was asked to end, as all of them know.
        engine: what computes micro-steps, as this process holds it.
        objective: the same, wrapped for data parallelism where there are several processes.
        adds_up: gradients are added up over processes here, not by that wrapping.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: Any,
        architecture: Architecture,
        train: Sequence[Encoded],
        valid: Sequence[Encoded],
        *,
        pad_id: int,
        accelerator: accelerate.Accelerator,
        planned: list[Step] | None = None,
        prepared: Prepared | None = None,
        write: Callable[[Path], None] | None = None,
    ) -> None:
        """Prepares optimizer and engine; `model` carries the adapter, on its device.

        `planned` and `prepared` are the steps and the engine's choice where they are known already. Without an
        adapter all of the model is trained, and in the end `write` puts it into a folder.
        """
        self.recipe = recipe
        self.training = recipe.training
        self.accelerator = accelerator
        self.model = model
        self.train = train
        self.valid = valid
        self.trained: Trained = Whole(model, write or model.save_pretrained) if recipe.full else Adapter(model)
        self.parameters = self.trained.parameters
        # accelerate would move the state to its device; bitsandbytes' paged state must stay where it is
        self.optimizer = optimizer.build(self.parameters, self.training, accelerator.device)
        self.steps = planned or plan(recipe, train, accelerator)
        compute = base.compute_of(causal(model))
        self.prepared = prepared or engines.prepare(
            recipe, causal(model).config, compute, train, self.steps, accelerator.device, accelerator.num_processes
        )
        self.engine: Any = engines.build(
            recipe,
            self.prepared,
            model,
            architecture,
            pad_id=pad_id,
            device=accelerator.device,
            compute=compute,
        )
        # the fast engine's gradients do not come through autograd, those of master weights leave it early
        self.adds_up = self.prepared.fast or self.trained.beside
        self.objective: Any = (
            self.engine
            if self.prepared.fast
            else accelerator.prepare_model(self.engine, evaluation_mode=self.trained.beside)
        )
        self.shift = 0
        self.rollbacks: list[Rollback] = []
        self.signals = Signals()
        self.asked = False
        self._ahead: dict[int, Work] = {}
        self._reading: Reading | None = None
        # torch's fused optimizers leave out a step by a flag on the card
        self._skips = bool(self.optimizer.defaults.get("fused"))

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.shift + len(self.steps)

    def run(
        self,
        folder: Path,
        *,
        resume: bool = False,
        allow: bool = False,
        rollbacks: Sequence[Rollback] = (),
        progress: Progress | None = None,
        event: Event | None = None,
    ) -> Metrics:
        """Trains to the end, writing metrics.jsonl, checkpoints/ and adapter/ under `folder`.

        Args:
            folder: of the run.
            resume: go on from the newest whole checkpoint; without one, from the first step.
            allow: the plan may be another than the checkpoint's.
            rollbacks: those that record.json knows of.
            progress: told of every step.
            event: told of what belongs in record.json, before the run goes on.

        Raises:
            KoalpacaError: loss not finite (loss-not-finite), adapter without effect (adapter-dead), trouble and the
                policy (run-stopped), no checkpoint that is whole (checkpoint-damaged) or of this run
                (checkpoint-other, resume-differs), a full disk (run-write).
            Interrupted: SIGTERM or SIGINT came; a checkpoint was written.
        """
        self.rollbacks = list(rollbacks)
        with Signals() as self.signals:
            return Course(self, folder, allow, progress, event).go(resume)

    def rate(self, number: int) -> float:
        """The learning rate of a step (from 0)."""
        return optimizer.rate(self.training, number, self.total) * guard.scale(self.rollbacks, number)

    def take(self, number: int, window: Window) -> None:
        """One step (from 0). Its numbers are still on their way: `settle` reads them, here or in the next step.

        Raises:
            KoalpacaError: loss or gradient of this step or the one before is not finite (loss-not-finite).
        """
        rate = self.rate(number)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        work = self._ahead.pop(number, None) or self._work(number)
        # thousands of modules, while the card waits; the fast engine reads none of them
        (self.engine if self.prepared.fast else self.objective).train()
        if self.prepared.fast:
            self.engine.begin(number)
        # data parallelism averages gradients over ranks; the sum is what is wanted
        weight = (1 if self.adds_up else self.accelerator.num_processes) / work.learned
        # the second: processes that were asked to end; all learn of it at the same step
        sums = torch.zeros(2, device=self.accelerator.device)
        total = sums[0]
        for n, arguments in enumerate(work.micro_steps):
            last = n == len(work.micro_steps) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.objective):
                loss = self.objective(*arguments)
                self.accelerator.backward(loss * weight)
            total += loss.detach()
        if self.adds_up and self.accelerator.num_processes > 1:
            self._add_up()
        norm = self._clip()
        if self.signals.caught is not None:
            sums[1] = 1.0
        summed: Tensor = self.accelerator.reduce(sums, "sum")
        reading = Reading.of(torch.cat((summed, norm.float().reshape(1))), number, work)
        self.settle(window)
        self._reading = reading
        if self._skips:
            # told to the optimizer on the card: nothing waits, and a step that is not finite is not taken
            self.optimizer.grad_scale = None
            self.optimizer.found_inf = reading.not_finite()
        else:
            self.settle(window)
        self.optimizer.step()
        self.trained.publish()
        if self.prepared.fast:
            self.engine.gradients.flat.zero_()
        else:
            self.optimizer.zero_grad(set_to_none=True)
        # while the card computes
        self._ahead = {number + 1: self._work(number + 1)} if number + 1 < self.total else {}

    def _add_up(self) -> None:
        """Sums gradients over processes."""
        if self.prepared.fast:
            torch.distributed.all_reduce(self.engine.gradients.flat)
            return
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)

    def _clip(self) -> Tensor:
        """The norm of all gradients, which are made no longer than training.max_grad_norm."""
        longest = self.training.max_grad_norm
        if not self.prepared.fast:
            whole: Tensor = torch.nn.utils.clip_grad_norm_(self.parameters, longest)
            return whole
        flat: Tensor = self.engine.gradients.flat
        norm: Tensor = flat.norm()
        flat.mul_((longest / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def settle(self, window: Window) -> None:
        """Reads and counts the step that is still on its way from the card.

        Raises:
            KoalpacaError: its loss or gradient is not finite (loss-not-finite).
        """
        reading, self._reading = self._reading, None
        if reading is None:
            return
        total, asked, norm = reading.values()
        self.asked = self.asked or asked > 0.0
        mean = total / reading.work.learned
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise KoalpacaError(
                "loss-not-finite",
                f"at step {reading.number + 1} the loss is {mean:.4g} and the gradient norm {norm:.4g}.",
                fix="The step was not taken. Lower training.learning_rate, or look at the data of this step.",
            )
        window.add(reading.work, total, norm, self.training.max_grad_norm)

    def forget(self) -> None:
        """Drops what is under way, before another state is put in place."""
        self._reading = None
        self._ahead = {}
        if self.prepared.fast:
            self.engine.gradients.flat.zero_()
        else:
            self.optimizer.zero_grad(set_to_none=True)

    def _work(self, number: int) -> Work:
        """A step's micro-steps, equally many in every process, since they wait for each other."""
        began = time.perf_counter()
        shares = [
            [[self.train[index] for index in row] for row in share]
            for share in deal(self.steps[number - self.shift].rows, self.accelerator.num_processes)
        ]
        several = len(shares) > 1
        count = max(self.engine.count(share, grad=True) for share in shares) if several else 0
        mine = shares[self.accelerator.process_index]
        documents = [one for share in shares for row in share for one in row]
        micro_steps = self.engine.arrange(mine, grad=True, count=count)
        # the divisor is known before the first micro-step: all ranks see the whole step's rows
        learned = sum(one.learned for one in documents)
        tokens = sum(len(one.ids) for one in documents)
        return Work(micro_steps, learned, tokens, time.perf_counter() - began)

    def row(self, number: int, window: Window) -> dict[str, Any]:
        """The line of metrics after a step (from 0) that was settled."""
        sums = window.row()
        speed = sums["tokens_per_second"] / self.accelerator.num_processes
        cuda = self.accelerator.device.type == "cuda"
        # of an adapter alone: B begins at zero, other weights do not
        zero = None if self.recipe.full else round(float(self.trained.idle().float().mean()), 4)
        return {
            "step": number + 1,
            "epoch": round(self.steps[number - self.shift].epoch, 4),
            "learning_rate": self.rate(number),
            **sums,
            "mfu": self.prepared.mfu(speed),
            "adapter_zero": zero,
            "memory_gib": round(torch.cuda.memory_allocated() / 2**30, 2) if cuda else None,
            "peak_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None,
            "host_memory_gib": resident_gib(),
        }

    @torch.no_grad()
    def mean_loss(self, examples: Sequence[Encoded]) -> float:
        """Mean negative log-likelihood of the learned tokens of some examples, in nats, without dropout."""
        self.engine.eval()
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        mine = sorted(examples[rank::ranks], key=lambda one: len(one.ids))
        total = torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
        for at in range(0, len(mine), SCORED_AT_ONCE):
            for arguments in self.engine.arrange([[one] for one in mine[at : at + SCORED_AT_ONCE]], grad=False):
                with self.accelerator.autocast():
                    total += self.engine(*arguments)
        summed: Tensor = self.accelerator.reduce(total, "sum")
        return float(summed) / sum(one.learned for one in examples)
