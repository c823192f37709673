"""A base with its adapter, put together as the adapter's record says: same template, same quantisation.

The output of a full fine-tuning stands in an adapter's place where a base is judged before and after.
"""

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
from koalpaca_tune.models import proof
from koalpaca_tune.models.sources import fingerprint
from koalpaca_tune.runs import record
from koalpaca_tune.tokens.encode import Encoder

DEFAULT_TEMPLATE = "koalpaca"


@dataclass(frozen=True)
class Choices:
    """How to load: from the adapter's record where there is one, or as asked.

    Attributes:
        adapter: its folder, or that of a model whose every weight was trained.
        recipe: the adapter's recipe, or None without an adapter.
        template: name of the prompt template.
        quantization: how the base is loaded.
    """

    base: Base
    adapter: Path | None
    recipe: Recipe | None
    template: str
    quantization: Quantization

    @property
    def whole(self) -> bool:
        """Whether every weight was trained: base and tuned model are two models."""
        return self.recipe is not None and self.recipe.full


def choose(
    base: str,
    adapter: Path | None,
    template: str | None,
    four_bit: bool | None,
    *,
    trust_remote_code: bool = False,
    whole: bool = False,
) -> Choices:
    """Settles template and quantisation.

    With an adapter both are the adapter's own; asking for another template or precision than it was
    trained with is an error, not a silent difference. Without one: the template that a merged model
    carries, else koalpaca; full precision.

    Args:
        base, adapter: what is loaded.
        template, four_bit: as asked; None: open.
        trust_remote_code: the base's own code, as the adapter's record pins it, may be run.
        whole: the output of a full fine-tuning may stand in the adapter's place.

    Raises:
        KoalpacaError: the choice contradicts the adapter (adapter-differs), it has no record (adapter-missing), or
            was trained with code of the base that may not be run (base-code).
    """
    if adapter is None:
        if trust_remote_code:
            raise _idle_trust(base)
        chosen = template or _merged_template(base) or DEFAULT_TEMPLATE
        return Choices(Base(path=base), None, None, chosen, Quantization(load_in_4bit=bool(four_bit)))
    _, recipe = record.of_adapter(adapter)
    if recipe.full and not whole:
        raise KoalpacaError(
            "adapter-missing",
            "the folder holds a whole model (full fine-tuning), no adapter.",
            where=str(adapter),
            fix="Give it as the base, without --adapter.",
        )
    wrong = []
    if template is not None and template != recipe.template:
        wrong.append(f"template '{recipe.template}', not '{template}'")
    if four_bit is not None and _bits(recipe.quantization) != (4 if four_bit else None):
        bits = _bits(recipe.quantization)
        wrong.append("a full-precision base" if bits is None else f"{'an' if bits == 8 else 'a'} {bits}-bit base")
    if wrong:
        raise KoalpacaError(
            "adapter-differs",
            f"the adapter was trained with {' and '.join(wrong)}.",
            where=str(adapter),
            fix="Leave the option away: the adapter's own settings are used.",
        )
    same = base == recipe.base.path
    chosen_base = recipe.base if same else Base(path=base)
    if chosen_base.trust_remote_code and not trust_remote_code:
        # the record may be a stranger's, and has no say in what is run here
        raise KoalpacaError(
            "base-code",
            "the adapter was trained with Python code that its base brings along.",
            where=str(adapter),
            fix="Ask for it, if you have read that code: --trust-remote-code.",
        )
    if trust_remote_code and not chosen_base.trust_remote_code:
        raise _idle_trust(str(adapter))
    return Choices(chosen_base, adapter, recipe, recipe.template, recipe.quantization)


def _idle_trust(where: str) -> KoalpacaError:
    return KoalpacaError(
        "base-code",
        "--trust-remote-code runs what an adapter's record pins, and nothing is pinned here.",
        where=where,
        fix="Leave it away.",
    )


def _bits(quantization: Quantization) -> int | None:
    return 4 if quantization.load_in_4bit else 8 if quantization.load_in_8bit else None


def _merged_template(base: str) -> str | None:
    """The template that `koalpaca merge` wrote down beside the merged weights."""
    path = Path(base) / record.NAME
    if not path.is_file():
        return None
    template = jsonl.read_json(path).get("template")
    name = template.get("name") if isinstance(template, dict) else None
    return name if isinstance(name, str) else None


def open_model(choices: Choices) -> TorchLanguageModel:
    """Loads base and adapter, or the whole model that was trained in an adapter's place.

    Raises:
        KoalpacaError: the adapter belongs to another base (adapter-wrong-base), or anything in loading.
    """
    adapter, base = choices.adapter, choices.base
    if choices.whole and adapter is not None:
        config, _ = bases.describe(base)
        check_base(adapter, base.path, fingerprint(base.path, base.revision, config))
        base = Base(path=str(adapter))
    loaded = bases.load(base, choices.quantization)
    encoder = Encoder(loaded.vocabulary, loaded.vocabulary.template(choices.template))
    model: Any = loaded.model
    if adapter is not None and not choices.whole:
        check_base(adapter, base.path, loaded.fingerprint)
        model = adapters.load(loaded, adapter)
    # in 8 bits a text's numbers depend on the texts beside it (models.proof.company): each goes alone
    alone = 1 if proof.company(loaded.proof) else None
    return TorchLanguageModel(model, loaded, encoder, alone)


def check_base(adapter: Path, base: str, here: str) -> None:
    """Holds the fingerprint of a base against that of an adapter's.

    Raises:
        KoalpacaError: they differ (adapter-wrong-base).
    """
    entry, _ = record.of_adapter(adapter)
    wanted = trained_on(entry, adapter)
    if wanted != here:
        raise KoalpacaError(
            "adapter-wrong-base",
            f"the adapter was trained on {entry['base'].get('path')} ({wanted}), this is {base} ({here}).",
            where=str(adapter),
            fix="Give the base that the adapter was trained on.",
        )


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
