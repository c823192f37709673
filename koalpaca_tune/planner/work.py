"""The work of one step on one GPU: base, adapter, data and what the recipe fixes, as numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from koalpaca_tune.config.recipe import Engine, Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.planner import constants
from koalpaca_tune.planner.choice import Choice, Fixed
from koalpaca_tune.planner.lengths import Lengths
from koalpaca_tune.planner.shape import Shape

ADAMW_BYTES = 8.0
"""Two float32 moments a parameter (Loshchilov & Hutter 2019)."""
ADAMW_8BIT_BYTES = 2.0
"""Two 8-bit moments (Dettmers et al. 2021); their constants are 1 / 256 of it."""


@dataclass(frozen=True, slots=True)
class Group:
    """Linears that read the same input, with their LoRA.

    Attributes:
        inputs: K.
        outputs: N of all members together.
        ranks: sum of the members' LoRA ranks, 0 without LoRA.
        padded: the same, rounded up as the engine's buffers have it.
        targets: how many members have LoRA.
    """

    inputs: int
    outputs: int
    ranks: int
    padded: int
    targets: int


@dataclass(frozen=True)
class Work:
    """One step on one GPU.

    Attributes:
        shape: the base.
        lora_r, targets: the adapter.
        step_tokens: tokens of a step; of the largest, where they differ.
        document_tokens: mean length of a token's document (`Lengths.document_tokens`).
        longest: the longest document (for the plain engine: row); a micro-step holds at least one.
        learned_share: learned tokens over all.
        four_bit, double_quant: how the linears are kept.
        eight_bit: they are kept in 8 bits (LLM.int8).
        full: every weight is trained, without an adapter.
        weight_bytes: bytes of a linear's element where it is not quantised.
        optimizer_bytes: the optimizer's state for one trained parameter.
        dropout: whether the adapter's input has dropout.
        compute_bytes: of an element of activations: 2 or 4.
        fold_lora: LoRA inside the base's matrix product.
        engine: our own blocks, or PEFT, transformers and bitsandbytes as they are. The plain engine's
            predictions are rougher.
        attention: as in the recipe; auto: cuDNN for equal documents on Hopper, else flash.
        fused: fused kernels, or their plain references.
        compute: what the base's products of the fast engine are in: the type of the activations, or e4m3.
        cuda: on a card; else on the CPU, where ranks are not padded and nothing is launched ahead.
    """

    shape: Shape
    lora_r: int
    targets: tuple[str, ...]
    step_tokens: int
    document_tokens: float
    longest: int
    learned_share: float = 1.0
    four_bit: bool = True
    double_quant: bool = True
    weight_bytes: int = 2
    optimizer_bytes: float = ADAMW_BYTES
    dropout: bool = False
    compute_bytes: int = 2
    fold_lora: bool = True
    engine: Literal["fast", "plain"] = "fast"
    attention: Literal["auto", "flash4", "cudnn", "flash", "efficient", "documents"] = "auto"
    fused: bool = True
    cuda: bool = True
    compute: Literal["auto", "fp8"] = "auto"
    eight_bit: bool = False
    full: bool = False

    @property
    def fp8(self) -> bool:
        """Whether the base's products are in e4m3."""
        return self.compute == "fp8" and self.engine == "fast"

    @property
    def narrow_bytes(self) -> int:
        """Of an element that is in e4m3 beside what it was made from; 0 where none is."""
        return 1 if self.fp8 else 0

    @property
    def folded(self) -> bool:
        """Whether LoRA is part of the base's product in 16 bits, for which inputs have room."""
        return self.fold_lora and not self.fp8

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The linears of a block."""
        multiple = (constants.RANK_MULTIPLE_FP8 if self.fp8 else constants.RANK_MULTIPLE) if self.cuda else 1
        made = []
        for inputs, members in self.shape.linears:
            learning = sum(name in self.targets for name, _ in members)
            ranks = learning * self.lora_r
            padded = math.ceil(ranks / multiple) * multiple
            made.append(Group(inputs, sum(out for _, out in members), ranks, padded, learning))
        return tuple(made)

    @cached_property
    def adapter_parameters(self) -> int:
        """Trainable parameters."""
        if self.full:
            return self.shape.parameters
        per_block = sum(
            self.lora_r * (inputs + out)
            for inputs, members in self.shape.linears
            for name, out in members
            if name in self.targets
        )
        return self.shape.layers * per_block

    @property
    def trained_bytes(self) -> float:
        """Bytes of a trained parameter beside the model's own: float32 copy, gradient and optimizer's state."""
        copy = 0.0 if self.full and self.weight_bytes == 4 else 4.0
        return copy + 4.0 + self.optimizer_bytes

    @property
    def quantised_bytes(self) -> float:
        """Bytes of one element of a linear's weight, constants included (Dettmers et al. 2022, 2023)."""
        if self.eight_bit:
            rows = sum(out for _, members in self.shape.linears for _, out in members)
            return 1.0 + 4.0 * rows / self.shape.block_weights
        if not self.four_bit:
            return float(self.weight_bytes)
        if self.double_quant:
            return 1 / 2 + 1 / 64 + 4 / (64 * 256)
        return 1 / 2 + 4 / 64

    @property
    def equal(self) -> bool:
        """Whether all documents are equally long."""
        return abs(self.document_tokens - self.longest) < 0.5

    def tokens_at_once(self, micro_tokens: int) -> int:
        """Tokens of the largest micro-step: whole documents, at least one."""
        most = min(max(micro_tokens, self.longest), max(self.step_tokens, self.longest))
        return most // self.longest * self.longest if self.equal else most

    def micro_steps(self, choice: Choice) -> int:
        """Micro-steps of a step."""
        most = self.tokens_at_once(choice.micro_tokens)
        if most >= self.step_tokens:
            return 1
        # best-fit packing of many short documents leaves about 2 % of each micro-step empty
        return math.ceil(self.step_tokens / (most if self.equal else 0.98 * most))


