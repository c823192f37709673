"""Loops and variety: whether an answer turns in a circle, and how much of what it says is new.

`data.quality.repeats` drops training records by the share of repeated character 4-grams. That share is kept here
(`repetition`), but a verdict needs more: ㅋㅋㅋㅋ and parallel sentences (의사는 ... 사람입니다. 교사는 ...
사람입니다.) have a high share and are no loop, and a loop over seven words has a low one. So `loops` asks for
consecutive copies, sentences that come again, stretches that hardly have a new pair of morphemes, and lists that
come back to the same items.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from koalpaca_tune import korean
from koalpaca_tune.data.quality import repeats
from koalpaca_tune.measures import grams, morphemes
from koalpaca_tune.measures.text import composed

_STRETCH = 60
"""Morphemes of a stretch: the pairs of any long text come back."""
_SHORTEST = 12
_NEW_PAIRS = 0.5
"""A stretch with a smaller share of different pairs is a loop; parallel sentences have 0.6 and more."""
_NEW_NUMBERED = 0.35
"""The same where all numbers count as one; a list of dates has 0.4 and more."""

_LAUGHTER = "ㅋㅎㅠㅜㅇㄷㄱㅡ하호히헤후흐크킥킬낄깔껄아야오우와으어엉흑꺄훗쿄캬"
_SAME = re.compile(rf"([^\W\d_{_LAUGHTER}a-z])\1{{9,}}")
_SQUEEZED = re.compile(r"(.)\1{2,}", re.DOTALL)
_COPIES = re.compile(r"(.{2,80}?)\1{3,}", re.DOTALL)
_SPACE = re.compile(r"\s+")
_DIGITS = re.compile(r"\d+")
_LEAST_COPIED = 14

_REPEATED_SENTENCES = 0.5
# empty headings, which a model without an end token writes on and on
_HEADINGS = re.compile(r"(?:#+ ){8,}")

_ITEM = re.compile(r"[\n,、]")
_MARKER = re.compile(r"^\s*(?:[-*•·]|\(?\d{1,3}[.)])\s*")
_LEAST_ITEMS, _REPEATED_ITEMS = 8, 0.5
_LONGEST_ITEM = 60


def repetition(answer: str) -> float | None:
    """Share of character 4-grams that stood in the answer before, 0..1; None for an answer without letters."""
    return korean.repetition(answer) if any(map(str.isalnum, answer)) else None


def distinct(answer: str, n: int) -> float | None:
    """Share of different n-grams of morphemes (Li et al. 2016), 0..1; None for fewer than 10 morphemes.

    Of an answer longer than 50 morphemes the mean over all its stretches of 50 (Covington and McFall 2010), since
    the plain share falls with length and a model that writes more would look duller.
    """
    words = morphemes.of(answer)
    if len(words) < _DECIDABLE:
        return None
    shares = [_distinct(words[at : at + _WINDOW], n) for at in range(max(1, len(words) - _WINDOW + 1))]
    return sum(shares) / len(shares)


_DECIDABLE, _WINDOW = 10, 50


def _distinct(words: Sequence[str], n: int) -> float:
    counted = grams.of(words, n)
    return len(counted) / counted.total()


def loops(answer: str) -> tuple[str, ...]:
    """What an answer repeats in a circle, each as a short piece of it; empty when it does not."""
    answer = composed(answer)
    text = _SPACE.sub(" ", answer).strip()
    found = (one for search in (_copies, _sentences, _circling, _items) for one in search(text, answer))
    return tuple(dict.fromkeys(found))


def _copies(text: str, answer: str) -> Iterator[str]:
    """The same thing at least four times in a row. Laughter and rows of marks are none."""
    yield from (found[0][:_SHOWN] for found in _SAME.finditer(text))
    yield from (found[0][:_SHOWN] for found in _HEADINGS.finditer(f"{text} "))
    squeezed = _SQUEEZED.sub(r"\1\1", text)
    for found in _COPIES.finditer(f"{squeezed} "):
        unit = found[1]
        if len(found[0]) >= _LEAST_COPIED and len(set(unit)) > 1 and any(map(str.isalnum, unit)):
            yield unit.strip()[:_SHOWN]


def _sentences(text: str, answer: str) -> Iterator[str]:
    """Half of the sentences, or more, stood there before: the one that came most often."""
    share, sentence = repeats.repeated_sentences(answer)
    if share >= _REPEATED_SENTENCES:
        yield sentence[:_SHOWN]


def _circling(text: str, answer: str) -> Iterator[str]:
    """Stretches with hardly a new pair of morphemes, also when only numbers are new: 1번을 풀고 2번을 풀고"""
    words = morphemes.of(answer)
    if len(words) < _SHORTEST:
        return
    numbers = sum(word.endswith("/SN") for word in words)
    alike = [_DIGITS.sub("0", word) for word in words] if numbers < len(words) / 2 else words
    for at in range(0, max(1, len(words) - _STRETCH // 2), _STRETCH // 2):
        stretch = words[at : at + _STRETCH]
        if len(stretch) < _SHORTEST:
            continue
        if _distinct(stretch, 2) < _NEW_PAIRS or _distinct(alike[at : at + _STRETCH], 2) < _NEW_NUMBERED:
            pair, _ = grams.of(stretch, 2).most_common(1)[0]
            yield " ".join(word.split("/")[0] for word in pair)


def _items(text: str, answer: str) -> Iterator[str]:
    """Lists whose items come back, or stay empty."""
    items = [_MARKER.sub("", part).strip() for part in _ITEM.split(answer) if part.strip()]
    items = [item for item in items if len(item) <= _LONGEST_ITEM]
    if len(items) < _LEAST_ITEMS:
        return
    if 1 - len(set(items)) / len(items) >= _REPEATED_ITEMS:
        yield max(items, key=items.count)[:_SHOWN] or "-"


_SHOWN = 40
