"""The engine's forward pass alone, for scoring: no dropout, nothing kept, trees of prefixes, 4-bit weights decoded
once a pass, and the last block only at the rows that are wanted.

It reads the tensors of the model as they are, with its adapter or without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from koalpaca_tune.engine import build
from koalpaca_tune.engine.block import Block, Pass, Weights
from koalpaca_tune.engine.buffers import Operand
from koalpaca_tune.engine.build import Builder
from koalpaca_tune.engine.linear import Group
from koalpaca_tune.engine.llama import LlamaBlock
from koalpaca_tune.engine.members import Lora, Member, Members
from koalpaca_tune.engine.neox import NeoxBlock
from koalpaca_tune.kernels import lean, plain, trees
from koalpaca_tune.kernels.attention import Backend, Documents, Gradients, Saved
from koalpaca_tune.kernels.trees import Layout
from koalpaca_tune.models.architectures import Architecture

ADAPTER = build.ADAPTER
NONE = torch.empty(0)


@dataclass(frozen=True)
class Lot:
    """Tokens of one forward pass, on the device.

    Attributes:
        ids: int64 [T].
        positions: int32 [T].
        layouts: of all rows.
        last: of the wanted rows, which are the queries of the last block.
        wanted: int64 [n], rows of the stream.
    """

    ids: Tensor
    positions: Tensor
    layouts: tuple[Layout, ...]
    last: tuple[Layout, ...]
    wanted: Tensor


class ForwardPass:
    """Blocks of one model, with its adapter on or off.

    Attributes:
        backend: name of the attention, of `trees.BACKENDS`.
        vocabulary: V, entries of the output head.
    """

    def __init__(
        self,
        model: Any,
        architecture: Architecture,
        *,
        dtype: torch.dtype,
        adapter: bool,
        decoded: bool = False,
        names: str = "auto",
    ) -> None:
        """Reads the model.

        Args:
            model: a causal language model of transformers, or PEFT's around it.
            architecture: of the base.
            dtype: of the products.
            adapter: whether its adapter is on.
            decoded: whether 4-bit weights stay decoded.
            names: of the kernels (auto, triton, torch).
        """
        self._take(Frozen(model, architecture, dtype=dtype, names=names, adapter=adapter), decoded=decoded)

    def _take(self, builder: Frozen, *, decoded: bool, weights: Weights | None = None) -> None:
        """The parts of a model; `weights`: room for decoded ones that there is already."""
        self._builder = builder
        self._blocks = builder.blocks(decoded=decoded)
        shared = any(group.buffer is None for group in self._groups())
        if weights is None or (shared and not _fits(weights, self._blocks[0])):
            weights = Weights(self._blocks[0], shared=shared)
        self._weights = weights
        self._norm = builder.norm()
        self._embedding: Tensor = builder.causal.get_input_embeddings().weight.detach()
        self._head: Tensor = builder.causal.get_output_embeddings().weight.detach()
        self._tables = builder.tables(1)
        self.backend = trees.choose(builder.device, builder.dtype, builder.head_dim)
        self.vocabulary = len(self._head)

    def _groups(self) -> list[Group]:
        return [group for block in self._blocks for group in block.groups]

    @property
    def token_bytes(self) -> int:
        """What a token takes at the fullest moment of a block: residuals, norms, products, attention."""
        groups, itemsize = self._blocks[0].groups, self._builder.dtype.itemsize
        held = 3 * groups[0].inputs + sum(group.inputs + group.outputs + 2 * group.rank for group in groups)
        widest = max(max(group.inputs, group.outputs) for group in groups)
        # the plain kernels compute in float32, beside what they read and write
        return held * itemsize + (2 * widest * 4 if self._builder.kernels is plain else 0)

    @property
    def key_bytes(self) -> int:
        """What a gathered key takes, with its value."""
        config = self._builder.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        if self.backend == "efficient":
            heads = config.num_attention_heads
        width: int = 2 * heads * self._builder.head_dim * self._builder.dtype.itemsize
        return width

    def states(self, lot: Lot, longest: int) -> Tensor:
        """What the head reads [n, H] of the wanted rows, after the last norm.

        Args:
            lot: on the device.
            longest: no position is this or beyond it.
        """
        if len(self._tables[0]) < longest:
            self._tables = self._builder.tables(1 << (longest - 1).bit_length())
        self._weights.forget()
        step = self._pass(lot.positions, lot.layouts)
        x, update = torch.nn.functional.embedding(lot.ids, self._embedding), None
        for block in self._blocks[:-1]:
            _refresh(block)
            x, update, saved = block.forward(x, update, step, self._weights)
            del saved
        last = self._blocks[-1]
        _refresh(last)
        step = self._pass(lot.positions, lot.last)
        finish = _last_neox if isinstance(last, NeoxBlock) else _last_llama
        x = finish(last, x, update, step, self._weights, lot.wanted)  # type: ignore[arg-type]
        normed = torch.empty_like(x)
        self._norm(x, normed)
        return normed

    def logits(self, states: Tensor) -> Tensor:
        """float32 [n, V] of states [n, H]; products of 16 bits are not rounded to them."""
        if states.is_cuda and states.dtype != torch.float32:
            return torch.mm(states, self._head.t(), out_dtype=torch.float32)
        return (states @ self._head.t()).float()

    def _pass(self, positions: Tensor, layouts: Sequence[Layout]) -> Pass:
        attend, kernels = trees.BACKENDS[self.backend], self._builder.kernels

        def forward(q: Tensor, k: Tensor, v: Tensor, documents: Documents) -> Saved:
            out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
            for layout in layouts:
                attend(q, k, v, layout, out, kernels.take)
            return Saved(q, k, v, out, documents, ())

        none = Documents((), positions, 0)
        return Pass(kernels, Backend(forward, no_backward), none, positions, *self._tables, None, keep_wide=False)


def no_backward(saved: Saved, grad: Tensor) -> Gradients:
    """In the place of attention's backward pass, which is never asked for."""
    raise AssertionError("a forward pass alone has no backward pass")


