"""Loading a base as the recipe asks, and proving afterwards that it is so.

A 4-bit config that is built and never passed, or an option that a library swallows, leaves a model
that looks loaded. So nothing is believed: after loading, every module is asked what it is.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import bitsandbytes as bnb
import torch
import transformers

from koalpaca_tune.config.recipe import Base, Quantization
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import architectures, base_code, tokenizer
from koalpaca_tune.models.architectures import Architecture
from koalpaca_tune.models.proof import Proof, prove
from koalpaca_tune.models.sources import Reading, commit, fingerprint, locate
from koalpaca_tune.tokens.vocabulary import Vocabulary

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass
class Loaded:
    """A base in memory.

    Attributes:
        model: the causal language model, frozen, in eval mode.
        vocabulary: its tokenizer.
        architecture: where its parts are.
        proof: how it was really loaded.
        compute_dtype: type of the matrix products.
        fingerprint: identifies the base's weights.
        revision: the Hub commit, when known.
    """

    model: Any
    vocabulary: Vocabulary
    architecture: Architecture
    proof: Proof
    compute_dtype: torch.dtype
    fingerprint: str
    revision: str | None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device


def default_device() -> torch.device:
    """The first CUDA card, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def compute_dtype(quantization: Quantization, device: torch.device) -> torch.dtype:
    """auto: bfloat16 on CUDA, float32 on the CPU.

    Raises:
        KoalpacaError: bfloat16 asked of a card that has none (no-bfloat16).
    """
    name = quantization.bnb_4bit_compute_dtype
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    if name == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise KoalpacaError(
            "no-bfloat16",
            f"{torch.cuda.get_device_name(device)} has no bfloat16.",
            where="quantization.bnb_4bit_compute_dtype",
            fix="Set it to float16 (residuals stay in float32 then)."
            if quantization.load_in_4bit
            else "Load the base in 4 bits, with products in float16.",
        )
    return DTYPES[name]


def compute_of(model: Any) -> torch.dtype:
    """The type of the matrix products of a model in memory."""
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            return torch.float32 if module.compute_dtype is None else module.compute_dtype
    dtype: torch.dtype = model.get_input_embeddings().weight.dtype
    return dtype


def describe(base: Base) -> tuple[Any, Architecture]:
    """A base's transformers config and family, without its weights.

    Raises:
        KoalpacaError: cannot be read (base-load), brings code that was not asked for and pinned (base-code), or
            unknown family (architecture-unknown).
    """
    located = locate(base.path)
    with Reading(base.path):
        said, _ = transformers.PreTrainedConfig.get_config_dict(located, revision=base.revision)
        config = transformers.AutoConfig.from_pretrained(
            located, revision=base.revision, trust_remote_code=base_code.is_run(base, said)
        )
    return config, architectures.find(config.model_type, base.path)


def load(base: Base, quantization: Quantization, device: torch.device | None = None) -> Loaded:
    """Loads, freezes and proves a base.

    Weights come from safetensors only; code that the base brings is run only where the recipe asks (`base_code`).
    With float16 products the rest of the model is float32, because GPT-NeoX attention scores overflow float16.
    For the whole process, torch's attention is from here on computed without cuDNN.

    Raises:
        KoalpacaError: cannot be loaded (base-load), weights missing (base-incomplete), unknown family
            (architecture-unknown), or loaded otherwise than asked (quantization-not-applied).
    """
    device = device or default_device()
    compute = compute_dtype(quantization, device)
    resident = torch.float32 if compute == torch.float16 else compute
    located = locate(base.path)
    kwargs: dict[str, Any] = {}
    if quantization.load_in_4bit:
        kwargs["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=quantization.bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=compute,
        )
    elif quantization.load_in_8bit:
        # each product would log that its input goes through float16, on its way to 8 bits
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        kwargs["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_8bit=True, llm_int8_threshold=quantization.llm_int8_threshold
        )
    config, architecture = describe(base)
    with Reading(base.path):
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            located,
            revision=base.revision,
            dtype=resident,
            device_map={"": device},
            attn_implementation="sdpa",
            use_safetensors=True,
            # `describe` has seen to it that the code is the pinned one
            trust_remote_code=base.trust_remote_code,
            # not ignored: `_complete` refuses what these two report
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **kwargs,
        )
    _complete(info, base.path)
    model.requires_grad_(False)
    model.eval()
    # with a mask its gradients may be NaN (pytorch issue 196678, trl issue 7181); a switch for the process, since
    # what is recomputed in backward chooses its kernel anew. The engine's own blocks call cuDNN by name, unmasked
    torch.backends.cuda.enable_cudnn_sdp(False)
    _plain_cpu_kernels(model)
    proof = prove(model)
    _compare(proof, quantization, compute, base.path)
    return Loaded(
        model=model,
        vocabulary=tokenizer.load(base.path, base.revision),
        architecture=architecture,
        proof=proof,
        compute_dtype=compute,
        fingerprint=fingerprint(base.path, base.revision, config),
        revision=commit(base.path, base.revision, config) or base.revision,
    )


def _complete(info: Any, where: str) -> None:
    """transformers fills what a file lacks with random numbers, and only warns."""
    lacking = sorted(info["missing_keys"]) + sorted(key for key, *_ in info["mismatched_keys"])
    if lacking:
        raise KoalpacaError(
            "base-incomplete",
            f"{len(lacking)} weights of the model are not in its files, or of another shape; first: {lacking[0]}.",
            where=where,
            fix="Download the model again.",
        )


def _plain_cpu_kernels(model: Any) -> None:
    """Keeps the compute dtype true on CPUs with AVX512-BF16.

    There bitsandbytes would, outside training, repack the 4-bit weights in place and multiply in bfloat16
    whatever the compute dtype says; scores would depend on the processor.
    """
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _compare(proof: Proof, asked: Quantization, compute: torch.dtype, where: str) -> None:
    wrong = []
    if asked.load_in_4bit:
        if proof.linears_other or not proof.linears_4bit:
            wrong.append(f"{proof.linears_other} linear modules are not 4-bit, {proof.linears_4bit} are")
        if proof.quant_type != asked.bnb_4bit_quant_type:
            wrong.append(f"quant type is {proof.quant_type}, asked {asked.bnb_4bit_quant_type}")
        if proof.double_quant != asked.bnb_4bit_use_double_quant:
            wrong.append(f"double quantisation is {proof.double_quant}, asked {asked.bnb_4bit_use_double_quant}")
        if proof.compute_dtype != str(compute).removeprefix("torch."):
            wrong.append(f"compute dtype is {proof.compute_dtype}, asked {compute}")
    elif proof.linears_4bit:
        wrong.append(f"{proof.linears_4bit} modules are 4-bit, asked none")
    if asked.load_in_8bit:
        if proof.linears_other or not proof.linears_8bit:
            wrong.append(f"{proof.linears_other} linear modules are not 8-bit, {proof.linears_8bit} are")
        if proof.threshold != asked.llm_int8_threshold:
            wrong.append(f"threshold is {proof.threshold}, asked {asked.llm_int8_threshold}")
    elif proof.linears_8bit:
        wrong.append(f"{proof.linears_8bit} modules are 8-bit, asked none")
    if wrong:
        raise KoalpacaError(
            "quantization-not-applied",
            f"the base was not loaded as asked: {'; '.join(wrong)}.",
            where=where,
            fix="Check the versions of bitsandbytes and transformers (constraints.txt has tested ones).",
        )
