"""The published shapes that the GPU benches run, with random weights: for speed and memory, useless for answers.

    python bench/shapes.py polyglot-ko-12.8b     builds it in memory; prints seconds, GiB, what its modules are
    python bench/shapes.py --tiny                on the CPU, 10 s: both families are what from_pretrained gives

`build` makes a base that is already in NF4 with double quantisation, without a checkpoint: one weight after the
other is drawn in bfloat16 on the device and quantised, so the peak stays near the size of the result (seconds).
This module imports nothing heavy by itself: `peers.py` must import its peer before transformers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from koalpaca_tune.models.base import Loaded

STD = 0.02
"""Spread of every random weight, as trained ones have: losses stay finite."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a base's config says.

    Attributes:
        family: transformers' `model_type`.
        hidden, layers, heads, intermediate, vocabulary: sizes.
        kv_heads: heads of keys and values (the same as `heads` but for grouped attention).
        rotary: share of a head's dimensions that is rotated.
        positions: longest document.
        rope_theta: base of the rotary frequencies.
        row: tokens of a row in the workloads.
    """

    family: Literal["gpt_neox", "llama"]
    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    kv_heads: int
    rotary: float = 1.0
    positions: int = 2048
    rope_theta: float = 10000.0
    row: int = 2048

    @property
    def targets(self) -> tuple[str, ...]:
        """What LoRA adapts: the fused attention input of GPT-NeoX, every linear of Llama."""
        if self.family == "gpt_neox":
            return ("query_key_value",)
        return ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.hidden // self.heads

    @property
    def groups(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Linears of a block that share an input: (inputs, outputs of each)."""
        kv = self.kv_heads * self.head_dim
        if self.family == "gpt_neox":
            return (
                (self.hidden, (3 * self.hidden,)),
                (self.hidden, (self.hidden,)),
                (self.hidden, (self.intermediate,)),
                (self.intermediate, (self.hidden,)),
            )
        return (
            (self.hidden, (self.hidden, kv, kv)),
            (self.hidden, (self.hidden,)),
            (self.hidden, (self.intermediate, self.intermediate)),
            (self.intermediate, (self.hidden,)),
        )

    @property
    def quantised(self) -> int:
        """Parameters of all blocks' linears."""
        return self.layers * sum(k * sum(outputs) for k, outputs in self.groups)


def _neox(hidden: int, layers: int, heads: int, rotary: float) -> Shape:
    return Shape("gpt_neox", hidden, layers, heads, 4 * hidden, 30080, heads, rotary)


SHAPES: dict[str, Shape] = {
    "polyglot-ko-1.3b": _neox(2048, 24, 16, 0.5),
    "polyglot-ko-3.8b": _neox(3072, 32, 24, 0.5),
    "polyglot-ko-5.8b": _neox(4096, 28, 16, 0.25),
    "polyglot-ko-12.8b": _neox(5120, 40, 40, 0.5),
    "llama2-7b": Shape("llama", 4096, 32, 32, 11008, 32000, 32, positions=4096),
    "llama3-8b": Shape("llama", 4096, 32, 32, 14336, 128256, 8, positions=8192, rope_theta=500000.0),
    "tiny-neox": Shape("gpt_neox", 64, 2, 4, 256, 320, 4, 0.25, row=64),
    "tiny-llama": Shape("llama", 64, 2, 4, 192, 320, 2, row=64),
}


def config(name: str) -> Any:
    """The transformers config of a shape."""
    import transformers

    shape = SHAPES[name]
    values = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "tie_word_embeddings": False,
    }
    if shape.family == "gpt_neox":
        return transformers.GPTNeoXConfig(**values, rotary_pct=shape.rotary, use_parallel_residual=True)
    rope = {"rope_type": "default", "rope_theta": shape.rope_theta}
    return transformers.LlamaConfig(
        **values, num_key_value_heads=shape.kv_heads, rms_norm_eps=1e-5, rope_parameters=rope
    )


