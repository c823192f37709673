"""What a preparation cleans and masks."""

from __future__ import annotations

from typing import Literal, get_args

Step = Literal[
    # its evidence is control characters and soft hyphens, which later steps would remove
    "mojibake",
    "line-ends",
    # an entity can stand for any character that the steps below look at
    "markup",
    # a zero-width space can hide inside a letter, a full-width word or a special token
    "invisible",
    "nfc",
    "width",
    "jamo",
    # full-width brackets may have become a special token just now
    "special-tokens",
    "laughter",
    # what was removed leaves spaces behind
    "spaces",
    "outer-space",
]
"""Cleaning steps, in the order in which they run by default."""

STEPS: tuple[Step, ...] = get_args(Step)

Kind = Literal["resident-number", "phone", "email", "card", "account", "address"]
"""Kinds of personal data that can be masked."""

KINDS: tuple[Kind, ...] = get_args(Kind)
