"""What the data of a run look like, in numbers: repeats, damage, ends, what of it validation holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from koalpaca_tune.data.overlap.text import normalised_key
from koalpaca_tune.data.quality.scripts import strange
from koalpaca_tune.records import NOT_LEARNED, Conversation, Encoded

Signals = dict[str, float]
_PIECES = re.compile("[\u1100-\u11ff\ua960-\ua97c\ud7b0-\ud7fb]")
"""Hangul in pieces, as NFD has it; a Hanja that NFC would replace is no sign of it."""
RARE = 2
"""Syllables and Hanja that nobody writes, from which a text counts as decoded wrongly."""


def signals(
    train: Sequence[Conversation], valid: Sequence[Conversation], encoded: Sequence[Encoded], end_ids: Sequence[int]
) -> Signals:
    """Signals under `data.`.

    Args:
        train, valid: as the run read them.
        encoded: `train` through the run's template and tokenizer, none left out.
        end_ids: ids at which an answer ends.
    """
    keys = [normalised_key(one) for one in train]
    there = set(keys)
    texts = ["\n".join(turn.content for turn in one.turns) for one in train]
    found: Signals = {
        "rows": len(keys),
        "repeated": 1 - len(there) / len(keys),
        "most_repeated": max(Counter(keys).values()),
        "decomposed": _share(bool(_PIECES.search(text)) for text in texts),
        "garbled": _share(_garbled(text) for text in texts),
        "learned": sum(one.learned for one in encoded) / len(encoded),
        "learned_share": sum(one.learned for one in encoded) / sum(len(one.ids) for one in encoded),
        "end_learned": _share(any(label in end_ids for label in _learned(one)) for one in encoded),
    }
    if valid:
        found["valid_in_train"] = _share(normalised_key(one) in there for one in valid)
    return {f"data.{name}": float(value) for name, value in found.items()}


def _garbled(text: str) -> bool:
    """Lost or wrongly decoded characters, or UTF-8 read as cp949: rare syllables and Hanja side by side."""
    found = strange(text, "")
    return bool(found.garbled) or bool(found.hanja and len(found.rare_syllables) + len(found.foreign_hanja) >= RARE)


def _learned(one: Encoded) -> list[int]:
    return [label for label in one.labels if label != NOT_LEARNED]


def _share(flags: object) -> float:
    values = list(flags)  # type: ignore[call-overload]
    return sum(values) / len(values) if values else 0.0
