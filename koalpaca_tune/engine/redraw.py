"""Weights in e4m3 that are rounded by chance, and drawn anew in turn while a run goes on.

Rounded to the nearest, a weight is off by the same amount at every step, and LoRA learns to make up for what is not
there when its adapter is used. Rounded by chance it is right in the mean, over draws (`kernels.chance`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from koalpaca_tune.engine.linear import Group

TURNS = 8
"""Steps in which every group is drawn anew once. All at every step would be eight times the decoding."""


class Redraw:
    """The keys of all groups. A draw is a function of seed, step and place: a resumed run sees the same ones."""

    def __init__(self, groups: Sequence[Group], seed: int) -> None:
        """Groups on one device, in order; they are not loaded here."""
        self._groups = groups
        self._seed = seed
        # read on the card, so that a captured graph decodes with the newest
        self._keys = torch.zeros(len(groups), dtype=torch.int64, device=groups[0].device)
        self._turns: list[int | None] = [None] * len(groups)
        for place, group in enumerate(groups):
            group.draw = self._keys[place : place + 1]

    def at(self, step: int) -> None:
        """Draws what is due at a step (from 0); at the first call whatever the step before would have left."""
        for place, group in enumerate(self._groups):
            turn = step - (step - place) % TURNS
            if turn == self._turns[place]:
                continue
            self._turns[place] = turn
            self._keys[place : place + 1].fill_(self._key(turn, place))
            if group.buffer is not None:
                group.buffer.load(group, whole=True)

    def _key(self, turn: int, place: int) -> int:
        """64 bits, mixed: what is alike in its parts must not be alike in the draws."""
        whole = hashlib.blake2b(f"{self._seed} {turn} {place}".encode(), digest_size=8).digest()
        return int.from_bytes(whole, "little", signed=True)
