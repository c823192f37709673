"""What `koalpaca eval` shows: the suites and tasks there are, the plan of a run, and its scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from koalpaca_tune.cli.show import console, done

if TYPE_CHECKING:
    from koalpaca_tune.runs.evaluate import Prepared
    from koalpaca_tune.suites.tasks import Suite, Task

KINDS = {
    "choice": "고르기 (choices)",
    "answer": "답 쓰기 (written)",
    "text": "글 (text)",
    "instruction": "지시 (instructions)",
    "judged": "채점 (judged)",
}


def listing() -> None:
    """Suites and tasks: licence, profiles, how many items are shipped, or where they come from."""
    from koalpaca_tune.suites import tasks

    suites = _table(
        "묶음 (suites)", ["이름 (name)", "과제 (tasks)", "문항 (items)", "예시 (shots)", "제목 (title)"]
    )
    for name in tasks.suite_names():
        suite = tasks.load_suite(name)
        shots = sorted({task.shots for task in suite.tasks})
        suites.add_row(name, str(len(suite.tasks)), _items(suite), "-".join(map(str, shots)), suite.title)
    console.print(suites)
    console.print()
    done("과제 (tasks): 제목; 종류와 방식; 라이선스; 문항이 있는 곳 (title; kind; licence; where the items are)")
    for path in tasks.shipped().values():
        task = tasks.load_task(path)
        kind = ": ".join(filter(None, [KINDS[task.file.kind], ", ".join(tasks.profiles(task.file))]))
        done(f"{task.name}: {task.file.title}; {kind}; {task.file.licence}")
        done(f"    {_where(task)}")


def _items(suite: Suite) -> str:
    most = [task.sample for task in suite.tasks if task.sample is not None]
    every = max(task.every for task in suite.tasks)
    if most:
        return f"많아야 (at most) {max(most)}"
    return f"1/{every}" if every > 1 else "모두 (all)"


def _where(task: Task) -> str:
    from koalpaca_tune.suites import items

    source = task.file.source
    if source.items is not None:
        return f"{len(items.load(task, None).items)}, 싣고 있음 (shipped)"
    local = [source.local] if source.local else []
    hub = [f"hf:{source.hub.repo}"] if source.hub else []
    return " | ".join([*local, *hub])


def plan(prepared: Prepared) -> None:
    """Items, requests and tokens of each task, and the smallest change that it can show."""
    from koalpaca_tune.comparison import planning
    from koalpaca_tune.evaluation.heldout import MEASURES

    heads = [
        "과제 (task)",
        "문항 (items)",
        "요청 (requests)",
        "토큰 (tokens)",
        "가장 긴 것 (longest)",
        "쓸 토큰 (writes)",
    ]
    work = _table("할 일 (work)", heads)
    sizes = prepared.sizes()
    for one in sizes:
        numbers = (one.items, one.requests, one.tokens, one.longest, one.writes)
        work.add_row(one.title, *(f"{number:,}" for number in numbers))
    total = [sum(numbers) for numbers in zip(*((s.items, s.requests, s.tokens) for s in sizes), strict=True)]
    work.add_row("합 (total)", *(f"{number:,}" for number in total), "", f"{sum(one.writes for one in sizes):,}")
    console.print(work)
    console.print()
    tests = len(prepared.loaded) + (1 + len(MEASURES) if prepared.heldout else 0)
    counts = {task.file.title: len(chosen.items) for task, chosen in prepared.loaded}
    head, *rows = planning.table(counts, tests=tests)
    shown = _table("무엇을 찾을 수 있나 (what can be found)", head)
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
    for line in planning.notes(tests):
        console.print(line, style="dim")


def scores(folders: Sequence[Path]) -> None:
    """Each task's measures that a comparison would test, and how many items have no score."""
    from koalpaca_tune.comparison import titles
    from koalpaca_tune.evaluation.run import Result

    results = [Result.read(folder) for folder in folders]
    shown = _table("점수 (scores)", ["과제 (task)", "문항 (items)", *(folder.name for folder in folders)])
    for sides in zip(*(result.tasks for result in results), strict=True):
        task = sides[0]
        for measure in [task["primary"]] if task["primary"] else list(task["metrics"]):
            title, _ = titles.of_row(task, measure)
            shown.add_row(title, str(task["items"]), *(_score(side, measure) for side in sides))
    console.print(shown)
    for folder, result in zip(folders, results, strict=True):
        for task in result.tasks:
            for korean, english in _lacking(task):
                done(f"{folder.name}, {task['title']}: {korean} ({english})")


def _score(task: Mapping[str, Any], measure: str) -> str:
    from koalpaca_tune.comparison import words

    value = task["metrics"][measure]
    if value is None:
        return "–"
    if "judge" in task:
        return words.value(value, "points")
    return words.value(value, "bits" if measure == "bits_per_character" else "share")


def _lacking(task: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    items = task["items"]
    if errors := task.get("errors"):
        korean = f"{items}문항 가운데 {errors}문항을 채점하지 못했습니다. 같은 명령으로 다시 묻습니다"
        yield korean, f"{errors} of {items} items have no score; the same command asks them again"
    if (cut := task.get("cut")) and cut * 20 > items:
        yield f"{items}답 가운데 {cut}답이 길이 제한에서 끊겼습니다", f"{cut} of {items} cut by the length limit"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for n, column in enumerate(columns):
        # Korean above English: half as wide
        table.add_column(column.replace(" (", "\n("), overflow="fold", no_wrap=n == 0)
    return table
