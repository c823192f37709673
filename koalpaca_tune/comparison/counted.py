"""Which items count: those left out, those that repeat, those with two right answers."""

from __future__ import annotations

from collections.abc import Iterator

from koalpaca_tune.comparison import titles
from koalpaca_tune.comparison.notice import Notice
from koalpaca_tune.comparison.outcomes import Outcome
from koalpaca_tune.comparison.pairing import Pair, TaskPair
from koalpaca_tune.comparison.power import FEWEST

LEFT_OUT = 0.05
"""Share of items without a value on both sides that is worth saying."""


def left_out(task: TaskPair, outcome: Outcome) -> Iterator[Notice]:
    """A measure that only some items decide: the mean over those is not the mean over all."""
    total, n = len(task.lines_before), len(outcome.rows)
    failed = any("error" in line for lines in (task.lines_before, task.lines_after) for line in lines)
    if outcome.left_out <= LEFT_OUT * total or failed:
        # a judge that failed is told of by itself
        return
    lost, gained = (
        int((side.get("undecided") or {}).get(outcome.measure) or 0) for side in (task.before, task.after)
    )
    title, title_en = titles.of_row(task.before, outcome.measure)
    few = n < FEWEST
    yield Notice(
        "left-out",
        f"{title}: {total:,}개 가운데 {n:,}개만 견주었습니다. 나머지는 판단할 글자가 없는 답입니다 "
        f"(전 {lost:,}개, 후 {gained:,}개). "
        + ("이 수로는 무엇이 달라져도 알아챌 수 없습니다." if few else "견준 것이 전체를 대신하지 않습니다."),
        f"{title_en}: only {n:,} of {total:,} were compared; the other answers have nothing to decide it by "
        f"({lost:,} before, {gained:,} after). "
        + ("So few cannot show any change." if few else "Those compared do not stand for all."),
    )


def duplicates(both: Pair) -> Iterator[Notice]:
    """Held-out rows that repeat another."""
    twice = max((int(task.before.get("duplicates") or 0) for task in both.tasks), default=0)
    if twice:
        yield Notice(
            "duplicates",
            f"따로 둔 질문 가운데 {twice:,}개는 앞의 것과 똑같아 한 번만 셌습니다.",
            f"{twice:,} held-out rows repeat another and are counted once.",
        )


def ambiguous(both: Pair) -> Iterator[Notice]:
    """Items of letters whose right option stands under two of them."""
    for task in both.tasks:
        count = int(task.before.get("ambiguous") or 0)
        if count:
            yield Notice(
                "ambiguous",
                f"{task.before['title']}: 문항 {count:,}개는 정답과 똑같은 보기가 하나 더 있습니다. "
                "둘 다 맞지만 하나만 셉니다.",
                f"{task.before['title_en']}: {count:,} items print their right option twice; either is "
                "right, one counts.",
            )
