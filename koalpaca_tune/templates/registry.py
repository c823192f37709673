"""The templates by name. A run stores the name with its adapter; every later command reads it back."""

from __future__ import annotations

from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.templates import chat, plain
from koalpaca_tune.templates.template import Template

OWN = "tokenizer"
"""The name that stands for the tokenizer's own chat template."""

TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        Template("koalpaca", plain.koalpaca, source="KoAlpaca v1.1 README"),
        Template("koalpaca-v1.0", plain.koalpaca_v1_0, source="KoAlpaca v1.0 train.py"),
        Template("kullm-v2", plain.kullm_v2, source="KULLM templates/kullm.json"),
        Template("llama2", chat.llama2, source="Llama 2 (Touvron et al. 2023)"),
        Template(
            "llama3",
            chat.llama3,
            needs=(chat.BEGIN, chat.HEADER, chat.HEADER_END, chat.TURN_END),
            stops=(chat.TURN_END,),
            source="Llama 3 model card",
        ),
        Template(
            "chatml", chat.chatml, needs=(chat.IM_START, chat.IM_END), stops=(chat.IM_END,), source="OpenAI ChatML"
        ),
    )
}


def find(name: str) -> Template:
    """A template by name.

    Raises:
        KoalpacaError: unknown (template-unknown).
    """
    try:
        return TEMPLATES[name]
    except KeyError:
        raise KoalpacaError(
            "template-unknown",
            f"there is no template '{name}'.",
            where="template",
            fix=did_you_mean(name, [*TEMPLATES, OWN]),
        ) from None
