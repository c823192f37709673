"""Before running: which changes a suite can show, and how many items a change of some points needs.

Every measure is taken as yes/no. A share of 0..1 (an F1, chrF) has at most the spread of a yes/no measure with
the same share of changed items, so its smallest detectable change is at most about the one given. Bits per
character have no such bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from koalpaca_tune.comparison import power
from koalpaca_tune.comparison.power import ALPHA, POWER

CHANGED = 0.2
"""Share of items assumed to change their outcome, where nothing is known."""

POINTS = (0.02, 0.05, 0.10)
"""Changes for which the table gives the items needed."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What one task can show.

    Attributes:
        name: the task.
        items: how many it has.
        smallest: smallest change found with 80 % power, 0..1; None: no change at all.
        needed: change -> items needed; None: more than ten million.
    """

    name: str
    items: int
    smallest: float | None
    needed: Mapping[float, int | None]


def plan(
    tasks: Mapping[str, int],
    *,
    tests: int | None = None,
    changed: float = CHANGED,
    points: Sequence[float] = POINTS,
    goal: float = POWER,
) -> list[Planned]:
    """One row for each task, at the level that Holm asks of the first of all tests (alpha / tests).

    Args:
        tasks: name -> items, as they would be run (after `every` or a limit).
        tests: tested rows of the whole comparison; None: one for each task. Held-out data add rows of their own.
        changed: assumed share of items whose outcome changes, 0..1.
        points: changes, 0..1, whose items are wanted.
        goal: power.
    """
    alpha = ALPHA / max(1, tests or len(tasks))
    needed = {point: power.items_needed(point, changed, alpha=alpha, goal=goal) for point in points}
    return [
        Planned(name, items, power.smallest_change(changed, items, alpha=alpha, goal=goal), needed)
        for name, items in tasks.items()
    ]


def table(
    tasks: Mapping[str, int],
    *,
    tests: int | None = None,
    changed: float = CHANGED,
    points: Sequence[float] = POINTS,
    goal: float = POWER,
) -> list[list[str]]:
    """The plan as rows of texts: a head, then task, items, smallest change, items needed for each of `points`."""
    head = ["과제 (task)", "문항 (items)", "찾을 수 있는 최소 변화 (smallest change)"]
    head += [f"{point * 100:g}%p에 필요한 문항 (items needed)" for point in points]
    rows = [head]
    for one in plan(tasks, tests=tests, changed=changed, points=points, goal=goal):
        smallest = "–" if one.smallest is None else f"±{one.smallest * 100:.1f}%p"
        rows.append([one.name, f"{one.items:,}", smallest, *(_count(one.needed[point]) for point in points)])
    return rows


def notes(tests: int, *, changed: float = CHANGED, goal: float = POWER) -> tuple[str, str]:
    """What the plan assumes, in Korean and English."""
    level = ALPHA / max(1, tests)
    return (
        f"문항의 {changed * 100:g}%가 답이 바뀐다고 보고, 검정 {tests}개의 Holm 조정에서 가장 엄한 수준"
        f"(α = {level:.4g})과 검정력 {goal * 100:g}%로 셌습니다 (정확한 McNemar 검정).",
        f"Assumes that {changed * 100:g}% of the items change; exact McNemar test at Holm's strictest level over "
        f"{tests} tests (alpha = {level:.4g}), power {goal * 100:g}%.",
    )


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"
