"""KorQuAD 1.0's official scores: exact match and character F1 after its own normalisation.

Lim et al. (2019), "KorQuAD1.0: Korean QA Dataset for Machine Reading Comprehension". F1 counts characters, since
Korean words carry particles: 임수경이 against 임수경 is 0.857, where SQuAD's words give 0. The one addition: texts
are put into NFC first, which changes nothing in composed Hangul, the only one that the set has.
"""

from __future__ import annotations

import string
from collections import Counter

from koalpaca_tune.measures.text import composed

# quotes and brackets part words; other ASCII punctuation vanishes, and “ ” 「 」 stay, as in the official rule
_PARTING = "'\"《》<>〈〉()‘’"
_RULE = str.maketrans({**dict.fromkeys(string.punctuation, ""), **dict.fromkeys(_PARTING, " ")})


def normalise(text: str) -> str:
    """A text as compared: quotes and brackets as spaces, lower case, no ASCII punctuation, single spaces."""
    return " ".join(composed(text).lower().translate(_RULE).split())


def exact(answer: str, gold: str) -> float:
    """1 when both are equal after normalisation, else 0."""
    return float(normalise(answer) == normalise(gold))


def f1(answer: str, gold: str) -> float:
    """F1 over bags of characters without spaces, 0..1; 0 when nothing is shared, two empty texts included."""
    one, two = (Counter(normalise(text).replace(" ", "")) for text in (answer, gold))
    shared = (one & two).total()
    return 2 * shared / (one.total() + two.total()) if shared else 0.0
