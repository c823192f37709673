"""Label-token audit: would another way to rank the choices say something else?

A summed log-likelihood favours choices of few tokens. The same items ranked per character, per token, and by how
much the question adds to a choice (PMI, Holtzman et al. 2021) show whether the verdict rests on that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from koalpaca_tune.comparison import stats
from koalpaca_tune.comparison.pairing import TaskPair
from koalpaca_tune.comparison.power import ALPHA
from koalpaca_tune.comparison.stats import Paired
from koalpaca_tune.comparison.verdict import Verdict, verdict_of
from koalpaca_tune.evaluation import metrics


@dataclass(frozen=True, slots=True)
class Scoring:
    """One way to rank, and what would be said by it, with the same adjustment as the report's."""

    metric: str
    paired: Paired
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Audit:
    """One choice task by all ways that can be told apart on its items.

    Attributes:
        used: the metric of the report.
        scorings: the used one first.
        label_tokens: tokens of each label, where all items have the same labels.
    """

    task: str
    title: str
    title_en: str
    used: str
    scorings: tuple[Scoring, ...]
    label_tokens: tuple[tuple[str, int], ...]

    @property
    def depends(self) -> bool:
        """Whether the verdict depends on the way."""
        return len({scoring.verdict for scoring in self.scorings}) > 1


def of(task: TaskPair, used: str, p: Sequence[float], row: int) -> Audit | None:
    """Audits one choice task.

    Args:
        used: its tested metric.
        p: unadjusted p-values of all rows of the report.
        row: which of them is this task's.

    Returns:
        None where every way ranks by the same numbers.
    """
    sides = (task.lines_before, task.lines_after)
    names = [used if used in metrics.SCORINGS else "accuracy"]
    lines = task.lines_before
    for name, key in (("accuracy", None), ("accuracy_norm", "characters"), ("accuracy_token", "tokens")):
        if name not in names and (key is None or any(len(set(line[key])) > 1 for line in lines)):
            names.append(name)
    if "accuracy_pmi" not in names and all("unconditional" in line for side in sides for line in side):
        names.append("accuracy_pmi")
    if len(names) < 2:
        return None
    scorings = []
    for name in names:
        paired = stats.proportions(*(metrics.right(side, name) for side in sides))
        adjusted = stats.holm([paired.p if n == row else other for n, other in enumerate(p)])[row]
        scorings.append(Scoring(name, paired, verdict_of(paired.difference, adjusted, ALPHA)))
    fixed = all(line["choices"] == lines[0]["choices"] for line in lines)
    labels = [choice.strip() for choice in lines[0]["choices"]]
    tokens = tuple(zip(labels, lines[0]["tokens"], strict=True)) if fixed else ()
    title, title_en = task.before["title"], task.before["title_en"]
    return Audit(task.name, title, title_en, names[0], tuple(scorings), tokens)