def _fits(weights: Weights, block: Block) -> bool:
    """Whether buffers that were made for other adapters do for these."""
    buffers, groups = weights.buffers, block.groups
    return len(buffers) == len(groups) and all(
        group.rank in (0, buffer.b.shape[1]) for group, buffer in zip(groups, buffers, strict=True)
    )


def _refresh(block: Block) -> None:
    """The LoRA matrices may have learned since the last pass."""
    for group in block.groups:
        if group.buffer is not None:
            group.buffer.load_lora(group)


def _last_neox(
    block: NeoxBlock, x: Tensor, update: Tensor | None, step: Pass, weights: Weights, wanted: Tensor
) -> Tensor:
    """The residual [n, H] after the last block, at some rows: keys and values are those of all."""
    qkv, dense, up, down = block.groups
    kernels, width = step.kernels, x.shape[1]
    normed = qkv.place(len(x))
    x = kernels.add_layer_norm(x, update, block.affines[:1], (normed.columns(width),), block.eps)
    joined, _ = qkv.forward(normed, weights.of(block, 0), None, bias=qkv.bias)
    x = x.index_select(0, wanted)
    out = _attended(block, joined, step, wanted)
    total, _ = dense.forward(Operand(out), weights.of(block, 1), None, bias=block.bias)
    normed = up.place(len(x))
    kernels.add_layer_norm(x, None, block.affines[1:], (normed.columns(width),), block.eps)
    wide, _ = up.forward(normed, weights.of(block, 2), None, bias=up.bias)
    active = down.place(len(x))
    kernels.gelu(wide, active.columns(down.inputs))
    total, _ = down.forward(active, weights.of(block, 3), None, bias=None, into=total)
    return total.add_(x)


def _last_llama(
    block: LlamaBlock, x: Tensor, update: Tensor | None, step: Pass, weights: Weights, wanted: Tensor
) -> Tensor:
    """`_last_neox` for Llama."""
    qkv, dense, gate_up, down = block.groups
    kernels, width = step.kernels, x.shape[1]
    normed = qkv.place(len(x))
    x = kernels.add_rms_norm(x, update, block.norms[0], normed.columns(width), block.eps)
    joined, _ = qkv.forward(normed, weights.of(block, 0), None, bias=qkv.bias)
    x = x.index_select(0, wanted)
    out = _attended(block, joined, step, wanted)
    middle, _ = dense.forward(Operand(out), weights.of(block, 1), None, bias=dense.bias)
    normed = gate_up.place(len(x))
    kernels.add_rms_norm(x, middle, block.norms[1], normed.columns(width), block.eps)
    wide, _ = gate_up.forward(normed, weights.of(block, 2), None, bias=gate_up.bias)
    active = down.place(len(x))
    kernels.swiglu(wide, active.columns(down.inputs))
    total, _ = down.forward(active, weights.of(block, 3), None, bias=down.bias)
    return total.add_(middle)


