"""A GPT-NeoX block with parallel residual: x + attention(norm1(x)) + mlp(norm2(x)), forward and backward.

Per token and layer the backward pass reads x, q, k, v, the attention's result and the MLP's wide tensor
before its GELU: 9 H elements. Norms, rotary embedding and GELU are computed again from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from koalpaca_tune.engine.block import Pass, Weights, empty, turn, turn_back, with_room
from koalpaca_tune.engine.linear import Group
from koalpaca_tune.kernels import attention

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
        for_qkv = empty(tokens, width + groups[QKV].room, x)
        for_up = empty(tokens, width + groups[UP].room, x)
        x = kernels.add_layer_norm(x, update, self.affines, (for_qkv[:, :width], for_up[:, :width]), self.eps)
        projected: list[Tensor | None] = [None] * 4
        qkv, projected[QKV] = groups[QKV].forward(for_qkv, weights.of(self, QKV), step.seed, bias=groups[QKV].bias)
        del for_qkv
        q, k, v = self._heads(qkv)
        turn(q, k, step)
        saved = step.attention.forward(q, k, v, step.documents)
        total: Tensor | None = None
        if last:
            total, projected[DENSE] = groups[DENSE].forward(
                saved.out.flatten(1), weights.of(self, DENSE), step.seed, bias=self.bias
            )
        elif groups[DENSE].learns:
            projected[DENSE] = groups[DENSE].project(saved.out.flatten(1), weights.of(self, DENSE), step.seed)
        wide, projected[UP] = groups[UP].forward(for_up, weights.of(self, UP), step.seed, bias=groups[UP].bias)
        del for_up
        if last or groups[DOWN].learns:
            active = empty(tokens, groups[DOWN].inputs + groups[DOWN].room, x)
            kernels.gelu(wide, active[:, : groups[DOWN].inputs])
            if last:
                total, projected[DOWN] = groups[DOWN].forward(
                    active, weights.of(self, DOWN), step.seed, bias=None, into=total
                )
            else:
                projected[DOWN] = groups[DOWN].project(active, weights.of(self, DOWN), step.seed)
        return x, total, Saved(x, saved, wide if step.keep_wide or not last else None, projected)

    def backward(self, saved: Saved, grad: Tensor, step: Pass, weights: Weights, *, wanted: bool) -> None:
        """See `block.Block`."""
        kernels, groups, seed = step.kernels, self.groups, step.seed
        tokens, width = saved.x.shape
        through_mlp = self._mlp_backward(saved, grad, step, weights, wanted=wanted)
        after = saved.attention.out.flatten(1)
        here = with_room(grad, groups[DENSE])
        below = wanted or groups[QKV].learns
        inner, back = groups[DENSE].backward(here, weights.of(self, DENSE), seed, wanted=below)
        groups[DENSE].learn(here, back, after, saved.projected[DENSE], seed)
        if inner is None:
            return
        parts = step.attention.backward(saved.attention, inner.view(len(inner), self.heads, self.head_dim))
        del inner
        joined = empty(tokens, 3 * width + groups[QKV].room, saved.x)
        turn_back(parts, self._heads(joined[:, : 3 * width]), step)
        del parts
        normed = self._normed(saved.x, 0, step) if groups[QKV].learns else None
        through, back = groups[QKV].backward(joined, weights.of(self, QKV), seed, wanted=wanted)
        groups[QKV].learn(joined, back, normed, saved.projected[QKV], seed)
        if wanted:
            scales = (self.affines[0][0], self.affines[1][0])
            kernels.layer_norm_backward(saved.x, scales, (through, through_mlp), grad[:, :width], self.eps)

    def _mlp_backward(
        self, saved: Saved, grad: Tensor, step: Pass, weights: Weights, *, wanted: bool
    ) -> Tensor | None:
        """The gradient at the result of the MLP's norm, or None where it is not wanted."""
        groups, kernels, seed = self.groups, step.kernels, step.seed
        below = wanted or groups[UP].learns
        if not below and not groups[DOWN].learns:
            return None
        tokens, inner = len(saved.x), groups[DOWN].inputs
        wide, normed = saved.wide, None
        if wide is None or groups[UP].learns:
            normed = self._normed(saved.x, 1, step, groups[UP].room if wide is None else 0)
        if wide is None:
            assert normed is not None
            wide, _ = groups[UP].forward(normed, weights.of(self, UP), seed, bias=groups[UP].bias)
        here = with_room(grad, groups[DOWN])
        joined = empty(tokens, inner + groups[UP].room, saved.x) if below else None
        place = None if joined is None else joined[:, :inner]
        _, back = groups[DOWN].backward(here, weights.of(self, DOWN), seed, out=place, wanted=below)
        if groups[DOWN].learns:
            active = kernels.gelu(wide, empty(tokens, inner, saved.x))
            groups[DOWN].learn(here, back, active, saved.projected[DOWN], seed)
            del active
        if joined is None:
            return None
        kernels.gelu_backward(wide, joined[:, :inner])
        through, back = groups[UP].backward(joined, weights.of(self, UP), seed, wanted=wanted)
        groups[UP].learn(joined, back, normed, saved.projected[UP], seed)
        return through

    def _normed(self, x: Tensor, which: int, step: Pass, room: int = 0) -> Tensor:
        """The result of one of the two norms, computed again [T, H + room]."""
        out = empty(len(x), x.shape[1] + room, x)
        step.kernels.add_layer_norm(x, None, (self.affines[which],), (out[:, : x.shape[1]],), self.eps)
        return out

    def input_of(self, saved: Saved) -> Tensor:
        """See `block.Block`."""
        return saved.x
