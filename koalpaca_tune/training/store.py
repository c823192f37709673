"""The checkpoints of a run: which one to go on from, which ones to keep."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.training import checkpoint, durable, guard


def find(folder: Path, rollbacks: Sequence[guard.Rollback]) -> tuple[Path | None, list[str], list[str]]:
    """The newest whole checkpoint, names of newer ones that were damaged, and lines for a person about them.

    What a killed process was writing is removed, and what a rollback took back; damaged ones get another name.

    Raises:
        KoalpacaError: there are checkpoints, but none is whole (checkpoint-damaged).
    """
    durable.sweep(folder)
    for path in checkpoint.listed(folder) if rollbacks else ():
        step = checkpoint.step_of(path)
        if not checkpoint.fault(path) and guard.abandoned(rollbacks, step, checkpoint.rollbacks_of(path)):
            durable.remove(path)
    found, bad = newest(folder)
    return found, [one.name for one, _ in bad], set_aside(bad, found)


def newest(folder: Path, upto: int | None = None) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest whole checkpoint of at most `upto` steps, and newer damaged ones with what is wrong.

    Raises:
        KoalpacaError: there are checkpoints, but none is whole (checkpoint-damaged).
    """
    bad: list[tuple[Path, str]] = []
    for path in reversed(checkpoint.listed(folder)):
        if upto is not None and checkpoint.step_of(path) > upto:
            continue
        wrong = checkpoint.fault(path)
        if not wrong:
            return path, bad
        bad.append((path, wrong))
    if bad:
        raise KoalpacaError(
            "checkpoint-damaged",
            f"no checkpoint is whole ({'; '.join(f'{path.name}: {wrong}' for path, wrong in bad)}).",
            where=str(folder),
            fix="Put a copy of one back, or start a new run: out=runs/NEW.",
        )
    return None, []


def set_aside(bad: Sequence[tuple[Path, str]], instead: Path | None) -> list[str]:
    """Renames damaged checkpoints; lines for a person."""
    told = []
    for path, wrong in bad:
        kept = checkpoint.set_aside(path).name
        other = "" if instead is None else instead.name
        told.append(
            f"{path.name}이(가) 손상되어({wrong}) {kept}(으)로 옮겨 두고 {other}을(를) 씁니다 "
            f"({path.name} is damaged; kept as {kept}, and {other} is used)"
        )
    return told


def prune(folder: Path, keep: int, others: Collection[int]) -> None:
    """Removes all but the newest `keep` checkpoints and those of the steps in `others`."""
    for old in checkpoint.listed(folder)[:-keep]:
        if checkpoint.step_of(old) not in others:
            durable.remove(old)


def take_back(folder: Path, step: int) -> None:
    """Removes the checkpoints after a step."""
    for later in checkpoint.listed(folder):
        if checkpoint.step_of(later) > step:
            durable.remove(later)


def around(folder: Path, step: int) -> set[int]:
    """Steps of the newest checkpoint of at most `step` steps, and of the oldest later one, its successor."""
    found = [checkpoint.step_of(path) for path in checkpoint.listed(folder)]
    return {*[n for n in found if n <= step][-1:], *[n for n in found if n > step][:1]}
