"""Examples that cannot be learned from as they are: too long, or with nothing to learn. Each is counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Encoded


@dataclass
class Counts:
    """What became of the examples, and their tokens."""

    examples: int = 0
    too_long_dropped: int = 0
    too_long_cut: int = 0
    nothing_to_learn: int = 0
    kept: int = 0
    tokens: int = 0
    learned_tokens: int = 0

    def as_dict(self) -> dict[str, int]:
        """For record.json."""
        return asdict(self)


def limit(
    encoded: Iterable[Encoded], max_length: int, too_long: Literal["drop", "cut"], where: str
) -> tuple[list[Encoded], Counts]:
    """Keeps what fits in `max_length` tokens and has something to learn.

    Raises:
        KoalpacaError: nothing is left (data-nothing-left), with the counts.
    """
    counts = Counts()
    kept: list[Encoded] = []
    for one in encoded:
        counts.examples += 1
        fits = one
        if len(one.ids) > max_length:
            if too_long == "drop":
                counts.too_long_dropped += 1
                continue
            counts.too_long_cut += 1
            fits = Encoded(one.ids[:max_length], one.labels[:max_length], one.origin)
        if not fits.learned:
            counts.nothing_to_learn += 1
            continue
        kept.append(fits)
        counts.tokens += len(fits.ids)
        counts.learned_tokens += fits.learned
    counts.kept = len(kept)
    if not kept:
        raise KoalpacaError(
            "data-nothing-left",
            f"of {counts.examples} examples, {counts.too_long_dropped} are longer than {max_length} tokens and "
            f"{counts.nothing_to_learn} have nothing to learn: none is left.",
            where=where,
            fix="Raise data.max_length, or check the answers.",
        )
    return kept, counts
