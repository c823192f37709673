"""What a preparation cleans and masks."""

from __future__ import annotations

from typing import Literal

Step = Literal["line-ends", "invisible", "nfc", "outer-space"]
"""Cleaning steps, in the order in which they run by default."""

STEPS: tuple[Step, ...] = ("line-ends", "invisible", "nfc", "outer-space")

Kind = Literal["resident-number", "phone", "email", "card", "account", "address"]
"""Kinds of personal data that can be masked."""

KINDS: tuple[Kind, ...] = ("resident-number", "phone", "email", "card", "account", "address")
