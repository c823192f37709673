"""Spaces that mean nothing: runs inside a line, at its end, many empty lines. Code and tables keep theirs."""

from __future__ import annotations

import re
from collections import Counter

from koalpaca_tune.data.cleaning import code

_ODD = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_TRAILING = re.compile(r"[ \t]+(?=\n|\Z)")
_EMPTY_LINES = re.compile(r"\n{3,}")
_SPACED_LINE = re.compile(r"[^\n]*(?:  |\t)[^\n]*")
# after an opening bracket it is a blank to fill in: 고래(   ) 바다에
_INNER = re.compile(r"(?<=[^ \t(\[{<])(?: *\t[ \t]*|  +)(?=[^ \t])")


def tidy(text: str) -> str:
    """One space between words, none at line ends, one empty line at most; indents stay.

    Not in code, in lines with inline code or `|` or indented by four spaces or a tab, nor in tables of tabs
    (two lines with equally many). Spaces of other kinds (U+00A0, U+3000 and so on) become plain ones.
    """
    if not text.isascii() and _ODD.search(text):
        text = code.sub(_ODD, " ", text)
    if " \n" in text or "\t\n" in text or text.endswith((" ", "\t")):
        text = code.sub(_TRAILING, "", text)
    if "\n\n\n" in text:
        text = code.sub(_EMPTY_LINES, "\n\n", text)
    if "  " in text or "\t" in text:
        columns = _columns(text)
        text = code.sub(_SPACED_LINE, lambda match: _single(match[0], columns), text)
    return text


def _columns(text: str) -> frozenset[int]:
    """Counts of tabs that two lines or more have: columns of a table."""
    if text.count("\t") < 2 or "\n" not in text:
        return frozenset()
    counts = Counter(line.count("\t") for line in text.split("\n"))
    return frozenset(tabs for tabs, lines in counts.items() if tabs and lines > 1)


def _single(line: str, columns: frozenset[int]) -> str:
    if line.startswith(("    ", "\t")) or "|" in line or line.count("\t") in columns:
        return line
    return _INNER.sub(" ", line)
