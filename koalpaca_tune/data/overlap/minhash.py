"""MinHash signatures of short texts, a batch at a time (Broder 1997).

Two texts agree in a slot with a probability that is the Jaccard similarity of their sets of character
pairs. Pairs, not longer n-grams: in the 10 to 40 characters of a Korean question one changed syllable
already breaks two of them. A signature depends on its own text only, and is the same on every machine.

Our own rather than a library's: on such texts numpy is faster than rensa 0.5, the fastest one found, and six
times as fast as datasketch (bench/near_dedup.py); rensa is faster from about 1,000 characters on.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from koalpaca_tune.data.overlap import grams
from koalpaca_tune.data.overlap.text import normalise

SLOTS = 60
"""MinHash values of a signature, 16 bits each; 60 divides evenly into bands of 1 to 6, 10, 12, 15 ..."""

WIDTH = 1 + SLOTS // 2
"""Columns of uint32: the hash of a text's numbers, then two slots a column."""

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_FAMILY = grams.mixed(np.arange(2 * SLOTS, dtype=np.uint64))
_FACTORS = _FAMILY[:SLOTS].astype(np.uint32) | np.uint32(1)
_MASKS = _FAMILY[SLOTS:].astype(np.uint32)


def numbers(normal: str) -> list[str]:
    """The numbers of a normalised text, sorted."""
    return sorted(_NUMBER.findall(normal))


def sign(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Signatures of texts as `text.near_text` and `text.question_text` give them.

    Args:
        texts: some hundreds at a time; working memory is about 30 bytes a character.

    Returns:
        uint32 [texts, WIDTH].
    """
    normal = [normalise(text) for text in texts]
    signatures = np.empty((len(normal), WIDTH), np.uint32)
    if not normal:
        return signatures
    signatures[:, 0] = [zlib.crc32(" ".join(found).encode()) if (found := numbers(one)) else 0 for one in normal]
    pairs, starts = grams.bigrams(normal)
    hashed = (grams.mixed(pairs) >> np.uint64(32)).astype(np.uint32)
    slots, scratch = np.empty((len(normal), SLOTS), np.uint16), np.empty_like(hashed)
    for n in range(SLOTS):
        np.multiply(hashed, _FACTORS[n], out=scratch)
        np.bitwise_xor(scratch, _MASKS[n], out=scratch)
        # the lowest bits of the smallest value: as random as all of it, in half the memory
        slots[:, n] = np.minimum.reduceat(scratch, starts).astype(np.uint16)
    signatures[:, 1:] = slots.view(np.uint32)
    return signatures


def slots(signatures: NDArray[np.uint32]) -> NDArray[np.uint16]:
    """The MinHash values of signatures, uint16 [n, SLOTS], without a copy."""
    return np.ascontiguousarray(signatures).view(np.uint16)[:, 2:]
