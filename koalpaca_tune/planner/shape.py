"""The shape of a base: its sizes, and what follows from them. No weights are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from koalpaca_tune.errors import KoalpacaError

Family = Literal["gpt_neox", "llama"]
Group = tuple[int, tuple[tuple[str, int], ...]]
"""Linear modules that read the same tensor: its width K, and (module name, output width N) of each."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a causal language model.

    Attributes:
        family: transformers' `model_type`.
        layers: blocks.
        hidden: width H of the residual.
        intermediate: width F of the MLP.
        heads, kv_heads: query heads, and key and value heads.
        head_dim: width of a head.
        vocabulary: rows of the embedding.
        rotary: how many of head_dim dimensions are rotated.
        tied: the head is the embedding.
        bias: the attention's linears have biases (GPT-NeoX's MLP always has, Llama's never).
    """

    family: Family
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    rotary: int
    tied: bool
    bias: bool

    @property
    def query_width(self) -> int:
        """Width of all query heads together; hidden, but for bases with a head_dim of their own."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all key heads together."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> tuple[Group, ...]:
        """The linear modules of a block, grouped by input, in the order of the forward pass."""
        hidden, wide, query, kv = self.hidden, self.intermediate, self.query_width, self.kv_width
        if self.family == "gpt_neox":
            return (
                (hidden, (("query_key_value", query + 2 * kv),)),
                (query, (("dense", hidden),)),
                (hidden, (("dense_h_to_4h", wide),)),
                (wide, (("dense_4h_to_h", hidden),)),
            )
        return (
            (hidden, (("q_proj", query), ("k_proj", kv), ("v_proj", kv))),
            (query, (("o_proj", hidden),)),
            (hidden, (("gate_proj", wide), ("up_proj", wide))),
            (wide, (("down_proj", hidden),)),
        )

    @property
    def block_weights(self) -> int:
        """Elements of one block's linear weights."""
        return sum(width * out for width, members in self.linears for _, out in members)

    @property
    def linear_weights(self) -> int:
        """Elements of all blocks' linear weights: what a 4-bit base holds in 4 bits."""
        return self.layers * self.block_weights

    @property
    def other_parameters(self) -> int:
        """Embedding, head, norms and biases: what stays in 16 (or 32) bits."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        attention = (self.query_width + 2 * self.kv_width + self.hidden) if self.bias else 0
        if self.family == "gpt_neox":
            # two layer norms with weight and bias, and the MLP's biases
            per_block = 4 * self.hidden + attention + self.intermediate + self.hidden
            return embeddings + self.layers * per_block + 2 * self.hidden
        return embeddings + self.layers * (2 * self.hidden + attention) + self.hidden

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.linear_weights + self.other_parameters


def of_config(config: Any) -> Shape:
    """The shape that a config describes.

    Args:
        config: a transformers config, or any object with the attributes of a config.json. Where attributes
            are missing, transformers' defaults of the family hold.

    Raises:
        KoalpacaError: another family (architecture-unknown), or a size is missing (base-config).
    """
    family = getattr(config, "model_type", None)
    if family != "gpt_neox" and family != "llama":
        raise KoalpacaError(
            "architecture-unknown", f"the base is of type '{family}'.", fix="Supported: gpt_neox, llama."
        )
    heads, hidden = _size(config, "num_attention_heads"), _size(config, "hidden_size")
    head_dim = getattr(config, "head_dim", None) or hidden // heads
    neox = family == "gpt_neox"
    return Shape(
        family=family,
        layers=_size(config, "num_hidden_layers"),
        hidden=hidden,
        intermediate=_size(config, "intermediate_size"),
        heads=heads,
        kv_heads=heads if neox else getattr(config, "num_key_value_heads", None) or heads,
        head_dim=head_dim,
        vocabulary=_size(config, "vocab_size"),
        rotary=int(head_dim * _rotary_share(config, neox)),
        tied=bool(getattr(config, "tie_word_embeddings", False)),
        bias=bool(getattr(config, "attention_bias", neox)),
    )


def _size(config: Any, name: str) -> int:
    value = getattr(config, name, None)
    if not isinstance(value, int) or value < 1:
        raise KoalpacaError(
            "base-config", f"its config says {value!r} for {name}, which must be a positive number."
        )
    return value


def _rotary_share(config: Any, neox: bool) -> float:
    """transformers 5 keeps it among `rope_parameters`, older files of GPT-NeoX as `rotary_pct`."""
    rope = getattr(config, "rope_parameters", None) or {}
    share = rope.get("partial_rotary_factor", getattr(config, "rotary_pct", None))
    if share is None:
        return 0.25 if neox else 1.0
    return float(share)


def _polyglot(layers: int, hidden: int, heads: int) -> Shape:
    return Shape(
        family="gpt_neox",
        layers=layers,
        hidden=hidden,
        intermediate=4 * hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        vocabulary=30080,
        rotary=64,
        tied=False,
        bias=True,
    )


def _llama(intermediate: int, kv_heads: int, vocabulary: int) -> Shape:
    return Shape(
        family="llama",
        layers=32,
        hidden=4096,
        intermediate=intermediate,
        heads=32,
        kv_heads=kv_heads,
        head_dim=128,
        vocabulary=vocabulary,
        rotary=128,
        tied=False,
        bias=False,
    )


SHAPES: dict[str, Shape] = {
    "polyglot-ko-1.3b": _polyglot(24, 2048, 16),
    "polyglot-ko-3.8b": _polyglot(32, 3072, 24),
    "polyglot-ko-5.8b": _polyglot(28, 4096, 16),
    "polyglot-ko-12.8b": _polyglot(40, 5120, 40),
    "llama-2-7b": _llama(11008, 32, 32000),
    "llama-3-8b": _llama(14336, 8, 128256),
}
"""Published bases, for a plan without their files."""
