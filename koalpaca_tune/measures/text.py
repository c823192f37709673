"""Text as all measures read it."""

from __future__ import annotations

import re
import unicodedata

_HALVES = re.compile("[\ud800-\udfff]")


def composed(text: str) -> str:
    """A text in NFC; half a character (a lone surrogate, from JSON) becomes U+FFFD, which Kiwi can read."""
    return unicodedata.normalize("NFC", _HALVES.sub("\ufffd", text))
