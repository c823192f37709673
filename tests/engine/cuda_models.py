"""Small random bases on a card in NF4, the same weights in float32, and gradients by autograd and by the engine."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import bitsandbytes as bnb
import numpy as np
import peft
import torch
import transformers
from torch import Tensor
from torch.nn import functional

from koalpaca_tune.config.recipe import Engine
from koalpaca_tune.engine.build import Builder
from koalpaca_tune.engine.objective import EngineObjective
from koalpaca_tune.models import forward
from koalpaca_tune.models.architectures import ARCHITECTURES, Architecture
from koalpaca_tune.planner.choice import Choice
from koalpaca_tune.records import NOT_LEARNED, Encoded

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Grads = dict[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """Of a base: both families, few layers."""

    family: str
    hidden: int
    intermediate: int
    heads: int = 4
    kv_heads: int = 2
    layers: int = 3
    vocabulary: int = 1000

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.family]

    def config(self) -> Any:
        """For transformers. A quarter of each of GPT-NeoX's heads is rotated, as in polyglot-ko's largest."""
        shape = {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "max_position_embeddings": 1024,
            "initializer_range": 0.03,
            "tie_word_embeddings": False,
        }
        if self.family == "llama":
            return transformers.LlamaConfig(**shape, num_key_value_heads=self.kv_heads)
        rotary = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}
        return transformers.GPTNeoXConfig(**shape, rope_parameters=rotary, use_parallel_residual=True)


SIZES = {
    "neox 128": Sizes("gpt_neox", 512, 2048),
    "neox 256": Sizes("gpt_neox", 1024, 4096),
    "llama 128": Sizes("llama", 512, 1408),
    "llama 256": Sizes("llama", 1024, 2816),
}
"""By family and width of a head."""


def tuned(sizes: Sizes, dtype: torch.dtype = torch.bfloat16, *, dropout: float = 0.0, b_std: float = 0.05) -> Any:
    """A random base in NF4 with LoRA of rank 8 on all linears, whose B matrices have a spread of `b_std`."""
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = transformers.AutoModelForCausalLM.from_config(
            sizes.config(), dtype=dtype, attn_implementation="sdpa"
        )
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.data.add_(torch.randn_like(parameter) * 0.1)
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings():
            put(model, name, _in_4_bits(module, dtype))
    model.requires_grad_(False)
    model.eval()
    lora = peft.LoraConfig(
        r=8,
        lora_alpha=16,
        lora_dropout=dropout,
        target_modules=list(sizes.architecture.linears),
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(model, lora)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
        if ".lora_A." in name:
            parameter.data.uniform_(-1.0, 1.0).mul_(parameter.shape[1] ** -0.5)
        if ".lora_B." in name:
            parameter.data.normal_(std=b_std)
    return model


def _in_4_bits(linear: Any, dtype: torch.dtype) -> Any:
    made = bnb.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    made.weight = bnb.nn.Params4bit(
        linear.weight.data.to("cpu"), requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    if linear.bias is not None:
        made.bias = torch.nn.Parameter(linear.bias.data, requires_grad=False)
    made.support_avx512bf16_for_cpu = False
    return made.to(DEVICE)


def put(model: Any, name: str, module: Any) -> None:
    """In the place of a submodule."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def in_float32(model: Any) -> Any:
    """A copy with the very weights that NF4 stands for, in float32."""
    model = copy.deepcopy(model)
    base = model.get_base_model()
    for name, module in list(base.named_modules()):
        if isinstance(module, bnb.nn.Linear4bit):
            whole = torch.nn.Linear(
                module.in_features, module.out_features, bias=module.bias is not None, device=DEVICE
            )
            weight = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            whole.weight.data = weight.float()
            if module.bias is not None:
                whole.bias.data = module.bias.data.float()
            put(base, name, whole.requires_grad_(False))
    return model.float()


