"""A warning of a comparison."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notice:
    """One warning: a code for programs, and the sentence in Korean and English."""

    code: str
    korean: str
    english: str
