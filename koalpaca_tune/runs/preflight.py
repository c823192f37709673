"""Preflight: everything that can be known before the first step, as findings; always before a run.

What it costs: walks over the modules and the examples in memory, and `training.probe` (four small steps).
Nothing is loaded a second time, and nothing is written.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import torch

from koalpaca_tune.config.check import keys
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.runs import preflight_data, preflight_model, preflight_probe, versions
from koalpaca_tune.runs.finding import Finding, error
from koalpaca_tune.runs.train import Examples, Ready
from koalpaca_tune.training.probe import Probe, probe

HIGH_RATE = 1e-3
"""alpaca-lora issue 391: the loss fell to nothing at 3e-3; LoRA is trained at 1e-4 to 5e-4."""
HIGH_FULL_RATE = 4e-4
"""At 5e-4, a rate for LoRA, the embedded base was worse after six steps of full fine-tuning (loss 5.0) than with
LoRA (3.8): docs/en/quantisation.md."""
MANY_EPOCHS = 3
"""qlora issue 290: from the second epoch on the loss falls in steps, since answers are known by heart."""
GIB = 1 << 30
CROWDED = 0.9
"""Share of the host's memory."""
LOG_BYTES = 64 << 20
"""Room for metrics, record and report."""


def of_recipe(recipe: Recipe) -> list[Finding]:
    """The recipe, checked already (every key is known, at every depth), and what is unusual in it."""
    count = len(keys(Recipe))
    found = [Finding("레시피 (recipe)", "ok", f"key {count}개, 모두 아는 것 (keys, all known)")]
    training = recipe.training
    if training.learning_rate >= (HIGH_FULL_RATE if recipe.full else HIGH_RATE):
        seen = f"{training.learning_rate:g}: LoRA에 높음 (high for LoRA)"
        fix = "1e-4에서 5e-4로 시작해 보세요 (begin with 1e-4 to 5e-4)."
        if recipe.full:
            seen = f"{training.learning_rate:g}: 전체 미세 조정에 높음 (high for full fine-tuning)"
            fix = "1e-5에서 1e-4로 시작해 보세요 (begin with 1e-5 to 1e-4)."
        found.append(Finding("학습률 (learning rate)", "note", seen, fix))
    return [*found, *_code(recipe)]


def _code(recipe: Recipe) -> list[Finding]:
    """That the base's own Python is run: asked for by name, and worth saying all the same."""
    base = recipe.base
    if not base.trust_remote_code:
        return []
    pin = f"base.revision {base.revision}" if base.code_sha256 is None else f"base.code_sha256 {base.code_sha256}"
    fix = "그 코드를 읽었는지 확인하세요. 무엇이든 할 수 있습니다 (be sure that you read it: it may do anything)."
    seen = f"{base.path}: 베이스의 파이썬 코드를 돌림, {pin} (its own Python is run)"
    return [Finding("베이스의 코드 (code)", "note", seen, fix)]


def of_data(recipe: Recipe, examples: Examples) -> list[Finding]:
    """Data, template and special tokens."""
    return preflight_data.check(recipe, examples)


def of_model(ready: Ready) -> list[Finding]:
    """Versions, base, adapter and plan; not yet computing."""
    idle = idle_cards(torch.cuda.device_count(), ready.accelerator.num_processes)
    return [*_versions(ready), *preflight_model.check(ready), *idle, _steps(ready), engine(ready)]


def engine(ready: Ready) -> Finding:
    """What computes the run; never our own blocks where the base's own code is asked for."""
    name = "엔진 (engine)"
    if ready.trainer.prepared.fast and ready.recipe.base.trust_remote_code:
        seen = "우리 블록은 베이스의 코드를 돌리지 않습니다 (our own blocks do not run the base's code)"
        return Finding(name, "bad", seen, "engine.kind=plain으로 두세요 (set engine.kind=plain).")
    return Finding(name, "ok", ready.trainer.prepared.words())


def of_probe(ready: Ready, folder: Path) -> list[Finding]:
    """Three steps, and from them memory, time and disk.

    Everything in `ready` is afterwards as before: the run is the same to the last bit, with or without.
    """
    try:
        measured = probe(ready.trainer, ready.loaded.architecture)
    except KoalpacaError as failed:
        problem = failed.problems[0]
        return [Finding("손실 (loss)", "bad", problem.what.rstrip("."), problem.fix), _disk(ready, folder)]
    return [
        *preflight_probe.check(ready, measured),
        *_memory(ready, measured),
        _time(ready, measured),
        _disk(ready, folder),
    ]


def agree(ready: Ready, findings: list[Finding]) -> KoalpacaError | None:
    """What is bad as one error, in every process if in any: none may wait for another that has left."""
    mine = error(findings)
    if ready.accelerator.num_processes == 1:
        return mine
    count = torch.tensor(float(mine is not None), device=ready.accelerator.device)
    if float(ready.accelerator.reduce(count, "sum")) and mine is None:
        mine = KoalpacaError("preflight", "another process found something bad.", where="preflight")
    return mine


