"""How a detector did on one damage: what the detect_*.py benches count."""

from __future__ import annotations

from typing import NamedTuple


class Score(NamedTuple):
    """One detector on one damage.

    Attributes:
        name: signal and damage.
        damaged, clean: records of each kind.
        found: damaged records that the detector found.
        false: clean records that it found.
        repaired: damaged records made as before; None for a detector that repairs nothing.
    """

    name: str
    damaged: int
    clean: int
    found: int
    false: int
    repaired: int | None = None

    @property
    def recall(self) -> float:
        return self.found / self.damaged if self.damaged else 0.0

    @property
    def precision(self) -> float:
        """Share of the flagged records that were damaged, were both kinds equally many."""
        alarm = self.false / self.clean if self.clean else 0.0
        return self.recall / (self.recall + alarm) if self.recall + alarm else 1.0
