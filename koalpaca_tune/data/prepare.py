"""`koalpaca data prepare`: files in, train.jsonl and valid.jsonl out, and a report of everything between.

Rows stream through a spool file in a folder beside OUT; what is ready moves to OUT at the end, so an
error leaves OUT as it was. The same input gives the same bytes.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from koalpaca_tune import jsonl
from koalpaca_tune.data import report, split
from koalpaca_tune.data.cleaning.clean import clean
from koalpaca_tune.data.reading import readers
from koalpaca_tune.data.reading.readers import Opened
from koalpaca_tune.data.report import FileCount, Lengths, Report
from koalpaca_tune.data.rows import Rejected, Row, place
from koalpaca_tune.data.shaping import shapes
from koalpaca_tune.errors import KoalpacaError, Problem
from koalpaca_tune.records import Conversation

OURS = ("rejected.jsonl", "report.html", "report.md", "report.json", "valid.jsonl", "train.jsonl")
"""The files that `prepare` writes, in the order in which they are put in place."""

_EXAMPLES = 3
_PROGRESS_ROWS = 500

Progress = Callable[[str, int], None]


@dataclass(slots=True)
class _Source:
    """One file on its way, with its counts; `name` is the source of its records."""

    opened: Opened
    shape: str
    columns: shapes.Columns
    name: str
    rows: int = 0
    rejected: int = 0
    duplicates: int = 0
    kept: int = 0


@dataclass(slots=True)
class _Tally:
    """What happened over all files."""

    seen: split.Seen = field(default_factory=split.Seen)
    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    cleaned: Counter[str] = field(default_factory=Counter)
    rejected_examples: dict[str, list[Rejected]] = field(default_factory=dict)
    kept_examples: list[Conversation] = field(default_factory=list)
    lengths: dict[str, Lengths] = field(default_factory=dict)


def prepare(
    files: Sequence[Path],
    out: Path,
    *,
    valid_share: float = 0.1,
    shape: str | None = None,
    encoding: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Reads, cleans, removes duplicates, splits and writes.

    Args:
        files: CSV, TSV, JSON or JSONL files.
        out: folder for `OURS`.
        valid_share: share of the questions for validation, between 0 and 1.
        shape: a key of `shapes.SHAPES` for all files; None guesses for each.
        encoding: a key of `encodings.ENCODINGS` for all files; None finds it out for each.
        overwrite: replace our files in an OUT that is not empty; other files stay.
        progress: called with ("read", rows so far) and ("write", records so far).

    Raises:
        KoalpacaError: OUT cannot be written (out-*), a file as a whole cannot be read (all such files at
            once), or too little is left (split-too-few). OUT is then as it was.
    """
    split.check_share(valid_share)
    _check_out(out, files, overwrite)
    sources = _open(files, shape, encoding)
    tally = _Tally()
    with _staging(out) as staging:
        spool = staging / "spool"
        with ExitStack() as open_files:
            kept = open_files.enter_context(spool.open("w", encoding="utf-8", newline="\n"))
            rejected = open_files.enter_context((staging / OURS[0]).open("w", encoding="utf-8", newline="\n"))
            for source in sources:
                _stream(source, tally, kept, rejected, progress)
        if progress:
            progress("read", tally.rows)
        cut, moved = _cut(tally, valid_share)
        train = _write(staging / "train.jsonl", spool, lambda key: key >= cut)
        valid = _write(staging / "valid.jsonl", spool, lambda key: key < cut)
        spool.unlink()
        if progress:
            progress("write", train + valid)
        made = _report(sources, tally, valid_share, moved, train, valid)
        report.write(made, tally.lengths, staging)
        _put_in_place(staging, out)
    return made


def _check_out(out: Path, files: Sequence[Path], overwrite: bool) -> None:
    if not files:
        raise KoalpacaError(
            "prepare-files", "no file is named.", fix="Name at least one CSV, TSV, JSON or JSONL file."
        )
    known: set[Path] = set()
    for path in files:
        whole = path.resolve()
        if whole in known:
            raise KoalpacaError("prepare-files", "the file is named twice.", where=place(path), fix="Name it once.")
        if whole.parent == out.resolve() and whole.name in OURS:
            raise KoalpacaError(
                "prepare-files",
                "the file would be replaced by the output.",
                where=place(path),
                fix="Choose another OUT.",
            )
        known.add(whole)
    if out.exists() and not out.is_dir():
        raise KoalpacaError(
            "out-folder", "it is a file, not a folder.", where=place(out), fix="Choose another OUT."
        )
    if out.is_dir() and not overwrite and any(out.iterdir()):
        raise KoalpacaError(
            "out-not-empty",
            "the folder is not empty.",
            where=place(out),
            fix="Choose another OUT, or overwrite what an earlier run wrote there.",
        )


def _open(files: Sequence[Path], shape: str | None, encoding: str | None) -> list[_Source]:
    """Opens every file, so that what is wrong with any of them is said before the work begins."""
    sources: list[_Source] = []
    problems: list[Problem] = []
    for path, name in zip(files, _names(files), strict=True):
        try:
            opened = readers.read(path, encoding=encoding, name=name)
            found, columns = shapes.guess(opened.columns, place(path), shape)
            sources.append(_Source(opened, found, columns, place(Path(path.stem))))
        except KoalpacaError as error:
            # a wrong option is wrong once, not once for each file
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise KoalpacaError.of(problems)
    return sources


