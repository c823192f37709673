"""What `prepare` counted, as a record and as pages (HTML and Markdown in Korean, JSON)."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from koalpaca_tune import html, jsonl, plots
from koalpaca_tune.data.cleaning.clean import TRIMMED
from koalpaca_tune.data.rows import Rejected, plain
from koalpaca_tune.records import Conversation

REASONS = {
    "row-empty": "질문이나 답변이 비어 있음",
    "row-fields": "칸 수가 머리글과 다름",
    "row-quotes": "큰따옴표가 맞지 않음",
    "row-json": "JSON이 아닌 줄",
    "row-encoding": "글자가 깨져 읽을 수 없음",
    "row-type": "값이 글이 아님(숫자, 목록 등)",
    "row-shape": "필요한 열이나 메시지 형식이 아님",
    "row-turns": "대화의 차례가 맞지 않음",
    "row-size": "한 줄이 너무 김",
}
"""Why a row is rejected: code -> Korean. Every row-* code is here."""

STEPS = {
    "line-ends": "줄바꿈을 LF로 통일",
    "invisible": "보이지 않는 문자·제어 문자 제거",
    "nfc": "자모로 풀린 글자를 NFC로 합침",
    "outer-space": "앞뒤 공백 제거",
    TRIMMED: "답 없는 마지막 질문을 잘라냄",
}
"""What cleaning changed: step -> Korean."""

ENCODINGS = {"utf-8-sig": "UTF-8(BOM)", "cp949": "CP949(EUC-KR)"}
DELIMITERS = {"comma": "쉼표", "tab": "탭", "semicolon": "세미콜론"}

_PLOTTED_SHARE = 0.99
_PLOTTED_SOURCES = 12
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class FileCount:
    """One input file: how it was read, and what became of its rows."""

    name: str
    source: str
    format: str
    encoding: str
    delimiter: str | None
    shape: str
    columns: tuple[str, ...]
    unused: tuple[str, ...]
    rows: int
    rejected: int
    duplicates: int
    kept: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Lengths of texts in characters."""

    count: int
    shortest: int
    median: int
    p90: int
    longest: int
    mean: float


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths in characters of the questions (with their contexts) and answers of one source."""

    questions: array[int] = field(default_factory=lambda: array("q"))
    answers: array[int] = field(default_factory=lambda: array("q"))

    def add(self, conversation: Conversation) -> None:
        """Counts each user and assistant turn."""
        for turn in conversation.turns:
            if turn.role != "system":
                side = self.questions if turn.role == "user" else self.answers
                side.append(len(turn.content) + len(turn.context or ""))

    def summary(self) -> dict[str, Summary]:
        """Both sides in a few numbers."""
        return {"question": _summary(self.questions), "answer": _summary(self.answers)}


@dataclass(frozen=True, slots=True)
class Report:
    """Counts per stage: rows = rejected + duplicates + train + valid.

    Attributes:
        rejected: reason -> rows, in the order of `REASONS`.
        cleaned: step -> records that it changed, in the order of `STEPS`.
        duplicates: records dropped because the same one came before.
        questions: different questions among the records kept.
        conflicting_questions, conflicting_records: questions with several answers, and their records;
            all are kept, on the same side.
        moved: the side that the share alone would have left empty ("valid", "train"), or "".
        lengths: source -> "question" and "answer" -> summary.
    """

    files: tuple[FileCount, ...]
    rows: int
    rejected: dict[str, int]
    cleaned: dict[str, int]
    duplicates: int
    questions: int
    conflicting_questions: int
    conflicting_records: int
    valid_share: float
    moved: str
    train: int
    valid: int
    lengths: dict[str, dict[str, Summary]]
    rejected_examples: tuple[Rejected, ...] = ()
    kept_examples: tuple[Conversation, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What report.json holds."""
        return {
            "rows": self.rows,
            "rejected": self.rejected,
            "cleaned": self.cleaned,
            "duplicates": self.duplicates,
            "questions": self.questions,
            "conflicting_questions": self.conflicting_questions,
            "conflicting_records": self.conflicting_records,
            "valid_share": self.valid_share,
            "moved": self.moved,
            "train": self.train,
            "valid": self.valid,
            "files": [plain(asdict(file)) for file in self.files],
            "lengths": {
                source: {side: asdict(summary) for side, summary in sides.items()}
                for source, sides in self.lengths.items()
            },
        }


def ordered(counts: Mapping[str, int], order: Mapping[str, str]) -> dict[str, int]:
    """Counts in a fixed order, zeros left out."""
    return {name: counts[name] for name in order if counts.get(name)}


