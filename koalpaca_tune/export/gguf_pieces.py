"""SentencePiece's BPE, as Llama 2 has it: text with `▁` for blanks, joined by score, the rest as bytes.

tokenizer.json has such a tokenizer as ranked merges, GGUF as a score for each token. llama.cpp joins any two
neighbours that make a token, best score first; the merges allow some pairs only. Whether that comes to the same is
tried (`Pieces`), not assumed.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from typing import Any

BLANK = "▁"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>", re.ASCII)


def fits(described: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json is of this kind: bytes for what has no token, and a blank in front of a text."""
    model = described["model"]
    steps = str(described.get("normalizer")) + str(described.get("pre_tokenizer"))
    return model["type"] == "BPE" and bool(model.get("byte_fallback")) and BLANK in steps


def is_byte(token: str) -> bool:
    """Whether a token stands for one byte."""
    return _BYTE.fullmatch(token) is not None


def scores(merges: Sequence[Any]) -> dict[str, float]:
    """Each token that merges make, with minus the rank of the first merge that makes it."""
    found: dict[str, float] = {}
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        found.setdefault(left + right, float(-rank))
    return found


class Pieces:
    """llama.cpp's way to ids."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        self._vocabulary: Mapping[str, int] = model["vocab"]
        self._scores = scores(model["merges"])

    def ids(self, text: str) -> list[int]:
        """Ids of a text, a blank put in front of it."""
        pieces: list[str] = list(BLANK + text.replace(" ", BLANK))
        after = [*range(1, len(pieces)), -1]
        before = list(range(-1, len(pieces) - 1))
        queue: list[tuple[float, int, int, str]] = []

        def offer(left: int, right: int) -> None:
            if left < 0 or right < 0:
                return
            joined = pieces[left] + pieces[right]
            if joined in self._vocabulary:
                heapq.heappush(queue, (-self._scores.get(joined, 0.0), left, right, joined))

        for left in range(len(pieces) - 1):
            offer(left, left + 1)
        while queue:
            _, left, right, joined = heapq.heappop(queue)
            # one of the two has been joined to something else since
            if not pieces[left] or not pieces[right] or pieces[left] + pieces[right] != joined:
                continue
            pieces[left], pieces[right] = joined, ""
            after[left] = after[right]
            if after[right] >= 0:
                before[after[right]] = left
            offer(before[left], left)
            offer(left, after[left])
        return [number for piece in pieces if piece for number in self._numbers(piece)]

    def _numbers(self, piece: str) -> list[int]:
        if piece in self._vocabulary:
            return [self._vocabulary[piece]]
        return [self._vocabulary.get(f"<0x{byte:02X}>", -1) for byte in piece.encode()]
