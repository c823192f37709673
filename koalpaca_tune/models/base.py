"""Loading a base as the recipe asks, and proving afterwards that it is so.

A 4-bit config that is built and never passed, or an option that a library swallows, leaves a model
that looks loaded. So nothing is believed: after loading, every module is asked what it is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import bitsandbytes as bnb
import torch
import transformers

from koalpaca_tune.config.recipe import Base, Quantization
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import architectures, tokenizer
from koalpaca_tune.models.architectures import Architecture
from koalpaca_tune.models.sources import Reading, fingerprint, locate
from koalpaca_tune.tokens.vocabulary import Vocabulary

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Proof:
    """What the loaded modules say of themselves.

    Attributes:
        linears_4bit: how many modules hold 4-bit weights.
        linears_other: linear modules that do not, the output head aside.
        quant_type, double_quant, compute_dtype: as read back from the weights; None without 4-bit.
        dtypes: element type -> number of parameters, of everything not 4-bit.
    """

    linears_4bit: int
    linears_other: int
    quant_type: str | None
    double_quant: bool | None
    compute_dtype: str | None
    dtypes: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For record.json."""
        return asdict(self)


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
            fix="Set it to float16 (residuals stay in float32 then).",
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
        KoalpacaError: cannot be read (base-load), or unknown family (architecture-unknown).
    """
    located = locate(base.path)
    with Reading(base.path):
        config = transformers.AutoConfig.from_pretrained(located, revision=base.revision, trust_remote_code=False)
    return config, architectures.find(config.model_type, base.path)


def load(base: Base, quantization: Quantization, device: torch.device | None = None) -> Loaded:
    """Loads, freezes and proves a base.

    Weights come from safetensors only; code from the Hub is never run. With float16 products the rest of
    the model is float32, because GPT-NeoX attention scores overflow float16.

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
    config, architecture = describe(base)
    with Reading(base.path):
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            located,
            revision=base.revision,
            dtype=resident,
            device_map={"": device},
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            # not ignored: `_complete` refuses what these two report
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **kwargs,
        )
    _complete(info, base.path)
    model.requires_grad_(False)
    model.eval()
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
        revision=getattr(config, "_commit_hash", None) or base.revision,
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


def prove(model: Any) -> Proof:
    """Asks every module what it holds."""
    four_bit = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    four_bit = [m for m in four_bit if getattr(m.weight, "quant_state", None) is not None]
    head = model.get_output_embeddings()
    other = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m not in four_bit and m is not head]
    dtypes: Counter[str] = Counter()
    for module in model.modules():
        if module in four_bit:
            continue
        for parameter in module.parameters(recurse=False):
            dtypes[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    states = [m.weight.quant_state for m in four_bit]
    return Proof(
        linears_4bit=len(four_bit),
        linears_other=len(other),
        quant_type=_only({state.quant_type for state in states}),
        double_quant=_only({bool(state.nested) for state in states}),
        compute_dtype=_only({str(m.compute_dtype).removeprefix("torch.") for m in four_bit}),
        dtypes=dict(sorted(dtypes.items())),
    )


def _only(values: set[Any]) -> Any:
    if not values:
        return None
    return values.pop() if len(values) == 1 else "mixed: " + ", ".join(sorted(map(str, values)))


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
    if wrong:
        raise KoalpacaError(
            "quantization-not-applied",
            f"the base was not loaded as asked: {'; '.join(wrong)}.",
            where=where,
            fix="Check the versions of bitsandbytes and transformers (constraints.txt has tested ones).",
        )