def _versions(ready: Ready) -> list[Finding]:
    cuda = ready.accelerator.device.type == "cuda"
    capability = torch.cuda.get_device_capability(ready.accelerator.device) if cuda else None
    cudnn: bool = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    return versions.check(versions.Circumstances(ready.recipe, ready.trainer.prepared.fast, capability, cudnn))


def idle_cards(cards: int, processes: int) -> list[Finding]:
    """Cards that no process uses: one process takes one (qlora issue 96, in which one of several was busy)."""
    if cards <= max(1, processes):
        return []
    seen = f"{cards}개 가운데 {processes}개만 씀 ({processes} of {cards} used)"
    fix = (
        f"accelerate launch --num_processes {cards} -m koalpaca_tune.cli.main train ... (한 단계는 "
        f"training.batch_size x 프로세스 행, a step is that many rows for each process)."
    )
    return [Finding("GPU", "note", seen, fix)]


def _steps(ready: Ready) -> Finding:
    name = "단계 (steps)"
    trainer, training = ready.trainer, ready.recipe.training
    steps = len(trainer.steps)
    ranks = ready.accelerator.num_processes
    seen = (
        f"{steps:,} x {training.batch_size * ranks} rows, 섞음 (shuffled), "
        f"{training.learning_rate:g} {training.schedule}, warm-up {training.warmup_steps}"
    )
    if training.warmup_steps >= steps:
        fix = "training.warmup_steps를 줄이세요 (the peak rate is never reached)."
        return Finding(name, "note", seen, fix)
    if trainer.steps[-1].epoch >= MANY_EPOCHS and not trainer.valid:
        fix = "data.valid 없이는 외우는 것을 볼 수 없습니다 (without it memorising is not seen)."
        return Finding(name, "note", f"{seen}; epoch {trainer.steps[-1].epoch:.1f}", fix)
    return Finding(name, "ok", seen)


def _memory(ready: Ready, measured: Probe) -> list[Finding]:
    name = "메모리 (memory)"
    if measured.peak_bytes is None:
        return _host_memory(name)
    _, whole = torch.cuda.mem_get_info(ready.accelerator.device)
    plan = ready.trainer.prepared.plan
    seen = f"최대 (peak) {measured.peak_bytes / GIB:.1f} GiB of {whole / GIB:.1f}"
    if plan is None:
        return [Finding(name, "ok", seen)]
    seen += f", 예측 (predicted) {plan.peak / GIB:.1f} GiB"
    if measured.peak_bytes > plan.budget:
        fix = "engine.memory_budget을 낮추세요 (lower engine.memory_budget)."
        return [Finding(name, "note", seen, fix)]
    return [Finding(name, "ok", seen)]


def _host_memory(name: str) -> list[Finding]:
    """The most that this process has held, loading and probing included."""
    try:
        import resource
    except ImportError:
        # Windows
        return []
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    seen = f"최대 (peak) {peak / GIB:.1f} of {whole / GIB:.1f} GiB (RAM)"
    if peak > CROWDED * whole:
        fix = "engine.micro_tokens나 data.max_length를 낮추세요 (lower one of them)."
        return [Finding(name, "note", seen, fix)]
    return [Finding(name, "ok", seen)]


def _time(ready: Ready, measured: Probe) -> Finding:
    """From the planner where there is one: the probe's steps are few and small."""
    trainer = ready.trainer
    plan = trainer.prepared.plan
    tokens = sum(len(trainer.train[index].ids) for step in trainer.steps for row in step.rows for index in row)
    speed = measured.step_tokens / measured.step_seconds
    if plan is not None:
        speed = plan.tokens_per_second * ready.accelerator.num_processes
    seen = f"약 {duration(tokens / speed)} (about): {tokens:,} tokens, {speed:,.0f} tokens/s"
    return Finding("시간 (time)", "ok", seen)


def duration(seconds: float) -> str:
    """3600 -> '1.0 h'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _disk(ready: Ready, folder: Path) -> Finding:
    """Checkpoints hold the adapter with two moments; one more stands while it is written, and one is the best."""
    name = "디스크 (disk)"
    adapter = 4 * sum(p.numel() for p in ready.trainer.parameters)
    needed = 3 * adapter * (ready.recipe.training.keep_checkpoints + 2) + adapter + LOG_BYTES
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        fix = "다른 곳을 고르세요: out=... (choose another)."
        return Finding(name, "bad", f"{there}: 쓸 수 없음 (not to be written to)", fix)
    free = shutil.disk_usage(there).free
    seen = f"{needed / GIB:.2f} GiB 필요 (needed), {free / GIB:.0f} GiB 남음 (free)"
    if free < needed:
        fix = "자리를 비우거나 training.keep_checkpoints를 줄이세요 (make room, or keep fewer checkpoints)."
        return Finding(name, "bad", seen, fix)
    return Finding(name, "ok", seen)
