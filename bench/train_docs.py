"""The speed table as Markdown, and its place in docs/ko/speed.md and docs/en/speed.md (see bench/train.py)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

START, END = "<!-- bench:train -->", "<!-- /bench:train -->"
HEADINGS = (
    "베이스, 작업 (base, work)",
    "학습기 (trainer)",
    "설정 (setting)",
    "토큰/초 (tokens/s)",
    "최대 GiB (peak)",
    "목표 (goal)",
)
WORK = {"fixed": "8 x 2,048", "kosft": "kosft"}
NAMES = {
    "koalpaca": "**koalpaca**",
    "hf": "PEFT + transformers",
    "trl": "TRL",
    "trl-liger": "TRL + Liger",
    "unsloth": "Unsloth",
}
NEW = {
    "ko": "# 속도 (Speed)\n\n`bench/train.py`가 잰 값입니다: 같은 기계에서 하나씩 차례로, 실제 토큰만 셉니다.\n\n",
    "en": "# Speed\n\nMeasured by `bench/train.py`: one after another on the same machine, real tokens only.\n\n",
}


def read(logs: Iterable[Path]) -> list[dict[str, Any]]:
    """The newest entry of every row that has a result, else its newest failure; later files count as newer."""
    newest: dict[str, dict[str, Any]] = {}
    for log in logs:
        for line in log.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if "error" not in entry or "error" in newest.get(entry["row"], {"error": ""}):
                newest[entry["row"]] = entry
    return list(newest.values())


def table(entries: Sequence[dict[str, Any]], order: Sequence[str]) -> str:
    """Where and with what it was measured, then one line per row, in the order given."""
    place = {name: n for n, name in enumerate(order)}
    entries = sorted(entries, key=lambda entry: place.get(entry["row"], len(place)))
    lines = [_facts(entries), "", _line(HEADINGS), _line(["---", "---", "---", "---:", "---:", "---"])]
    before = ""
    for entry in entries:
        work = f"{entry['shape']}, {WORK[entry['workload']]}"
        cells = (NAMES[entry["system"]], _setting(entry), _speed(entry), _peak(entry), _goal(entry))
        lines.append(_line(("" if work == before else work, *cells)))
        before = work
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _facts(entries: Sequence[dict[str, Any]]) -> str:
    measured = [entry for entry in entries if "date" in entry]
    if not measured:
        return "아직 잰 값이 없습니다. (Nothing measured yet.)"
    days = sorted({entry["date"][:10] for entry in measured})
    cards = sorted({entry["gpu"] for entry in measured})
    versions: dict[str, set[str]] = {}
    for entry in measured:
        for name, version in entry["versions"].items():
            versions.setdefault(name, set()).add(version)
    said = ", ".join(f"{name} {' / '.join(sorted(several))}" for name, several in versions.items())
    return f"{' – '.join(dict.fromkeys((days[0], days[-1])))}, {' / '.join(cards)}; {said}."


def _setting(entry: dict[str, Any]) -> str:
    parts = []
    if entry["system"] == "koalpaca":
        budget = entry.get("budget_gib")
        parts.append("카드 전체 (whole card)" if budget is None else f"{budget:g} GiB 안에서 (within)")
        parts += [entry["plan"]] if entry.get("plan") else []
        parts += [f"`{' '.join(entry['set'])}`"] if entry.get("set") else []
    else:
        parts.append("재계산 (recompute)" if entry["recompute"] == "yes" else "재계산 없음 (no recompute)")
        if entry["packing"]:
            parts.append(f"packing {entry['packing']:,} x {entry['batch']}")
        elif entry["workload"] != "fixed":
            parts.append("padding")
    return "; ".join(parts)


def _speed(entry: dict[str, Any]) -> str:
    if "error" in entry:
        said = str(entry["error"]).replace("|", "/").replace("<", "&lt;").replace("\n", " ")
        return f"실패 (failed): {said[:80]}"
    speed = f"{entry['tokens_per_second']:,.0f}"
    return f"**{speed}**" if entry["system"] == "koalpaca" else speed


def _peak(entry: dict[str, Any]) -> str:
    peak = entry.get("peak_gib")
    return "-" if peak is None else f"{peak:.1f}"


def _goal(entry: dict[str, Any]) -> str:
    goal = entry.get("goal")
    if goal is None:
        return ""
    if "error" in entry:
        return f"{goal:,}"
    share, peak, budget = entry["tokens_per_second"] / goal, entry.get("peak_gib"), entry.get("budget_gib")
    said = "도달 (reached)" if share >= 1 else f"{int(1000 * share) / 10} %"
    if peak is not None and budget is not None and peak > budget:
        said += ", 메모리 초과 (over the memory)"
    return f"{goal:,}: {said}"


def write(docs: Path, text: str) -> list[Path]:
    """Puts the table between the markers of both languages' speed.md; makes a page that is not there.

    Raises:
        SystemExit: a page without the markers.
    """
    pages = []
    for language, opening in NEW.items():
        page = docs / language / "speed.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        whole = page.read_text(encoding="utf-8") if page.is_file() else f"{opening}{START}\n{END}\n"
        before, start, rest = whole.partition(START)
        _, end, after = rest.partition(END)
        if not (start and end):
            raise SystemExit(f"{page}: there is no {START} ... {END}.")
        page.write_text(f"{before}{START}\n{text}{END}{after}", encoding="utf-8")
        pages.append(page)
    return pages
