"""The pages of a preparation: report.html and report.md in Korean, and report.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from koalpaca_tune import html, jsonl, korean, plots
from koalpaca_tune.config import load
from koalpaca_tune.data import words
from koalpaca_tune.data.quality.limits import LIMITS
from koalpaca_tune.data.quality.signals import SIGNALS
from koalpaca_tune.data.report import FileCount, Report, notes
from koalpaca_tune.data.rows import plain
from koalpaca_tune.data.spool import Gathered
from koalpaca_tune.data.survey import BINS, Lengths, Survey
from koalpaca_tune.data.work import TOLD
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation

_PLOTTED_SHARE = 0.99
_PLOTTED_SOURCES = 12
_SHOWN = 300


def write(report: Report, survey: Survey, gathered: Gathered, folder: Path) -> None:
    """Writes report.json, report.md and report.html.

    Args:
        report: the counts.
        survey: what the kept records are like.
        gathered: for the examples of cleaning.
        folder: where to.
    """
    jsonl.write_json(folder / "report.json", report.as_dict(survey))
    values = {
        "report": report,
        "stages": stages(report),
        "notes": notes(report),
        "files": [_file(file) for file in report.files],
        "cleaned": [
            (step, words.STEPS[step], count, [example[1:] for example in gathered.tally.changes[step]])
            for step, count in report.cleaned.items()
        ],
        "masked": [(kind, words.KINDS[kind], count) for kind, count in report.masked.items()],
        "signals": _signals(report, survey),
        "silent": _silent(survey),
        "lost": [
            (
                code,
                words.REASONS[code],
                count,
                [(lost.origin, lost.what, _shown(lost.row)) for lost in survey.lost.get(code, [])],
            )
            for code, count in report.rejected.items()
        ],
        "lengths": [
            (source, name, summary)
            for source, lengths in survey.lengths.items()
            for name, summary in zip(("질문", "답변"), lengths.summary().values(), strict=True)
        ],
        "kept": [(record["origin"], _talk(record["messages"])) for record in survey.kept],
        "preparation": load.dump(report.preparation),
    }
    jsonl.replace(folder / "report.md", [html.render("data_report.md.j2", **values)])
    page = html.render("data_report.html.j2", plots=_plots(report, survey), **values)
    jsonl.replace(folder / "report.html", [page])


def stages(report: Report) -> list[tuple[str, str, int]]:
    """The counts on top: Korean, English, records. The first is what all others but the last two come off."""

    def lost(*starts: str) -> int:
        return sum(count for code, count in report.rejected.items() if code.startswith(starts))

    return [
        ("읽은 기록", "records read", report.records),
        ("쓸 수 없는 행", "unusable rows", lost("row-")),
        ("품질 한계", "beyond a limit", lost("quality-")),
        ("평가와 겹침", "contaminated", lost("contaminated")),
        ("중복", "duplicates", lost("duplicate-")),
        ("섞으며 덜어 냄", "mixed out", lost("mix-")),
        ("학습용", "train", report.train),
        ("검증용", "valid", report.valid),
    ]


def read_as(file: FileCount) -> str:
    """How a file was read, in Korean."""
    parts = [file.format.upper()]
    if file.compression:
        parts.append(file.compression)
    if file.encoding:
        parts.append(words.ENCODINGS.get(file.encoding, file.encoding.upper()))
    if file.delimiter:
        mark = words.DELIMITERS[file.delimiter]
        parts.append(f"{mark}{korean.particle(mark, '으로/로')} 나눔")
    if file.sheet:
        parts.append(f"시트 {file.sheet}")
    if file.revision:
        parts.append(f"판 {file.revision[:12]}")
    return ", ".join(parts)


def _file(file: FileCount) -> dict[str, Any]:
    values: dict[str, Any] = plain(asdict(file))
    return values | {"read_as": read_as(file), "lost": sum(file.rejected.values())}


def _signals(report: Report, survey: Survey) -> list[dict[str, Any]]:
    """Signals that found something, lengths and levels aside: those have plots."""
    set_to = {
        LIMITS[key][0]: value
        for key, value in report.preparation.quality.model_dump().items()
        if value is not None and value is not False
    }
    shown = []
    for name, found in survey.signals.items():
        kind, korean, hit = SIGNALS[name].kind, SIGNALS[name].korean, found.hit
        if kind == "share":
            # nearly every answer shares a few characters with its question
            korean, hit = f"{korean}, 절반 이상", sum(found.bins[str(bin)] for bin in range(BINS // 2, BINS))
        if hit and name not in TOLD and kind in ("count", "flag", "share"):
            share = hit / max(1, report.kept)
            shown.append(
                {
                    "name": name,
                    "korean": korean,
                    "hit": hit,
                    "share": share,
                    "limit": set_to.get(name),
                    "examples": found.examples,
                }
            )
    return shown


def _silent(survey: Survey) -> list[str]:
    return [SIGNALS[name].korean for name, found in survey.signals.items() if not found.hit]


def _shown(row: Any) -> str:
    spelt = plain(row)
    if isinstance(spelt, dict):
        try:
            talk = _talk(Conversation.from_dict(spelt, "").as_dict()["messages"])
        except KoalpacaError:
            # a row that never became a conversation: its columns
            pass
        else:
            return _short("\n".join(f"{who}: {text}" for who, text in talk))
        return _short("\n".join(f"{name}: {_as_text(value)}" for name, value in spelt.items()))
    return _short(" | ".join(map(_as_text, spelt)) if isinstance(spelt, list) else _as_text(spelt))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _talk(messages: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    names = {"system": "시스템", "user": "질문", "assistant": "답변"}
    talk = []
    for message in messages:
        if message.get("context"):
            talk.append(("맥락", _short(message["context"])))
        talk.append((names[message["role"]], _short(message["content"])))
    return talk


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… (모두 {len(text):,}자)"


def _plots(report: Report, survey: Survey) -> dict[str, list[str]]:
    made: dict[str, list[str]] = {"reasons": [], "quality": [], "lengths": _length_plots(survey.lengths)}
    if report.rejected:
        reasons = {words.REASONS[code]: float(count) for code, count in report.rejected.items()}
        made["reasons"].append(plots.bars(reasons, "뺀 까닭", "기록 수", text="{:,.0f}"))
    hits = {
        SIGNALS[name].korean: float(found.hit)
        for name, found in survey.signals.items()
        if found.hit and SIGNALS[name].kind in ("count", "flag")
    }
    if hits:
        made["quality"].append(plots.bars(hits, "신호가 잡힌 기록", "기록 수", text="{:,.0f}"))
    for name, found in survey.signals.items():
        title = SIGNALS[name].korean
        if SIGNALS[name].kind == "level" and found.bins:
            undecided = report.kept - found.hit
            shown = {level: float(count) for level, count in found.bins.most_common()}
            rest = {"정하지 못함": float(undecided)} if undecided else {}
            made["quality"].append(plots.bars({**shown, **rest}, title, "기록 수", text="{:,.0f}"))
        elif name in TOLD and found.bins:
            middles = [(bin + 0.5) / BINS for bin in range(BINS)]
            weights = [float(found.bins[str(bin)]) for bin in range(BINS)]
            made["quality"].append(plots.histogram(middles, title, "비율", "기록 수", bins=BINS, weights=weights))
    return made


def _length_plots(lengths: Mapping[str, Lengths]) -> list[str]:
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
        medians = {name: float(lengths[name].summary()["answer"].median) for name in kept}
        made.append(plots.bars(counts, "출처별 답변 수", "개수", text="{:,.0f}"))
        made.append(plots.bars(medians, "출처별 답변 길이의 중앙값", "글자 수", text="{:,.0f}"))
    return made
