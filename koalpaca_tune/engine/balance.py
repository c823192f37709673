"""How LoRA shares the range of e4m3 with the inputs and weights beside which it stands in a folded product.

Beside x / u (u: a row's scale) stands  t / (u b),  beside W / w (w: the weights' scale)  s B b / w,  and their
product comes out as s t B' whatever the balance b. With b = 64 a row's t = x A' may be 64 times its largest x,
and s B half of the largest weight; where B has grown beyond that, b is less. Backward it is the same with A for B,
and g s B for t. Both sides are held as sums of two numbers (`kernels.plain.split`), so what is far below
the range's upper end is still exact to 2^-10 of a unit of the base's own rounded numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from koalpaca_tune.engine.members import Factors, Members

LARGEST_BALANCE = 64.0
"""Leaves A room to grow: see above."""
REACH = 224.0
"""The largest of B (or of A) comes to between half of this and it, since balances are powers of two; twice as much
would fit, but for bfloat16's rounding."""


class Balance:
    """The factors of all groups whose LoRA is folded into a product in e4m3."""

    def __init__(self, groups: Sequence[Members]) -> None:
        """Groups with LoRA, on one device."""
        members = [(place, one.lora) for place, group in enumerate(groups) for one in group.members if one.lora]
        device = groups[0].device
        self._b = [lora.b for _, lora in members]
        self._a = [lora.a for _, lora in members]
        self._times = torch.tensor([[lora.scale for _, lora in members], [1.0] * len(members)], device=device)
        self._place = torch.tensor([place for place, _ in members], device=device).expand(2, -1)
        self._units = torch.tensor([group.scale for group in groups], device=device)
        self._factors = torch.ones(4, len(groups), device=device)
        self.of = [Factors(*(row[n : n + 1] for row in self._factors)) for n in range(len(groups))]

    def refresh(self) -> None:
        """Reads the matrices as they are now; nothing waits for the host."""
        largest = torch.stack([torch.stack(torch._foreach_norm(one, torch.inf)) for one in (self._b, self._a)])
        found = torch.zeros(2, len(self._units), device=largest.device)
        found.scatter_reduce_(1, self._place, largest * self._times, "amax")
        # of zeros it is infinite, which the clamp takes away; NaN stays NaN
        balance = torch.exp2(torch.floor(torch.log2(REACH * self._units / found))).clamp_(max=LARGEST_BALANCE)
        self._factors[0::2].copy_(1.0 / balance)
        self._factors[1::2].copy_(balance / self._units)
