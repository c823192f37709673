"""Overlap of an answer with one reference over morphemes: F1, ROUGE-1, ROUGE-2, ROUGE-L, BLEU.

Words would not do: 서울은 and 서울이 share none. Two texts without any morpheme (only punctuation) agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from koalpaca_tune.measures import grams, morphemes

_LONGEST = 4


def morpheme_f1(answer: str, gold: str) -> float:
    """F1 over bags of morphemes, 0..1 (Rajpurkar et al. 2016 count words)."""
    return rouge_n(answer, gold, 1)


def rouge_n(answer: str, gold: str, n: int) -> float:
    """F1 over n-grams of morphemes (Lin 2004), 0..1.

    When neither text is long enough for one n-gram, 1 for the same morphemes and 0 for others.
    """
    one, two = morphemes.of(answer), morphemes.of(gold)
    if len(one) < n and len(two) < n:
        return float(one == two)
    return grams.f1(grams.of(one, n), grams.of(two, n))


def rouge_l(answer: str, gold: str) -> float:
    """F1 by the longest common subsequence of morphemes (Lin 2004), 0..1."""
    one, two = morphemes.of(answer), morphemes.of(gold)
    if not one and not two:
        return 1.0
    return 2 * _common(one, two) / (len(one) + len(two))


def _common(one: Sequence[str], two: Sequence[str]) -> int:
    """Length of the longest common subsequence; a row of the table is one integer's bits (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for at, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << at
    full = (1 << len(one)) - 1
    row = full
    for word in two:
        matched = row & places.get(word, 0)
        row = (row + matched | row - matched) & full
    return len(one) - row.bit_count()


def bleu(answer: str, gold: str) -> float:
    """Sentence BLEU-4 over morphemes (Papineni et al. 2002), 0..1.

    As sacrebleu's for one sentence: only the lengths that the answer has, and a length without any match counts as
    half a match, the next as a quarter (Chen and Cherry 2014, smoothing 3); 0 when no morpheme matches.
    """
    one, two = morphemes.of(answer), morphemes.of(gold)
    if one == two:
        return 1.0
    logs: list[float] = []
    smoothing = 1.0
    for n in range(1, min(_LONGEST, len(one)) + 1):
        given = grams.of(one, n)
        matched: float = (given & grams.of(two, n)).total()
        if not matched:
            if n == 1:
                return 0.0
            smoothing /= 2
            matched = smoothing
        logs.append(math.log(matched / given.total()))
    if not logs:
        return 0.0
    brevity = min(1.0, math.exp(1 - len(two) / len(one)))
    return brevity * math.exp(sum(logs) / len(logs))
