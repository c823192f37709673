"""What came of a sweep: a table and a plot, in Korean and English, and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl, plots
from koalpaca_tune.comparison import words
from koalpaca_tune.comparison.compare import Row
from koalpaca_tune.runs.sweep import REFERENCE, Judged, Swept, Trial

TITLES = ("이름 (name)", "설정 (settings)", "고르는 손실 (loss, choosing)", "토큰/초 (tokens/s)", "GiB", "초 (s)")
COLOURS = {"improved": plots.GOOD, "worse": plots.BAD, "no detectable change": plots.NEUTRAL}
HELDOUT = "heldout-nll"


def settings(trial: Trial) -> str:
    """What a run changes."""
    if trial.name == REFERENCE:
        return "레시피 그대로 (the recipe)"
    return ", ".join(f"{key}={value}" for key, value in trial.changes.items())


def cells(trial: Trial) -> list[str]:
    """One run's row, under TITLES."""
    if trial.result is None:
        return [trial.name, settings(trial), f"실패 (failed): {trial.failed}", "-", "-", "-"]
    result, peak = trial.result, trial.result["peak_memory_gib"]
    return [
        trial.name,
        settings(trial),
        f"{result['valid_loss']:.4f}",
        f"{result['tokens_per_second']:,.0f}",
        "-" if peak is None else f"{peak:.1f}",
        f"{result['seconds']:,.0f}",
    ]


def verdict(judged: Judged) -> tuple[str, str]:
    """What can be said of a trial beside the reference, (Korean, English)."""
    titles: dict[str, list[Row]] = {"improved": [], "worse": [], "no detectable change": []}
    for row, one in zip(judged.comparison.rows, judged.verdicts, strict=True):
        titles[one].append(row)
    better, worse = titles["improved"], titles["worse"]
    if not better and not worse:
        return "달라진 것을 확인하지 못했습니다", "no detectable change"
    korean, english = [], []
    for word, word_en, rows in (("나아짐", "improved", better), ("나빠짐", "worse", worse)):
        if rows:
            korean.append(f"{word}: {', '.join(row.title for row in rows)}")
            english.append(f"{word_en}: {', '.join(row.title_en for row in rows)}")
    return "; ".join(korean), "; ".join(english)


def write(swept: Swept, out: Path) -> Path:
    """Writes report.md, sweep.svg and the end of sweep.json; returns the page."""
    mark = out / "sweep.json"
    stored = jsonl.read_json(mark)
    jsonl.write_json(mark, {"asked": stored["asked"], **_as_dict(swept)})
    jsonl.replace(out / "sweep.svg", [_plot(swept)])
    page = out / "report.md"
    jsonl.replace(page, [line + "\n" for line in _page(swept)])
    return page


def _as_dict(swept: Swept) -> dict[str, Any]:
    return {
        "trials": [
            {"name": one.name, "changes": dict(one.changes), "result": one.result, "failed": one.failed}
            for one in swept.trials
        ],
        "judged": [
            {
                "name": one.trial.name,
                "rows": [
                    {
                        "task": row.task,
                        "measure": row.measure,
                        "difference": row.paired.difference,
                        "low": row.paired.low,
                        "high": row.paired.high,
                        "p": row.paired.p,
                        "p_holm": p,
                        "verdict": said,
                    }
                    for row, p, said in zip(one.comparison.rows, one.adjusted, one.verdicts, strict=True)
                ],
            }
            for one in swept.judged
        ],
    }


def _rows(one: Judged) -> Iterator[tuple[Row, float, str]]:
    yield from zip(one.comparison.rows, one.adjusted, one.verdicts, strict=True)


def _plot(swept: Swept) -> str:
    """Bits per character of the held-out answers, each judged trial less the reference."""
    rows = []
    for one in swept.judged:
        for row, _, said in _rows(one):
            paired = row.paired
            if row.task == HELDOUT and paired.low is not None and paired.high is not None:
                label = f"{one.trial.name}  {settings(one.trial)}"
                rows.append(plots.Interval(label, paired.difference, paired.low, paired.high, COLOURS[said]))
    return plots.intervals(
        rows,
        "기준 레시피와의 차이 (less the reference)",
        "판정하는 답의 글자당 비트 (bits per character; left is better)",
    )


def _page(swept: Swept) -> Iterator[str]:
    yield "# 훑어보기 (sweep)"
    yield ""
    yield "검증 데이터의 절반으로 고르고 나머지 절반으로 판정했습니다."
    yield "p는 판정한 모든 시도의 모든 줄에 걸쳐 Holm으로 조정했습니다."
    yield "(One half of the validation data chose, the other half judged;"
    yield "p is adjusted by Holm over all rows of all judged trials.)"
    yield ""
    yield "## 모든 실행 (all runs)"
    yield ""
    yield f"| {' | '.join(TITLES)} |"
    yield "|---|---|---:|---:|---:|---:|"
    for trial in swept.trials:
        yield f"| {' | '.join(_cell(text) for text in cells(trial))} |"
    yield ""
    yield "## 판정 (judged)"
    yield ""
    yield "![기준과의 차이](sweep.svg)"
    for one in swept.judged:
        korean, english = verdict(one)
        yield ""
        yield f"### {one.trial.name}: {_cell(settings(one.trial))}"
        yield ""
        yield f"{korean} ({english}). [모두 보기 (report)](compared/{one.trial.name}/report.html)"
        yield ""
        yield "| 무엇 (what) | 기준 (reference) | 시도 (trial) | 차이 [95 %] | p (Holm) | 판정 (verdict) |"
        yield "|---|---:|---:|---:|---:|---|"
        for row, p, said in _rows(one):
            texts = words.row(row)
            yield (
                f"| {_cell(row.title)} | {texts['before']} | {texts['after']} | {texts['change']} "
                f"{texts['interval']} | {words.p_value(p)} | {words.VERDICTS[said][0]} |"
            )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
