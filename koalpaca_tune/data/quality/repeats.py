"""Answers that repeat: themselves (a loop, the same sentence again) or the question."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

from koalpaca_tune import korean

_WINDOW = 400
_FULL = 60

_SENTENCE = re.compile(r"[^\n.!?…。]+")
_SHORT_SENTENCE = 8


def loop(text: str) -> float:
    """Largest repetition (`korean.repetition`) among stretches of 400 characters; 0 for less than 60 characters.

    By stretches, since the 4-grams of any long text come back; below 60 characters a refrain is style.
    """
    if len(text) < _FULL:
        return 0.0
    if len(text) <= _WINDOW:
        return korean.repetition(text)
    starts = [*range(0, len(text) - _WINDOW, _WINDOW), len(text) - _WINDOW]
    return max(korean.repetition(text[start : start + _WINDOW]) for start in starts)


def repeated_sentences(text: str) -> tuple[float, str]:
    """Share of a text's sentences (of 8 characters and more) that stood there before, and the first one."""
    if len(text) < 2 * _SHORT_SENTENCE:
        return 0.0, ""
    sentences = [part.strip() for part in _SENTENCE.findall(text)]
    sentences = [part for part in sentences if len(part) >= _SHORT_SENTENCE]
    if len(sentences) < 2:
        return 0.0, ""
    counts = Counter(sentences)
    again = len(sentences) - len(counts)
    return again / len(sentences), counts.most_common(1)[0][0] if again else ""


_LETTERS = re.compile(r"[^\W_]+")
_WANTED = re.compile(
    r"따라\s?(?:말|해|써|읽)|그대로|반복|복사|똑같이|고쳐|바꿔|바꾸|교정|맞춤법|띄어쓰기|번역|옮겨|다시\s?(?:쓰|써)|repeat|copy"
)
_SHORTEST_ECHO = 6


def echo(question: str, answer: str) -> float:
    """How much an answer is the question again: 1 the same letters, else Dice's share of common character pairs.

    0 for fewer than 6 letters (안녕 — 안녕), and where the question asks to repeat, correct or translate.
    """
    one, two = "".join(_LETTERS.findall(answer)), "".join(_LETTERS.findall(question))
    if len(one) < _SHORTEST_ECHO or not len(one) / 2 <= len(two) <= len(one) * 2 or _WANTED.search(question):
        return 0.0
    if one == two:
        return 1.0
    pairs, others = set(pairwise(one)), set(pairwise(two))
    return min(0.99, 2 * len(pairs & others) / (len(pairs) + len(others)))
