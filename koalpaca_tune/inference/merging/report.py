"""What a merge changed, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Onto = Literal["base", "trained"]


@dataclass(frozen=True)
class Difference:
    """How far the logits of two models are apart, over every token and vocabulary entry.

    Attributes:
        largest, mean: absolute difference.
        same_argmax: share of positions at which both find the same token likeliest.
    """

    largest: float
    mean: float
    same_argmax: float

    def __str__(self) -> str:
        return f"최대 {self.largest:.3g}, 평균 {self.mean:.3g}, 같은 1위 토큰 {self.same_argmax:.1%}"


def difference(before: Sequence[Tensor], after: Sequence[Tensor]) -> Difference:
    """Over texts; each float32 [tokens, vocabulary]."""
    largest, total, count, same, positions = 0.0, 0.0, 0, 0, 0
    for a, b in zip(before, after, strict=True):
        apart = (a - b).abs()
        largest = max(largest, float(apart.max()))
        total += float(apart.sum(dtype=torch.float64))
        count += apart.numel()
        same += int((a.argmax(-1) == b.argmax(-1)).sum())
        positions += len(a)
    return Difference(largest, total / count, same / positions)


def difference_of_arrays(before: Sequence[Tensor], after: Sequence[Any]) -> Difference:
    """The same, where the second comes from a program that knows no torch: numpy float32 [tokens, vocabulary]."""
    return difference(before, [torch.from_numpy(one) for one in after])


@dataclass(frozen=True)
class MergeReport:
    """What the merge changed. Logits are computed in float32, so differences are those of the weights.

    Attributes:
        out: the merged model's folder.
        dtype: element type of its weights.
        onto: what the adapter was added to: the base's own weights, or the dequantised ones of the run.
        tokens: positions compared.
        effect: without and with the adapter, unmerged, for scale.
        merged: with the adapter unmerged, against the merged model as read back from the disk.
        trained: the 4-bit base with adapter, as trained, against the merged model; None if not trained in 4 bits.
    """

    out: Path
    dtype: str
    onto: Onto
    tokens: int
    effect: Difference
    merged: Difference
    trained: Difference | None

    @property
    def lost(self) -> float:
        """Mean rounding of the merge, as a share of the adapter's mean effect."""
        return self.merged.mean / self.effect.mean

    def lines(self) -> list[str]:
        """One line for each comparison."""
        lines = [
            f"로짓 비교: {self.tokens}개 위치, {self.dtype} (logits compared at {self.tokens} positions)",
            f"  어댑터의 효과 (adapter off and on): {self.effect}",
            f"  합치기 전과 후 (unmerged and merged): {self.merged}; 효과의 {self.lost:.2%} (of the effect)",
        ]
        if self.trained is not None and self.onto == "base":
            lines.append(f"  학습한 4비트 모델과 합친 모델 (4-bit as trained, and merged): {self.trained}")
            if self.trained.mean > self.merged.mean:
                lines.append(
                    "  학습하고 평가한 그대로가 필요하면 (to keep the model as trained and judged): --onto trained"
                )
        return lines

    def as_dict(self) -> dict[str, Any]:
        """For record.json; the folder is not part of it."""
        return {name: value for name, value in asdict(self).items() if name != "out"}
