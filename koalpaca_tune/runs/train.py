"""`koalpaca train`: a recipe to a run folder.

run.yaml  record.json  metrics.jsonl  checkpoints/  adapter/  report/loss.svg
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch

from koalpaca_tune import jsonl
from koalpaca_tune.config import load as recipes
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.data import licences
from koalpaca_tune.data import load as data
from koalpaca_tune.errors import KoalpacaError, Problem
from koalpaca_tune.models import adapter, base, tokenizer
from koalpaca_tune.records import Encoded
from koalpaca_tune.runs import record
from koalpaca_tune.tokens.encode import Encoder
from koalpaca_tune.tokens.limit import Counts, limit
from koalpaca_tune.training import engines, loop
from koalpaca_tune.training.loop import Progress, Trainer, accelerator

Say = Callable[[str], None]


@dataclass
class Examples:
    """Encoded training and validation sets, with what was left out."""

    encoder: Encoder
    train: list[Encoded]
    train_counts: Counts
    valid: list[Encoded]
    valid_counts: Counts | None


@dataclass
class Ready:
    """Everything loaded and checked, before the first step."""

    recipe: Recipe
    examples: Examples
    loaded: base.Loaded
    trainable: dict[str, int]
    trainer: Trainer
    accelerator: accelerate.Accelerator


def read_examples(recipe: Recipe) -> Examples:
    """Reads, renders and encodes the data. Needs no torch.

    Raises:
        KoalpacaError: anything wrong with data, template or tokenizer.
    """
    vocabulary = tokenizer.load(recipe.base.path, recipe.base.revision)
    encoder = Encoder(vocabulary, vocabulary.template(recipe.template))

    def read(path: str) -> tuple[list[Encoded], Counts]:
        encoded = encoder.conversations(data.conversations(Path(path)))
        return limit(encoded, recipe.data.max_length, recipe.data.too_long, path)

    train, train_counts = read(recipe.data.train)
    valid, valid_counts = read(recipe.data.valid) if recipe.data.valid else ([], None)
    return Examples(encoder, train, train_counts, valid, valid_counts)


def make_ready(recipe: Recipe, examples: Examples) -> Ready:
    """Loads the base, attaches the adapter, plans the steps.

    Raises:
        KoalpacaError: anything that cannot be as the recipe says.
    """
    config, architecture = base.describe(recipe.base)
    adapter.check_names(recipe.lora, architecture.linears, config.model_type)
    room = getattr(config, "max_position_embeddings", None)
    if room is not None and recipe.data.max_length > room:
        raise KoalpacaError(
            "length-beyond-base",
            f"{recipe.data.max_length} tokens are more than the {room} positions that the base knows.",
            where="data.max_length",
            fix=f"Set it to {room} or less.",
        )
    random.seed(recipe.seed)
    np.random.seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    device = base.default_device()
    runner = accelerator(base.compute_dtype(recipe.quantization, device), device)
    # the plan comes before the weights: what does not fit is said before a large base is loaded
    compute = base.compute_dtype(recipe.quantization, runner.device)
    steps = loop.plan(recipe, examples.train, runner)
    prepared = engines.prepare(recipe, config, compute, examples.train, steps, runner.device, runner.num_processes)
    loaded = base.load(recipe.base, recipe.quantization, runner.device)
    model = adapter.attach(loaded, recipe.lora, recipe.base.path)
    trainer = Trainer(
        recipe,
        model,
        loaded.architecture,
        examples.train,
        examples.valid,
        pad_id=examples.encoder.vocabulary.pad_id,
        accelerator=runner,
        planned=steps,
        prepared=prepared,
    )
    return Ready(recipe, examples, loaded, adapter.trainable(model), trainer, runner)


def run_folder(recipe: Recipe) -> Path:
    """Where a run of this recipe goes."""
    return Path(recipe.folder)


def is_main_process() -> bool:
    """Whether this is the only process, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def check_folder(recipe: Recipe, resume: bool) -> Path:
    """The run folder, safe to write to: new, or with --resume one of the same recipe.

    Raises:
        KoalpacaError: it holds a run already (run-exists), or one that differs (resume-differs).
    """
    folder = run_folder(recipe)
    stored = folder / "run.yaml"
    if not resume:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise KoalpacaError(
                "run-exists",
                "the run folder is not empty.",
                where=str(folder),
                fix="Go on with --resume, or choose another: out=runs/NEW.",
            )
        return folder
    if not stored.is_file():
        raise KoalpacaError(
            "resume-nothing", "there is no run here to go on with.", where=str(folder), fix="Run without --resume."
        )
    before, after = recipes.load(str(stored)).model_dump(), recipe.model_dump()
    problems = [
        Problem(
            "resume-differs",
            f"the run was started with {old!r}, the recipe now says {new!r}.",
            f"{stored}: {key}",
            "Resume with the same recipe, or start a new run: out=runs/NEW.",
        )
        for key, old, new in _differences(before, after)
    ]
    if problems:
        raise KoalpacaError.of(problems)
    return folder