def write(report: Report, lengths: Mapping[str, Lengths], folder: Path) -> None:
    """Writes report.json, report.md and report.html.

    Args:
        report: the counts.
        lengths: source -> lengths, for the plots.
        folder: where to.
    """
    jsonl.write_json(folder / "report.json", report.as_dict())
    values = {
        "report": report,
        "reasons": REASONS,
        "steps": STEPS,
        "stages": _stages(report),
        "notes": _notes(report),
        "files": [_file(file) for file in report.files],
        "rejected_examples": [
            (example.origin, REASONS[example.problem.code], example.problem.what, _shown(example.row))
            for example in report.rejected_examples
        ],
        "kept_examples": [(example.origin, _talk(example)) for example in report.kept_examples],
    }
    jsonl.replace(folder / "report.md", [html.render("data_report.md.j2", **values)])
    page = html.render("data_report.html.j2", plots=_plots(lengths, report), **values)
    jsonl.replace(folder / "report.html", [page])


def _stages(report: Report) -> list[tuple[str, str, int]]:
    return [
        ("읽은 행", "rows read", report.rows),
        ("제외한 행", "rejected", sum(report.rejected.values())),
        ("중복으로 뺀 기록", "duplicates", report.duplicates),
        ("학습용", "train", report.train),
        ("검증용", "valid", report.valid),
    ]


def _notes(report: Report) -> list[str]:
    notes = []
    if report.moved == "valid":
        notes.append("데이터가 적어 검증용이 비게 되므로, 해시가 가장 작은 질문 하나를 검증용으로 돌렸습니다.")
    if report.moved == "train":
        notes.append("학습용이 비게 되므로, 해시가 가장 큰 질문 하나를 학습용으로 돌렸습니다.")
    if report.conflicting_questions:
        notes.append(
            f"같은 질문에 답이 여럿인 질문이 {report.conflicting_questions:,}개(기록 "
            f"{report.conflicting_records:,}개) 있습니다. 모두 남겼고, 같은 쪽에 두었습니다."
        )
    if report.rows and sum(report.rejected.values()) * 10 > report.rows:
        notes.append("행의 10% 넘게 제외되었습니다. rejected.jsonl에서 이유를 먼저 확인하세요.")
    if "nfc" in report.cleaned:
        notes.append("자모로 풀린(NFD) 글자가 있었습니다. 그대로 학습하면 토큰 수가 두 배쯤으로 늘어납니다.")
    return notes


def _file(file: FileCount) -> dict[str, Any]:
    delimiter = f", {DELIMITERS[file.delimiter]}로 나눔" if file.delimiter else ""
    encoding = ENCODINGS.get(file.encoding, file.encoding.upper())
    values: dict[str, Any] = plain(asdict(file))
    return values | {"read_as": f"{file.format.upper()}, {encoding}{delimiter}"}


def _shown(row: Any) -> str:
    spelt = plain(row)
    if isinstance(spelt, dict):
        return _short("\n".join(f"{name}: {_as_text(value)}" for name, value in spelt.items()))
    return _short(" | ".join(map(_as_text, spelt)) if isinstance(spelt, list) else _as_text(spelt))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _talk(conversation: Conversation) -> list[tuple[str, str]]:
    names = {"system": "시스템", "user": "질문", "assistant": "답변"}
    talk = []
    for turn in conversation.turns:
        if turn.context:
            talk.append(("맥락", _short(turn.context)))
        talk.append((names[turn.role], _short(turn.content)))
    return talk


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… (모두 {len(text):,}자)"


def _summary(lengths: array[int]) -> Summary:
    values = sorted(lengths)

    def at(share: float) -> int:
        return values[min(len(values) - 1, math.ceil(share * len(values)) - 1)]

    mean = round(sum(values) / len(values), 1)
    return Summary(len(values), values[0], at(0.5), at(0.9), values[-1], mean)


def _plots(lengths: Mapping[str, Lengths], report: Report) -> list[str]:
    made = []
    for title, side in (("질문 길이(맥락 포함)", "questions"), ("답변 길이", "answers")):
        values = sorted(value for source in lengths.values() for value in getattr(source, side))
        # a few very long texts would press the rest into one bar
        shown = values[: math.ceil(_PLOTTED_SHARE * len(values))]
        bins = max(1, min(30, shown[-1] - shown[0] + 1))
        left_out = f", 긴 쪽 {len(values) - len(shown):,}개 제외" if len(shown) < len(values) else ""
        made.append(plots.histogram(shown, title, f"글자 수{left_out}", "개수", bins=bins))
    if len(lengths) > 1:
        kept = sorted(lengths, key=lambda name: (-len(lengths[name].answers), name))[:_PLOTTED_SOURCES]
        counts = {name: float(len(lengths[name].answers)) for name in kept}
        medians = {name: float(report.lengths[name]["answer"].median) for name in kept}
        made.append(plots.bars(counts, "출처별 답변 수", "개수", text="{:,.0f}"))
        made.append(plots.bars(medians, "출처별 답변 길이의 중앙값", "글자 수", text="{:,.0f}"))
    return made
