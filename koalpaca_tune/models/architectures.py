"""The model families, by transformers' `model_type`."""

from __future__ import annotations

from dataclasses import dataclass

from koalpaca_tune.errors import KoalpacaError


@dataclass(frozen=True, slots=True)
class Architecture:
    """Where things are in a family's causal language model.

    Attributes:
        body: attribute of the transformer without its head (the head: `get_output_embeddings()`, since
            its attribute was renamed between versions of transformers).
        linears: the linear modules of a block, which LoRA can adapt.
        merged_only: why servers cannot take its adapter unmerged, or empty.
    """

    body: str
    linears: tuple[str, ...]
    merged_only: str = ""


ARCHITECTURES: dict[str, Architecture] = {
    "gpt_neox": Architecture(
        "gpt_neox",
        ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
        merged_only="vLLM has no LoRA for GPT-NeoX: merge first (koalpaca merge).",
    ),
    "llama": Architecture(
        "model",
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    ),
}


def find(model_type: str, where: str) -> Architecture:
    """The family of a config.

    Raises:
        KoalpacaError: not one of ours (architecture-unknown).
    """
    try:
        return ARCHITECTURES[model_type]
    except KeyError:
        raise KoalpacaError(
            "architecture-unknown",
            f"the base is of type '{model_type}'.",
            where=where,
            fix=f"Supported: {', '.join(ARCHITECTURES)}.",
        ) from None
