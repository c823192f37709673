"""What follows from what the watch sees: go on, stop, or go back to where all was well."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from koalpaca_tune.config.recipe import Watch as Settings
from koalpaca_tune.diagnosis.watch import ACTS, ROLLS, SIGNS, Notice, Watch
from koalpaca_tune.errors import KoalpacaError

Row = Mapping[str, Any]
Decision = Literal["go", "stop", "rollback"]
LATE = max(SIGNS[name].rows for name in ROLLS)
"""Lines within which trouble is noticed at the latest, its own counted."""


@dataclass(frozen=True)
class Rollback:
    """One return to an earlier checkpoint.

    Attributes:
        number: from 1.
        at: the step at which trouble was noticed.
        step: steps done in the checkpoint gone back to.
        scale: the learning rate from there on, as a share of the recipe's.
        notices: names of those that led to it.
        evidence: their numbers, by name, where finite.
    """

    number: int
    at: int
    step: int
    scale: float
    notices: tuple[str, ...]
    evidence: dict[str, dict[str, float]]

    def as_dict(self) -> dict[str, Any]:
        """For record.json."""
        return {**asdict(self), "notices": list(self.notices)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Rollback:
        """Raises TypeError or LookupError for anything that `as_dict` did not write."""
        return cls(**{**values, "notices": tuple(values["notices"])})

    def row(self) -> dict[str, Any]:
        """Its line of metrics: the lines after it are of steps taken again."""
        others = {name: value for name, value in self.as_dict().items() if name != "step"}
        return {"step": self.step, "rollback": others}

    def words(self) -> str:
        """For a person."""
        return (
            f"단계 {self.at:,}에서 단계 {self.step:,}의 체크포인트로 되돌리고, 학습률은 {self.scale:g}배입니다 "
            f"(rolled back from step {self.at:,} to {self.step:,}; the rate is {self.scale:g} of the recipe's)"
        )


def scale(rollbacks: Iterable[Rollback], number: int) -> float:
    """What a step's rate (from 0) is multiplied by: the lowest of all rollbacks to it or to before it."""
    return min((one.scale for one in rollbacks if one.step <= number), default=1.0)


def abandoned(rollbacks: Iterable[Rollback], step: int, known: int) -> bool:
    """Whether a checkpoint of `step` steps, written after `known` rollbacks, was taken back by a later one."""
    return any(one.number > known and one.step < step for one in rollbacks)


def before(rows: Iterable[Row], count: int) -> int:
    """The last step before the newest `count` lines of losses in whose line nothing was noticed to act on."""
    losses = [row for row in rows if "loss" in row]
    kept = losses[: max(0, len(losses) - count)]
    return max((row["step"] for row in kept if not ACTS & {*row.get("notices", ())}), default=0)


def good(rows: Sequence[Row], notices: Iterable[Notice]) -> int:
    """Steps done before the trouble began: a notice may come some lines after that (`Sign.rows`)."""
    names = {one.name for one in notices}
    late = max((SIGNS[name].rows for name in names & ROLLS), default=1)
    # a step that is not finite has no line
    return before(rows, late - 1 if "not-finite" in names else late)


def stopped(folder: Path, done: int, rollbacks: Sequence[Rollback], notices: Iterable[Notice]) -> KoalpacaError:
    """Why a run ends before its last step."""
    tried = f" after {len(rollbacks)} rollbacks" if rollbacks else ""
    return KoalpacaError(
        "run-stopped",
        f"stopped at step {done}{tried}: {'; '.join(one.what for one in notices if one.remedy != 'warn')}.",
        where=str(folder),
        fix="Look with `koalpaca diagnose`; --resume goes on from here.",
    )


class Guard:
    """The watch, and the recipe's policy."""

    def __init__(self, settings: Settings, total: int, rows: Sequence[Row] = ()) -> None:
        """Sees the lines that are there already; what was noticed in them was told when they were written."""
        self.settings = settings
        self._watch = Watch(settings, total)
        for row in rows:
            self._watch.see(row)

    def see(self, row: Row) -> list[Notice]:
        """The notices of a new line."""
        return self._watch.see(row)

    def decide(self, remedies: Sequence[str], rollbacks: int) -> Decision:
        """What notices with these remedies lead to, after so many rollbacks."""
        policy = self.settings.policy
        acting = [remedy for remedy in remedies if remedy != "warn"]
        if policy == "warn" or not acting:
            return "go"
        if policy == "stop" or "stop" in acting or rollbacks >= self.settings.rollbacks:
            return "stop"
        return "rollback"

    def back(self, at: int, step: int, notices: Sequence[Notice], rollbacks: Sequence[Rollback]) -> Rollback:
        """The next rollback."""
        # the clock has no say in what is written: a run that was killed ends as one that was not
        acting = [one for one in notices if one.remedy != "warn"]
        evidence: dict[str, dict[str, float]] = {
            one.name: {key: value for key, value in one.evidence.items() if math.isfinite(value)} for one in acting
        }
        before = min((one.scale for one in rollbacks), default=1.0)
        return Rollback(
            len(rollbacks) + 1,
            at,
            step,
            before * self.settings.rollback_factor,
            tuple(one.name for one in acting),
            evidence,
        )
