"""From a PEFT model to the engine's blocks, which read its tensors and leave its modules as they are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import bitsandbytes as bnb
import torch
from torch import Tensor

from koalpaca_tune.engine.balance import Balance
from koalpaca_tune.engine.block import Block, Weights
from koalpaca_tune.engine.body import Body
from koalpaca_tune.engine.buffers import Kernels
from koalpaca_tune.engine.gradients import Gradients
from koalpaca_tune.engine.head import Head
from koalpaca_tune.engine.linear import Group
from koalpaca_tune.engine.llama import LlamaBlock
from koalpaca_tune.engine.members import Lora, Member
from koalpaca_tune.engine.neox import NeoxBlock
from koalpaca_tune.engine.offload import Shelf
from koalpaca_tune.engine.redraw import Redraw
from koalpaca_tune.kernels import plain
from koalpaca_tune.kernels.nf4 import Packed
from koalpaca_tune.models.architectures import Architecture
from koalpaca_tune.models.forward import causal
from koalpaca_tune.planner.choice import Recompute

ADAPTER = "default"
ALIGNED = 64
"""On a card, ranks are padded so that the rows of a folded buffer begin at multiples of 128 bytes."""
ALIGNED_NARROW = 8
"""In 8 bits LoRA's matrices stand alone, and take three times their columns in the product: 16 bytes do."""


def has_triton() -> bool:
    """Whether the fused kernels can be had: torch for CUDA brings Triton on Linux, not everywhere."""
    return find_spec("triton") is not None


def kernels(name: str, device: torch.device) -> Kernels:
    """ "triton", "torch", or "auto": Triton on CUDA where it is installed."""
    if name == "triton" or (name == "auto" and device.type == "cuda" and has_triton()):
        from koalpaca_tune.kernels import fused

        return fused
    return plain


