"""The training loop, on accelerate: one process or several, one loss."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import accelerate
import torch
from torch import Tensor

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import adapter
from koalpaca_tune.models.architectures import Architecture
from koalpaca_tune.records import Encoded
from koalpaca_tune.tokens.pack import Batch, Row, collate
from koalpaca_tune.training import checkpoint, optimizer, plan
from koalpaca_tune.training.metrics import Metrics
from koalpaca_tune.training.objective import Objective

Progress = Callable[[int, int, dict[str, Any]], None]
"""(steps done, steps in all, the newest metrics) -> None."""


def accelerator(compute: torch.dtype, device: torch.device) -> accelerate.Accelerator:
    """bfloat16 autocast on CUDA; none on the CPU, where float32 is exact and faster."""
    cpu = device.type == "cpu"
    mixed = "bf16" if compute == torch.bfloat16 and not cpu else "no"
    return accelerate.Accelerator(mixed_precision=mixed, cpu=cpu)


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


class Trainer:
    """One run in memory: model, data, plan. `run` goes from the first step, or a checkpoint, to the end.

    Attributes:
        steps: every step of the run.
        micro_batches_done: micro-batches computed by this process, for the plan's test.
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
    ) -> None:
        """Prepares optimizer and plan; `model` carries the adapter, on its device."""
        self.recipe = recipe
        self.training = recipe.training
        self.accelerator = accelerator
        self.model = model
        self.train = train
        self.valid = valid
        self.pad_id = pad_id
        if self.training.recompute == "blocks":
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        raw = optimizer.build(self.parameters, self.training, accelerator.device)
        self.objective: Any
        # accelerate would move the state to its device; bitsandbytes' paged state must stay where it is
        self.objective = accelerator.prepare_model(Objective(model, architecture))
        self.optimizer = raw
        self.steps = plan.steps(
            train,
            self.training,
            max_length=recipe.data.max_length,
            packing=recipe.data.packing,
            seed=recipe.seed,
            ranks=accelerator.num_processes,
        )

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

    def _step(self, number: int, window: Window) -> None:
        rate = optimizer.rate(self.training, number, len(self.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        rows = self.steps[number].rows
        # the divisor is known before the first micro-batch: all ranks see the whole step's rows
        learned = sum(self.train[index].learned for row in rows for index in row)
        self.model.train()
        total = torch.zeros((), device=self.accelerator.device)
        micro = plan.micro_batches(
            rows, self.training.batch_size, self.accelerator.process_index, self.accelerator.num_processes
        )
        for n, part in enumerate(micro):
            batch = collate([[self.train[i] for i in row] for row in part], self.pad_id)
            last = n == len(micro) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.objective):
                loss = self.objective(*self._tensors(batch))
                # data parallelism averages gradients over ranks; the sum is what is wanted
                self.accelerator.backward(loss * (self.accelerator.num_processes / learned))
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.training.max_grad_norm)
        summed: Tensor = self.accelerator.reduce(total, "sum")
        mean, norm_value = float(summed) / learned, float(norm)
        if not (math.isfinite(mean) and math.isfinite(norm_value)):
            raise KoalpacaError(
                "loss-not-finite",
                f"at step {number + 1} the loss is {mean:.4g} and the gradient norm {norm_value:.4g}.",
                fix="The step was not taken. Lower training.learning_rate, or look at the data of this step.",
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        window.loss += mean * learned
        window.learned += learned
        window.tokens += sum(len(self.train[index].ids) for row in rows for index in row)
        window.grad_norm = max(window.grad_norm, norm_value)

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
            "peak_memory_gib": None if peak is None else round(peak, 2),
        }

    @torch.no_grad()
    def mean_loss(self, examples: Sequence[Encoded]) -> float:
        """Mean negative log-likelihood of the learned tokens of some examples, in nats, without dropout."""
        self.model.eval()
        rows: list[Row] = [(n,) for n in range(len(examples))]
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        mine = sorted(rows[rank::ranks], key=lambda row: len(examples[row[0]].ids))
        total = torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
        for part in _by_tokens(mine, examples, 8 * self.recipe.data.max_length):
            batch = collate([[examples[i] for i in row] for row in part], self.pad_id)
            with self.accelerator.autocast():
                total += self.accelerator.unwrap_model(self.objective)(*self._tensors(batch))
        summed: Tensor = self.accelerator.reduce(total, "sum")
        return float(summed) / sum(one.learned for one in examples)

    def _tensors(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        device = self.accelerator.device
        return (
            torch.from_numpy(batch.ids).to(device),
            torch.from_numpy(batch.labels).to(device),
            torch.from_numpy(batch.positions).to(device),
        )

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


def _by_tokens(rows: Sequence[Row], examples: Sequence[Encoded], budget: int) -> Iterator[list[Row]]:
    """Consecutive rows (sorted by length) in groups of at most `budget` padded tokens, at least one each."""
    group: list[Row] = []
    for row in rows:
        width = len(examples[row[0]].ids)
        if group and width * (len(group) + 1) > budget:
            yield group
            group = []
        group.append(row)
    if group:
        yield group
