"""A model as one GGUF file: written one tensor at a time, opened again, every tensor compared.

GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.export import gguf_tensors, gguf_tokens
from koalpaca_tune.export.gguf_tensors import Array, Tensor
from koalpaca_tune.export.gguf_tokens import Tokens
from koalpaca_tune.export.model import Model

TYPES = ("f16", "q8_0", "f32")
FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}
"""The number of each under `general.file_type`."""

F16_MOST = 65504.0


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        path: the file.
        bytes: its size.
        tensors: how many.
        largest: greatest difference between a stored and an original weight, relative to the tensor's greatest.
        tokens: the tokenizer as written.
    """

    path: Path
    bytes: int
    tensors: int
    largest: float
    tokens: Tokens


def library() -> Any:
    """The `gguf` package.

    Raises:
        KoalpacaError: it is not installed (export-missing).
    """
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise KoalpacaError(
            "export-missing", "the package 'gguf' is not installed.", fix="pip install 'koalpaca-tune[export]'"
        ) from error
    return gguf


def write(model: Model, out: Path, kind: str, wrote: Callable[[int, int], None] = lambda n, count: None) -> Written:
    """Writes a file beside, reads it back, compares and gives it its name.

    Memory: one tensor, twice in float32.

    Args:
        model: to be written.
        out: the file.
        kind: f16, q8_0 (blocks of 32 bytes with a scale; vectors stay float32) or f32.
        wrote: told (tensors written, of how many).

    Raises:
        KoalpacaError: no `gguf` (export-missing), a tokenizer (export-tokenizer), tensor (export-tensor) or rotary
            positions (export-rotary) that GGUF does not have, no room (export-space), a weight too large for
            float16 (export-range), a file that is there already (export-out), or one that reads back otherwise
            (export-differs).
    """
    lib = library()
    if out.exists():
        raise KoalpacaError(
            "export-out", "it exists already.", where=str(out), fix="Give another name, or remove it."
        )
    config = model.config
    rows = model.weights.entries[_embedding(model)].shape[0]
    tokens = gguf_tokens.read(model.vocabulary, rows)
    plan = gguf_tensors.tensors(config, model.architecture.body, list(model.weights.entries))
    factors = gguf_tensors.rotary_factors(config)
    types = {one.name: _type(lib, kind, model.weights.entries[one.source].shape) for one in plan}
    sizes = {one.name: _bytes(lib, types[one.name], model.weights.entries[one.source].shape) for one in plan}
    _check_space(out, sum(sizes.values()))
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        writer = lib.GGUFWriter(aside, "gptneox" if config.model_type == "gpt_neox" else "llama")
        _describe(writer, model, tokens, kind)
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
        for one in plan:
            shape = model.weights.entries[one.source].shape
            if types[one.name] == lib.GGMLQuantizationType.Q8_0:
                # told in bytes, as the package wants it of quantised tensors
                shape = lib.quant_shape_to_byte_shape(shape, types[one.name])
            dtype = {"F32": np.float32, "F16": np.float16}.get(types[one.name].name, np.uint8)
            writer.add_tensor_info(one.name, shape, np.dtype(dtype), sizes[one.name], types[one.name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for n, one in enumerate(plan, 1):
            writer.write_tensor_data(_stored(lib, model, one, types[one.name]))
            wrote(n, len(plan))
        writer.close()
        largest = _read_back(lib, aside, model, plan, tokens)
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
    return Written(out, out.stat().st_size, len(plan), largest, tokens)


def _embedding(model: Model) -> str:
    body = model.architecture.body
    names = [f"{body}.embed_in.weight", f"{body}.embed_tokens.weight", "embed_in.weight", "embed_tokens.weight"]
    found = model.weights.find(*names)
    if found is None:
        raise KoalpacaError("base-incomplete", "there is no embedding in its files.", where=model.path)
    return found


def _type(lib: Any, kind: str, shape: tuple[int, ...]) -> Any:
    """GGUF's type of a tensor: vectors stay float32."""
    types = lib.GGMLQuantizationType
    if len(shape) == 1 or kind == "f32":
        return types.F32
    # a row must be whole blocks
    return types.Q8_0 if kind == "q8_0" and shape[-1] % 32 == 0 else types.F16


def _bytes(lib: Any, kind: Any, shape: tuple[int, ...]) -> int:
    block, size = lib.GGML_QUANT_SIZES[kind]
    return int(np.prod(shape)) // int(block) * int(size)


def _stored(lib: Any, model: Model, one: Tensor, kind: Any) -> Any:
    weight = _arranged(model, one)
    if kind == lib.GGMLQuantizationType.F16 and float(np.abs(weight).max()) > F16_MOST:
        raise KoalpacaError(
            "export-range",
            f"'{one.source}' holds a weight too large for float16.",
            where=model.path,
            fix="Take --type q8_0 or f32.",
        )
    return lib.quants.quantize(np.ascontiguousarray(weight), kind)


def _arranged(model: Model, one: Tensor) -> Array:
    return one.arrange(model.weights.array(one.source))


def _describe(writer: Any, model: Model, tokens: Tokens, kind: str) -> None:
    config, vocabulary = model.config, model.vocabulary
    writer.add_name(model.name)
    writer.add_languages(["ko"])
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(2)
    writer.add_vocab_size(len(tokens.tokens))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    width = gguf_tensors.head_width(config)
    if config.model_type == "gpt_neox":
        share = config.rope_parameters.get("partial_rotary_factor", 1.0)
        writer.add_rope_dimension_count(int(width * share))
        writer.add_parallel_residual(bool(config.use_parallel_residual))
        writer.add_layer_norm_eps(config.layer_norm_eps)
    else:
        writer.add_rope_dimension_count(width)
        writer.add_key_length(width)
        writer.add_value_length(width)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model(tokens.model)
    writer.add_tokenizer_pre(tokens.pre)
    writer.add_token_list(list(tokens.tokens))
    writer.add_token_types(list(tokens.kinds))
    if tokens.model == "llama":
        writer.add_token_scores(list(tokens.scores))
        writer.add_add_space_prefix(True)
        if gguf_tokens.UNKNOWN in tokens.kinds:
            writer.add_unk_token_id(tokens.kinds.index(gguf_tokens.UNKNOWN))
    else:
        writer.add_token_merges(list(tokens.merges))
    writer.add_eos_token_id(vocabulary.id(vocabulary.eos))
    writer.add_pad_token_id(vocabulary.pad_id)
    if vocabulary.bos is not None:
        writer.add_bos_token_id(vocabulary.id(vocabulary.bos))
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(False)
    stops = [token for token in model.template.stops if token != vocabulary.eos]
    if stops:
        writer.add_eot_token_id(vocabulary.id(stops[0]))
    writer.add_chat_template(model.chat_template)


def _read_back(lib: Any, path: Path, model: Model, plan: list[Tensor], tokens: Tokens) -> float:
    """Compares the file with what it was made of; the greatest relative difference of a weight.

    Raises:
        KoalpacaError: something differs by more than its type's rounding (export-differs).
    """
    reader = lib.GGUFReader(path)
    field = reader.get_field("tokenizer.chat_template")
    if field is None or field.contents() != model.chat_template:
        raise _differs("the chat template", path)
    listed = reader.get_field("tokenizer.ggml.tokens")
    if listed is None or tuple(listed.contents()) != tokens.tokens:
        raise _differs("the list of tokens", path)
    found = {one.name: one for one in reader.tensors}
    largest = 0.0
    for one in plan:
        stored, weight = found[one.name], _arranged(model, one)
        again = lib.quants.dequantize(stored.data, stored.tensor_type).reshape(weight.shape)
        most = float(np.abs(weight).max())
        apart = float(np.abs(again - weight).max()) / (most or 1.0)
        # half a step of the type, with room for a scale that is itself rounded to float16
        if not apart <= {"F32": 0.0, "F16": 2.0**-11, "Q8_0": 1.2 / 254}[stored.tensor_type.name]:
            raise _differs(f"'{one.source}' ({apart:.3g} of its greatest weight)", path)
        largest = max(largest, apart)
    return largest


def _differs(what: str, path: Path) -> KoalpacaError:
    return KoalpacaError(
        "export-differs",
        f"{what} reads back otherwise than it was written.",
        where=str(path),
        fix="Write it again; if it stays so, the disk or the 'gguf' package is at fault.",
    )


def _check_space(out: Path, size: int) -> None:
    folder = next(parent for parent in out.absolute().parents if parent.is_dir())
    need, free = size + (64 << 20), shutil.disk_usage(folder).free
    if need > free:
        raise KoalpacaError(
            "export-space",
            f"the file takes {need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free.",
            where=str(out),
            fix="Make room, or give --out on another disk.",
        )
