"""What `prepare` counted, as one record: report.json, and what the pages are drawn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from koalpaca_tune.config.preparation import Preparation
from koalpaca_tune.data import licences
from koalpaca_tune.data.choose import Chosen, State
from koalpaca_tune.data.inputs import Source
from koalpaca_tune.data.licences import Taken
from koalpaca_tune.data.overlap.contamination import Protected
from koalpaca_tune.data.rows import plain
from koalpaca_tune.data.spool import Gathered
from koalpaca_tune.data.survey import Survey
from koalpaca_tune.data.words import REASONS, STEPS


@dataclass(frozen=True, slots=True)
class FileCount:
    """One input: how it was read, and what became of its records.

    Attributes:
        rejected: code -> records, of all reasons.
        kept: records in train or valid.
    """

    name: str
    source: str
    format: str
    encoding: str | None
    delimiter: str | None
    compression: str | None
    sheet: str | None
    revision: str | None
    shape: str
    columns: tuple[str, ...]
    unused: tuple[str, ...]
    rows: int
    rejected: dict[str, int]
    kept: int


@dataclass(frozen=True, slots=True)
class Report:
    """Counts per stage: records = all of `rejected` + records kept; rows may hold several records (SQuAD).

    Attributes:
        rows: rows read.
        records: records that the rows made, and rows that made none.
        rejected: code -> records, in the order of `REASONS`.
        cleaned: step -> records that it changed.
        masked: kind of personal data -> values masked.
        masked_records: records with any.
        leaks: task -> records that overlap with its items (dropped or, by the preparation, only reported).
        unread: tasks whose items could not be read, so nothing was held against them; None: nothing was
            held against any.
        unguarded: task -> items too short to be told from other text.
        questions: different questions among the records kept.
        groups: groups of questions and texts that are nearly the same; a group stays on one side.
        conflicting_questions, conflicting_records: questions with several answers, and their records;
            all are kept, on the same side.
        moved: the side that the share alone would have left empty ("valid", "train"), or "".
        train, valid: lines of train.jsonl and valid.jsonl.
        kept: records in either; train may repeat some, by weight.
        sources: licences of what was taken, as `licences.entries` gives them.
        preparation: all that was asked for; of paths, what origins call the files.
    """

    files: tuple[FileCount, ...]
    rows: int
    records: int
    rejected: dict[str, int]
    cleaned: dict[str, int]
    masked: dict[str, int]
    masked_records: int
    leaks: dict[str, int]
    unread: tuple[str, ...] | None
    unguarded: dict[str, int]
    questions: int
    groups: int
    conflicting_questions: int
    conflicting_records: int
    moved: str
    train: int
    valid: int
    kept: int
    sources: list[dict[str, Any]]
    preparation: Preparation

    @property
    def duplicates(self) -> int:
        """Records left out because the same, or nearly the same, came before."""
        return sum(count for code, count in self.rejected.items() if code.startswith("duplicate-"))

    def as_dict(self, survey: Survey) -> dict[str, Any]:
        """What report.json holds."""
        return {
            "rows": self.rows,
            "records": self.records,
            "rejected": self.rejected,
            "cleaned": self.cleaned,
            "masked": self.masked,
            "masked_records": self.masked_records,
            "leaks": self.leaks,
            "unread": None if self.unread is None else list(self.unread),
            "unguarded": self.unguarded,
            "questions": self.questions,
            "groups": self.groups,
            "conflicting_questions": self.conflicting_questions,
            "conflicting_records": self.conflicting_records,
            "moved": self.moved,
            "train": self.train,
            "valid": self.valid,
            "kept": self.kept,
            "files": [plain(asdict(file)) for file in self.files],
            "lengths": {
                source: {side: asdict(summary) for side, summary in lengths.summary().items()}
                for source, lengths in survey.lengths.items()
            },
            "signals": {
                name: {"records": found.hit, "bins": dict(found.bins)} for name, found in survey.signals.items()
            },
            "sources": self.sources,
            "preparation": self.preparation.model_dump(),
        }


def make(
    preparation: Preparation,
    sources: Sequence[Source],
    gathered: Gathered,
    chosen: Chosen,
    survey: Survey,
    protected: Protected | None,
    unread: Sequence[str],
) -> Report:
    """Adds up what the passes counted."""
    files = tuple(_file(n, source, gathered, survey) for n, source in enumerate(sources))
    rejected: Counter[str] = Counter()
    for file in files:
        rejected.update(file.rejected)
    questions, records = chosen.conflicts
    train = chosen.states == State.TRAIN
    kept = survey.kept_of.total()
    return Report(
        files=files,
        rows=gathered.rows.total(),
        records=rejected.total() + kept,
        rejected=ordered(rejected, REASONS),
        cleaned=ordered(gathered.tally.cleaned, STEPS),
        masked=dict(sorted(gathered.tally.masked.items())),
        masked_records=gathered.tally.masked_records,
        leaks=dict(sorted(gathered.tally.leaks.items())),
        unread=tuple(unread) if protected else None,
        unguarded=dict(protected.unprotected) if protected else {},
        questions=chosen.questions,
        groups=chosen.groups,
        conflicting_questions=questions,
        conflicting_records=records,
        moved=chosen.moved,
        train=int(chosen.times[train].sum()),
        valid=int((chosen.states == State.VALID).sum()),
        kept=kept,
        sources=_licences(sources, gathered, chosen),
        preparation=preparation.model_copy(
            # where a file lay on this machine is nobody's business
            update={
                "inputs": [source.given.model_copy(update={"path": source.opened.name}) for source in sources],
                "data_root": None,
            }
        ),
    )


def _licences(sources: Sequence[Source], gathered: Gathered, chosen: Chosen) -> list[dict[str, Any]]:
    """What was taken, with its licences; those of an earlier preparation stand in its own report."""
    written = np.where(chosen.states <= State.VALID, chosen.times, 0)
    made: list[dict[str, Any]] = []
    taken: list[Taken] = []
    for n, source in enumerate(sources):
        count = int(written[gathered.keys.inputs == n].sum())
        if source.plan.prepared:
            made += licences.of_training(Path(source.given.path))
        else:
            taken.append(Taken(source.plan.source, source.given, source.described, count, source.opened.revision))
    return licences.merged([*made, *licences.entries(taken)])


def _file(n: int, source: Source, gathered: Gathered, survey: Survey) -> FileCount:
    opened = source.opened
    rejected = gathered.rejected.get(n, Counter()) + survey.lost_of.get(n, Counter())
    return FileCount(
        name=opened.name,
        source=source.plan.source,
        format=opened.format,
        encoding=opened.encoding,
        delimiter=opened.delimiter,
        compression=opened.compression,
        sheet=opened.sheet,
        revision=opened.revision,
        shape=source.plan.shape,
        columns=source.used,
        unused=source.unused,
        rows=gathered.rows[n],
        rejected=ordered(rejected, REASONS),
        kept=survey.kept_of[n],
    )


def ordered(counts: Mapping[str, int], order: Mapping[str, str]) -> dict[str, int]:
    """Counts in a fixed order, zeros left out."""
    return {name: counts[name] for name in order if counts.get(name)}


def notes(report: Report) -> list[str]:
    """What a reader should know beyond the counts, in Korean."""
    said = []
    if report.moved == "valid":
        said.append("데이터가 적어 검증용이 비게 되므로, 해시가 가장 작은 질문 하나를 검증용으로 돌렸습니다.")
    if report.moved == "train":
        said.append("학습용이 비게 되므로, 해시가 가장 큰 질문 하나를 학습용으로 돌렸습니다.")
    if report.unread is None:
        said.append("평가 문항과의 겹침은 보지 않았습니다.")
    elif report.unread:
        said.append(
            f"평가 과제 {len(report.unread)}개({', '.join(report.unread)})의 문항이 이 기계에 없어, "
            "그것과의 겹침은 보지 못했습니다. 자료 폴더를 --data-root로 알려 주세요."
        )
    if report.unguarded:
        items = sum(report.unguarded.values())
        said.append(
            f"평가 문항 {items:,}개({', '.join(report.unguarded)})는 너무 짧아 겹침을 가려낼 수 없었습니다."
        )
    if report.leaks and not report.preparation.contamination.drop:
        said.append("평가 문항과 겹치는 기록이 학습 데이터에 남아 있습니다. 그 과제의 점수는 믿을 수 없습니다.")
    if report.conflicting_questions:
        said.append(
            f"같은 질문에 답이 여럿인 질문이 {report.conflicting_questions:,}개(기록 "
            f"{report.conflicting_records:,}개) 있습니다. 모두 남겼고, 같은 쪽에 두었습니다."
        )
    if cut := report.rejected.get("row-truncated", 0) + report.rejected.get("row-file", 0):
        said.append(
            f"파일 {cut:,}개가 중간에 끊겼거나 읽히지 않아 그 뒤를 모두 잃었습니다. "
            "어느 파일인지 rejected.jsonl에서 보고 다시 받으세요."
        )
    broken = sum(count for code, count in report.rejected.items() if code.startswith("row-"))
    if broken * 10 > report.records:
        said.append("행의 10% 넘게 쓸 수 없었습니다. rejected.jsonl에서 이유를 먼저 확인하세요.")
    if "nfc" in report.cleaned:
        said.append(
            "NFC로 합친 글자가 있었습니다(자모로 풀린 한글, 호환용 한자). "
            "자모가 풀린 채로 학습하면 토큰이 몇 배로 늘어납니다."
        )
    own = [source["name"] for source in report.sources if source["set"] is None and source["licence"] == "unknown"]
    if own:
        said.append(
            f"라이선스를 적지 않은 파일({', '.join(dict.fromkeys(own))})은 모델 카드에 '알 수 없음'으로 남습니다. "
            "--licence나 준비 파일의 licence로 적을 수 있습니다."
        )
    others = [source for source in report.sources if source["name"] not in own]
    return said + [warning.ko for warning in licences.warnings(others)]
