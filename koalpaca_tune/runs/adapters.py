"""A base with its adapter, put together as the adapter's record says: same template, same quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Base, Quantization, Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.models import adapter as adapters
from koalpaca_tune.models import base as bases
from koalpaca_tune.runs import record
from koalpaca_tune.tokens.encode import Encoder

DEFAULT_TEMPLATE = "koalpaca"


@dataclass(frozen=True)
class Choices:
    """How to load: from the adapter's record where there is one, or as asked.

    Attributes:
        recipe: the adapter's recipe, or None without an adapter.
        template: name of the prompt template.
        quantization: how the base is loaded.
    """

    base: Base
    adapter: Path | None
    recipe: Recipe | None
    template: str
    quantization: Quantization


def choose(base: str, adapter: Path | None, template: str | None, four_bit: bool | None) -> Choices:
    """Settles template and quantisation.

    With an adapter both are the adapter's own; asking for another template or precision than it was
    trained with is an error, not a silent difference. Without one: the template that a merged model
    carries, else koalpaca; full precision.

    Raises:
        KoalpacaError: the choice contradicts the adapter (adapter-differs), or it has no record (adapter-missing).
    """
    if adapter is None:
        chosen = template or _merged_template(base) or DEFAULT_TEMPLATE
        return Choices(Base(path=base), None, None, chosen, Quantization(load_in_4bit=bool(four_bit)))
    _, recipe = record.of_adapter(adapter)
    wrong = []
    if template is not None and template != recipe.template:
        wrong.append(f"template '{recipe.template}', not '{template}'")
    if four_bit is not None and four_bit != recipe.quantization.load_in_4bit:
        wrong.append("a 4-bit base" if recipe.quantization.load_in_4bit else "a full-precision base")
    if wrong:
        raise KoalpacaError(
            "adapter-differs",
            f"the adapter was trained with {' and '.join(wrong)}.",
            where=str(adapter),
            fix="Leave the option away: the adapter's own settings are used.",
        )
    revision = recipe.base.revision if base == recipe.base.path else None
    return Choices(Base(path=base, revision=revision), adapter, recipe, recipe.template, recipe.quantization)


def _merged_template(base: str) -> str | None:
    """The template that `koalpaca merge` wrote down beside the merged weights."""
    path = Path(base) / record.NAME
    if not path.is_file():
        return None
    template = jsonl.read_json(path).get("template")
    name = template.get("name") if isinstance(template, dict) else None
    return name if isinstance(name, str) else None


def open_model(choices: Choices) -> TorchLanguageModel:
    """Loads base and adapter.

    Raises:
        KoalpacaError: the adapter belongs to another base (adapter-wrong-base), or anything in loading.
    """
    loaded = bases.load(choices.base, choices.quantization)
    encoder = Encoder(loaded.vocabulary, loaded.vocabulary.template(choices.template))
    model: Any = loaded.model
    if choices.adapter is not None:
        entry, _ = record.of_adapter(choices.adapter)
        wanted = trained_on(entry, choices.adapter)
        if wanted != loaded.fingerprint:
            raise KoalpacaError(
                "adapter-wrong-base",
                f"the adapter was trained on {entry['base'].get('path')} ({wanted}), "
                f"this is {choices.base.path} ({loaded.fingerprint}).",
                where=str(choices.adapter),
                fix="Give the base that the adapter was trained on.",
            )
        model = adapters.load(loaded, choices.adapter)
    return TorchLanguageModel(model, loaded, encoder)


def trained_on(entry: Mapping[str, Any], adapter: Path) -> str:
    """The fingerprint of an adapter's base.

    Raises:
        KoalpacaError: its record does not tell it (adapter-missing).
    """
    base = entry.get("base")
    found = base.get("fingerprint") if isinstance(base, dict) else None
    if not isinstance(found, str):
        raise KoalpacaError(
            "adapter-missing",
            f"its {record.NAME} does not tell the base.",
            where=str(adapter / record.NAME),
            fix="Take the adapter folder of a finished run.",
        )
    return found
