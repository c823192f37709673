"""Code in a text: fenced and inline Markdown code, which cleaning leaves as it is."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable

_CODE = re.compile(
    r"^[ \t]{0,3}(?P<fence>`{3,})[^`\n]*\n(?:.*?^[ \t]{0,3}(?P=fence)`*[ \t]*$|.*\Z)"
    r"|(?<!`)(?P<tick>`{1,2})(?!`)[^`\n]+(?<!`)(?P=tick)(?!`)",
    re.MULTILINE | re.DOTALL,
)


def spans(text: str) -> list[tuple[int, int]]:
    """Where the code is, in order. A fence that is never closed reaches to the end."""
    return [match.span() for match in _CODE.finditer(text)]


def sub(pattern: re.Pattern[str], change: str | Callable[[re.Match[str]], str], text: str) -> str:
    """`pattern.sub`, but a match that touches code stays."""
    if "`" not in text or not (code := spans(text)):
        return pattern.sub(change, text)
    ends = [end for _, end in code]

    def outside(match: re.Match[str]) -> str:
        n = bisect_left(ends, match.start() + 1)
        if n < len(code) and code[n][0] < match.end():
            return match[0]
        return match.expand(change) if isinstance(change, str) else change(match)

    return pattern.sub(outside, text)
