"""What of a written answer is held against the right one."""

from __future__ import annotations

import re
from collections.abc import Callable

from koalpaca_tune.evaluation import numbers

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_LETTER = (
    # KorMedMCQA (arXiv 2403.01469, appendix B): the first of these that is found, and its last occurrence
    re.compile(r"정답[은:：\s]*\(?([A-Ea-e])(?![A-Za-z])"),
    re.compile(r"(?<![A-Za-z])([A-Ea-e])\."),
    re.compile(r"(?<![A-Za-z])([A-Ea-e])(?![A-Za-z])"),
)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _boxed(text: str) -> str:
    r"""The content of the last \boxed{...}, braces inside it matched; without one, the last number."""
    found = list(_BOX.finditer(text))
    if not found:
        return numbers.last(text)
    begin, depth = found[-1].end(), 1
    for n in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[n], 0)
        if not depth:
            return numbers.canonical(text[begin:n])
    return ""


def _letter(text: str) -> str:
    for pattern in _LETTER:
        if found := pattern.findall(text):
            return str(found[-1]).upper()
    return ""


EXTRACT: dict[str, Callable[[str], str]] = {
    "whole": str.strip,
    "first-line": _first_line,
    "boxed": _boxed,
    "number": numbers.last,
    "letter": _letter,
}
"""Name in a task file -> (written text) -> what is compared; empty: nothing of the kind was written."""
GOLD: dict[str, Callable[[str], str]] = {
    **dict.fromkeys(EXTRACT, str.strip),
    "boxed": numbers.canonical,
    "number": numbers.canonical,
}
"""The same for a right answer: 42.0 is 42."""
VERSIONS: dict[str, int] = {"boxed": 2, "number": 2}
"""Part of what two results must have in common, where the way of reading was changed: raise it with the way."""
