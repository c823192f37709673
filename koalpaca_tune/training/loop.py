"""The training loop, on accelerate: one process or several, one loss."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import accelerate
import torch
from torch import Tensor

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import adapter, base
from koalpaca_tune.models.architectures import Architecture
from koalpaca_tune.models.forward import causal
from koalpaca_tune.records import Encoded
from koalpaca_tune.training import checkpoint, engines, optimizer
from koalpaca_tune.training.engines import Prepared
from koalpaca_tune.training.metrics import Metrics
from koalpaca_tune.training.steps import Step, deal, steps

SCORED_AT_ONCE = 512
"""Examples arranged together for a mean loss: a long validation set does not lie on the device whole."""

Progress = Callable[[int, int, dict[str, Any]], None]
"""(steps done, steps in all, the newest metrics) -> None."""


def accelerator(compute: torch.dtype, device: torch.device) -> accelerate.Accelerator:
    """bfloat16 autocast on CUDA; none on the CPU, where float32 is exact and faster."""
    cpu = device.type == "cpu"
    mixed = "bf16" if compute == torch.bfloat16 and not cpu else "no"
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


@dataclass
class Window:
    """Sums since the last line of metrics."""

    loss: float = 0.0
    learned: int = 0
    tokens: int = 0
    grad_norm: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint between two lines: the next line counts these steps too."""
        seconds = time.perf_counter() - self.started
        sums = {"loss": self.loss, "learned": self.learned, "tokens": self.tokens, "grad_norm": self.grad_norm}
        return {**sums, "seconds": seconds}

    @classmethod
    def from_dict(cls, sums: dict[str, Any]) -> Window:
        """Raises KeyError or TypeError for anything that `as_dict` did not write."""
        started = time.perf_counter() - sums["seconds"]
        return cls(sums["loss"], sums["learned"], sums["tokens"], sums["grad_norm"], started)


@dataclass(frozen=True)
class Work:
    """A step ready to be computed.

    Attributes:
        micro_steps: arguments of this process's micro-steps, as many as in every other process.
        learned, tokens: of the whole step, over all processes.
    """

    micro_steps: list[tuple[Any, ...]]
    learned: int
    tokens: int