def documents_of(lengths: Sequence[int], seed: int = 0, vocabulary: int = 1000) -> list[Encoded]:
    """Random ones; the first third of each is not learned."""
    rng = np.random.default_rng(seed)
    made = []
    for length in lengths:
        ids = [int(n) for n in rng.integers(5, vocabulary, length)]
        made.append(Encoded(tuple(ids), tuple([NOT_LEARNED] * (length // 3) + ids[length // 3 :])))
    return made


def gradients(model: Any) -> Grads:
    """Of every LoRA matrix, copied."""
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def clear(model: Any) -> None:
    for parameter in model.parameters():
        parameter.grad = None


def by_autograd(
    model: Any, architecture: Architecture, documents: Sequence[Encoded], *, half: bool = False
) -> tuple[float, Grads]:
    """Summed loss and gradients of each document alone, by transformers and PEFT; half: under bfloat16 autocast."""
    clear(model)
    total = torch.zeros((), device=DEVICE)
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=half):
        for one in documents:
            states, targets, _ = forward.learned(
                model,
                architecture,
                torch.tensor([one.ids], device=DEVICE),
                torch.tensor([one.labels], device=DEVICE),
                torch.arange(len(one.ids), device=DEVICE)[None],
            )
            logits = forward.head(model, states)
            total = total + functional.cross_entropy(logits, targets, reduction="sum")
    total.backward()  # type: ignore[no-untyped-call]
    found = gradients(model)
    clear(model)
    return float(total.detach()), found


def engine_of(
    model: Any,
    sizes: Sizes,
    longest: int,
    *,
    dtype: torch.dtype = torch.bfloat16,
    attention: Any = "auto",
    kernels: str = "triton",
    recompute: Any = "none",
    cached: int = 0,
    fold: bool = True,
    micro_tokens: int = 100_000,
    graphs: bool = False,
    narrow: bool = False,
) -> EngineObjective:
    """The engine on a tuned base, in training mode."""
    builder = Builder(model, sizes.architecture, dtype=dtype, names=kernels, fold=fold, narrow=narrow)
    choice = Choice(micro_tokens, recompute, cached, graphs)
    return EngineObjective(builder, Engine(attention=attention, kernels=kernels), choice, longest=longest, pad_id=0)


def by_engine(model: Any, objective: EngineObjective, documents: Sequence[Encoded]) -> tuple[float, Grads]:
    """Summed loss and gradients of one step."""
    clear(model)
    total = 0.0
    for arguments in objective.arrange([documents], grad=True):
        loss = objective(*arguments)
        loss.backward()
        total += float(loss.detach())
    found = gradients(model)
    clear(model)
    return total, found


def errors(found: Grads, wanted: Grads) -> tuple[float, float]:
    """Relative error of all gradients as one vector, and of the worst matrix."""
    assert found.keys() == wanted.keys()
    apart = {name: float((found[name] - one).norm()) for name, one in wanted.items()}
    sizes = {name: float(one.norm()) for name, one in wanted.items()}
    whole = float(np.linalg.norm(list(apart.values())) / np.linalg.norm(list(sizes.values())))
    return whole, max(apart[name] / sizes[name] for name in wanted)


@dataclass(frozen=True)
class Case:
    """A tuned base, documents, and what is true of them.

    Attributes:
        loss, wanted: by autograd in float32 on the same NF4 weights.
        peft: `errors` of plain PEFT and bitsandbytes in bfloat16.
    """

    model: Any
    sizes: Sizes
    documents: list[Encoded]
    loss: float
    wanted: Grads
    peft: tuple[float, float]

    @property
    def longest(self) -> int:
        return max(len(one.ids) for one in self.documents)


LENGTHS = {"mixed": (170, 333, 50, 400, 333, 64), "equal": (256,) * 4}


@cache
def pair(name: str) -> tuple[Any, Any]:
    """A tuned base in NF4, and in float32."""
    model = tuned(SIZES[name])
    return model, in_float32(model)


@cache
def case(name: str, lengths: str) -> Case:
    """By a name of SIZES and one of LENGTHS."""
    sizes, documents = SIZES[name], documents_of(LENGTHS[lengths])
    model, whole = pair(name)
    loss, wanted = by_autograd(whole, sizes.architecture, documents)
    half_loss, half = by_autograd(model, sizes.architecture, documents, half=True)
    made = Case(model, sizes, documents, loss, wanted, errors(half, wanted))
    print(
        f"\n{name}, {lengths}: PEFT in bfloat16: loss {half_loss / loss - 1:+.1e}, "
        f"gradient {made.peft[0]:.2e}, worst matrix {made.peft[1]:.2e}",
        flush=True,
    )
    return made


def poison() -> None:
    """Leaves numbers that are none in free memory, so that what nobody wrote is seen where it is read."""
    if DEVICE.type == "cuda":
        small = [torch.full((128,), torch.nan, device=DEVICE) for _ in range(512)]
        large = [torch.full((1 << 26,), torch.nan, device=DEVICE) for _ in range(4)]
        del small, large
        torch.cuda.empty_cache()


def scaled(sizes: Sizes, **changes: Any) -> Sizes:
    """With other numbers."""
    return dataclasses.replace(sizes, **changes)