def _differences(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for key in before:
        old, new = before[key], after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append((prefix + key, old, new))
    return found


def first_record(ready: Ready) -> dict[str, Any]:
    """record.json as it stands before the first step."""
    recipe, examples = ready.recipe, ready.examples

    def of_file(path: str | None, counts: Counts | None) -> dict[str, Any] | None:
        if path is None or counts is None:
            return None
        return {"path": path, "sha256": record.sha256(Path(path)), "counts": counts.as_dict()}

    return {
        "name": recipe.name,
        "recipe": recipe.model_dump(),
        "versions": record.versions(),
        "machine": record.machine(),
        "git": record.git(),
        "started": record.now(),
        "finished": None,
        "base": {
            "path": recipe.base.path,
            "revision": ready.loaded.revision,
            "fingerprint": ready.loaded.fingerprint,
            "model_type": ready.loaded.model.config.model_type,
        },
        "proof": ready.loaded.proof.as_dict(),
        "template": {"name": recipe.template, "sha256": record.template_hash(examples.encoder)},
        "tokenizer": {"sha256": record.tokenizer_hash(examples.encoder)},
        "data": {
            "train": of_file(recipe.data.train, examples.train_counts),
            "valid": of_file(recipe.data.valid, examples.valid_counts),
            "sources": licences.of_training(Path(recipe.data.train)),
        },
        "trainable": ready.trainable,
        "engine": ready.trainer.prepared.as_dict(),
        "result": None,
    }


def first_loss(ready: Ready) -> float:
    """Mean loss of the first step's learned tokens, without training."""
    trainer = ready.trainer
    seen = [trainer.train[index] for row in trainer.steps[0].rows for index in row]
    return trainer.mean_loss(seen)


def run(ready: Ready, folder: Path, *, resume: bool, progress: Progress | None = None) -> dict[str, Any]:
    """Trains; returns the finished record, which is also written beside run and adapter.

    Raises:
        KoalpacaError: data, base or tokenizer differ from the run that is resumed (resume-differs).
    """
    entry = first_record(ready)
    main = ready.accelerator.is_main_process
    if resume:
        _same(jsonl.read_json(folder / record.NAME), entry, folder)
    elif main:
        jsonl.replace(folder / "run.yaml", [recipes.dump(ready.recipe)])
        jsonl.write_json(folder / record.NAME, entry)
    ready.accelerator.wait_for_everyone()
    metrics = ready.trainer.run(folder, resume=resume, progress=progress)
    if main:
        entry["finished"] = record.now()
        entry["result"] = summary(metrics.rows)
        jsonl.write_json(folder / record.NAME, entry)
        shutil.copyfile(folder / record.NAME, folder / "adapter" / record.NAME)
    return entry


def summary(rows: Any) -> dict[str, Any]:
    """What metrics.jsonl says in the end: loss over the last tenth of the steps, speed over all of them."""
    trained = [row for row in rows if "loss" in row]
    last = trained[-max(1, len(trained) // 10) :]
    learned = sum(row["learned_tokens"] for row in last)
    # the first interval holds start-up costs of kernels and caches
    timed = trained[1:] or trained
    seconds = sum(row["seconds"] for row in timed)
    valid = [row["valid_loss"] for row in rows if "valid_loss" in row]
    peaks = [row["peak_memory_gib"] for row in trained if row["peak_memory_gib"] is not None]
    return {
        "steps": trained[-1]["step"],
        "loss": sum(row["loss"] * row["learned_tokens"] for row in last) / learned,
        "valid_loss": valid[-1] if valid else None,
        "seconds": round(sum(row["seconds"] for row in trained), 2),
        "tokens": sum(row["tokens"] for row in trained),
        "tokens_per_second": round(sum(row["tokens"] for row in timed) / seconds, 1),
        "peak_memory_gib": max(peaks) if peaks else None,
    }


def _same(before: dict[str, Any], after: dict[str, Any], folder: Path) -> None:
    old, new = _contents(before), _contents(after)
    problems = [
        Problem(
            "resume-differs",
            f"its content changed since the run was started ({old[name][:12]} before, {new[name][:12]} now).",
            f"{folder}: {name}",
            "Put the old content back, or start a new run: out=runs/NEW.",
        )
        for name in old
        if old[name] != new[name]
    ]
    if problems:
        raise KoalpacaError.of(problems)


def _contents(entry: dict[str, Any]) -> dict[str, str]:
    """What a run learns from and stands on, by hash."""
    return {
        "data.train": entry["data"]["train"]["sha256"],
        "data.valid": (entry["data"]["valid"] or {}).get("sha256", "none"),
        "base": entry["base"]["fingerprint"],
        "tokenizer": entry["tokenizer"]["sha256"],
        "template": entry["template"]["sha256"],
    }