def of_recipe(recipe: Recipe, shape: Shape, lengths: Lengths, *, fast: bool, cuda: bool) -> Work:
    """The work of a recipe's step.

    Args:
        recipe: the whole of it.
        shape: of its base.
        lengths: of its data.
        fast: whether our own blocks compute it (engine.kind, and what base and type allow).
        cuda: whether it runs on a card.

    Raises:
        KoalpacaError: a target that the base does not have (lora-target).
    """
    names = [name for _, members in shape.linears for name, _ in members]
    lora = recipe.lora
    targets = () if lora is None else tuple(lora.targets)
    for n, target in enumerate(targets):
        if target not in names:
            raise KoalpacaError(
                "lora-target",
                f"'{target}' matches no linear module of {shape.family}.",
                where=f"lora.targets[{n}]",
                fix=f"It has: {', '.join(names)}.",
            )
    quantization, engine = recipe.quantization, recipe.engine
    compute = quantization.bnb_4bit_compute_dtype
    whole = compute == "float32" or (compute == "auto" and not cuda)
    eight_bit = recipe.training.optimizer == "paged_adamw_8bit"
    return Work(
        shape=shape,
        lora_r=0 if lora is None else lora.r,
        targets=targets,
        step_tokens=lengths.step_tokens,
        document_tokens=lengths.document_tokens,
        longest=lengths.longest_document if fast else lengths.longest_row,
        learned_share=lengths.learned_share,
        four_bit=quantization.load_in_4bit,
        double_quant=quantization.bnb_4bit_use_double_quant,
        # with float16 products the rest of the model is float32 (models.base)
        weight_bytes=4 if whole or compute == "float16" else 2,
        optimizer_bytes=ADAMW_8BIT_BYTES if eight_bit else ADAMW_BYTES,
        dropout=lora is not None and lora.dropout > 0.0,
        compute_bytes=4 if whole else 2,
        fold_lora=engine.fold_lora,
        engine="fast" if fast else "plain",
        attention=engine.attention if cuda else "documents",
        fused=cuda and engine.kernels != "torch",
        cuda=cuda,
        compute=engine.compute,
        eight_bit=quantization.load_in_8bit,
        full=lora is None,
    )


def capturable(engine: Engine, recompute: str) -> bool:
    """Whether a micro-step can be a CUDA graph: nothing in it may ask the host, or go there."""
    return engine.attention != "documents" and engine.kernels != "torch" and recompute != "offload"


def fixed(engine: Engine) -> Fixed:
    """What a recipe's engine section leaves no choice about."""
    return Fixed(
        micro_tokens=engine.micro_tokens,
        recompute=None if engine.recompute == "auto" else engine.recompute,
        cached_blocks=engine.cached_blocks,
        graphs={"always": True, "never": False}.get(
            engine.graphs, None if capturable(engine, engine.recompute) else False
        ),
    )


def settled(recipe: Recipe, shape: Shape, *, fast: bool, cuda: bool, memory_bytes: int) -> Fixed:
    """All that is not planned in a run: `fixed`, and the rules of the plain engine and of the CPU.

    Args:
        recipe: the whole of it.
        shape: of its base.
        fast, cuda: as in `of_recipe`.
        memory_bytes: all of the device's memory.
    """
    engine = recipe.engine
    if not fast:
        # training.objective.build
        recompute = engine.recompute
        if recompute == "auto":
            recompute = "blocks" if cuda else "none"
        tokens = engine.micro_tokens or max(constants.PLAIN_TOKENS, recipe.data.max_length)
        return Fixed(micro_tokens=tokens, recompute=recompute)
    if cuda:
        return fixed(engine)
    # training.engines
    room = constants.CPU_SHARE * memory_bytes
    cached = shape.layers if shape.linear_weights * 4 <= room else 0
    return Fixed(
        micro_tokens=engine.micro_tokens or constants.CPU_TOKENS,
        recompute="none" if engine.recompute == "auto" else engine.recompute,
        cached_blocks=cached if engine.cached_blocks is None else engine.cached_blocks,
        graphs=False,
    )
