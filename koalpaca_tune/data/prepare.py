"""`koalpaca data prepare`: files in, train.jsonl and valid.jsonl out, and a report of everything between.

Three passes. Each row on its own, in batches, perhaps in several processes (`work`, `pool`), into a spool
on disk and keys in memory; then what needs all records at once (`choose`); then the spool is read once
more and written out. All of it in a folder of its own; what is ready moves to OUT at the end, so an error
leaves OUT as it was. The same input gives the same bytes, whatever the number of processes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from koalpaca_tune import jsonl
from koalpaca_tune.config.preparation import Input, Preparation
from koalpaca_tune.data import choose, inputs, pages, pool, report
from koalpaca_tune.data.choose import Chosen, State
from koalpaca_tune.data.inputs import Source
from koalpaca_tune.data.overlap import text
from koalpaca_tune.data.overlap.contamination import Protected
from koalpaca_tune.data.report import Report
from koalpaca_tune.data.rows import Rejected, place
from koalpaca_tune.data.spool import Gathered, Spool
from koalpaca_tune.data.survey import Survey
from koalpaca_tune.data.work import Done
from koalpaca_tune.errors import KoalpacaError, Problem
from koalpaca_tune.records import Conversation

OURS = (
    "rejected.jsonl",
    "report.html",
    "report.md",
    "report.json",
    "quality.jsonl",
    "valid.jsonl",
    "train.jsonl",
)
"""The files that `prepare` writes, in the order in which they are put in place."""

_PROGRESS_ROWS = 500
_ASIDE = re.compile(r"\..*\.[0-9]+\.tmp")

Progress = Callable[[str, int], None]


def prepare(
    preparation: Preparation,
    out: Path,
    *,
    protected: Protected | None = None,
    unread: Sequence[str] = (),
    overwrite: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Reads, cleans, measures, removes duplicates and leaks, mixes, splits and writes.

    Args:
        preparation: what to do, with at least one input.
        out: folder for `OURS`.
        protected: the evaluation's items, for `contamination`; None: nothing is held against them.
        unread: tasks whose items could not be read, for the report.
        overwrite: replace our files in an OUT that is not empty; other files stay.
        workers: processes for the rows. More than one needs a main module that can be imported.
        progress: called with ("read", rows so far), ("compare", records) and ("write", records so far).

    Raises:
        KoalpacaError: OUT cannot be written (out-*), an input as a whole cannot be read (all such at
            once), a broken row with `on_error: stop` (its own code), or too little is left
            (split-too-few). OUT is then as it was.
    """
    check_out(out, preparation.inputs, overwrite)
    sources = inputs.open_all(preparation)
    with staging(out) as folder:
        with Spool(folder / "spool") as spool:
            for done in _work(preparation, sources, protected, workers, progress):
                spool.add(done)
            gathered = Gathered([spool.finish()])
        made = finish(preparation, sources, gathered, folder, protected, unread, progress)
        shutil.rmtree(folder / "spool")
        put_in_place(folder, out)
    return made


def finish(
    preparation: Preparation,
    sources: Sequence[Source],
    gathered: Gathered,
    folder: Path,
    protected: Protected | None,
    unread: Sequence[str],
    progress: Progress | None = None,
) -> Report:
    """The last two passes: chooses, and writes all of `OURS` into a folder.

    Args:
        preparation: as for the first pass.
        sources: its inputs; their rows are not read again.
        gathered: what the first pass gathered.
        folder: where to.
        protected, unread: as for `prepare`.
        progress: as for `prepare`.

    Raises:
        KoalpacaError: too little is left (split-too-few).
    """
    if progress:
        progress("compare", len(gathered.keys))
    try:
        chosen = choose.choose(
            gathered.keys,
            [source.given for source in sources],
            preparation.duplicates,
            preparation.valid_share,
            _texts(gathered, text.near_text),
            _texts(gathered, text.question_text),
        )
    except KoalpacaError as error:
        raise _with_reasons(error, gathered) from error
    survey = Survey()
    _write(folder, gathered, chosen, sources, preparation, survey, progress)
    made = report.make(preparation, sources, gathered, chosen, survey, protected, unread)
    pages.write(made, survey, gathered, folder)
    return made


def _work(
    preparation: Preparation,
    sources: Sequence[Source],
    protected: Protected | None,
    workers: int,
    progress: Progress | None,
) -> Iterator[Done]:
    plans = [source.plan for source in sources]
    rows = told = 0
    for done in pool.run(inputs.batches(sources), preparation, plans, protected, workers):
        if preparation.on_error == "stop":
            stop_at_broken(done)
        rows += done.rows
        if progress and rows - told >= _PROGRESS_ROWS:
            progress("read", rows)
            told = rows
        yield done
    if progress:
        progress("read", rows)


def stop_at_broken(done: Done) -> None:
    """With `on_error: stop`, the first broken row is an error.

    Raises:
        KoalpacaError: the row's own code, at its origin.
    """
    for _, row in done.rejected:
        problem = row.problem
        if problem.code.startswith("row-"):
            raise KoalpacaError(problem.code, problem.what, where=row.origin, fix=problem.fix)


def _texts(gathered: Gathered, of: Callable[[Conversation], str]) -> choose.Texts:
    def texts(indices: NDArray[np.int64]) -> list[str]:
        return [of(Conversation.from_dict(record, "")) for record in gathered.records(indices)]

    return texts


