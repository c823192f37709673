"""A preparation over several machines: its first pass as a step of datatrove (the extra `cluster`).

    step = cluster.FirstPass(preparation, protected, Path("/shared/work"))
    SlurmPipelineExecutor(pipeline=[step], tasks=64, ...).run()      # or LocalPipelineExecutor
    cluster.gather(preparation, Path("/shared/work"), Path("prepared"), tasks=64, protected=protected)

Every task reads all rows and works on every n-th batch: reading is cheap, measuring is not. The second
and third pass need all records at once, and one machine. The result is the same, byte for byte, as that
of `prepare` alone, whatever the number of tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from koalpaca_tune.config.preparation import Preparation
from koalpaca_tune.data import inputs, pool
from koalpaca_tune.data.overlap.contamination import Protected
from koalpaca_tune.data.prepare import check_out, finish, put_in_place, staging, stop_at_broken
from koalpaca_tune.data.report import Report
from koalpaca_tune.data.spool import COUNTS, Gathered, Part, Spool
from koalpaca_tune.errors import KoalpacaError


class FirstPass(PipelineStep):  # type: ignore[misc]
    """Each row on its own; one task's share goes to a part of its own in the work folder."""

    name = "koalpaca first pass"
    type = "koalpaca"

    def __init__(self, preparation: Preparation, protected: Protected | None, work: Path) -> None:
        super().__init__()
        self.preparation = preparation
        self.protected = protected
        self.work = work

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Works on batches rank, rank + world_size, ...; what came before in the pipeline is handed on."""
        share(self.preparation, self.protected, self.work, rank, world_size)
        yield from data or ()


def share(preparation: Preparation, protected: Protected | None, work: Path, rank: int, tasks: int) -> None:
    """One task's share of the first pass; a part that is whole already is not made again.

    Raises:
        KoalpacaError: an input as a whole cannot be read, or a broken row with `on_error: stop`.
    """
    folder = _part(work, rank, tasks)
    if (folder / COUNTS).is_file():
        return
    sources = inputs.open_all(preparation)
    worker = pool.make(preparation, [source.plan for source in sources], protected)
    with Spool(folder) as spool:
        for number, batch in enumerate(inputs.batches(sources)):
            if number % tasks == rank:
                done = worker(batch)
                if preparation.on_error == "stop":
                    stop_at_broken(done)
                spool.add(done)
        spool.finish().save()


def gather(
    preparation: Preparation,
    work: Path,
    out: Path,
    *,
    tasks: int,
    protected: Protected | None = None,
    unread: Sequence[str] = (),
    overwrite: bool = False,
) -> Report:
    """The last two passes over the parts of all tasks.

    Args:
        preparation: as given to every task.
        work: the work folder of the first pass. It is left as it is.
        out: folder for the result.
        tasks: how many tasks there were.
        protected: as given to every task.
        unread: tasks whose items could not be read, for the report.
        overwrite: as for `prepare`.

    Raises:
        KoalpacaError: a task is not done (cluster-part), OUT cannot be written (out-*), or too little is
            left (split-too-few).
    """
    check_out(out, preparation.inputs, overwrite)
    folders = [_part(work, rank, tasks) for rank in range(tasks)]
    missing = [folder.name for folder in folders if not (folder / COUNTS).is_file()]
    if missing:
        raise KoalpacaError(
            "cluster-part",
            f"{len(missing)} of {tasks} parts are not whole, the first is {missing[0]}.",
            where=str(work),
            fix="Run the tasks that failed again; those that are done are not repeated.",
        )
    sources = inputs.open_all(preparation)
    gathered = Gathered([Part.load(folder) for folder in folders])
    with staging(out) as folder:
        made = finish(preparation, sources, gathered, folder, protected, unread)
        put_in_place(folder, out)
    return made


def _part(work: Path, rank: int, tasks: int) -> Path:
    return work / f"part-{rank:05}-of-{tasks:05}"
