"""What the training benches learn from: random token ids in the lengths of real work. Every token is learned.

fixed: rows of one length (2,048 tokens). kosft: lengths as Korean instruction data has them, lognormal with
mu 5.4 and sigma 0.6 (median 221 tokens), clipped to 32..1,024.
"""

from __future__ import annotations

import math
import random

WORKLOADS = ("fixed", "kosft")
MU, SIGMA, SHORTEST, LONGEST = 5.4, 0.6, 32, 1024
FULL = 2048
FIRST_ID, LAST_ID = 5, 30000
"""Ids below are special tokens of some tokenizers; the same ids for every base."""


def length(workload: str, row: int, source: random.Random) -> int:
    """Tokens of the next example; tiny shapes (rows shorter than 2,048) get it in proportion."""
    if workload == "fixed":
        return row
    drawn = max(SHORTEST, min(LONGEST, int(math.exp(source.gauss(MU, SIGMA)))))
    return max(2, drawn * row // FULL)


def ids(
    workload: str, row: int, vocabulary: int, *, seed: int = 0, count: int = 0, tokens: int = 0
) -> list[list[int]]:
    """Examples as token ids: `count` of them, or as many as hold `tokens`."""
    source = random.Random(seed)
    drawn: list[list[int]] = []
    total = 0
    while len(drawn) < count or total < tokens:
        size = length(workload, row, source)
        drawn.append([source.randrange(FIRST_ID, min(vocabulary, LAST_ID)) for _ in range(size)])
        total += size
    return drawn