class Builder:
    """Makes the engine's parts of one model.

    Attributes:
        gradients: where the LoRA gradients are added up.
    """

    def __init__(
        self,
        model: Any,
        architecture: Architecture,
        *,
        dtype: torch.dtype,
        names: str,
        fold: bool,
        narrow: bool = False,
        seed: int | None = None,
    ) -> None:
        """Reads the model.

        Args:
            model: with its adapter.
            architecture: of the base.
            dtype: of the products.
            names: of the kernels (auto, triton, torch).
            fold: whether LoRA is part of the base's products.
            narrow: the base's products in e4m3.
            seed: of rounding their weights by chance; None: to the nearest.
        """
        self.causal = causal(model)
        self.body: Any = getattr(self.causal, architecture.body)
        self.config = self.causal.config
        self.dtype = dtype
        self.device: torch.device = next(self.causal.parameters()).device
        self.kernels = kernels(names, self.device)
        self.fold = fold
        self.narrow = narrow
        self.seed = seed
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.gradients = Gradients(parameters)
        self._grads = {id(p): view for p, view in zip(parameters, self.gradients.views, strict=True)}
        self._groups = 0

    def make(self, *, recompute: Recompute, cached_blocks: int) -> tuple[Body, Head]:
        """The blocks, of which the last `cached_blocks` keep their weights dequantised, and the head."""
        of: Callable[[Any], Block] = self._neox if self.config.model_type == "gpt_neox" else self._llama
        blocks = [of(layer) for layer in self.body.layers]
        balance = self._balance([group for block in blocks for group in block.groups if group.spare])
        redraw: Redraw | None = None
        if self.narrow and self.seed is not None:
            redraw = Redraw([group for block in blocks for group in block.groups], self.seed)
        for block in blocks[len(blocks) - cached_blocks :] if cached_blocks else ():
            for group in block.groups:
                group.buffer = group.new_buffer()
                group.buffer.load(group, whole=True)
        room = max(group.room for block in blocks for group in block.groups)
        embedding = self.causal.get_input_embeddings().weight.detach()
        weights = Weights(blocks[0], shared=cached_blocks < len(blocks))
        body = Body(blocks, embedding, weights, recompute, room, Shelf(self.device), balance, redraw)
        return body, self._head()

    def wide(self) -> Body:
        """The same blocks with products in the type of the quantization, none of which keeps its weights."""
        other = copy.copy(self)
        other.narrow, other._groups = False, 0
        return other.make(recompute="none", cached_blocks=0)[0]

    def _balance(self, groups: Sequence[Group]) -> Balance | None:
        """Gives each group of a folded product in 8 bits its factors."""
        if not groups:
            return None
        made = Balance(groups)
        for group, factors in zip(groups, made.of, strict=True):
            group.factors = factors
        return made

    def tables(self, longest: int) -> tuple[Tensor, Tensor]:
        """cos and sin, float32 [longest, R]."""
        rotary = self.body.rotary_emb
        angles = torch.outer(
            torch.arange(longest, device=self.device, dtype=torch.float32), rotary.inv_freq.to(self.device).float()
        )
        scale = float(getattr(rotary, "attention_scaling", 1.0))
        return angles.cos() * scale, angles.sin() * scale

    @property
    def _multiple(self) -> int:
        if self.device.type != "cuda":
            return 1
        return ALIGNED_NARROW if self.narrow else ALIGNED

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        width = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads
        return int(width)

    def _neox(self, layer: Any) -> NeoxBlock:
        groups = self._grouped(
            (layer.attention.query_key_value,),
            (layer.attention.dense,),
            (layer.mlp.dense_h_to_4h,),
            (layer.mlp.dense_4h_to_h,),
        )
        parts = [bias for bias in (groups[1].bias, groups[3].bias) if bias is not None]
        return NeoxBlock(
            groups=groups,
            affines=(_affine(layer.input_layernorm), _affine(layer.post_attention_layernorm)),
            bias=sum(part.float() for part in parts).to(self.dtype) if parts else None,  # type: ignore[union-attr]
            heads=self.config.num_attention_heads,
            head_dim=self.head_dim,
            eps=float(layer.input_layernorm.eps),
        )

    def _llama(self, layer: Any) -> LlamaBlock:
        attention, mlp = layer.self_attn, layer.mlp
        return LlamaBlock(
            groups=self._grouped(
                (attention.q_proj, attention.k_proj, attention.v_proj),
                (attention.o_proj,),
                (mlp.gate_proj, mlp.up_proj),
                (mlp.down_proj,),
            ),
            norms=(layer.input_layernorm.weight.detach(), layer.post_attention_layernorm.weight.detach()),
            heads=self.config.num_attention_heads,
            kv_heads=self.config.num_key_value_heads,
            head_dim=self.head_dim,
            eps=float(layer.input_layernorm.variance_epsilon),
        )

    def _head(self) -> Head:
        weight = self.causal.get_output_embeddings().weight.detach()
        if self.config.model_type == "gpt_neox":
            norm = self.body.final_layer_norm
            affine, eps = _affine(norm), float(norm.eps)

            def forward(x: Tensor, out: Tensor) -> None:
                self.kernels.add_layer_norm(x, None, (affine,), (out,), eps)

            def backward(x: Tensor, grad: Tensor, place: Tensor) -> None:
                self.kernels.layer_norm_backward(x, affine[:1], (grad,), place, eps)
        else:
            norm = self.body.norm
            scale, eps = norm.weight.detach(), float(norm.variance_epsilon)

            def forward(x: Tensor, out: Tensor) -> None:
                self.kernels.add_rms_norm(x, None, scale, out, eps)

            def backward(x: Tensor, grad: Tensor, place: Tensor) -> None:
                self.kernels.rms_norm_backward(x, scale, grad, place, eps)

        return Head(self.kernels, weight, forward, backward)

    def _grouped(self, *groups: Sequence[Any]) -> tuple[Group, ...]:
        made = []
        for modules in groups:
            made.append(
                Group(
                    members=tuple(self._member(module) for module in modules),
                    kernels=self.kernels,
                    dtype=self.dtype,
                    multiple=self._multiple,
                    fold=self.fold,
                    narrow=self.narrow,
                    salt=self._groups,
                )
            )
            self._groups += 1
        return tuple(made)

    def _member(self, module: Any) -> Member:
        lora: Lora | None = None
        linear = module
        if hasattr(module, "lora_A"):
            linear = module.base_layer
            a, b = module.lora_A[ADAPTER].weight, module.lora_B[ADAPTER].weight
            lora = Lora(
                a.detach(),
                b.detach(),
                self._grads[id(a)],
                self._grads[id(b)],
                float(module.scaling[ADAPTER]),
                float(getattr(module.lora_dropout[ADAPTER], "p", 0.0)),
            )
        weight: Packed | Tensor = linear.weight.detach()
        if isinstance(linear, bnb.nn.Linear4bit):
            weight = Packed(linear.weight.data, linear.weight.quant_state)
        bias = None if linear.bias is None else linear.bias.detach()
        return Member(weight, bias, lora, linear.out_features, linear.in_features)


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    return norm.weight.detach(), norm.bias.detach()
