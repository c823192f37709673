"""Examples on the terminal, with the learned tokens coloured."""

from __future__ import annotations

from itertools import groupby

from rich.text import Text

from koalpaca_tune.cli.show import console
from koalpaca_tune.records import NOT_LEARNED, Encoded
from koalpaca_tune.tokens.encode import Encoder

LEARNED, FRAME = "bold green", "dim"


def coloured(encoded: Encoded, encoder: Encoder) -> Text:
    """The example's tokens as text, special tokens shown; what the loss counts in green."""
    text = Text()
    backend = encoder.vocabulary.backend
    pairs = zip(encoded.ids, encoded.labels, strict=True)
    for learned, group in groupby(pairs, key=lambda pair: pair[1] != NOT_LEARNED):
        ids = [token for token, _ in group]
        part = backend.decode(ids, skip_special_tokens=False)
        if learned and console.color_system is None:
            part = f"⟦{part}⟧"  # a pipe or a log shows no colour
        text.append(part, LEARNED if learned else FRAME)
    return text


def example(encoded: Encoded, encoder: Encoder) -> None:
    """Prints one example under a rule with its origin."""
    counted = f"{len(encoded.ids):,} tokens, {encoded.learned:,} learned"
    console.rule(Text(f"{encoded.origin}  ({counted})"), align="left", style="dim")
    console.print(coloured(encoded, encoder))
    console.print(Text("초록 또는 ⟦ ⟧: 배우는 토큰 (green or in brackets: learned)", style="dim"))
    console.print()
