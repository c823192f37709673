"""Weights of both families as llama.cpp wants them: other names, and two of them in another order of rows.

GPT-NeoX keeps query, key and value of a head together ([head, 3, width]); llama.cpp wants all queries, then all
keys, then all values. Llama's rotary pairs are the two halves of a head; llama.cpp's are neighbours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from koalpaca_tune.errors import KoalpacaError

Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Tensor:
    """One tensor to be written.

    Attributes:
        name: in GGUF.
        source: in the model's files.
        arrange: from the one to the other order of rows.
    """

    name: str
    source: str
    arrange: Callable[[Array], Array]


_NEOX = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}
_LLAMA = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTER = {
    "embed_in": "token_embd",
    "embed_tokens": "token_embd",
    "final_layer_norm": "output_norm",
    "norm": "output_norm",
    "lm_head": "output",
    "embed_out": "output",
}
_BLOCK = re.compile(r"layers\.(\d+)\.(.+)\.(weight|bias)", re.ASCII)
_ENDS = re.compile(r"(\w+)\.(weight|bias)", re.ASCII)


def tensors(config: Any, body: str, names: Iterator[str] | list[str]) -> list[Tensor]:
    """Every tensor of a model, in the order of its files.

    Args:
        config: transformers' config.
        body: the family's prefix of names.
        names: of the model's files.

    Raises:
        KoalpacaError: a tensor that has no place in GGUF (export-tensor).
    """
    inside = _NEOX if config.model_type == "gpt_neox" else _LLAMA
    found = []
    for source in names:
        own = source.removeprefix(f"{body}.")
        block, outer = _BLOCK.fullmatch(own), _ENDS.fullmatch(own)
        if block and block[2] in inside:
            name = f"blk.{block[1]}.{inside[block[2]]}.{block[3]}"
            found.append(Tensor(name, source, _arrange(inside[block[2]], config)))
        elif outer and outer[1] in _OUTER:
            found.append(Tensor(f"{_OUTER[outer[1]]}.{outer[2]}", source, _same))
        else:
            raise KoalpacaError(
                "export-tensor",
                f"'{source[:120]}' has no place in GGUF.",
                fix="Serve the model with vLLM instead (koalpaca export vllm).",
            )
    # llama.cpp wants a head of every GPT-NeoX, tied or not
    if config.model_type == "gpt_neox" and not any(one.name == "output.weight" for one in found):
        embedding = next(one for one in found if one.name == "token_embd.weight")
        found.append(Tensor("output.weight", embedding.source, _same))
    return found


def _same(weight: Array) -> Array:
    return weight


def _arrange(name: str, config: Any) -> Callable[[Array], Array]:
    heads = config.num_attention_heads
    if name == "attn_qkv":
        return lambda weight: _grouped(weight, heads)
    if name in ("attn_q", "attn_k"):
        of = heads if name == "attn_q" else config.num_key_value_heads
        return lambda weight: _neighbours(weight, of)
    return _same


def _grouped(weight: Array, heads: int) -> Array:
    """[head, (q, k, v), width] to [(q, k, v), head, width] along the rows."""
    split = weight.reshape(heads, 3, -1, *weight.shape[1:])
    return split.swapaxes(0, 1).reshape(weight.shape)


def _neighbours(weight: Array, heads: int) -> Array:
    """Halves of each head to pairs of neighbours along the rows."""
    split = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return split.swapaxes(1, 2).reshape(weight.shape)


def rotary_factors(config: Any) -> Array | None:
    """By what llama.cpp divides each rotary frequency: Llama-3.1's way to longer texts; None where it is not used.

    Raises:
        KoalpacaError: a way to longer texts that is not written here (export-rotary).
    """
    rope: Mapping[str, Any] = config.rope_parameters
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return None
    if kind != "llama3":
        raise KoalpacaError("export-rotary", f"rotary positions of type '{kind}' are not written as GGUF.")
    width = head_width(config)
    frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, width, 2, dtype=np.float64) / width)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    before, factor = rope["original_max_position_embeddings"], rope["factor"]
    found = []
    for frequency in frequencies:
        turns = before * frequency / (2 * math.pi)
        if turns > high:
            found.append(1.0)
        elif turns < low:
            found.append(factor)
        else:
            smooth = (turns - low) / (high - low)
            found.append(1.0 / ((1.0 - smooth) / factor + smooth))
    return np.array(found, dtype=np.float32)


def head_width(config: Any) -> int:
    """Width of an attention head."""
    width: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return width
