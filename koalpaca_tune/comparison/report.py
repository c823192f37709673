"""The comparison as files: a page to read, Markdown for a model card, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from koalpaca_tune import html, jsonl, plots
from koalpaca_tune.comparison import flips, titles, words
from koalpaca_tune.comparison.as_written import AsWritten
from koalpaca_tune.comparison.categories import Categories
from koalpaca_tune.comparison.compare import Comparison, Row
from koalpaca_tune.comparison.flips import Changed
from koalpaca_tune.comparison.notice import Notice
from koalpaca_tune.comparison.outcomes import Unit
from koalpaca_tune.comparison.power import FEWEST
from koalpaca_tune.comparison.scoring import Audit
from koalpaca_tune.errors import KoalpacaError

WORST_SHOWN = 20
"""Regressions of all tasks together on the page; all of them are in comparison.json."""
SHOWN = 10
"""Lost and won items of each task on the page."""
NOTICES_SHOWN = 2
"""Warnings of one kind that are not folded."""
TEXT_SHOWN = 500
"""Characters of a text on the page; of a prompt the last ones, where the question is."""

_COLOURS = {"improved": plots.GOOD, "worse": plots.BAD, "no detectable change": plots.NEUTRAL}
_GROUPS = (("skill", "능력", "Skills"), ("fit", "검증 데이터에 대한 적합도", "Fit to the held-out data"))
NARROW = 3.5
"""Inches of a plot on a phone."""


def check_out(out: Path) -> None:
    """Refuses a folder for the report that is a file, before anything is compared.

    Raises:
        KoalpacaError: out-folder.
    """
    wrong = next((path for path in (out, *out.absolute().parents) if path.exists() and not path.is_dir()), None)
    if wrong is not None:
        raise KoalpacaError(
            "out-folder", "it is a file, not a folder.", where=str(wrong), fix="Choose another --out."
        )


def write(comparison: Comparison, out: Path, *, texts: bool = True) -> Path:
    """Writes report.html, report.md, comparison.json and items.jsonl; returns the page.

    Args:
        comparison: what was found.
        out: the folder.
        texts: whether items are shown with what was asked and said; without, there is no items.jsonl, and a report
            can be shown where its data may not be.

    Raises:
        KoalpacaError: `out` is one of the compared folders (compare-out), or a text of the results is none
            (eval-shape).
    """
    with AsWritten(comparison.pair.before.folder, comparison.pair.after.folder):
        return _write(comparison, out, texts=texts)


def _write(comparison: Comparison, out: Path, *, texts: bool) -> Path:
    sources = {comparison.pair.before.folder.resolve(), comparison.pair.after.folder.resolve()}
    if out.resolve() in sources:
        raise KoalpacaError(
            "compare-out",
            "the report would overwrite the results that it compares.",
            where=str(out),
            fix="Choose another --out.",
        )
    if not texts:
        comparison = replace(comparison, flips=tuple(flip.without_texts() for flip in comparison.flips))
    view = _view(comparison)
    jsonl.write_json(out / "comparison.json", comparison.as_dict())
    if texts:
        jsonl.write(out / "items.jsonl", _items(comparison))
    else:
        # of an earlier report in this folder
        (out / "items.jsonl").unlink(missing_ok=True)
        view["answers"] = []
    jsonl.replace(out / "report.md", [html.render("comparison.md.j2", **view, cell=html.markdown)])
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
    for group, title, title_en in _GROUPS:
        rows = [words.row(row) for row in comparison.rows if row.group == group]
        if rows:
            counts = [
                (word, word_en, sum(row["verdict"] == word for row in rows))
                for word, word_en in words.VERDICTS.values()
            ]
            if few := sum(row["verdict"] == words.TOO_FEW[0] for row in rows):
                counts.append((*words.TOO_FEW, few))
            groups.append({"key": group, "title": title, "title_en": title_en, "rows": rows, "counts": counts})
    lost = flips.worst(item for flip in comparison.flips for item in flip.lost)
    choices = {task.name for task in comparison.pair.tasks if task.before["kind"] == "choice"}
    units = {row.task: row.unit for row in comparison.rows}
    return {
        "suite": comparison.pair.before.suite,
        "scope": comparison.scope.heading(),
        "limited": comparison.scope.limit is not None,
        "overall": said.overall,
        "said": said,
        "groups": groups,
        "guessing": words.guessing(comparison.rows),
        "tests": len(comparison.rows),
        "corpus": any(row.corpus_before is not None for row in comparison.rows),
        "notices": _folded(comparison.warnings),
        "warnings": comparison.warnings,
        "sides": [words.side(side) for side in comparison.sides],
        "lost": [_item(item, item.task in choices, units[item.task]) for item in lost[:WORST_SHOWN]],
        "lost_total": len(lost),
        "flips": [
            {
                "flip": flip,
                "lost": [_item(item, flip.task in choices, units[flip.task]) for item in flip.lost[:SHOWN]],
                "won": [_item(item, flip.task in choices, units[flip.task]) for item in flip.won[:SHOWN]],
            }
            for flip in comparison.flips
        ],
        "categories": [_categories(one) for one in comparison.categories],
        "audits": [_audit(audit) for audit in comparison.audits],
        "answers": list(_answers(comparison)),
        "tasks": comparison.pair.before.tasks,
        "label_tokens": [
            (audit.title, ", ".join(f"{label} {count}" for label, count in audit.label_tokens))
            for audit in comparison.audits
            if audit.label_tokens
        ],
        "identities": words.identities(comparison),
        "template": comparison.pair.before.template,
    }


def _folded(notices: Sequence[Notice]) -> list[dict[str, Any]]:
    """Warnings by kind, in the order in which the kinds come."""
    kinds: dict[str, list[Notice]] = {}
    for notice in notices:
        kinds.setdefault(notice.code, []).append(notice)
    return [{"shown": found[:NOTICES_SHOWN], "more": found[NOTICES_SHOWN:]} for found in kinds.values()]


def _item(item: Changed, choice: bool, unit: Unit) -> dict[str, Any]:
    """A changed item as texts."""
    before, after = (words.value(value, unit) for value in (item.value_before, item.value_after))
    named = ("정답의 확률 몫", "share of the right answer") if choice else ("점수", "score")
    return {
        "title": item.title,
        "category": item.category,
        "prompt": _tail(item.prompt),
        "gold": _head(item.gold),
        "before": _head(item.before),
        "after": _head(item.after),
        "value": f"{before} → {after}",
        "named": named[0],
        "named_en": named[1],
        "id": item.id,
        "good": item.change > 0,
    }


def _head(text: str) -> str:
    return text.strip() if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN].strip() + " …"


def _tail(text: str) -> str:
    return text.strip() if len(text) <= TEXT_SHOWN else "… " + text[-TEXT_SHOWN:].strip()


def _categories(one: Categories) -> dict[str, Any]:
    rows = [
        {
            "name": row.name,
            "n": row.paired.n,
            "before": words.value(row.paired.before, one.unit),
            "after": words.value(row.paired.after, one.unit),
            "change": words.change(row.paired.difference, one.unit),
            "interval": words.spread(row.paired, one.unit),
            "lost": row.paired.lost,
            "won": row.paired.won,
            "both_right": row.both_right,
            "both_wrong": row.both_wrong,
        }
        for row in one.rows
    ]
    macro = one.macro and {
        "before": words.value(one.macro.before, one.unit),
        "after": words.value(one.macro.after, one.unit),
        "change": words.change(one.macro.difference, one.unit),
        "interval": words.spread(one.macro, one.unit),
    }
    flipped = any(row.both_right is not None for row in one.rows)
    return {"title": one.title, "title_en": one.title_en, "rows": rows, "macro": macro, "flips": flipped}


def _audit(audit: Audit) -> dict[str, Any]:
    return {
        "title": audit.title,
        "title_en": audit.title_en,
        "depends": audit.depends,
        "rows": [
            {
                "used": way.metric == audit.used,
                "title": titles.of_measure(way.metric)[0],
                "title_en": titles.of_measure(way.metric)[1],
                "before": words.value(way.paired.before, "share"),
                "after": words.value(way.paired.after, "share"),
                "change": words.change(way.paired.difference, "share"),
                "verdict": words.VERDICTS[way.verdict][0],
                "kind": way.verdict.split()[0],
            }
            for way in audit.scorings
        ],
    }


def _answers(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for task in comparison.pair.tasks:
        if task.before["kind"] == "generation":
            for before, after in zip(task.lines_before, task.lines_after, strict=True):
                yield {
                    "question": _tail(before["question"]),
                    "reference": _head(before["reference"]),
                    "before": _head(before["text"]),
                    "after": _head(after["text"]),
                    "marks_before": words.marks(before),
                    "marks_after": words.marks(after),
                }


def _plots(comparison: Comparison) -> dict[str, dict[str, str]]:
    """SVG by name and width; only what there is something to show for."""
    drawn = {}
    for group, title in (("skill", "능력: 나아진 정도"), ("fit", "검증 데이터: 나아진 정도")):
        # one interval from end to end would leave no room for the others
        rows = [row for row in comparison.rows if row.group == group and row.paired.n >= FEWEST]
        if rows:
            shares = all(row.unit == "share" for row in rows)
            axis = "%p, 오른쪽이 나아진 쪽" if shares else "%p (비트와 점수는 처음 값의 %), 오른쪽이 나아진 쪽"
            drawn[group] = {
                "wide": plots.intervals([_forest(row, row.title + _unknown(row)) for row in rows], title, axis),
                "narrow": plots.intervals(
                    [_forest(row, _short(row.title) + _unknown(row)) for row in rows],
                    title,
                    "%p" if shares else "%p, %",
                    width=NARROW,
                ),
            }
    if comparison.flips:
        counts = [(len(flip.lost), len(flip.won)) for flip in comparison.flips]
        labels = _unique([flip.title for flip in comparison.flips])
        drawn["flips"] = {
            # a phone has no room beside the labels, and the table follows
            "wide": plots.diverging(
                dict(zip(labels, counts, strict=True)), "답이 바뀐 문항", ("나빠짐", "나아짐"), "문항"
            )
        }
    return drawn


def _unique(titles: Sequence[str]) -> list[str]:
    """The same labels, numbered where one comes again."""
    seen: dict[str, int] = {}
    found = []
    for title in titles:
        seen[title] = seen.get(title, 0) + 1
        found.append(title if seen[title] == 1 else f"{title} {seen[title]}")
    return found


def _unknown(row: Row) -> str:
    return "" if row.paired.low is not None else " (구간 없음)"


def _short(title: str) -> str:
    return title if len(title) <= 12 else title[:11] + "…"


def _forest(row: Row, label: str) -> plots.Interval:
    scale = 100.0 if row.unit == "share" else 100 / (abs(row.paired.before) or 1.0)
    gain, low, high = (number * scale for number in row.gain)
    return plots.Interval(label, gain, low, high, _COLOURS[row.verdict])
