"""Which engine computes a run, and how it takes a step: decided from config and data, before weights are loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

import torch

from koalpaca_tune.config.recipe import Engine, Recipe
from koalpaca_tune.engine.build import Builder, has_triton
from koalpaca_tune.engine.measure import this_card
from koalpaca_tune.engine.objective import EngineObjective
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.kernels import attention
from koalpaca_tune.models.architectures import Architecture
from koalpaca_tune.planner import card as cards
from koalpaca_tune.planner import choose as planner
from koalpaca_tune.planner import lengths, shape, work
from koalpaca_tune.planner.choice import Choice
from koalpaca_tune.planner.seconds import useful_flop
from koalpaca_tune.planner.support import fp8_obstacle, obstacle, plain_only
from koalpaca_tune.records import Encoded
from koalpaca_tune.training import objective
from koalpaca_tune.training.steps import Step, deal

CPU_TOKENS = 2048
"""Tokens of a micro-step on the CPU: larger ones are no faster there (bench/cpu_engine.py)."""
CPU_SHARE = 0.25
"""Of the machine's memory, for weights that stay dequantised."""
ONLY_CUDA = {
    "attention": ("flash4", "cudnn", "flash", "efficient"),
    "kernels": ("triton",),
    "graphs": ("always",),
    "compute": ("fp8",),
}


@dataclass(frozen=True)
class Prepared:
    """How a run will compute.

    Attributes:
        fast: whether our own blocks compute it, or the plain engine.
        reason: why not, where the recipe left it open; else empty.
        choice: how the fast engine takes a step; None for the plain one.
        plan: what the planner says of memory and time; None on the CPU and for the plain engine.
        longest: tokens of the longest document.
        flop_per_token: of a step, what must be computed whoever computes it.
        peak: the card's FLOP/s in bfloat16 by its datasheet; None on the CPU.
        compute: as in the recipe.
    """

    fast: bool
    reason: str
    choice: Choice | None
    plan: planner.Plan | None
    longest: int
    flop_per_token: float = 0.0
    peak: float | None = None
    compute: str = "auto"

    def mfu(self, tokens_per_second: float) -> float | None:
        """Model FLOPs utilisation (Chowdhery et al. 2022): useful FLOP/s over the peak; None on the CPU."""
        return None if self.peak is None else round(tokens_per_second * self.flop_per_token / self.peak, 4)

    @property
    def name(self) -> str:
        """fast or plain."""
        return "fast" if self.fast else "plain"

    def as_dict(self) -> dict[str, Any]:
        """For record.json: what was chosen, and what was predicted of it."""
        predicted = None
        if self.plan is not None:
            predicted = {
                "peak_memory_gib": round(self.plan.peak / 2**30, 2),
                "step_seconds": round(self.plan.step_seconds, 4),
            }
        return {
            "kind": self.name,
            "reason": self.reason,
            "compute": self.compute,
            "choice": None if self.choice is None else asdict(self.choice),
            "predicted": predicted,
        }

    def words(self) -> str:
        """In one line, for a person."""
        if self.choice is None:
            return f"plain ({self.reason})" if self.reason else "plain"
        choice = self.choice
        graphs = ", CUDA graphs" if choice.graphs else ""
        narrow = ", products of the base in 8 bits" if self.compute == "fp8" else ""
        line = (
            f"fast{narrow}: micro-steps of {choice.micro_tokens:,} tokens, recompute {choice.recompute}, "
            f"{choice.cached_blocks} blocks dequantised{graphs}"
        )
        if self.plan is not None:
            line += f"; predicted {self.plan.peak / 2**30:.1f} GiB, {self.plan.tokens_per_second:,.0f} tokens/s"
        return line


def prepare(
    recipe: Recipe,
    config: Any,
    compute: torch.dtype,
    examples: Sequence[Encoded],
    steps: Sequence[Step],
    device: torch.device,
    ranks: int = 1,
) -> Prepared:
    """Decides, from the base's config and the lengths of the data.

    Args:
        recipe: the run's.
        config: the base's transformers config.
        compute: type of the matrix products.
        examples, steps: what is trained on.
        device: where.
        ranks: processes; all of them come to the same choice.

    Raises:
        KoalpacaError: a key of `engine` cannot take effect (engine-unsupported), or nothing fits (memory-short).
    """
    engine = recipe.engine
    longest = max(len(one.ids) for one in examples)
    why = "" if engine.kind == "plain" else plain_only(recipe) or obstacle(config, compute) or ""
    if why:
        _no_idle_keys(engine, why)
    fast = engine.kind != "plain" and not why
    if device.type != "cuda":
        return Prepared(fast, why, _on_cpu(engine, config) if fast else None, None, longest)
    # of every process: all of them come to the same plan
    data = lengths.of_steps(examples, [share for step in steps for share in deal(step.rows, ranks)])
    base = shape.of_config(config)
    job = work.of_recipe(recipe, base, data, fast=fast, cuda=True)
    if fast and engine.kernels == "auto" and not has_triton():
        # the plain kernels ask the host for the dropout's seed, and move more
        engine = engine.model_copy(update={"kernels": "torch"})
        job = replace(job, fused=False)
    if fast:
        _check_cuda(engine, device, compute, base, {len(one.ids) for one in examples})
    _grow_segments()
    card, free = this_card()
    useful = useful_flop(job) / job.step_tokens
    if not fast:
        return Prepared(False, why, None, None, longest, useful, card.peak)
    budget = _budget(engine, free, device, ranks)
    if engine.memory_budget is not None:
        _limit(engine.memory_budget)
    plan = planner.choose(job, card, budget, work.fixed(engine))
    return Prepared(True, "", plan.choice, plan, longest, useful, card.peak, engine.compute)


