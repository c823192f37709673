"""A GPT-NeoX block with parallel residual: x + attention(norm1(x)) + mlp(norm2(x)), forward and backward.

Per token and layer the backward pass reads x, q, k, v, the attention's result and the MLP's wide tensor
before its GELU: 9 H elements. Norms, rotary embedding and GELU are computed again from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from koalpaca_tune.engine.block import Pass, Weights, empty, turn, turn_back, with_room
from koalpaca_tune.engine.buffers import Operand
from koalpaca_tune.engine.linear import Group
from koalpaca_tune.kernels import attention
from koalpaca_tune.kernels.fp8 import Scaled

QKV, DENSE, UP, DOWN = range(4)


@dataclass
class Saved:
    """Of one block: [T, ...] each; None where it is computed again or not needed."""

    x: Tensor
    attention: attention.Saved
    wide: Tensor | None
    projected: list[Tensor | None]


@dataclass
class NeoxBlock:
    """One block.

    Attributes:
        groups: query_key_value, dense, dense_h_to_4h, dense_4h_to_h.
        affines: weight and bias [H] of the norm before attention, and of the norm before the MLP.
        bias: [H], of dense and dense_4h_to_h together, or None.
        heads, head_dim: of attention.
        eps: of the norms.
    """

    groups: tuple[Group, ...]
    affines: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
    bias: Tensor | None
    heads: int
    head_dim: int
    eps: float

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v [T, heads, D] as views: they lie side by side, head by head."""
        rows = qkv.view(len(qkv), self.heads, 3, self.head_dim)
        return rows[:, :, 0], rows[:, :, 1], rows[:, :, 2]

    def forward(
        self, x: Tensor, update: Tensor | None, step: Pass, weights: Weights, *, last: bool = True
    ) -> tuple[Tensor, Tensor | None, Saved]:
        """See `block.Block`."""
        tokens, width = x.shape
        kernels, groups = step.kernels, self.groups
        for_qkv, for_up = groups[QKV].place(tokens), groups[UP].place(tokens)
        places = for_qkv.columns(width), for_up.columns(width)
        narrow = for_qkv.scaled(width), for_up.scaled(width)
        x = kernels.add_layer_norm(x, update, self.affines, places, self.eps, narrow)
        del places, narrow
        projected: list[Tensor | None] = [None] * 4
        qkv, projected[QKV] = groups[QKV].forward(for_qkv, weights.of(self, QKV), step.seed, bias=groups[QKV].bias)
        del for_qkv
        q, k, v = self._heads(qkv)
        turn(q, k, step)
        saved = step.attention.forward(q, k, v, step.documents)
        total: Tensor | None = None
        after = saved.out.flatten(1)
        if last:
            total, projected[DENSE] = groups[DENSE].forward(
                groups[DENSE].operand(after), weights.of(self, DENSE), step.seed, bias=self.bias
            )
        elif groups[DENSE].learns:
            projected[DENSE] = groups[DENSE].project(after, weights.of(self, DENSE), step.seed)
        wide, projected[UP] = groups[UP].forward(for_up, weights.of(self, UP), step.seed, bias=groups[UP].bias)
        del for_up
        if last or groups[DOWN].learns:
            active = groups[DOWN].place(tokens, product=last)
            kernels.gelu(wide, active.columns(groups[DOWN].inputs), active.scaled(groups[DOWN].inputs))
            if last:
                total, projected[DOWN] = groups[DOWN].forward(
                    active, weights.of(self, DOWN), step.seed, bias=None, into=total
                )
            else:
                assert active.full is not None
                projected[DOWN] = groups[DOWN].project(active.full, weights.of(self, DOWN), step.seed)
        return x, total, Saved(x, saved, wide if step.keep_wide or not last else None, projected)

    def backward(self, saved: Saved, grad: Tensor, step: Pass, weights: Weights, *, wanted: bool) -> None:
        """See `block.Block`."""
        kernels, groups, seed = step.kernels, self.groups, step.seed
        tokens, width = saved.x.shape
        # read twice: at the MLP's result, and at attention's
        narrow = max(groups[DENSE], groups[DOWN], key=lambda group: group.spare).narrowed(grad[:, :width])
        through_mlp = self._mlp_backward(saved, grad, narrow, step, weights, wanted=wanted)
        after = saved.attention.out.flatten(1)
        here = Operand(with_room(grad, groups[DENSE]), narrow)
        below = wanted or groups[QKV].learns
        inner, back = groups[DENSE].backward(here, weights.of(self, DENSE), seed, wanted=below)
        groups[DENSE].learn(here, back, after, saved.projected[DENSE], seed)
        del here, narrow
        if inner is None:
            return
        parts = step.attention.backward(saved.attention, inner.view(len(inner), self.heads, self.head_dim))
        del inner
        joined = empty(tokens, 3 * width + groups[QKV].room, saved.x)
        turn_back(parts, self._heads(joined[:, : 3 * width]), step)
        del parts
        at_qkv = groups[QKV].operand(joined) if wanted else Operand(joined)
        through, back = groups[QKV].backward(at_qkv, weights.of(self, QKV), seed, wanted=wanted)
        normed = self._normed(saved.x, QKV, step, product=False)
        groups[QKV].learn(at_qkv, back, normed.full, saved.projected[QKV], seed)
        if wanted:
            scales = (self.affines[0][0], self.affines[1][0])
            kernels.layer_norm_backward(saved.x, scales, (through, through_mlp), grad[:, :width], self.eps)

    def _mlp_backward(
        self, saved: Saved, grad: Tensor, narrow: Scaled | None, step: Pass, weights: Weights, *, wanted: bool
    ) -> Tensor | None:
        """The gradient at the result of the MLP's norm, or None where it is not wanted."""
        groups, kernels, seed = self.groups, step.kernels, step.seed
        below = wanted or groups[UP].learns
        if not below and not groups[DOWN].learns:
            return None
        tokens, inner = len(saved.x), groups[DOWN].inputs
        wide = saved.wide
        normed = self._normed(saved.x, UP, step, product=wide is None)
        if wide is None:
            wide = groups[UP].forward(normed, weights.of(self, UP), seed, bias=groups[UP].bias)[0]
        here = Operand(with_room(grad, groups[DOWN]), narrow)
        joined = empty(tokens, inner + groups[UP].room, saved.x) if below and groups[UP].room else None
        place = None if joined is None else joined[:, :inner]
        found, back = groups[DOWN].backward(here, weights.of(self, DOWN), seed, out=place, wanted=below)
        if groups[DOWN].learns:
            active = groups[DOWN].place(tokens, product=False)
            kernels.gelu(wide, active.full)
            groups[DOWN].learn(here, back, active.full, saved.projected[DOWN], seed)
            del active
        if found is None:
            return None
        at_up = groups[UP].place_of_grad(found if joined is None else joined)
        kernels.gelu_backward(wide, found, at_up.columns(inner), at_up.scaled(inner))
        del found, joined, place
        through, back = groups[UP].backward(at_up, weights.of(self, UP), seed, wanted=wanted)
        groups[UP].learn(at_up, back, normed.full, saved.projected[UP], seed)
        return through

    def _normed(self, x: Tensor, which: int, step: Pass, *, product: bool) -> Operand:
        """The input of QKV or UP, computed again as far as LoRA's gradients or its product read it."""
        group = self.groups[which]
        out = group.place(len(x), product=product)
        if out.full is not None or out.narrow is not None:
            affine = self.affines[0 if which == QKV else 1]
            places = (out.columns(group.inputs),), self.eps, (out.scaled(group.inputs),)
            step.kernels.add_layer_norm(x, None, (affine,), *places)
        return out

    def input_of(self, saved: Saved) -> Tensor:
        """See `block.Block`."""
        return saved.x
