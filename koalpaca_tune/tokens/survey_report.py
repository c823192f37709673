"""A token survey as a table, and as pages: tokens.html and tokens.md in Korean, tokens.json."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from koalpaca_tune import html, jsonl, plots
from koalpaca_tune.tokens.survey import Lengths, Report, Survey

OURS = ("tokens.json", "tokens.md", "tokens.html")

_PLOTTED_SHARE = 0.99
_BINS = 40


class Line(NamedTuple):
    """One line of the table: what, in both languages, and a value for each tokenizer."""

    ko: str
    en: str
    shown: tuple[str, ...]


def table(report: Report) -> list[Line]:
    """Every tokenizer's numbers side by side."""
    surveys = report.surveys
    top = f"{report.max_length:,}"

    def line(ko: str, en: str, values: list[str]) -> Line:
        return Line(ko, en, tuple(values))

    def lengths(ko: str, en: str, number: Any) -> Line:
        return line(ko, en, ["-" if one.lengths is None else number(one.lengths) for one in surveys])

    return [
        line("어휘 크기", "vocabulary", [f"{one.entries:,}" for one in surveys]),
        line("나온 어휘", "entries used", [f"{one.used:,} ({_share(one.used, one.entries)})" for one in surveys]),
        line("글자당 토큰", "tokens/character", [_ratio(one.tokens, report.characters) for one in surveys]),
        line("어절당 토큰", "tokens/word (어절)", [_ratio(one.tokens, report.words) for one in surveys]),
        line("기록당 토큰", "tokens/record", [_ratio(one.tokens, report.records, 1) for one in surveys]),
        line("조각 토큰", "byte pieces", [_share(one.partial, one.tokens) for one in surveys]),
        line("쪼개진 음절", "syllables cut", [_share(one.split, report.syllables) for one in surveys]),
        line("모르는 토큰", "unknown tokens", [_share(one.unknown, one.tokens) for one in surveys]),
        line("NFD로 풀린 글이면", "as NFD", [f"× {one.decomposed:.2f}" for one in surveys]),
        lengths("길이 중앙값", "length, median", lambda one: f"{one.at(0.5):,}"),
        lengths("길이 90%", "length, 90%", lambda one: f"{one.at(0.9):,}"),
        lengths("길이 99%", "length, 99%", lambda one: f"{one.at(0.99):,}"),
        lengths("가장 긴 것", "longest", lambda one: f"{one.at(1.0):,}"),
        lengths(f"{top} 토큰 넘는 기록", f"longer than {top}", lambda one: _too_long(one, report.records)),
        lengths("빼면 잃는 학습 토큰", "lost when dropped", lambda one: _share(one.lost_by_drop, one.learned)),
        lengths("자르면 잃는 학습 토큰", "lost when cut", lambda one: _share(one.lost_by_cut, one.learned)),
        lengths("잘려서 배울 것 없는 기록", "emptied by a cut", lambda one: f"{one.emptied:,}"),
    ]


def as_dict(report: Report) -> dict[str, Any]:
    """What tokens.json holds; lengths as [[length, records], ...]."""
    whole = asdict(report)
    for made, one in zip(whole["surveys"], report.surveys, strict=True):
        made["findings"] = [asdict(finding) for finding in one.findings]
        if one.lengths is not None:
            counts = [list(pair) for pair in one.lengths.counts.items()]
            quantiles = {name: one.lengths.at(share) for name, share in QUANTILES.items()}
            made["lengths"] |= {"counts": counts, **quantiles}
    return whole


QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


def write(report: Report, folder: Path) -> None:
    """Writes `OURS` into a folder, over an earlier report; other files stay."""
    jsonl.write_json(folder / OURS[0], as_dict(report))
    values = {"report": report, "table": table(report)}
    jsonl.replace(folder / OURS[1], [html.render("token_report.md.j2", **values)])
    drawn = [_plot(one, report.max_length) for one in report.surveys]
    jsonl.replace(folder / OURS[2], [html.render("token_report.html.j2", plots=drawn, **values)])


def _plot(one: Survey, max_length: int) -> str:
    if one.lengths is None:
        return ""
    # a few very long records would press the rest into one bar
    end = max(one.lengths.at(_PLOTTED_SHARE), min(one.lengths.at(1.0), 2 * max_length))
    shown = {length: count for length, count in one.lengths.counts.items() if length <= end}
    left_out = sum(one.lengths.counts.values()) - sum(shown.values())
    near = max_length <= 3 * end
    notes = [f"긴 쪽 {left_out:,}개 제외"] if left_out else []
    notes += [] if near else [f"max_length {max_length:,}은(는) 오른쪽 밖"]
    return plots.histogram(
        list(shown),
        f"{one.name}: 기록의 길이",
        ", ".join(["토큰 수(템플릿 포함)", *notes]),
        "기록 수",
        bins=max(1, min(_BINS, end - min(shown) + 1)),
        weights=list(shown.values()),
        mark=(max_length, f"max_length {max_length:,}") if near else None,
    )


def _too_long(one: Lengths, records: int) -> str:
    return f"{one.too_long:,} ({_share(one.too_long, records)})"


def _ratio(count: int, of: int, digits: int = 3) -> str:
    return f"{count / of:,.{digits}f}" if of else "-"


def _share(count: int, of: int) -> str:
    """A share in per cent; what is there never shows as 0%."""
    if not of:
        return "-"
    share = 100 * count / of
    return f"{share:.2f}%" if share >= 0.01 or not count else "<0.01%"
