"""chrF2 (Popović 2015): F-score over character n-grams of length 1 to 6, recall weighing four times.

As sacrebleu 2 computes it for one sentence: white space left out, precision and recall averaged over the lengths
that both texts have. Written here, since it is short and sacrebleu brings five packages; tests hold
sacrebleu's values.
"""

from __future__ import annotations

from koalpaca_tune.measures import grams
from koalpaca_tune.measures.text import composed

_LONGEST = 6
_BETA_SQUARED = 4.0


def score(answer: str, gold: str) -> float:
    """chrF2 of two texts, 0..1; two texts without any character agree."""
    one, two = ("".join(composed(text).split()) for text in (answer, gold))
    if one == two:
        return 1.0
    precisions, recalls = [], []
    for n in range(1, min(_LONGEST, len(one), len(two)) + 1):
        given, wanted = grams.of(one, n), grams.of(two, n)
        shared = (given & wanted).total()
        precisions.append(shared / given.total())
        recalls.append(shared / wanted.total())
    if not any(precisions):
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return (1 + _BETA_SQUARED) * precision * recall / (_BETA_SQUARED * precision + recall)
