"""`koalpaca plan`: a recipe, the config of its base and the lengths of its data to a plan; no weights are read."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.planner import card as cards
from koalpaca_tune.planner import constants, lengths, shape, work
from koalpaca_tune.planner.card import Card
from koalpaca_tune.planner.choice import Fixed
from koalpaca_tune.planner.choose import Plan, choose
from koalpaca_tune.planner.lengths import Lengths
from koalpaca_tune.planner.shape import Shape
from koalpaca_tune.planner.support import fp8_obstacle, obstacle, plain_only

SMALLER_GIB = (80, 48, 24)
"""Memory of common cards: the plan says what less would give."""


@dataclass(frozen=True)
class Described:
    """A base without its weights.

    Attributes:
        name: as a person knows it.
        shape: its sizes.
        fast: whether the fast engine computes it.
    """

    name: str
    shape: Shape
    fast: bool


@dataclass(frozen=True)
class Planned:
    """A plan with what it was made from.

    Attributes:
        base: the base.
        lengths: of the data, with the run's steps and tokens where they are known.
        data: whether the data was read; else rows are taken for full.
        plan: the choice and its prediction.
        smaller: GiB, and the plan within that much of the same card; None where nothing fits.
    """

    base: Described
    lengths: Lengths
    data: bool
    plan: Plan
    smaller: tuple[tuple[int, Plan | None], ...]

    @property
    def run_seconds(self) -> float | None:
        """Of the whole run; None where its tokens are not known."""
        return None if self.lengths.tokens is None else self.lengths.tokens / self.plan.tokens_per_second


def make(
    recipe: Recipe,
    card: Card,
    free: int,
    *,
    shape_name: str | None = None,
    budget_gib: float | None = None,
    tokens: int | None = None,
) -> Planned:
    """Plans a recipe's step on a card.

    Args:
        recipe: the whole of it; its `engine` section fixes what it sets.
        card: what it is to run on.
        free: bytes that the card has free.
        shape_name: one of `shape.SHAPES`, in place of the base's own config and data.
        budget_gib: memory to plan for, in place of the recipe's and the card's.
        tokens: of the whole run, in place of the data's.

    Raises:
        KoalpacaError: base, data or recipe cannot be used (engine-unsupported among them), or nothing fits
            (memory-short, memory-budget).
    """
    base = published(recipe, shape_name) if shape_name else describe(recipe)
    _check_fp8(recipe, base, card)
    data = shape_name is None and Path(recipe.data.train).exists()
    found = _measured(recipe) if data else _assumed(recipe)
    if tokens is not None:
        found = replace(found, tokens=tokens, steps=ceil(tokens / found.step_tokens))
    step = work.of_recipe(recipe, base.shape, found, fast=base.fast, cuda=card.cuda)
    fixed = work.settled(recipe, base.shape, fast=base.fast, cuda=card.cuda, memory_bytes=card.memory_bytes)
    budget = _budget(recipe, card, free, budget_gib)
    plan = choose(step, card, budget, fixed)
    return Planned(base, found, data, plan, _smaller(plan, fixed))


def published(recipe: Recipe, name: str) -> Described:
    """A shape by name, without network or files.

    Raises:
        KoalpacaError: there is none of that name (base-shape).
    """
    if name not in shape.SHAPES:
        raise KoalpacaError(
            "base-shape", f"no shape is called '{name}'.", where="--shape", fix=did_you_mean(name, [*shape.SHAPES])
        )
    return Described(name, shape.SHAPES[name], _fast(recipe, SimpleNamespace()))


def describe(recipe: Recipe) -> Described:
    """The base by its config.json alone: neither torch nor transformers is imported.

    Raises:
        KoalpacaError: it cannot be read (base-missing, base-load), or is not of our families
            (architecture-unknown, base-config).
    """
    path = recipe.base.path
    config = _config(path, recipe.base.revision)
    try:
        made = shape.of_config(config)
    except KoalpacaError as error:
        problem = error.problems[0]
        raise KoalpacaError(problem.code, problem.what, where=path, fix=problem.fix) from error
    return Described(path, made, _fast(recipe, config))


def _config(path: str, revision: str | None) -> Any:
    from koalpaca_tune.models.sources import hub_error, locate

    located = Path(locate(path))
    try:
        file = located / "config.json" if located.is_dir() else _downloaded(path, revision)
        return SimpleNamespace(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        problem = hub_error(error, path).problems[0]
        raise KoalpacaError(
            "base-load",
            problem.what,
            where=path,
            fix=f"{problem.fix} Without a network: --shape, one of {', '.join(shape.SHAPES)}.",
        ) from error


def _downloaded(path: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(path, "config.json", revision=revision))


def _fast(recipe: Recipe, config: Any) -> bool:
    """Whether our own blocks will compute it."""
    if recipe.engine.kind == "plain":
        return False
    why = plain_only(recipe)
    if why is not None and recipe.engine.kind == "fast":
        raise KoalpacaError(
            "engine-unsupported",
            f"our own blocks cannot compute this run: {why}.",
            where="engine.kind",
            fix="Set it to auto or plain.",
        )
    why = why or obstacle(config, recipe.quantization.bnb_4bit_compute_dtype)
    return why is None or (recipe.engine.kind == "fast" and recipe.quantization.bnb_4bit_compute_dtype != "float16")


def _check_fp8(recipe: Recipe, base: Described, card: Card) -> None:
    if recipe.engine.compute != "fp8":
        return
    compute = recipe.quantization.bnb_4bit_compute_dtype
    why = fp8_obstacle(base.shape, compute, card.capability, fast=base.fast)
    if why:
        raise KoalpacaError(
            "engine-unsupported", f"'fp8' cannot be used: {why}.", where="engine.compute", fix="Set it to auto."
        )


def _measured(recipe: Recipe) -> Lengths:
    """The lengths of the recipe's data, through its template and tokenizer."""
    from koalpaca_tune.data import load
    from koalpaca_tune.models import tokenizer
    from koalpaca_tune.tokens.encode import Encoder
    from koalpaca_tune.tokens.limit import limit
    from koalpaca_tune.training.steps import steps

    vocabulary = tokenizer.load(recipe.base.path, recipe.base.revision)
    encoder = Encoder(vocabulary, vocabulary.template(recipe.template))
    encoded = encoder.conversations(load.conversations(Path(recipe.data.train)))
    examples, _ = limit(encoded, recipe.data.max_length, recipe.data.too_long, recipe.data.train)
    taken = steps(
        examples,
        recipe.training,
        max_length=recipe.data.max_length,
        packing=recipe.data.packing,
        seed=recipe.seed,
    )
    return lengths.of_steps(examples, [step.rows for step in taken])


