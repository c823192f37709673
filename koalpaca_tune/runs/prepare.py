"""`koalpaca data prepare` with the evaluation's items held against the training text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from koalpaca_tune.config.overlap import Contamination
from koalpaca_tune.config.preparation import Preparation
from koalpaca_tune.data import prepare as data
from koalpaca_tune.data.overlap.contamination import Protected
from koalpaca_tune.data.prepare import Progress
from koalpaca_tune.data.report import Report
from koalpaca_tune.data.rows import place
from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.suites import items, tasks


def prepare(
    preparation: Preparation,
    out: Path,
    *,
    overwrite: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Prepares a training set; see `data.prepare.prepare`.

    Raises:
        KoalpacaError: as there; and a task to protect that there is not (task-missing), or whose items
            cannot be read although it is named, or no such folder (data-root, file-missing, item-*).
    """
    guarded, unread = protected(preparation.contamination, preparation.data_root)
    return data.prepare(
        preparation,
        out,
        protected=guarded,
        unread=unread,
        overwrite=overwrite,
        workers=workers,
        progress=progress,
    )


def protected(contamination: Contamination, data_root: str | None) -> tuple[Protected, Sequence[str]]:
    """The items to hold training text against, and the tasks whose items are not here.

    A task that is named must be readable; of all the shipped ones, those are left out whose files are not
    on this machine.

    Raises:
        KoalpacaError: no such folder (data-root); a named task that there is not (task-missing), or whose items
            cannot be read.
    """
    shipped = tasks.shipped()
    root = Path(data_root) if data_root is not None else None
    if root is not None and not root.is_dir():
        raise KoalpacaError(
            "data-root", "there is no such folder.", where=place(root), fix="Check --data-root (data_root)."
        )
    material: dict[str, list[tuple[str, Sequence[str]]]] = {}
    unread: list[str] = []
    for name in contamination.tasks if contamination.tasks is not None else shipped:
        if name not in shipped:
            raise KoalpacaError(
                "task-missing",
                f"there is no task '{name}'.",
                where="contamination.tasks",
                fix=did_you_mean(name, list(shipped)),
            )
        task = tasks.load_task(shipped[name])
        if contamination.tasks is None and not tasks.here(task, root):
            unread.append(name)
            continue
        material[name] = [(item.id, item.material) for item in items.load(task, root).items]
    return Protected.of(material), unread
