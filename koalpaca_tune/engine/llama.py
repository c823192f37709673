"""A Llama block: y = x + attention(norm1(x)), y + down(silu(gate) * up) of norm2(y); forward and backward.

Per token and layer the backward pass reads x, q, k, v, the attention's result, y, gate and up. Norms,
rotary embedding and SwiGLU are computed again from them. q, k, v are one product, gate and up another.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from koalpaca_tune.engine.block import Pass, Weights, empty, turn, with_room
from koalpaca_tune.engine.buffers import Operand
from koalpaca_tune.engine.linear import Group
from koalpaca_tune.kernels import attention

QKV, OUT, GATE_UP, DOWN = range(4)


@dataclass
class Saved:
    """Of one block: [T, ...] each; None where it is computed again or not needed."""

    x: Tensor
    attention: attention.Saved
    middle: Tensor
    wide: Tensor | None
    projected: list[Tensor | None]


@dataclass
class LlamaBlock:
    """One block.

    Attributes:
        groups: q_proj with k_proj and v_proj; o_proj; gate_proj with up_proj; down_proj.
        norms: weights [H] of the norm before attention, and of the norm before the MLP.
        heads, kv_heads, head_dim: of attention.
        eps: of the norms.
    """

    groups: tuple[Group, ...]
    norms: tuple[Tensor, Tensor]
    heads: int
    kv_heads: int
    head_dim: int
    eps: float

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q [T, heads, D], k and v [T, kv heads, D] as views."""
        at = self.heads
        rows = qkv.view(len(qkv), self.heads + 2 * self.kv_heads, self.head_dim)
        return rows[:, :at], rows[:, at : at + self.kv_heads], rows[:, at + self.kv_heads :]

    def forward(
        self, x: Tensor, update: Tensor | None, step: Pass, weights: Weights, *, last: bool = True
    ) -> tuple[Tensor, Tensor | None, Saved]:
        """See `block.Block`."""
        tokens, width = x.shape
        kernels, groups = step.kernels, self.groups
        normed = groups[QKV].place(tokens)
        places = normed.columns(width), self.eps, normed.scaled(width)
        x = kernels.add_rms_norm(x, update, self.norms[0], *places)
        projected: list[Tensor | None] = [None] * 4
        qkv, projected[QKV] = groups[QKV].forward(normed, weights.of(self, QKV), step.seed, bias=groups[QKV].bias)
        q, k, v = self._heads(qkv)
        turn(q, k, step)
        saved = step.attention.forward(q, k, v, step.documents)
        middle, projected[OUT] = groups[OUT].forward(
            groups[OUT].operand(saved.out.flatten(1)), weights.of(self, OUT), step.seed, bias=groups[OUT].bias
        )
        normed = groups[GATE_UP].place(tokens)
        places = normed.columns(width), self.eps, normed.scaled(width)
        kernels.add_rms_norm(x, middle, self.norms[1], *places)
        del places
        wide, projected[GATE_UP] = self._gate_up(normed, step, weights)
        del normed
        total: Tensor | None = None
        if last or groups[DOWN].learns:
            active = groups[DOWN].place(tokens, product=last)
            inner = groups[DOWN].inputs
            kernels.swiglu(wide[:, : 2 * inner], active.columns(inner), active.scaled(inner))
            if last:
                total, projected[DOWN] = groups[DOWN].forward(
                    active, weights.of(self, DOWN), step.seed, bias=groups[DOWN].bias
                )
            else:
                assert active.full is not None
                projected[DOWN] = groups[DOWN].project(active.full, weights.of(self, DOWN), step.seed)
        return middle, total, Saved(x, saved, middle, wide if step.keep_wide or not last else None, projected)

    def backward(self, saved: Saved, grad: Tensor, step: Pass, weights: Weights, *, wanted: bool) -> None:
        """See `block.Block`."""
        kernels, groups, seed = step.kernels, self.groups, step.seed
        tokens, width = saved.x.shape
        above = wanted or groups[QKV].learns or groups[OUT].learns
        through = self._mlp_backward(saved, grad, step, weights, wanted=above)
        if not above:
            return
        kernels.rms_norm_backward(saved.middle, self.norms[1], through, grad[:, :width], self.eps)
        del through
        here = Operand(with_room(grad, groups[OUT]), groups[OUT].narrowed(grad[:, :width]))
        below = wanted or groups[QKV].learns
        inner, back = groups[OUT].backward(here, weights.of(self, OUT), seed, wanted=below)
        groups[OUT].learn(here, back, saved.attention.out.flatten(1), saved.projected[OUT], seed)
        del here
        if inner is None:
            return
        parts = step.attention.backward(saved.attention, inner.view(len(inner), self.heads, self.head_dim))
        del inner
        joined = empty(tokens, groups[QKV].outputs + groups[QKV].room, saved.x)
        q, k, v = self._heads(joined[:, : groups[QKV].outputs])
        kernels.rotate(parts[0], q, step.cos, step.sin, step.positions, inverse=True)
        kernels.rotate(parts[1], k, step.cos, step.sin, step.positions, inverse=True)
        kernels.rotate(parts[2], v, step.cos[:, :0], step.sin[:, :0], step.positions)
        del parts
        at_qkv = groups[QKV].operand(joined) if wanted else Operand(joined)
        found, back = groups[QKV].backward(at_qkv, weights.of(self, QKV), seed, wanted=wanted)
        normed = self._normed(saved.x, QKV, step, product=False)
        groups[QKV].learn(at_qkv, back, normed.full, saved.projected[QKV], seed)
        if wanted:
            kernels.rms_norm_backward(saved.x, self.norms[0], found, grad[:, :width], self.eps)

    def _mlp_backward(
        self, saved: Saved, grad: Tensor, step: Pass, weights: Weights, *, wanted: bool
    ) -> Tensor | None:
        """The gradient at the result of the MLP's norm, or None where it is not wanted."""
        groups, kernels, seed = self.groups, step.kernels, step.seed
        below = wanted or groups[GATE_UP].learns
        if not below and not groups[DOWN].learns:
            return None
        wide = saved.wide
        normed = self._normed(saved.middle, GATE_UP, step, product=wide is None)
        if wide is None:
            wide, _ = self._gate_up(normed, step, weights)
        inner = groups[DOWN].inputs
        here = Operand(with_room(grad, groups[DOWN]), groups[DOWN].narrowed(grad[:, : groups[DOWN].outputs]))
        # not `wanted=below`: its place holds silu(gate) * up afterwards, which DOWN learns from
        found, back = groups[DOWN].backward(here, weights.of(self, DOWN), seed)
        at_wide = groups[GATE_UP].place_of_grad(wide) if wanted else Operand(wide)
        kernels.swiglu_backward(wide[:, : 2 * inner], found, at_wide.scaled(2 * inner))
        groups[DOWN].learn(here, back, found, saved.projected[DOWN], seed)
        del found, here
        if not below:
            return None
        through, back = groups[GATE_UP].backward(at_wide, weights.of(self, GATE_UP), seed, wanted=wanted)
        groups[GATE_UP].learn(at_wide, back, normed.full, saved.projected[GATE_UP], seed)
        return through

    def _gate_up(self, normed: Operand, step: Pass, weights: Weights) -> tuple[Tensor, Tensor | None]:
        """Gate and up side by side [T, 2F + room]: the gradient will take their place."""
        group = self.groups[GATE_UP]
        buffer = weights.of(self, GATE_UP)
        if not group.room:
            return group.forward(normed, buffer, step.seed, bias=group.bias)
        assert normed.full is not None
        wide = empty(len(normed.full), group.outputs + group.room, normed.full)
        _, projected = group.forward(normed, buffer, step.seed, bias=group.bias, out=wide[:, : group.outputs])
        return wide, projected

    def _normed(self, x: Tensor, which: int, step: Pass, *, product: bool) -> Operand:
        """The input of QKV or GATE_UP, computed again as far as LoRA's gradients or its product read it."""
        out = self.groups[which].place(len(x), product=product)
        if out.full is not None or out.narrow is not None:
            norm = self.norms[0 if which == QKV else 1]
            width = x.shape[1]
            step.kernels.add_rms_norm(x, None, norm, out.columns(width), self.eps, out.scaled(width))
        return out

    def input_of(self, saved: Saved) -> Tensor:
        """See `block.Block`."""
        return saved.x
