"""Loss and LoRA gradients of a micro-step, by the engine: nothing inside goes through autograd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from koalpaca_tune.config import recipe
from koalpaca_tune.engine.block import Pass
from koalpaca_tune.engine.body import Body, Tape
from koalpaca_tune.engine.build import Builder
from koalpaca_tune.engine.graphs import Captured, Graphs, Inputs
from koalpaca_tune.kernels import attention
from koalpaca_tune.kernels.attention import Documents
from koalpaca_tune.planner.choice import Choice
from koalpaca_tune.planner.work import capturable
from koalpaca_tune.records import Encoded
from koalpaca_tune.tokens.pack import micro_steps, stream


@dataclass(frozen=True)
class Micro:
    """One micro-step on the device.

    Attributes:
        ids: int64 [T].
        positions: int32 [T].
        documents: who may see whom.
        rows: int64 [n], the places that predict a learned token.
        targets: int64 [n], that token.
    """

    ids: Tensor
    positions: Tensor
    documents: Documents
    rows: Tensor
    targets: Tensor


class EngineObjective(nn.Module):
    """A causal language model with LoRA as a sum of losses, by hand-written blocks.

    `backward()` of what it returns adds the LoRA gradients to the `grad` of each matrix.

    Attributes:
        gradients: those gradients, end to end.
    """

    def __init__(
        self, builder: Builder, engine: recipe.Engine, choice: Choice, *, longest: int, pad_id: int
    ) -> None:
        """`longest`: no document has more tokens."""
        super().__init__()
        self._builder = builder
        self._engine = engine
        self._choice = choice
        self._pad_id = pad_id
        self._longest = longest
        self._device = builder.device
        self.gradients = builder.gradients
        self._body, self._head = builder.make(recompute=choice.recompute, cached_blocks=choice.cached_blocks)
        self._wide: Body | None = None
        self._cos, self._sin = builder.tables(longest)
        self._multiple = 64 if self._device.type == "cuda" else 1
        graphed = choice.graphs and self._device.type == "cuda" and capturable(engine, choice.recompute)
        self._graphs = Graphs(self._body, self._body.room, longest) if graphed else None
        self._dropout = any(group.dropout for block in self._body.blocks for group in block.groups)

    def count(self, rows: Sequence[Sequence[Encoded]], *, grad: bool) -> int:
        """How many micro-steps these rows are."""
        del grad
        return len(self._groups([one for row in rows for one in row]))

    def arrange(self, rows: Sequence[Sequence[Encoded]], *, grad: bool, count: int = 0) -> list[tuple[Micro]]:
        """The rows' documents, whole, in streams of at most `micro_tokens`, each an argument of `forward`."""
        del grad
        documents = [one for row in rows for one in row]
        groups = self._groups(documents)
        groups += [[]] * (count - len(groups))
        return [(self._micro([documents[n] for n in group]),) for group in groups]

    def train(self, mode: bool = True) -> EngineObjective:
        """Losses outside of training are in the type of the quantization, in which an adapter is used."""
        super().train(mode)
        self._wide = self._builder.wide() if self._builder.narrow and not mode else None
        return self

    def begin(self, step: int) -> None:
        """Before the first micro-step of a step (from 0): weights that are rounded by chance are drawn anew."""
        if self._body.redraw is not None:
            self._body.redraw.at(step)

    def forward(self, micro: Micro) -> Tensor:
        """Summed negative log-likelihood in nats of one micro-step, a float32 scalar; dropout in training mode."""
        if torch.is_grad_enabled():
            self.gradients.bind()
            loss: Tensor = _ByHand.apply(self.gradients.anchor, self, micro)  # type: ignore[no-untyped-call]
            return loss
        return self._head.loss(self.residual(micro)[micro.rows], micro.targets, grad=False)[0]

    @torch.no_grad()
    def residual(self, micro: Micro) -> Tensor:
        """The residual stream [T, H] after the last block, without dropout."""
        step = self._pass(micro.positions, micro.documents, self._backend(micro.documents), None)
        return (self._wide or self._body).forward(micro.ids, step, grad=False)[0]

    def run(self, micro: Micro) -> tuple[Tensor, Tensor, Tape | Captured]:
        """Summed loss, its gradient at the residual of the learned rows [n, H], and what `unwind` needs."""
        seed: Tensor | None = None
        if self.training and self._dropout:
            # drawn on the device: the generator's state is in every checkpoint, and nothing waits
            seed = torch.randint(2**62, (1,), device=self._device)
        tape: Tape | Captured | None = self._graph(micro, seed)
        if isinstance(tape, Captured):
            residual = tape.forward(micro.ids, micro.positions, micro.documents, seed)
        else:
            step = self._pass(micro.positions, micro.documents, self._backend(micro.documents), seed)
            residual, tape = self._body.forward(micro.ids, step, grad=True)
        total, back = self._head.loss(residual[micro.rows], micro.targets, grad=True)
        assert back is not None
        return total, back, tape

    def place(self, micro: Micro, back: Tensor, tape: Tape | Captured) -> Tensor:
        """The gradient of the learned rows [n, H] at its places in that of the residual [T, H + room]."""
        width = back.shape[1]
        if isinstance(tape, Captured):
            grad = tape.grad.zero_()
        else:
            grad = torch.zeros(len(micro.ids), width + self._body.room, dtype=back.dtype, device=self._device)
        grad[:, :width].index_copy_(0, micro.rows, back)
        return grad

    def unwind(self, tape: Tape | Captured, grad: Tensor) -> None:
        """Adds the LoRA gradients."""
        if isinstance(tape, Captured):
            tape.backward()
        else:
            self._body.backward(tape, grad)

    def _graph(self, micro: Micro, seed: Tensor | None) -> Captured | None:
        if self._graphs is None:
            return None
        backend = self._backend(micro.documents)

        def make(inputs: Inputs, documents: Documents) -> Pass:
            return self._pass(inputs.positions, documents, backend, inputs.seed)

        return self._graphs.find(len(micro.ids), micro.documents, backend == "cudnn", make, seed is not None)

    def _backend(self, documents: Documents) -> str:
        asked = self._engine.attention
        # validation documents need not be equally long where those of training are
        if asked != "auto" and not (asked == "cudnn" and not documents.equal):
            return asked
        return attention.choose(documents, self._device, self._builder.dtype, self._builder.head_dim)

    def _pass(self, positions: Tensor, documents: Documents, backend: str, seed: Tensor | None) -> Pass:
        return Pass(
            self._builder.kernels,
            attention.BACKENDS[backend],
            documents,
            positions,
            self._cos,
            self._sin,
            seed,
            keep_wide=self._choice.recompute == "none",
        )

    def _groups(self, documents: Sequence[Encoded]) -> list[list[int]]:
        return micro_steps([len(one.ids) for one in documents], self._choice.micro_tokens) or [[]]

    def _micro(self, documents: Sequence[Encoded]) -> Micro:
        tokens = sum(len(one.ids) for one in documents)
        # a graph wants all streams equally long
        total = self._choice.micro_tokens if self._graphs and tokens <= self._choice.micro_tokens else None
        made = stream(documents, self._pad_id, multiple=self._multiple, total=total, longest=self._longest)
        starts = [0]
        for length in made.lengths:
            starts.append(starts[-1] + length)

        def there(x: Tensor) -> Tensor:
            return x.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else x

        return Micro(
            there(torch.from_numpy(made.ids)),
            there(torch.from_numpy(made.positions)),
            Documents(made.lengths, there(torch.tensor(starts, dtype=torch.int32)), max(made.lengths)),
            there(torch.from_numpy(made.rows)),
            there(torch.from_numpy(made.targets)),
        )


class _ByHand(torch.autograd.Function):
    """Lets `loss.backward()` reach the hand-written backward pass; no tensor inside is recorded."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, objective: EngineObjective, micro: Micro) -> Tensor:
        """`anchor`: any LoRA matrix, so that the result requires a gradient."""
        total, back, tape = objective.run(micro)
        ctx.objective, ctx.micro, ctx.back, ctx.tape = objective, micro, back, tape
        return total

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[None, None, None]:
        """`weight`: the gradient at the sum of losses."""
        tape, place = ctx.tape, ctx.objective.place(ctx.micro, ctx.back.mul_(weight), ctx.tape)
        # held no longer than needed: the blocks' backward pass is where memory is fullest
        ctx.back = ctx.tape = None
        ctx.objective.unwind(tape, place)
        return None, None, None
