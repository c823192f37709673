"""How much of a suite was run: a few items of it, or tasks beside it, are not that suite's result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from koalpaca_tune.comparison.notice import Notice
from koalpaca_tune.comparison.pairing import Pair


@dataclass(frozen=True, slots=True)
class Scope:
    """What differs from the suite as it is written.

    Attributes:
        limit: --limit, where it left something out; None otherwise.
        limited: titles of the tasks that it cut.
        asked, there: items of those tasks that were asked, and that there are.
        added: (Korean, English) titles of tasks beside those of the suite.
        chosen: titles of the tasks, where no suite was named at all.
    """

    limit: int | None = None
    limited: tuple[str, ...] = ()
    asked: int = 0
    there: int = 0
    added: tuple[tuple[str, str], ...] = ()
    chosen: tuple[tuple[str, str], ...] = ()

    def heading(self) -> list[tuple[str, str]]:
        """What stands behind the suite's title, (Korean, English); nothing for a whole suite."""
        found = []
        if self.limit is not None:
            found.append(
                (f"과제마다 처음 {self.limit}문항만 (--limit)", f"first {self.limit} items of a task only")
            )
        if self.added:
            found.append(("더한 과제: " + _joined(self.added, 0), "added: " + _joined(self.added, 1)))
        if self.chosen:
            found.append((_joined(self.chosen, 0), _joined(self.chosen, 1)))
        return found

    def notices(self, suite: str, suite_en: str) -> Iterator[Notice]:
        """The warning that a limited run is no result of its suite."""
        if self.limit is None:
            return
        yield Notice(
            "limited",
            f"문항 일부만 물었습니다 (--limit {self.limit}): {self.there:,}문항 가운데 {self.asked:,}문항. "
            f"‘{suite}’의 점수라고 할 수 없습니다. 처음 문항들은 전체를 닮지 않았을 수 있습니다.",
            f"Only some items were asked (--limit {self.limit}): {self.asked:,} of {self.there:,}. This is no "
            f"score of “{suite_en}”; the first items may be unlike the rest.",
        )


def of(both: Pair) -> Scope:
    """The scope of two evaluations of the same tasks."""
    tasks = both.before.tasks
    cut = [task for task in tasks if task.get("limit") is not None]
    names = [(str(task["title"]), str(task["title_en"])) for task in tasks if "skill" in task]
    return Scope(
        limit=max((int(task["limit"]) for task in cut), default=None),
        limited=tuple(str(task["title"]) for task in cut),
        asked=sum(int(task["items"]) for task in cut),
        there=sum(int(task.get("of_items") or task["items"]) for task in cut),
        added=tuple((str(task["title"]), str(task["title_en"])) for task in tasks if task.get("added")),
        chosen=tuple(names) if both.before.suite.get("name") == "tasks" else (),
    )


_SHOWN = 4


def _joined(titles: tuple[tuple[str, str], ...], language: int) -> str:
    more = len(titles) - _SHOWN
    rest = (f" 밖에 {more}개", f" and {more} more")[language] if more > 0 else ""
    return ", ".join(title[language] for title in titles[:_SHOWN]) + rest