def _names(files: Sequence[Path]) -> list[str]:
    """What origins call each file: its name, with as many folders before it as make it the only one."""
    parts = [Path(place(path.resolve())).parts for path in files]

    def name(n: int, length: int) -> str:
        return "/".join(parts[n][-length:])

    lengths = [1] * len(parts)
    for n in range(len(parts)):
        others = [m for m in range(len(parts)) if m != n]
        while lengths[n] < len(parts[n]) and any(name(n, lengths[n]) == name(m, lengths[n]) for m in others):
            lengths[n] += 1
    return [name(n, lengths[n]) for n in range(len(parts))]


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A folder beside OUT that is gone afterwards, whatever happens."""
    staging = out.parent / f".{out.name}.{os.getpid()}.tmp"
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        yield staging
    except OSError as error:
        raise KoalpacaError(
            "out-folder",
            f"cannot write there ({error.strerror}).",
            where=place(out),
            fix="Choose a folder that can be written and has room.",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _stream(source: _Source, tally: _Tally, kept: TextIO, rejected: TextIO, progress: Progress | None) -> None:
    for item in source.opened.rows:
        source.rows += 1
        tally.rows += 1
        if progress and tally.rows % _PROGRESS_ROWS == 0:
            progress("read", tally.rows)
        conversation = _conversation(source, item, tally)
        if isinstance(conversation, Rejected):
            source.rejected += 1
            tally.rejected[conversation.problem.code] += 1
            examples = tally.rejected_examples.setdefault(conversation.problem.code, [])
            if len(examples) < _EXAMPLES:
                examples.append(conversation)
            rejected.write(jsonl.dumps(conversation.as_dict()) + "\n")
            continue
        key = tally.seen.add(conversation)
        if key is None:
            source.duplicates += 1
            continue
        source.kept += 1
        if len(tally.kept_examples) < _EXAMPLES:
            tally.kept_examples.append(conversation)
        tally.lengths.setdefault(source.name, Lengths()).add(conversation)
        kept.write(f"{key:016x} {jsonl.dumps(conversation.as_dict())}\n")


def _conversation(source: _Source, item: Row | Rejected, tally: _Tally) -> Conversation | Rejected:
    if isinstance(item, Rejected):
        return item
    try:
        cleaned, steps = clean(shapes.SHAPES[source.shape](item))
    except KoalpacaError as error:
        return Rejected(item.origin, error.problems[0], item.values)
    tally.cleaned.update(steps)
    return replace(cleaned, source=source.name)


def _cut(tally: _Tally, valid_share: float) -> tuple[int, str]:
    try:
        return tally.seen.cut(valid_share)
    except KoalpacaError as error:
        # no report is written: the reasons have to stand here
        problem = error.problems[0]
        reasons = ", ".join(f"{count} {code}" for code, count in tally.rejected.most_common())
        first = next((examples[0] for examples in tally.rejected_examples.values()), None)
        why = (
            f" Of {tally.rows} rows were rejected: {reasons}; {first.origin}: {first.problem.what}" if first else ""
        )
        raise KoalpacaError("split-too-few", problem.what + why, fix=problem.fix) from error


def _write(path: Path, spool: Path, belongs: Callable[[int], bool]) -> int:
    """Copies the records of one side out of the spool, in their order; returns how many."""
    count = 0

    def chosen() -> Iterator[str]:
        nonlocal count
        with spool.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                if belongs(int(line[:16], 16)):
                    count += 1
                    yield line[17:]

    jsonl.replace(path, chosen())
    return count


def _put_in_place(staging: Path, out: Path) -> None:
    if not out.exists():
        staging.rename(out)
        return
    for name in OURS:
        (staging / name).replace(out / name)


def _report(
    sources: Sequence[_Source], tally: _Tally, valid_share: float, moved: str, train: int, valid: int
) -> Report:
    files = tuple(
        FileCount(
            name=source.opened.name,
            source=source.name,
            format=source.opened.format,
            encoding=source.opened.encoding,
            delimiter=source.opened.delimiter,
            shape=source.shape,
            columns=source.columns.used,
            unused=tuple(name for name in source.opened.columns if name not in source.columns.used),
            rows=source.rows,
            rejected=source.rejected,
            duplicates=source.duplicates,
            kept=source.kept,
        )
        for source in sources
    )
    questions, records = tally.seen.conflicts
    return Report(
        files=files,
        rows=tally.rows,
        rejected=report.ordered(tally.rejected, report.REASONS),
        cleaned=report.ordered(tally.cleaned, report.STEPS),
        duplicates=sum(source.duplicates for source in sources),
        questions=tally.seen.questions,
        conflicting_questions=questions,
        conflicting_records=records,
        valid_share=valid_share,
        moved=moved,
        train=train,
        valid=valid,
        lengths={name: lengths.summary() for name, lengths in tally.lengths.items()},
        rejected_examples=tuple(
            example for code in report.REASONS for example in tally.rejected_examples.get(code, [])
        ),
        kept_examples=tuple(tally.kept_examples),
    )
