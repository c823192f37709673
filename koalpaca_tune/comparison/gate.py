"""A comparison as a gate for shell scripts and CI: nothing passes that got worse."""

from __future__ import annotations

from koalpaca_tune.comparison import words
from koalpaca_tune.comparison.compare import Comparison, Row

STATUS = 3
"""Exit status of a significant regression; 2 is a mistake in what was asked."""


def regressions(comparison: Comparison) -> list[Row]:
    """The rows that got worse by the adjusted p, in the order of the report."""
    return [row for row in comparison.rows if row.verdict == "worse"]


def line(row: Row) -> str:
    """One regression in one line, for a log: task, measure, before, after, interval, adjusted p."""
    texts = words.row(row)
    return (
        f"regression: {row.task} {row.measure}: {texts['before']} -> {texts['after']}, {texts['change']} "
        f"{texts['interval']}, p {words.p_value(row.p_holm)} (Holm), n {row.paired.n}: {row.title}"
    )


def passed(comparison: Comparison) -> str:
    """What is said when nothing got worse: the size of a loss that could have been seen, as far as it is known."""
    found = [row.paired.smallest for row in comparison.rows if row.unit == "share" and row.paired.smallest]
    seen = f"; a loss below {max(found) * 100:.1f} points may not be seen" if found else ""
    limit = comparison.scope.limit
    cut = "" if limit is None else f" (of the first {limit} items of a task only)"
    return f"gate passed{cut}: no significant regression in {len(comparison.rows)} measures{seen}"
