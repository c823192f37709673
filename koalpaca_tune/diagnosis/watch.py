"""The watch over a run while it goes: named notices, each within a stated number of rows.

A row is a line of metrics.jsonl. What a notice leads to is the recipe's (`watch.policy`) and the loop's
business; the watch only sees and names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from koalpaca_tune.config.recipe import NoticeName
from koalpaca_tune.config.recipe import Watch as Settings
from koalpaca_tune.diagnosis import signs
from koalpaca_tune.diagnosis.signs import Evidence, Row

QUIET_ROWS = 10
"""Rows after a notice in which the same one is not told again."""


@dataclass(frozen=True)
class Notice:
    """Something noticed in a row.

    Attributes:
        name: what it is, a key of `SIGNS`.
        step: of the row.
        what: one line, Korean then English, with the numbers.
        evidence: the numbers; `nan` stands for a value that is not finite.
        remedy: the furthest that a policy may go for it: a slow disk is told of, never rolled back.
    """

    name: NoticeName
    step: int
    what: str
    evidence: dict[str, float]
    remedy: Literal["warn", "stop", "rollback"] = "warn"


class Sign(NamedTuple):
    """One thing that is watched for.

    Attributes:
        see: the newest row against those before it -> evidence, or None.
        ko, en: the line, with the evidence as format fields.
        rows: rows within which it is noticed, the row in which it happens counted.
        remedy: see `Notice`.
    """

    see: Callable[[Sequence[Row]], Evidence | None]
    ko: str
    en: str
    rows: int
    remedy: Literal["warn", "stop", "rollback"]


SIGNS: dict[NoticeName, Sign] = {
    "not-finite": Sign(
        signs.not_finite,
        "손실이나 기울기가 유한한 수가 아닙니다",
        "loss or gradient is not finite",
        1,
        "rollback",
    ),
    "loss-spike": Sign(
        signs.loss_spike,
        "손실이 {usual:.3f}에서 {loss:.3f}(으)로 튀었습니다",
        "the loss jumped from {usual:.3f} to {loss:.3f}",
        1,
        "rollback",
    ),
    "loss-rising": Sign(
        signs.loss_rising,
        "손실이 가장 낮던 {lowest:.3f}에서 {loss:.3f}(으)로 올라갑니다",
        "the loss rises: {lowest:.3f} at its lowest, {loss:.3f} now",
        signs.RISE_ROWS,
        "rollback",
    ),
    "loss-drop": Sign(
        signs.loss_drop,
        "손실이 {usual:.3f}에서 {loss:.3f}(으)로 갑자기 떨어졌습니다",
        "the loss dropped suddenly from {usual:.3f} to {loss:.3f}",
        2,
        "warn",
    ),
    "gradient-norm": Sign(
        signs.gradient_norm,
        "기울기의 크기가 {grad_norm:.3g}입니다",
        "the gradient norm is {grad_norm:.3g}",
        1,
        "rollback",
    ),
    "dead-adapter": Sign(
        signs.dead_adapter,
        "LoRA B 행렬의 {adapter_zero:.0%}가 아직 모두 0입니다",
        "{adapter_zero:.0%} of the LoRA B matrices are still zero",
        2,
        "stop",
    ),
    "valid-gap": Sign(
        signs.gap,
        "검증 손실 {valid_loss:.3f}이(가) 나빠지거나 학습 손실 {train_loss:.3f}과(와) 크게 벌어졌습니다",
        "the validation loss {valid_loss:.3f} gets worse, or stands far above the training loss {train_loss:.3f}",
        2,
        "warn",
    ),
    "throughput": Sign(
        signs.throughput,
        "초당 토큰이 {usual:.0f}에서 {tokens_per_second:.0f}(으)로 떨어졌습니다",
        "tokens per second fell from {usual:.0f} to {tokens_per_second:.0f}",
        2,
        "warn",
    ),
    "memory": Sign(
        signs.memory,
        "메모리가 줄마다 늘어납니다 ({before:.2f} GiB에서 {now:.2f} GiB로)",
        "memory grows in every row (from {before:.2f} to {now:.2f} GiB)",
        signs.CREEP_ROWS,
        "warn",
    ),
    "stalled-data": Sign(
        signs.stalled,
        "시간의 {share:.0%}를 데이터를 기다리며 보냅니다",
        "{share:.0%} of the time is spent waiting for data",
        2,
        "warn",
    ),
}

ACTS = frozenset(name for name, sign in SIGNS.items() if sign.remedy != "warn")
"""Notices on which the policies stop and rollback act; the others are only told."""
ROLLS = frozenset(name for name, sign in SIGNS.items() if sign.remedy == "rollback")
"""Of these, the ones that a lower rate can mend; for the rest, rollback stops."""


class Watch:
    """Sees every row of a run in order; on resume or after a rollback a new one is fed the kept rows first."""

    def __init__(self, settings: Settings, total_steps: int) -> None:
        """`total_steps` are those of the whole run."""
        self.settings = settings
        self.total_steps = total_steps
        self._rows: list[Row] = []
        self._told: dict[NoticeName, int] = {}

    def see(self, row: Mapping[str, Any]) -> list[Notice]:
        """The notices of a row. A row that several things are wrong with gives several.

        A row that tells of a rollback takes back what came after its step, notices included.
        """
        if "rollback" in row:
            self._rows = [old for old in self._rows if old["step"] <= row["step"]]
            self._told.clear()
            return []
        self._rows.append(row)
        found: list[Notice] = []
        for name, sign in SIGNS.items():
            if name in self.settings.ignore or not self._due(name, sign, row):
                continue
            evidence = sign.see(self._rows)
            if evidence is None:
                continue
            self._told[name] = len(self._rows)
            what = f"{sign.ko.format(**evidence)} ({sign.en.format(**evidence)})"
            found.append(Notice(name, int(row["step"]), what, evidence, sign.remedy))
        return found

    def _due(self, name: NoticeName, sign: Sign, row: Row) -> bool:
        """A row of validation alone is looked at for the gap only; what was told a moment ago is not again."""
        if "loss" not in row and name != "valid-gap":
            return False
        told = self._told.get(name)
        return name == "not-finite" or told is None or len(self._rows) - told > QUIET_ROWS
