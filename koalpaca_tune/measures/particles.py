"""Particles that do not fit the word before them: 나무은, 사람를, 집로.

The search is `data.quality.particles`, Kiwi's counterfactual included. Short quotes are left out: who writes that
'나무은' is wrong makes no error.
"""

from __future__ import annotations

import re

from koalpaca_tune.data.quality import particles
from koalpaca_tune.data.quality.particles import Wrong
from koalpaca_tune.measures.text import composed

_MENTIONED = re.compile(r"'[^'\n]{1,15}'|‘[^’\n]{1,15}’|\"[^\"\n]{1,15}\"|“[^”\n]{1,15}”")


def errors(answer: str) -> tuple[Wrong, ...]:
    """The particles of an answer that do not fit, as written and as they should be."""
    text = _MENTIONED.sub(lambda quoted: "·" * len(quoted[0]), composed(answer))
    return (*particles.after_other(text), *particles.judge(particles.candidates(text)))