def build(
    recipe: Recipe,
    prepared: Prepared,
    model: Any,
    architecture: Architecture,
    *,
    pad_id: int,
    device: torch.device,
    compute: torch.dtype,
) -> Any:
    """The engine, as a module that is `objective.Arranged`."""
    if prepared.choice is None:
        return objective.build(recipe, model, architecture, pad_id=pad_id, device=device)
    engine = recipe.engine
    narrow = engine.compute == "fp8"
    builder = Builder(
        model,
        architecture,
        dtype=compute,
        names=engine.kernels,
        fold=engine.fold_lora,
        narrow=narrow,
        seed=recipe.seed,
    )
    # validation may have longer documents than training, but none beyond data.max_length
    longest = max(prepared.longest, recipe.data.max_length)
    return EngineObjective(builder, engine, prepared.choice, longest=longest, pad_id=pad_id)


def _no_idle_keys(engine: Engine, why: str) -> None:
    """Where the plain engine takes over, what it would ignore is an error."""
    if engine.kind == "fast":
        raise KoalpacaError(
            "engine-unsupported",
            f"our own blocks cannot compute this run: {why}.",
            where="engine.kind",
            fix="Set it to auto or plain.",
        )
    defaults = Engine()
    idle = [
        key
        for key in Engine.model_fields
        if key not in Engine.plain_keys and getattr(engine, key) != getattr(defaults, key)
    ]
    if engine.recompute in ("wide", "offload"):
        idle.append("recompute")
    if idle:
        raise KoalpacaError(
            "engine-unsupported",
            f"it has no effect: our own blocks cannot compute this run ({why}).",
            where=f"engine.{idle[0]}",
            fix="Remove it.",
        )


def _on_cpu(engine: Engine, config: Any) -> Choice:
    for key, names in ONLY_CUDA.items():
        if getattr(engine, key) in names:
            _refuse(key, f"'{getattr(engine, key)}' needs a CUDA card", "auto")
    if engine.recompute == "offload":
        _refuse("recompute", "on the CPU everything is in host memory", "blocks")
    if engine.memory_budget is not None:
        _refuse("memory_budget", "memory is planned on a CUDA card only", "null")
    base = shape.of_config(config)
    layers = base.layers
    if engine.cached_blocks is not None and engine.cached_blocks > layers:
        _refuse("cached_blocks", f"the base has {layers} blocks", str(layers))
    room = CPU_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cached = layers if base.linear_weights * 4 <= room else 0
    recompute = "none" if engine.recompute == "auto" else engine.recompute
    return Choice(
        micro_tokens=engine.micro_tokens or CPU_TOKENS,
        recompute=recompute,
        cached_blocks=cached if engine.cached_blocks is None else engine.cached_blocks,
        graphs=False,
    )


def _check_cuda(
    engine: Engine, device: torch.device, compute: torch.dtype, base: shape.Shape, lengths_seen: set[int]
) -> None:
    if engine.compute == "fp8":
        why = fp8_obstacle(base, compute, torch.cuda.get_device_capability(device), fast=True)
        if why:
            _refuse("compute", f"'fp8' cannot be used: {why}", "auto")
    if engine.attention != "auto":
        why = attention.obstacle(engine.attention, device, compute, base.head_dim)
        if why:
            _refuse("attention", f"'{engine.attention}' cannot be used: {why}", "auto")
    if engine.attention == "cudnn" and (len(lengths_seen) > 1 or max(lengths_seen) % 64):
        _refuse("attention", "cudnn needs documents that are all equally long, a multiple of 64 tokens", "auto")
    if engine.kernels == "triton" and not has_triton():
        _refuse("kernels", "Triton is not installed", "auto")
    if engine.graphs == "always" and not work.capturable(engine, engine.recompute):
        _refuse("graphs", "attention documents, kernels torch and recompute offload cannot be captured", "auto")


def _grow_segments() -> None:
    """Streams differ in length from step to step: the allocator's segments of fixed size would fray."""
    if not {"PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"} & os.environ.keys():
        torch._C._accelerator_setAllocatorSettings("expandable_segments:True")


def _limit(gib: float) -> None:
    """Makes memory_budget a hard limit of the card's allocator."""
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, gib * 2**30 / total))


def _budget(engine: Engine, free: int, device: torch.device, ranks: int) -> int:
    """Bytes to plan for: as asked, or what is free and what torch holds already, less a margin."""
    if engine.memory_budget is not None:
        budget = cards.asked(engine.memory_budget)
    else:
        budget = cards.budget(free + torch.cuda.memory_reserved(device))
    if ranks > 1:
        least = torch.tensor(budget, device=device)
        torch.distributed.all_reduce(least, op=torch.distributed.ReduceOp.MIN)
        budget = int(least)
    return budget


def _refuse(key: str, what: str, instead: str) -> NoReturn:
    raise KoalpacaError("engine-unsupported", f"{what}.", where=f"engine.{key}", fix=f"Set it to {instead}.")
