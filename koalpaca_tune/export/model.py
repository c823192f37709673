"""What is exported: a model folder with its weights, its tokenizer and the template it was trained with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Base
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference.merging import weights
from koalpaca_tune.inference.merging.weights import Weights
from koalpaca_tune.models import adapter_files, base, tokenizer
from koalpaca_tune.models.architectures import Architecture
from koalpaca_tune.templates import jinja
from koalpaca_tune.templates.registry import OWN
from koalpaca_tune.templates.template import Template
from koalpaca_tune.tokens.encode import Encoder
from koalpaca_tune.tokens.vocabulary import Vocabulary


@dataclass(frozen=True)
class Model:
    """A model whose weights are plain files.

    Attributes:
        path: as the user named it.
        weights: its files.
        config: transformers' config.
        architecture: its family.
        vocabulary: its tokenizer.
        template: the prompt's form.
    """

    path: str
    weights: Weights
    config: Any
    architecture: Architecture
    vocabulary: Vocabulary
    template: Template

    @property
    def name(self) -> str:
        """A name for files and servers: letters, digits, dot, dash."""
        known = _record(self.weights.folder).get("name")
        return plain_name(known if isinstance(known, str) else Path(self.path).name)

    @property
    def float32(self) -> bool:
        """Whether it was merged in float32: in 16 bits such an adapter may be lost."""
        merged = _record(self.weights.folder).get("merge")
        return isinstance(merged, dict) and merged.get("dtype") == "float32"

    @cached_property
    def encoder(self) -> Encoder:
        """Template and tokenizer."""
        return Encoder(self.vocabulary, self.template)

    @cached_property
    def chat_template(self) -> str:
        """Jinja source of the template."""
        source = jinja.source(self.template.name, self.vocabulary.markers, adds_bos=self.vocabulary.adds_bos)
        if source is None:
            own = tokenizer.load_pretrained(self.path).chat_template
            source = own if isinstance(own, str) else None
        if source is None:
            raise KoalpacaError(
                "template-own",
                "the tokenizer has several chat templates, or none.",
                where=self.path,
                fix="Give --template.",
            )
        return source

    @property
    def own_template(self) -> bool:
        """Whether the template is the tokenizer's, not one of ours."""
        return self.template.name == OWN


def open_model(path: Base, template: str) -> Model:
    """Reads everything but the weights.

    Args:
        path: a merged model, a fully tuned one, or any base.
        template: name of its template.

    Raises:
        KoalpacaError: an adapter (export-adapter), a template other than the one it was trained with
            (export-template), or anything in reading a base.
    """
    folder = Path(path.path)
    if (folder / adapter_files.CONFIG).is_file() and not (folder / weights.CONFIG).is_file():
        raise KoalpacaError(
            "export-adapter",
            "this is an adapter, without the weights of its base.",
            where=path.path,
            fix="Merge first: koalpaca merge BASE ADAPTER --out merged.",
        )
    trained = _trained_template(folder)
    if trained is not None and template != trained:
        raise KoalpacaError(
            "export-template",
            f"the model was trained with template '{trained}', not '{template}'.",
            where=path.path,
            fix="Leave --template away: the model knows its own.",
        )
    config, architecture = base.describe(path)
    vocabulary = tokenizer.load(path.path, path.revision)
    return Model(
        path.path,
        weights.read(weights.fetch(path)),
        config,
        architecture,
        vocabulary,
        vocabulary.template(template),
    )


def _record(folder: Path) -> dict[str, Any]:
    path = folder / "record.json"
    return jsonl.read_json(path) if path.is_file() else {}


def _trained_template(folder: Path) -> str | None:
    known = _record(folder).get("template")
    name = known.get("name") if isinstance(known, dict) else None
    return name if isinstance(name, str) else None


def plain_name(text: str) -> str:
    """A text as a name that shells, servers and file systems all take."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-.").lower() or "model"