@dataclass(frozen=True)
class Reading:
    """A step's summed loss and gradient norm, on their way to the host.

    Attributes:
        there: float32 [2], on the device.
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
        here = torch.empty(2, pin_memory=True)
        here.copy_(there, non_blocking=True)
        return cls(there, here, torch.cuda.current_stream().record_event(), number, work)

    def values(self) -> tuple[float, float]:
        """Waits for this step, and for nothing that was launched after it."""
        if self.arrived is not None:
            self.arrived.synchronize()
        total, norm = (self.there if self.here is None else self.here).tolist()
        return total, norm

    def not_finite(self) -> Tensor:
        """float32 scalar on the device: 1 where one of the two is not finite."""
        return (~torch.isfinite(self.there).all()).float()


class Trainer:
    """One run in memory: model, data, plan. `run` goes from the first step, or a checkpoint, to the end.

    Attributes:
        steps: every step of the run.
        engine: what computes micro-steps, as this process holds it.
        objective: the same, wrapped for data parallelism where there are several processes.
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
    ) -> None:
        """Prepares optimizer and engine; `model` carries the adapter, on its device.

        `planned` and `prepared` are the steps and the engine's choice where they are known already.
        """
        self.recipe = recipe
        self.training = recipe.training
        self.accelerator = accelerator
        self.model = model
        self.train = train
        self.valid = valid
        self.parameters = [p for p in model.parameters() if p.requires_grad]
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
        # the fast engine's gradients do not come through autograd: `_step` adds them up over ranks
        self.objective: Any = self.engine if self.prepared.fast else accelerator.prepare_model(self.engine)
        self._ahead: dict[int, Work] = {}
        self._reading: Reading | None = None
        # torch's fused optimizers leave out a step by a flag on the card
        self._skips = bool(self.optimizer.defaults.get("fused"))

    def run(self, folder: Path, *, resume: bool = False, progress: Progress | None = None) -> Metrics:
        """Trains to the end, writing metrics.jsonl, checkpoints/ and adapter/ under `folder`.

        Raises:
            KoalpacaError: loss not finite (loss-not-finite), adapter without effect (adapter-dead), damaged
                checkpoint (checkpoint-damaged).
        """
        start, window = self._restore(folder / "checkpoints") if resume else (0, Window())
        metrics = Metrics(folder / "metrics.jsonl", upto=start)
        total = len(self.steps)
        for number in range(start, total):
            self._step(number, window)
            done = number + 1
            row: dict[str, Any] = {}
            if self._is_stop(done):
                self._settle(window)
            if done % self.training.log_every == 0 or done == total:
                row = self._row(number, window)
                window = Window()
            if self.valid and (done == total or done % (self.training.eval_every or total) == 0):
                began = time.perf_counter()
                row = {"step": done, **row, "valid_loss": self.mean_loss(self.valid)}
                window.started += time.perf_counter() - began
            if row and self.accelerator.is_main_process:
                metrics.add(row)
            if progress:
                progress(done, total, row)
            if done % self.training.checkpoint_every == 0 or done == total:
                began = time.perf_counter()
                self._checkpoint(folder / "checkpoints", done, window)
                window.started += time.perf_counter() - began
        if self.accelerator.is_main_process:
            if adapter.is_zero(self.model):
                raise KoalpacaError(
                    "adapter-dead",
                    "after training every B matrix is still zero: the adapter changes nothing.",
                    where=str(folder),
                    fix="Check the learning rate and the data.",
                )
            adapter.save(self.model, folder / "adapter")
            metrics.plot(folder / "report" / "loss.svg")
        return metrics

    def _is_stop(self, done: int) -> bool:
        """Whether something is written or measured after so many steps."""
        training = self.training
        every = (training.log_every, training.checkpoint_every, training.eval_every or len(self.steps))
        return done == len(self.steps) or any(done % n == 0 for n in every)

    def _step(self, number: int, window: Window) -> None:
        rate = optimizer.rate(self.training, number, len(self.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        work = self._ahead.pop(number, None) or self._work(number)
        # thousands of modules, while the card waits; the fast engine reads none of them
        (self.engine if self.prepared.fast else self.objective).train()
        if self.prepared.fast:
            self.engine.begin(number)
        # data parallelism averages gradients over ranks; the sum is what is wanted
        weight = (1 if self.prepared.fast else self.accelerator.num_processes) / work.learned
        total = torch.zeros((), device=self.accelerator.device)
        for n, arguments in enumerate(work.micro_steps):
            last = n == len(work.micro_steps) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.objective):
                loss = self.objective(*arguments)
                self.accelerator.backward(loss * weight)
            total += loss.detach()
        if self.prepared.fast and self.accelerator.num_processes > 1:
            torch.distributed.all_reduce(self.engine.gradients.flat)
        norm = self._clip()
        summed: Tensor = self.accelerator.reduce(total, "sum")
        reading = Reading.of(torch.stack((summed, norm.float())), number, work)
        self._settle(window)
        self._reading = reading
        if self._skips:
            # told to the optimizer on the card: nothing waits, and a step that is not finite is not taken
            self.optimizer.grad_scale = None
            self.optimizer.found_inf = reading.not_finite()
        else:
            self._settle(window)
        self.optimizer.step()
        if self.prepared.fast:
            self.engine.gradients.flat.zero_()
        else:
            self.optimizer.zero_grad(set_to_none=True)
        # while the card computes
        self._ahead = {number + 1: self._work(number + 1)} if number + 1 < len(self.steps) else {}

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

    def _settle(self, window: Window) -> None:
        """Reads and counts the step that is still on its way from the card.

        Raises:
            KoalpacaError: its loss or gradient is not finite (loss-not-finite).
        """
        reading, self._reading = self._reading, None
        if reading is None:
            return
        total, norm = reading.values()
        mean = total / reading.work.learned
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise KoalpacaError(
                "loss-not-finite",
                f"at step {reading.number + 1} the loss is {mean:.4g} and the gradient norm {norm:.4g}.",
                fix="The step was not taken. Lower training.learning_rate, or look at the data of this step.",
            )
        window.loss += total
        window.learned += reading.work.learned
        window.tokens += reading.work.tokens
        window.grad_norm = max(window.grad_norm, norm)

    def _work(self, number: int) -> Work:
        """A step's micro-steps, equally many in every process, since they wait for each other."""
        shares = [
            [[self.train[index] for index in row] for row in share]
            for share in deal(self.steps[number].rows, self.accelerator.num_processes)
        ]
        several = len(shares) > 1
        count = max(self.engine.count(share, grad=True) for share in shares) if several else 0
        mine = shares[self.accelerator.process_index]
        documents = [one for share in shares for row in share for one in row]
        return Work(
            self.engine.arrange(mine, grad=True, count=count),
            # the divisor is known before the first micro-step: all ranks see the whole step's rows
            sum(one.learned for one in documents),
            sum(len(one.ids) for one in documents),
        )

    def _row(self, number: int, window: Window) -> dict[str, Any]:
        seconds = time.perf_counter() - window.started
        cuda = self.accelerator.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else None
        return {
            "step": number + 1,
            "epoch": round(self.steps[number].epoch, 4),
            "loss": window.loss / window.learned,
            "learning_rate": optimizer.rate(self.training, number, len(self.steps)),
            "grad_norm": window.grad_norm,
            "tokens": window.tokens,
            "learned_tokens": window.learned,
            "seconds": round(seconds, 4),
            "tokens_per_second": round(window.tokens / seconds, 1),
            "mfu": self.prepared.mfu(window.tokens / seconds / self.accelerator.num_processes),
            "peak_memory_gib": None if peak is None else round(peak, 2),
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

    def _checkpoint(self, folder: Path, done: int, window: Window) -> None:
        if self.accelerator.is_main_process:
            extra = {"steps": len(self.steps), "window": window.as_dict()}
            checkpoint.save(folder, done, self.model, self.optimizer, extra, self.training.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _restore(self, folder: Path) -> tuple[int, Window]:
        whole = checkpoint.complete(folder)
        if not whole:
            raise KoalpacaError(
                "resume-nothing",
                "there is no checkpoint to go on from.",
                where=str(folder),
                fix="Run without --resume (and another `out`, if this folder holds something).",
            )
        state = checkpoint.restore(whole[-1], self.model, self.optimizer)
        return int(state["step"]), Window.from_dict(state["window"])