def _assumed(recipe: Recipe) -> Lengths:
    """Full rows; with max_steps the run's length is known all the same."""
    full = lengths.full_rows(recipe.training.batch_size, recipe.data.max_length)
    steps = recipe.training.max_steps
    return full if steps is None else replace(full, steps=steps, tokens=steps * full.step_tokens)


def _budget(recipe: Recipe, card: Card, free: int, budget_gib: float | None) -> int:
    """Bytes to plan for: as asked, else what is free, less a margin."""
    asked, where = (budget_gib, "--budget") if budget_gib else (recipe.engine.memory_budget, "engine.memory_budget")
    if asked is None:
        return cards.budget(free)
    if asked * constants.GIB > card.memory_bytes:
        raise KoalpacaError(
            "memory-budget",
            f"{asked:g} GiB are more than the {card.memory_gib:.1f} GiB of {card.name}.",
            where=where,
            fix="Give less, or another --card.",
        )
    return cards.asked(asked)


def _smaller(plan: Plan, fixed: Fixed) -> tuple[tuple[int, Plan | None], ...]:
    made: list[tuple[int, Plan | None]] = []
    for gib in SMALLER_GIB:
        budget = cards.budget(gib * constants.GIB)
        if budget < plan.budget:
            try:
                made.append((gib, choose(plan.work, plan.card, budget, fixed)))
            except KoalpacaError:
                made.append((gib, None))
    return tuple(made)
