"""`koalpaca train`: a recipe to a run folder.

run.yaml  record.json  metrics.jsonl  checkpoints/  adapter/ (or model/)  report/loss.svg
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Sequence
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
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import adapter, base, tokenizer, whole
from koalpaca_tune.records import Encoded
from koalpaca_tune.runs import energy, record
from koalpaca_tune.runs import resume as resuming
from koalpaca_tune.runs.resume import check_folder as check_folder
from koalpaca_tune.tokens.encode import Encoder
from koalpaca_tune.tokens.limit import Counts, limit
from koalpaca_tune.training import durable, engines, loop
from koalpaca_tune.training.course import Progress
from koalpaca_tune.training.guard import Rollback
from koalpaca_tune.training.loop import Trainer, accelerator

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
    """Loads the base, attaches the adapter (or releases all weights), plans the steps.

    Raises:
        KoalpacaError: anything that cannot be as the recipe says.
    """
    config, architecture = base.describe(recipe.base)
    if recipe.lora is not None:
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
    model = whole.release(loaded) if recipe.lora is None else adapter.attach(loaded, recipe.lora, recipe.base.path)
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
        write=lambda folder: whole.save(model, folder, loaded, recipe.base, examples.encoder.template),
    )
    trainable = (whole if recipe.full else adapter).trainable(model)
    return Ready(recipe, examples, loaded, trainable, trainer, runner)


def run_folder(recipe: Recipe) -> Path:
    """Where a run of this recipe goes."""
    return Path(recipe.folder)


def is_main_process() -> bool:
    """Whether this is the only process, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


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
        "world_size": ready.accelerator.num_processes,
        "resumed": [],
        "rollbacks": [],
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


def run(
    ready: Ready, folder: Path, *, resume: bool, allow: Sequence[str] = (), progress: Progress | None = None
) -> dict[str, Any]:
    """Trains; returns the finished record, which is also written beside run and adapter.

    Args:
        ready: all that was loaded.
        folder: of the run, as `check_folder` gave it.
        resume: go on with what is there.
        allow: as for `check_folder`; what differs is written into the record.
        progress: told of every step.

    Raises:
        KoalpacaError: data, base, tokenizer or number of processes differ from the run that is resumed
            (resume-differs), another process is at it (run-busy), and as `Trainer.run`.
        Interrupted: see `Trainer.run`.
    """
    main = ready.accelerator.is_main_process
    entry = first_record(ready)
    if main:
        with durable.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
    with resuming.held(folder) if main else contextlib.nullcontext():
        accepted = _take_over(ready, entry, folder, allow) if resume else {}
        if main:
            for place in (folder, folder / ready.recipe.output, folder / "report"):
                durable.sweep(place)
        if main and not resume:
            _write(folder, entry)
            _write_recipe(folder, ready.recipe)
        ready.accelerator.wait_for_everyone()

        def event(kind: str, what: dict[str, Any]) -> None:
            if kind == "resumed":
                entry["resumed"].append({"at": record.now(), **what, "accepted": accepted})
            else:
                entry["rollbacks"].append(what)
            _write(folder, entry)
            if kind == "resumed" and accepted:
                # only now: the checkpoint fits what was accepted
                _write_recipe(folder, ready.recipe)

        meter = energy.Meter(energy.cards() if main else ())
        try:
            metrics = ready.trainer.run(
                folder,
                resume=resume,
                allow=bool(allow),
                rollbacks=[Rollback.from_dict(one) for one in entry["rollbacks"]],
                progress=progress,
                event=event,
            )
        except KoalpacaError as error:
            if main and error.problems[0].code != "run-write":
                # `koalpaca diagnose` tells an overflow from a kill by this
                entry["ended"] = {"code": error.problems[0].code}
                _write(folder, entry)
            raise
        if main:
            entry["finished"] = record.now()
            entry["result"] = summary(metrics.rows)
            # of a resumed run the counter saw the last part alone
            used = None if resume else meter.used()
            if used is not None:
                entry["result"]["energy"] = used
            _write(folder, entry)
            jsonl.write_json(folder / ready.recipe.output / record.NAME, entry)
    return entry


def _take_over(ready: Ready, entry: dict[str, Any], folder: Path, allow: Sequence[str]) -> dict[str, list[Any]]:
    """Takes over what the record has of the run so far; returns what differs from it, and was allowed."""
    before = jsonl.read_json(folder / record.NAME)
    found = resuming.changed(recipes.load(str(folder / resuming.STORED)), ready.recipe)
    found += resuming.check_contents(before, entry, folder, allow)
    for name in ("started", "resumed", "rollbacks"):
        entry[name] = before.get(name, entry[name])
    return {key: [old, new] for key, old, new in found}


def _write_recipe(folder: Path, recipe: Recipe) -> None:
    """Comes last: a folder that has a recipe holds a run."""
    with durable.writing(folder / resuming.STORED):
        jsonl.replace(folder / resuming.STORED, [recipes.dump(recipe)])
        durable.sync(folder)


def _write(folder: Path, entry: dict[str, Any]) -> None:
    with durable.writing(folder / record.NAME):
        jsonl.write_json(folder / record.NAME, entry)


def summary(rows: Any) -> dict[str, Any]:
    """What metrics.jsonl says in the end: loss over the last tenth of the steps, speed over all of them."""
    trained = [row for row in rows if "loss" in row]
    last = trained[-max(1, len(trained) // 10) :]
    learned = sum(row["learned_tokens"] for row in last)
    # the first interval holds start-up costs of kernels and caches
    timed = trained[1:] or trained
    seconds = sum(row["seconds"] for row in timed)
    valid = [row["valid_loss"] for row in rows if "valid_loss" in row]
    best = min((row for row in rows if "valid_loss" in row), key=lambda row: row["valid_loss"], default=None)
    peaks = [row["peak_memory_gib"] for row in trained if row["peak_memory_gib"] is not None]
    return {
        "steps": trained[-1]["step"],
        "loss": sum(row["loss"] * row["learned_tokens"] for row in last) / learned,
        "valid_loss": valid[-1] if valid else None,
        "best": best and {"step": best["step"], "valid_loss": best["valid_loss"]},
        "seconds": round(sum(row["seconds"] for row in trained), 2),
        "tokens": sum(row["tokens"] for row in trained),
        "tokens_per_second": round(sum(row["tokens"] for row in timed) / seconds, 1),
        "peak_memory_gib": max(peaks) if peaks else None,
    }
