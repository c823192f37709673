"""The record of an adapter that comes from elsewhere: read with suspicion, or made of what is known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub.bases import Told
from koalpaca_tune.templates import registry

MARK = "foreign"
"""Key of a record that was made here, of an adapter that brought none."""

UNKNOWN = ("data", "training", "evaluation")
"""Parts of such a record's recipe that stand there for the form only."""


def ours(path: Path) -> dict[str, Any] | None:
    """A downloaded record.json, if commands can work with it; None for anything else."""
    try:
        record = jsonl.read_json(path)
        recipe = Recipe.model_validate(record["recipe"])
        there = (record["base"]["path"], record["base"]["fingerprint"])
        template = record["template"]["name"]
    except (KoalpacaError, LookupError, TypeError, ValueError):
        return None
    if (
        recipe.full
        or not all(isinstance(text, str) for text in there)
        or template != recipe.template
        or MARK in record
    ):
        return None
    return record


def check_idle(template: str | None, four_bit: bool | None, repo: str) -> None:
    """Nothing is said about an adapter that speaks for itself.

    Raises:
        KoalpacaError: an option that would have no effect (pull-template).
    """
    option = "--template" if template is not None else "--4bit/--full" if four_bit is not None else None
    if option is not None:
        raise KoalpacaError(
            "pull-template",
            f"{option} has no effect: the adapter's own record says it.",
            where=repo,
            fix="Leave it away.",
        )


def record(
    repo: str, config: Mapping[str, Any], base: Told, template: str | None, four_bit: bool
) -> dict[str, Any]:
    """A record for an adapter without one: what is known, and what only the form asks for.

    Args:
        repo: where it came from.
        config: adapter_config.json, checked to be plain LoRA.
        base: its base.
        template: as the user says.
        four_bit: whether the base is read in 4 bits.

    Raises:
        KoalpacaError: no template is named (pull-template), or none of that name is known (template-unknown).
    """
    if template is None:
        raise KoalpacaError(
            "pull-template",
            "the adapter has no record of ours, so nobody knows its prompt.",
            where=repo,
            fix=f"Read its card and give --template: {', '.join([*registry.TEMPLATES, registry.OWN])}.",
        )
    if template != registry.OWN:
        registry.find(template)
    name = re.sub(r"[^A-Za-z0-9._-]", "-", repo.rpartition("/")[2]).lstrip("._-") or "pulled"
    recipe = Recipe.model_validate(
        {
            "name": name,
            "template": template,
            "base": {"path": base.path, "revision": base.revision},
            "quantization": {"load_in_4bit": four_bit},
            "lora": {
                "r": config["r"],
                "alpha": max(1, round(config["lora_alpha"])),
                "dropout": config.get("lora_dropout", 0.0),
                "targets": config["target_modules"],
            },
            "data": {"train": "unknown"},
            "training": {"max_steps": 1},
        }
    )
    return {
        "name": name,
        MARK: {"not_known": list(UNKNOWN), "template": "as the user said"},
        "recipe": recipe.model_dump(),
        "base": {
            "path": base.path,
            "revision": base.revision,
            "fingerprint": base.fingerprint,
            "model_type": base.config.get("model_type"),
        },
        "template": {"name": template, "sha256": None},
        "tokenizer": {"sha256": None},
    }
