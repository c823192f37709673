"""What one run asks: a suite or single tasks, with the options of the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace

from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.suites.tasks import Suite, Task, asked_by, find_task, load_suite, profiles, with_shots

Note = tuple[str, str]
"""Korean, English."""


@dataclass(frozen=True)
class Asked:
    """Options of a run; None leaves what the suite says.

    Attributes:
        suite: name or file.
        tasks: names or files; alone they are the whole run, with a suite they are added to it.
        profile: way to ask, for every task that has it.
        shots: examples, for every task that has a source of them.
        limit: first items of each task.
    """

    suite: str | None = None
    tasks: tuple[str, ...] = ()
    profile: str | None = None
    shots: int | None = None
    limit: int | None = None


def select(asked: Asked, default: str) -> tuple[Suite, tuple[Note, ...]]:
    """The suite that is run, and what an option did not reach.

    Args:
        default: suite where neither a suite nor tasks are named.

    Raises:
        KoalpacaError: unknown names, problems in files (see `tasks`), a profile that no task has (task-profile),
            examples that no task has a source for (task-shots).
    """
    suite = load_suite(asked.suite or default) if asked.suite or not asked.tasks else None
    tasks = _with(suite, asked.tasks)
    notes: list[Note] = []
    if asked.profile is not None:
        tasks, left = _by_profile(tasks, asked.profile)
        notes += left
    if asked.shots is not None:
        tasks, left = _by_shots(tasks, asked.shots)
        notes += left
    tasks = [replace(task, limit=asked.limit) for task in tasks]
    if suite is None:
        return Suite("tasks", 1, "고른 과제", "Chosen tasks", tuple(tasks)), tuple(notes)
    return replace(suite, tasks=tuple(tasks)), tuple(notes)


def _with(suite: Suite | None, names: tuple[str, ...]) -> list[Task]:
    tasks = list(suite.tasks) if suite else []
    for name in names:
        task = find_task(name)
        if task.name in [one.name for one in tasks]:
            raise KoalpacaError(
                "suite-twice", f"task '{task.name}' is named twice.", where="--task", fix="Name it once."
            )
        tasks.append(task)
    return tasks


def _by_profile(tasks: list[Task], profile: str) -> tuple[list[Task], list[Note]]:
    without = [task.name for task in tasks if profile not in profiles(task.file)]
    if len(without) == len(tasks):
        known = dict.fromkeys(name for task in tasks for name in profiles(task.file))
        raise KoalpacaError(
            "task-profile",
            f"none of the tasks has a profile '{profile}'.",
            where="--profile",
            fix=did_you_mean(profile, list(known)),
        )
    done = [task if task.name in without else asked_by(task, profile, "--profile") for task in tasks]
    korean = f"'{profile}' 프로필이 없어 제 방식대로 묻는 과제"
    return done, _left(without, korean, f"asked their own way, without '{profile}'")


def _by_shots(tasks: list[Task], shots: int) -> tuple[list[Task], list[Note]]:
    without = [task.name for task in tasks if task.file.shots is None] if shots else []
    if without and len(without) == len(tasks):
        with_shots(tasks[0], shots, "--shots")
    done = [task if task.name in without else with_shots(task, shots, "--shots") for task in tasks]
    korean = "예시를 고를 곳이 없어 예시 없이 묻는 과제"
    return done, _left(without, korean, "asked without examples, having no source of them")


def _left(names: list[str], korean: str, english: str) -> list[Note]:
    listed = ", ".join(names)
    return [(f"{korean}: {listed}", f"{english}: {listed}")] if names else []