def tokenizer() -> Any:
    """A tokenizer of 260 words: the benches draw ids, but loaders want one beside the weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<pad>", "</s>", "<s>"] + [f"w{n}" for n in range(256)]
    backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", eos_token="</s>", bos_token="<s>"
    )


def build(name: str, device: torch.device, *, seed: int = 0) -> Loaded:
    """A base with random weights in NF4 (double quantisation), as `models.base.load` would give it.

    Args:
        name: an entry of SHAPES.
        device: where it stands; products in bfloat16 on CUDA, in float32 on the CPU.
        seed: of the weights.

    Returns:
        The frozen model, with 'random' as its fingerprint.
    """
    import bitsandbytes as bnb
    import torch
    import transformers

    from koalpaca_tune.config.recipe import Quantization
    from koalpaca_tune.models import architectures, base
    from koalpaca_tune.models import tokenizer as tokenizers

    dtype = base.compute_dtype(Quantization(), device)
    generator = torch.Generator(device).manual_seed(seed)

    def draw(shape: torch.Size) -> Any:
        return torch.empty(shape, dtype=dtype, device=device).normal_(0.0, STD, generator=generator)

    with torch.device("meta"):
        model: Any = transformers.AutoModelForCausalLM.from_config(
            config(name), dtype=dtype, attn_implementation="sdpa"
        )
    head = model.get_output_embeddings()
    for path, module in list(model.named_modules()):
        if type(module) is torch.nn.Linear and module is not head:
            linear = bnb.nn.Linear4bit(
                module.in_features,
                module.out_features,
                bias=module.bias is not None,
                compute_dtype=dtype,
                compress_statistics=True,
                quant_type="nf4",
                device="meta",
            )
            # on the device first: quantising moves what is elsewhere
            linear.weight = bnb.nn.Params4bit(
                draw(module.weight.shape),
                requires_grad=False,
                compress_statistics=True,
                quant_type="nf4",
                module=linear,
            ).to(device)
            # as in base._plain_cpu_kernels: the compute dtype stays true on every CPU
            linear.support_avx512bf16_for_cpu = False
            model.set_submodule(path, linear)
    for path, module in list(model.named_modules()):
        for key, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                norm = key == "weight" and parameter.dim() == 1
                value = torch.ones(parameter.shape, dtype=dtype, device=device) if norm else draw(parameter.shape)
                setattr(module, key, torch.nn.Parameter(value, requires_grad=False))
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            # only the rotary frequencies, which its constructor computes from the config
            model.set_submodule(path, type(module)(config=model.config).to(device))
    left = [key for key, value in (*model.named_parameters(), *model.named_buffers()) if value.is_meta]
    if left:
        raise RuntimeError(f"{left[0]} has no values.")
    # what a quantised load leaves on the model, and peft asks for
    model.config.quantization_config = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model.is_loaded_in_4bit = model.is_quantized = True
    model.quantization_method = model.config.quantization_config.quant_method
    model.requires_grad_(False)
    model.eval()
    return base.Loaded(
        model=model,
        vocabulary=tokenizers.vocabulary(tokenizer(), "random"),
        architecture=architectures.find(model.config.model_type, name),
        proof=base.prove(model),
        compute_dtype=dtype,
        fingerprint="random",
        revision=None,
    )


def compare(name: str) -> None:
    """Holds a built base against one that transformers loads from a checkpoint of the same shape.

    Raises:
        AssertionError: where they differ in anything but the values of the weights.
    """
    import torch
    import transformers

    from koalpaca_tune.config.recipe import Base, Lora, Quantization
    from koalpaca_tune.models import adapter, base

    device = torch.device("cpu")
    built = build(name, device)
    with tempfile.TemporaryDirectory() as folder:
        transformers.AutoModelForCausalLM.from_config(config(name)).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        loaded = base.load(Base(path=folder, revision=None), Quantization(), device)
    assert built.proof == loaded.proof, (built.proof, loaded.proof)
    ours, theirs = _tree(built.model), _tree(loaded.model)
    different = {path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path)}
    assert not different, [(path, ours.get(path), theirs.get(path)) for path in sorted(different)[:5]]
    for attribute in ("is_loaded_in_4bit", "is_quantized", "quantization_method", "dtype", "hf_device_map"):
        assert getattr(built.model, attribute, None) == getattr(loaded.model, attribute, None), attribute
    assert built.model.config._attn_implementation == loaded.model.config._attn_implementation == "sdpa"
    lora = Lora(r=4, alpha=8, dropout=0.0, targets=list(SHAPES[name].targets))
    ids = torch.randint(SHAPES[name].vocabulary, (2, 16))
    for one in (built, loaded):
        logits = adapter.attach(one, lora, "random")(input_ids=ids).logits
        assert logits.shape == (2, 16, SHAPES[name].vocabulary), logits.shape
        assert bool(logits.isfinite().all())
        logits.square().mean().backward()
    assert adapter.trainable(built.model) == adapter.trainable(loaded.model)
    print(f"{name}: {len(ours)} modules, parameters and buffers as transformers loads them")


def _tree(model: Any) -> dict[str, Any]:
    """Everything of a model but the values of its weights."""
    import torch

    tree: dict[str, Any] = {path: _said(module) for path, module in model.named_modules()}
    tree |= {
        path: (type(one).__name__, tuple(one.shape), one.dtype, one.requires_grad, str(one.device), _state(one))
        for path, one in model.named_parameters()
    }
    tree |= {path: (one.dtype, one.tolist()) for path, one in model.named_buffers() if one.dtype == torch.float32}
    return tree


def _said(module: Any) -> tuple[Any, ...]:
    names = ("compute_dtype", "support_avx512bf16_for_cpu", "in_features", "out_features", "training")
    return (type(module).__name__, *(getattr(module, name, None) for name in names))


def _state(parameter: Any) -> Any:
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return None
    nested = (state.state2.blocksize, state.state2.absmax.shape, state.state2.dtype)
    facts = (state.quant_type, state.blocksize, state.shape, state.dtype, state.nested, state.absmax.dtype)
    return facts, nested, parameter.bnb_quantized, parameter.module is not None


def main() -> None:
    """Builds one shape, or checks the tiny ones."""
    import torch

    from koalpaca_tune.models import base

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", nargs="?", choices=SHAPES)
    parser.add_argument("--tiny", action="store_true", help="check the tiny shapes on the CPU")
    given = parser.parse_args()
    if given.tiny:
        for name in ("tiny-neox", "tiny-llama"):
            compare(name)
        return
    device = base.default_device()
    began = time.perf_counter()
    loaded = build(given.shape or "tiny-neox", device)
    if device.type == "cuda":
        torch.cuda.synchronize()
        peak, now = torch.cuda.max_memory_allocated() / 2**30, torch.cuda.memory_allocated() / 2**30
        print(f"{now:.2f} GiB, {peak:.2f} at most")
    print(f"{time.perf_counter() - began:.1f} s", loaded.proof)


if __name__ == "__main__":
    main()
