"""The comparison as files: a page to read, Markdown for a model card, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from koalpaca_tune import html, jsonl, plots
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation import words
from koalpaca_tune.evaluation.compare import Comparison, Row

LOST_SHOWN = 20
"""Lost and won items on the page; all of them are in comparison.json."""

_COLOURS = {"improved": plots.GOOD, "worse": plots.BAD, "no detectable change": plots.NEUTRAL}


def write(comparison: Comparison, out: Path) -> Path:
    """Writes report.html, report.md, comparison.json and items.jsonl; returns the page.

    Raises:
        KoalpacaError: `out` is one of the compared folders (compare-out).
    """
    sources = {comparison.pair.before.folder.resolve(), comparison.pair.after.folder.resolve()}
    if out.resolve() in sources:
        raise KoalpacaError(
            "compare-out",
            "the report would overwrite the results that it compares.",
            where=str(out),
            fix="Choose another --out.",
        )
    view = _view(comparison)
    jsonl.write_json(out / "comparison.json", comparison.as_dict())
    jsonl.write(out / "items.jsonl", _items(comparison))
    jsonl.replace(out / "report.md", [html.render("comparison.md.j2", **view, cell=_cell)])
    page = out / "report.html"
    jsonl.replace(page, [html.render("comparison.html.j2", **view, plots=_plots(comparison))])
    return page


def _items(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """One line per item: what both sides said."""
    for task in comparison.pair.tasks:
        for before, after in zip(task.lines_before, task.lines_after, strict=True):
            hidden = ("task", "hash", "id")
            one, two = ({k: v for k, v in line.items() if k not in hidden} for line in (before, after))
            same = {key: item for key, item in one.items() if key in two and two[key] == item}
            yield {
                "task": task.name,
                "id": before["id"],
                "item": same,
                "before": {key: item for key, item in one.items() if key not in same},
                "after": {key: item for key, item in two.items() if key not in same},
            }


def _view(comparison: Comparison) -> dict[str, Any]:
    """Everything that both pages show, as texts."""
    said = comparison.said
    groups = []
    for group, title, title_en in (
        ("skill", "능력", "Skills"),
        ("fit", "검증 데이터에 대한 적합도", "Fit to the held-out data"),
    ):
        rows = [words.row(row) for row in comparison.rows if row.group == group]
        if rows:
            counts = [(word, sum(row["verdict"] == word for row in rows)) for word, _ in words.VERDICTS.values()]
            groups.append({"key": group, "title": title, "title_en": title_en, "rows": rows, "counts": counts})
    suite = comparison.pair.before.suite
    return {
        "suite": suite,
        "overall": said.overall,
        "said": said,
        "groups": groups,
        "tests": len(comparison.rows),
        "warnings": list(words.warnings(comparison)),
        "sides": [
            {
                "title": side.title,
                "title_en": side.title_en,
                "before": words.value(side.before, "share"),
                "after": words.value(side.after, "share"),
                "change": words.change(side.difference, "share"),
                "interval": words.interval(side.low, side.high, "share"),
                "n": side.n,
            }
            for side in comparison.sides
        ],
        "flips": comparison.flips,
        "shown": LOST_SHOWN,
        "answers": list(_answers(comparison)),
        "tasks": comparison.pair.before.tasks,
        "label_tokens": [
            (task["title"], ", ".join(f"{label} {count}" for label, count in task["label_tokens"].items()))
            for task in comparison.pair.before.tasks
            if task.get("label_tokens")
        ],
        "identities": words.identities(comparison),
        "template": comparison.pair.before.template,
    }


def _answers(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for task in comparison.pair.tasks:
        if task.before["kind"] == "generation":
            for before, after in zip(task.lines_before, task.lines_after, strict=True):
                yield {
                    "question": before["question"],
                    "reference": before["reference"],
                    "before": before["text"],
                    "after": after["text"],
                    "marks_before": words.marks(before),
                    "marks_after": words.marks(after),
                }


def _plots(comparison: Comparison) -> dict[str, str]:
    """SVG by name; only what there is something to show for."""
    drawn = {}
    for group, title in (("skill", "능력: 정확도의 변화"), ("fit", "검증 데이터: 나아진 정도")):
        rows = [row for row in comparison.rows if row.group == group]
        if rows:
            axis = "%p, 95% 구간. 0의 오른쪽이 나아진 쪽"
            if any(row.unit == "bits" for row in rows):
                axis = "%p (글자당 비트는 처음 값에 대한 %), 95% 구간. 0의 오른쪽이 나아진 쪽"
            drawn[group] = plots.intervals([_forest(row) for row in rows], title, axis)
    if comparison.flips:
        counts = {flip.title: (len(flip.lost), len(flip.won)) for flip in comparison.flips}
        names = ("맞다가 틀림", "틀리다가 맞음")
        drawn["flips"] = plots.diverging(counts, "답이 바뀐 문항", names, "문항")
    return drawn


def _forest(row: Row) -> plots.Interval:
    scale = 100 / (row.paired.before or 1.0) if row.unit == "bits" else 100.0
    gain, low, high = (number * scale for number in row.gain)
    return plots.Interval(row.title, gain, low, high, _COLOURS[row.verdict])


def _cell(text: object) -> str:
    """A text inside a Markdown table or list: one line, nothing that Markdown or HTML would act on."""
    line = " ".join(str(text).split())
    for mark in ("\\", "|", "`", "*", "_", "[", "]", "#", "~"):
        line = line.replace(mark, "\\" + mark)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
