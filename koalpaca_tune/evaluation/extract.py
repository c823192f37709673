"""What of a written answer is held against the right one."""

from __future__ import annotations

import re
from collections.abc import Callable

_NUMBER = re.compile(
    # 5-3 and 2024-2025 hold no minus, `3,` and 10,20 no thousands
    r"(?:(?<![\w)\]])[-−])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?"
)
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
    at = text.rfind("\\boxed{")
    if at < 0:
        return _number(text)
    begin, depth = at + len("\\boxed{"), 1
    for n in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[n], 0)
        if not depth:
            # `x = 3` is 3
            return _plain_number(text[begin:n].rsplit("=", 1)[-1])
    return ""


def _number(text: str) -> str:
    found = _NUMBER.findall(text)
    return _plain_number(found[-1]) if found else ""


def _plain_number(text: str) -> str:
    bare = text.strip().strip("$").strip().replace("−", "-")
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", bare):
        bare = bare.replace(",", "")
    if re.fullmatch(r"-?\d+\.\d+", bare):
        bare = bare.rstrip("0").removesuffix(".")
    return bare


def _letter(text: str) -> str:
    for pattern in _LETTER:
        if found := pattern.findall(text):
            return str(found[-1]).upper()
    return ""


EXTRACT: dict[str, Callable[[str], str]] = {
    "whole": str.strip,
    "first-line": _first_line,
    "boxed": _boxed,
    "number": _number,
    "letter": _letter,
}
"""Name in a task file -> (written text) -> what is compared; empty: nothing of the kind was written."""
GOLD: dict[str, Callable[[str], str]] = {
    **dict.fromkeys(EXTRACT, str.strip),
    "boxed": _plain_number,
    "number": _plain_number,
}
"""The same for a right answer: 42.0 is 42."""