def _with_reasons(error: KoalpacaError, gathered: Gathered) -> KoalpacaError:
    # no report is written: the reasons have to stand here
    problem = error.problems[0]
    counts: Counter[str] = Counter()
    for codes in gathered.rejected.values():
        counts.update(codes)
    why = ""
    first = next(gathered.set_aside(), None)
    if first:
        row = jsonl.parse(first[1], "")
        reasons = ", ".join(f"{count} {code}" for code, count in counts.most_common())
        why = (
            f" Of {gathered.rows.total()} rows were rejected: {reasons}; "
            f"{row['origin']} ({row['reason']}): {row['what']}"
        )
    return KoalpacaError("split-too-few", problem.what + why, fix=problem.fix)


def _write(
    folder: Path,
    gathered: Gathered,
    chosen: Chosen,
    sources: Sequence[Source],
    preparation: Preparation,
    survey: Survey,
    progress: Progress | None,
) -> None:
    """Reads the spool once and writes train, valid, quality and rejected."""
    repeated = set(chosen.of[chosen.of != np.arange(len(chosen.of))].tolist())
    origins: dict[int, str] = {}
    written = 0
    with ExitStack() as files:

        def opened(name: str) -> TextIO:
            return files.enter_context((folder / name).open("w", encoding="utf-8", newline="\n"))

        train, valid, quality, rejected = map(opened, ("train.jsonl", "valid.jsonl", "quality.jsonl", OURS[0]))
        alone = gathered.set_aside()
        pending = next(alone, None)
        for n, (record, measured) in enumerate(gathered.lines()):
            while pending and pending[0] < gathered.keys.orders[n]:
                _set_aside(pending[1], rejected, survey)
                pending = next(alone, None)
            row = json.loads(record)
            input, state = int(gathered.keys.inputs[n]), State(chosen.states[n])
            if n in repeated:
                origins[n] = row["origin"]
            if state in (State.TRAIN, State.VALID):
                if state == State.TRAIN:
                    train.write((record + "\n") * int(chosen.times[n]))
                else:
                    valid.write(record + "\n")
                quality.write(measured + "\n")
                survey.add(input, row, json.loads(measured))
                written += 1
                if progress and written % _PROGRESS_ROWS == 0:
                    progress("write", written)
            else:
                first = origins.get(int(chosen.of[n]), "")
                problem = _left_out(state, first, sources[input].given, preparation)
                line = jsonl.dumps(Rejected(row["origin"], problem, row).as_dict()) + "\n"
                rejected.write(line)
                survey.lose(input, row["origin"], problem, row)
        while pending:
            _set_aside(pending[1], rejected, survey)
            pending = next(alone, None)
        for file in (train, valid, quality, rejected):
            file.flush()
            os.fsync(file.fileno())
    if progress:
        progress("write", written)


def _set_aside(line: str, rejected: TextIO, survey: Survey) -> None:
    rejected.write(line)
    row = json.loads(line)
    survey.example(row["origin"], row["reason"], row["what"], row["row"])


def _left_out(state: State, first: str, given: Input, preparation: Preparation) -> Problem:
    if state == State.EXACT:
        return Problem("duplicate-exact", f"it says the same as {first}.")
    if state == State.NORMALISED:
        return Problem("duplicate-normalised", f"it differs from {first} in spacing, punctuation or case only.")
    if state == State.NEAR:
        threshold = preparation.duplicates.threshold
        return Problem("duplicate-near", f"it is nearly the same as {first} (threshold {threshold:g}).")
    if state == State.WEIGHT:
        return Problem("mix-weight", f"the weight of its source is {given.weight:g}.")
    return Problem("mix-cap", f"its source is capped at {given.cap:,} records.")


def check_out(out: Path, given: Sequence[Input], overwrite: bool) -> None:
    """Refuses, before any work, what could not be written or would overwrite.

    Raises:
        KoalpacaError: no inputs, or one named twice (prepare-files); no place for the result (out-*).
    """
    if not given:
        raise KoalpacaError("prepare-files", "no file is named.", fix="Name at least one file, such as my.csv.")
    known: set[str] = set()
    for one in given:
        path = Path(one.path)
        whole = str(path.resolve()) if path.exists() else one.path
        key = f"{whole}|{one.sheet}|{one.config}|{one.split}"
        if key in known:
            raise KoalpacaError("prepare-files", "the file is named twice.", where=place(path), fix="Name it once.")
        if path.exists() and path.resolve().parent == out.resolve() and path.name in OURS:
            raise KoalpacaError(
                "prepare-files",
                "the file would be replaced by the output.",
                where=place(path),
                fix="Choose another OUT.",
            )
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise KoalpacaError(
                "prepare-files",
                "OUT lies in this folder: the next time, the output would be read as input.",
                where=place(path),
                fix="Choose an OUT outside of it.",
            )
        known.add(key)
    if out.exists() and not out.is_dir():
        raise KoalpacaError(
            "out-folder", "it is a file, not a folder.", where=place(out), fix="Choose another OUT."
        )
    if out.is_dir() and not overwrite and not all(_ASIDE.fullmatch(path.name) for path in out.iterdir()):
        raise KoalpacaError(
            "out-not-empty",
            "the folder is not empty.",
            where=place(out),
            fix="Choose another OUT, or replace what an earlier run wrote there with --overwrite.",
        )


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A folder in OUT, or beside it when it is not there yet; gone afterwards, whatever happens.

    Files are moved from it by renaming, which ends where a disk ends: OUT may be a mounted one, or a link.
    """
    aside = (out if out.is_dir() else out.parent) / f".{out.name}.{os.getpid()}.tmp"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
    except OSError as error:
        raise KoalpacaError(
            "out-folder",
            f"cannot write there ({error.strerror or error}).",
            where=place(out),
            fix="Choose a folder that can be written and has room.",
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def put_in_place(folder: Path, out: Path) -> None:
    """Moves what is ready to OUT."""
    if not out.exists():
        folder.rename(out)
        return
    for name in OURS:
        (folder / name).replace(out / name)
