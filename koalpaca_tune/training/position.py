"""Where in the plan a run stands, told so that it holds for another plan of the same rows.

Accepted with --allow, a run may be resumed with another number of processes, batch size or length. Its steps are
numbered on; the first one begins with the rows that come next.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from koalpaca_tune.training.steps import Step


def rows_before(steps: Sequence[Step]) -> list[int]:
    """Rows seen before each step, and after the last one."""
    return [0, *accumulate(len(step.rows) for step in steps)]


def step_at(steps: Sequence[Step], rows: int) -> int:
    """The step (from 0) that begins where `rows` rows were seen, or a little before: none is left out."""
    return bisect_right(rows_before(steps), rows) - 1


def digest(steps: Sequence[Step]) -> str:
    """Of which example stands where, in the whole run."""
    numbers = (index for step in steps for row in step.rows for index in (*row, -1))
    return hashlib.sha256(np.fromiter(numbers, dtype=np.int64).tobytes()).hexdigest()[:16]