def _attended(block: NeoxBlock | LlamaBlock, joined: Tensor, step: Pass, wanted: Tensor) -> Tensor:
    """Attention's result [n, width] at some rows, of q, k and v side by side [T, ...]."""
    q, k, v = block._heads(joined)
    q, rotate = q.index_select(0, wanted), step.kernels.rotate
    rotate(k, k, step.cos, step.sin, step.positions)
    rotate(q, q, step.cos, step.sin, step.positions.index_select(0, wanted))
    return step.attention.forward(q, k, v, step.documents).out.flatten(1)


class Frozen(Builder):
    """Parts without gradients; weights that are not in 4 bits are read where they are."""

    def __init__(
        self, model: Any, architecture: Architecture, *, dtype: torch.dtype, names: str, adapter: bool
    ) -> None:
        self._adapter = adapter
        super().__init__(model, architecture, dtype=dtype, names=names, fold=True)
        types = {parameter.dtype for parameter in self.body.parameters() if parameter.is_floating_point()}
        if self.kernels is plain and types == {torch.float32} and dtype == torch.float32:
            self.kernels = lean

    def blocks(self, *, decoded: bool) -> list[Block]:
        """All of them; with `decoded` 4-bit weights stay decoded."""
        make = self._neox if self.config.model_type == "gpt_neox" else self._llama
        blocks: list[Block] = [make(layer) for layer in self.body.layers]
        for group in (group for block in blocks for group in block.groups):
            if all(isinstance(one.weight, Tensor) and one.weight.dtype == self.dtype for one in group.members):
                group.fold = False
                group.buffer = Direct(group)
            elif decoded:
                group.buffer = group.new_buffer()
                group.buffer.load(group, whole=True)
        return blocks

    def norm(self) -> Any:
        """(residual [n, H], out [n, H]) -> None, the last norm."""
        return self._head().norm

    def _member(self, module: Any) -> Member:
        if not hasattr(module, "lora_A"):
            return super()._member(module)
        member = super()._member(module.base_layer)
        if not self._adapter:
            return member
        a, b = (part[ADAPTER].weight.detach() for part in (module.lora_A, module.lora_B))
        return replace(member, lora=Lora(a, b, NONE, NONE, float(module.scaling[ADAPTER]), 0.0))


class Direct:
    """Whole weights in the type of the products, where they are; see `buffers.Buffer`."""

    def __init__(self, members: Members) -> None:
        self._weights = [one.weight for one in members.members if isinstance(one.weight, Tensor)]
        self._inputs, self._outputs = members.inputs, members.outputs
        like: dict[str, Any] = {"dtype": members.dtype, "device": members.device}
        self.a = torch.zeros(members.rank, members.inputs, **like)
        self.b = torch.zeros(members.outputs, members.rank, **like)

    def load(self, members: Members, *, whole: bool = False) -> None:
        """See `Buffer`."""
        del whole
        self.load_lora(members)

    def load_lora(self, members: Members) -> None:
        """See `Buffer`."""
        members.write_lora(self.a, self.b)

    def forward(
        self, x: Operand, projected: Tensor | None, bias: Tensor | None, into: Tensor | None, out: Tensor | None
    ) -> Tensor:
        """See `Buffer`."""
        assert x.full is not None
        read = x.full[:, : self._inputs]
        found = into if into is not None else out
        if found is None:
            found = torch.empty(len(read), self._outputs, dtype=read.dtype, device=read.device)
        at = 0
        for weight in self._weights:
            columns = slice(at, at + len(weight))
            part = found[:, columns]
            if into is not None:
                part.addmm_(read, weight.t())
            elif bias is not None:
                torch.addmm(bias[columns], read, weight.t(), out=part)
            else:
                torch.mm(read, weight.t(), out=part)
            at = columns.stop
        if projected is not None:
            found.addmm_(projected, self.b.t())
        return found

    def backward(self, grad: Operand, back: Tensor | None, out: Tensor | None) -> Tensor:
        """See `Buffer`."""
        raise AssertionError("weights that are read where they are have no backward pass")
