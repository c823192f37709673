"""Marks, titles, lists, quotes: the outer form of an answer."""

from __future__ import annotations

import json
import re

from koalpaca_tune.instructions.text import folded, plain

CHOICES = ("제 답변은 예입니다.", "제 답변은 아니요입니다.", "제 답변은 아마도입니다.")
"""The three answers that `constrained_response` allows, as in IFEval-Ko's questions."""

COMMAS = ",，、،"
"""ASCII, full-width, the 모점 of vertical writing, Arabic."""

_BULLET = re.compile(r"^[^\S\n]*[*-][^\S\n]+\S", re.MULTILINE)
# markdown's rule: no space inside the marks
_HIGHLIGHT = re.compile(r"(?<!\*)(\*{1,3})(?=[^\s*])([^*\n]*[^\s*])\1(?!\*)")
# a link is no placeholder, nor is an empty box
_PLACEHOLDER = re.compile(r"\[([^\[\]\n]+)\](?!\()")
_TITLE = re.compile(r"<<([^<>\n]+)>>")
_FENCE = re.compile(r"```(?:json)?", re.IGNORECASE)
_TWO = re.compile(r"(?<!\*)\*{6}(?!\*)")
_LINE_START = r"^[^\S\n]*(?:[#>*_\[(<【「-]+[^\S\n]*)?"
_QUOTES = {'"': '"', "“": "”"}


def bullets(text: str) -> int:
    """Lines that begin with `* ` or `- `, nested ones too; `---` and `**굵게**` are none."""
    return len(_BULLET.findall(text))


def highlights(text: str) -> int:
    """Stretches between `*` or `**` within a line."""
    return len(_HIGHLIGHT.findall(text))


def placeholders(text: str) -> int:
    """Square brackets with something in them, as [주소]."""
    return sum(bool(inside.strip()) for inside in _PLACEHOLDER.findall(text))


def sections(text: str, mark: str) -> int:
    """How many numbers begin a line behind a mark, as `섹션 1`; one that is repeated counts once."""
    pattern = _LINE_START + r"\s*".join(map(re.escape, plain(mark).split())) + r"[^\S\n]*(\d+)"
    return len(set(re.findall(pattern, plain(text), re.MULTILINE)))


def has_title(text: str) -> bool:
    """`<<제목>>`, not empty, on one line."""
    return any(char.isalnum() for title in _TITLE.findall(text) for char in title)


def is_json(text: str) -> bool:
    """Whether the whole answer is one JSON object or list; a code fence around it is allowed."""
    said = text.strip()
    fence = _FENCE.match(said)
    if fence:
        said = said[fence.end() :].removesuffix("```")
    try:
        value = json.loads(said, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict | list)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def is_one_choice(text: str) -> bool:
    """Whether it says one of the three fixed answers, and not two of them."""
    said = plain(text)
    return sum(choice in said for choice in CHOICES) == 1


def has_postscript(text: str, mark: str) -> bool:
    """A line that begins with the mark, and something said behind it; `p. s.` is as good as `P.S.`"""
    letters = [part for part in re.split(r"[.\s]+", folded(mark)) if part]
    pattern = r"\.?\s?".join(map(re.escape, letters)) + r"(?!\w)\W*\w"
    return re.search(_LINE_START + pattern, folded(text), re.MULTILINE) is not None


def two_responses(text: str) -> bool:
    """Two different answers parted by `******`; a mark may also open or close."""
    parts = [part.strip() for part in _TWO.split(text)]
    if len(parts) > 2:
        parts = parts[not parts[0] : len(parts) - (not parts[-1])]
    return len(parts) == 2 and all(parts) and _joined(parts[0]) != _joined(parts[1])


def repeats(text: str, wanted: str) -> bool:
    """Whether it begins with the request word for word; line breaks and runs of spaces aside."""
    return _joined(text).startswith(_joined(wanted))


def ends_with(text: str, phrase: str) -> bool:
    """Whether it ends with a phrase; closing quotation marks aside."""
    return folded(text).rstrip(' \t\n"”').endswith(folded(phrase).strip().rstrip('"”'))


def is_quoted(text: str) -> bool:
    """Whether the whole is between double quotation marks, straight or curved (“ ”)."""
    said = text.strip()
    return len(said) > 2 and _QUOTES.get(said[0]) == said[-1]


def has_no_comma(text: str) -> bool:
    """No comma of any kind, also not within 1,000."""
    return not any(comma in text for comma in COMMAS)


def _joined(text: str) -> str:
    return " ".join(folded(text).split())
