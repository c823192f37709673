#!/usr/bin/env python3
"""The result pages of the before/after, in Korean and English, from what `koalpaca compare` wrote for each seed.

    python scripts/before_after/page.py runs/base100m docs/results/before-after

Reads WORK/seed-*/comparison.json, and beside it how the base, the mixture and the adapters were made. Writes
README.md (Korean), README.en.md, and each seed's report.html, report.md and comparison.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
REPORTS = ("report.html", "report.md", "comparison.json")

VERDICTS = {
    "improved": ("나아짐", "improved"),
    "worse": ("나빠짐", "worse"),
    "no detectable change": ("확인 안 됨", "no detectable change"),
}


@dataclass(frozen=True)
class Seed:
    """One tuning that was judged.

    Attributes:
        name: the seed.
        comparison: of comparison.json.
        rows: (task, measure) -> tested row.
        run: result of the training, of record.json.
    """

    name: str
    comparison: Mapping[str, Any]
    rows: Mapping[tuple[str, str], Row]
    run: Mapping[str, Any]


def read(work: Path) -> list[Seed]:
    """Return the seeds that were compared.

    Raises:
        SystemExit: none was.
    """
    seeds = []
    for path in sorted(work.glob("seed-*/comparison.json")):
        name = path.parent.name.removeprefix("seed-")
        comparison = _json(path)
        rows = {(row["task"], row["measure"]): row for row in comparison["rows"]}
        seeds.append(Seed(name, comparison, rows, _json(work / f"tuned-{name}" / "record.json")))
    if not seeds:
        raise SystemExit(f"error: {work} holds no seed-*/comparison.json. Run `run.sh evaluate SEED` first.")
    return seeds


def agreement(seeds: Sequence[Seed]) -> dict[str, list[tuple[str, str]]]:
    """Return verdict -> the measures that have it with every seed; `differ`: those whose seeds do not agree."""
    groups: dict[str, list[tuple[str, str]]] = {name: [] for name in (*VERDICTS, "differ")}
    for key in seeds[0].rows:
        said = {seed.rows[key]["verdict"] for seed in seeds if key in seed.rows}
        groups[said.pop() if len(said) == 1 else "differ"].append(key)
    return groups


def number(value: float, unit: str, signed: bool = False) -> str:
    """Return a value of a row: shares in percent, everything else as it is."""
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.1f}" if unit == "share" else f"{value:{sign}.3f}"


def change(row: Row) -> str:
    """Return the difference with its 95 % interval."""
    paired, unit = row["paired"], row["unit"]
    if paired["low"] is None:
        return f"{number(paired['difference'], unit, True)} (–)"
    low, high = number(paired["low"], unit, True), number(paired["high"], unit, True)
    return f"{number(paired['difference'], unit, True)} ({low} … {high})"


def table(seeds: Sequence[Seed], ko: bool) -> Iterator[str]:
    """Yield the lines of the table of all tested measures."""
    head = ["무엇 (과제)" if ko else "what (task)", "문항" if ko else "items", "전" if ko else "before"]
    for seed in seeds:
        of = f"시드 {seed.name}" if ko else f"seed {seed.name}"
        head += [f"{of}: {'차이 (95% 구간)' if ko else 'difference (95 %)'}", "판정" if ko else "verdict"]
    yield "| " + " | ".join(head) + " |"
    yield "|---|---:|---:|" + "---:|---|" * len(seeds)
    for key, row in seeds[0].rows.items():
        cells = [
            f"{name(row, ko)} (`{key[0]}`)",
            f"{row['paired']['n']:,}",
            number(row["paired"]["before"], row["unit"]),
        ]
        for seed in seeds:
            one = seed.rows.get(key)
            cells += ["-", "-"] if one is None else [change(one), VERDICTS[one["verdict"]][0 if ko else 1]]
        yield "| " + " | ".join(cells) + " |"


def name(row: Row, ko: bool) -> str:
    """Return what a row measured; an arrow where less is better."""
    title = row["title"] if ko else row["title_en"]
    return f"{title} ↓" if row["lower_is_better"] else str(title)


def named(seeds: Sequence[Seed], keys: Sequence[tuple[str, str]], ko: bool) -> str:
    """Return the titles of some measures."""
    return ", ".join(name(seeds[0].rows[key], ko) for key in keys) or ("없음" if ko else "none")


def findings(seeds: Sequence[Seed], ko: bool) -> Iterator[str]:
    """Yield a line for each kind of finding."""
    groups = agreement(seeds)
    agreed = sum(len(keys) for kind, keys in groups.items() if kind != "differ")
    total = agreed + len(groups["differ"])
    of = ", ".join(seed.name for seed in seeds)
    if ko:
        yield f"시드 {of}의 판정이 측정 {total}가지 가운데 {agreed}가지에서 같습니다."
    else:
        yield f"The verdicts of seeds {of} agree on {agreed} of {total} measures."
    yield ""
    labels = {
        "improved": ("나아진 것", "Improved"),
        "worse": ("나빠진 것", "Got worse"),
        "no detectable change": ("달라진 것을 확인하지 못한 것", "No detectable change"),
        "differ": ("시드마다 판정이 다른 것", "Verdicts that differ between the seeds"),
    }
    for kind, (korean, english) in labels.items():
        yield f"- {korean if ko else english} ({len(groups[kind])}): {named(seeds, groups[kind], ko)}"


def warned(seeds: Sequence[Seed], ko: bool) -> Iterator[str]:
    """Yield every warning of the reports once, with the seeds that have it."""
    found: dict[str, list[str]] = {}
    for seed in seeds:
        for notice in seed.comparison["warnings"]:
            found.setdefault(notice["korean" if ko else "english"], []).append(seed.name)
    for text, names in found.items():
        yield f"- {text} ({'시드' if ko else 'seed'} {', '.join(names)})"
    if not found:
        yield "없음" if ko else "None."


def made(work: Path, seeds: Sequence[Seed], ko: bool) -> Iterator[str]:
    """Yield how the base, the mixture and the adapters were made."""
    base = _json(work / "model" / "provenance.json")
    facts, tokens, mixture = base["training"], base["training_tokens"], _json(work / "prepared" / "report.json")
    train, valid = mixture["train"], mixture["valid"]
    contaminated = mixture["rejected"].get("contaminated", 0)
    bits, device, seen = _bits(work), facts["device"], facts["tokens_seen"]
    size, steps, epochs, seconds = facts["parameters"], facts["steps"], facts["epochs"], facts["seconds"]
    if ko:
        yield (
            f"- 베이스: 파라미터 {size:,}개(GPT-NeoX), 위키백과 {tokens['documents']:,}편 "
            f"{tokens['characters']:,}자({tokens['tokens']:,}토큰)를 {epochs}번, {steps:,}단계, "
            f"{seen:,}토큰, {seconds}초 ({device}). 따로 둔 글에서 글자당 {bits}비트."
        )
        yield (
            f"- 조정용 자료: KoBEST train, 영화 평, 짧은 대화. 학습 {train:,}건, 검증 {valid:,}건. 평가 문항과 "
            f"겹쳐 뺀 기록 {contaminated:,}건."
        )
    else:
        yield (
            f"- Base: {size:,} parameters (GPT-NeoX), {tokens['documents']:,} articles of Wikipedia, "
            f"{tokens['characters']:,} characters ({tokens['tokens']:,} tokens), {epochs} epochs, {steps:,} steps, "
            f"{seen:,} tokens, {seconds} s ({device}). {bits} bits per character on held-out articles."
        )
        yield (
            f"- Mixture: KoBEST train, film reviews, short conversations. {train:,} records to train, {valid:,} to "
            f"validate; {contaminated:,} left out because they overlap with evaluation items."
        )
    for seed in seeds:
        run = seed.run["result"]
        steps, seconds, loss, last = run["steps"], run["seconds"], run["loss"], run["valid_loss"]
        if ko:
            yield f"- 시드 {seed.name}: QLoRA, {steps:,}단계, {seconds:.0f}초. 손실 {loss:.3f}, 검증 {last:.3f}."
        else:
            yield f"- Seed {seed.name}: QLoRA, {steps:,} steps, {seconds:.0f} s. Loss {loss:.3f}, valid {last:.3f}."


def _bits(work: Path) -> str:
    log = (work / "pretrain.log").read_text(encoding="utf-8")
    return log.rsplit("~", 1)[-1].split(" ", 1)[0] if "~" in log else "?"


def between(work: Path, ko: bool) -> Iterator[str]:
    """Yield how far two seeds differ from each other, item by item."""
    path = work / "between-seeds" / "comparison.json"
    if path.is_file():
        rows = _json(path)["rows"]
        other = [row for row in rows if row["verdict"] != "no detectable change"]
        titles = ", ".join(name(row, ko) for row in other) or ("없음" if ko else "none")
        if ko:
            count = f"{len(rows)}가지 가운데 {len(other)}가지"
            yield f"두 시드의 어댑터를 서로 견주면 {count}가 뚜렷이 다릅니다: {titles}."
        else:
            count = f"{len(other)} of {len(rows)} measures"
            yield f"Compared with each other, the two adapters differ detectably in {count}: {titles}."


KOREAN = """# 조정하기 전과 후: 1억 파라미터 베이스

[English](README.en.md)

`scripts/before_after/run.sh`가 쓴 쪽입니다. 한 베이스를 시드만 달리해
여러 번 조정하고, 그때마다 전과 후를 견주었습니다.

## 무엇이 달라졌나

{findings}

{between}

## 모든 측정

비율은 %, 그 차이는 %p입니다. 구간은 조정하지 않은 95%, 판정은 Holm으로 조정한 p < 0.05.
‘확인 안 됨’은 달라진 것을 확인하지 못했다는 뜻입니다. ↓는 낮을수록 좋습니다.

{table}

## 보고서의 경고

{warned}

## 어떻게 만들었나

{made}

## 보고서

{links}
"""

ENGLISH = """# Before and after tuning: a base of 100 M parameters

[한국어](README.md)

Written by `scripts/before_after/run.sh`. One base, tuned once for each seed, and compared before and after.

## What changed

{findings}

{between}

## All measures

Shares in percent, their differences in points. Intervals are 95 %, not adjusted; verdicts by Holm's p < 0.05.
↓: less is better.

{table}

## Warnings of the reports

{warned}

## How it was made

{made}

## Reports

{links}
"""


def links(seeds: Sequence[Seed], ko: bool) -> Iterator[str]:
    """Yield the links to each seed's report."""
    for seed in seeds:
        of = f"시드 {seed.name}" if ko else f"Seed {seed.name}"
        yield f"- {of}: " + ", ".join(f"[{file}](seed-{seed.name}/{file})" for file in REPORTS)


def page(work: Path, seeds: Sequence[Seed], ko: bool) -> str:
    """Return the page in one language."""
    parts = {
        "findings": findings(seeds, ko),
        "between": between(work, ko),
        "table": table(seeds, ko),
        "warned": warned(seeds, ko),
        "made": made(work, seeds, ko),
        "links": links(seeds, ko),
    }
    return (KOREAN if ko else ENGLISH).format_map({key: "\n".join(lines) for key, lines in parts.items()})


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    """Write the pages and copy the reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    seeds = read(args.work)
    args.out.mkdir(parents=True, exist_ok=True)
    for file, ko in (("README.md", True), ("README.en.md", False)):
        (args.out / file).write_text(page(args.work, seeds, ko), encoding="utf-8")
    for seed in seeds:
        folder = args.out / f"seed-{seed.name}"
        folder.mkdir(exist_ok=True)
        for file in REPORTS[:2]:
            shutil.copyfile(args.work / f"seed-{seed.name}" / file, folder / file)
        # thousands of changed items, named by their ids, are counted here
        flips = [{**one, **{kind: len(one[kind]) for kind in ("lost", "won")}} for one in seed.comparison["flips"]]
        numbers = json.dumps({**seed.comparison, "flips": flips}, ensure_ascii=False, indent=1)
        (folder / REPORTS[2]).write_text(numbers + "\n", encoding="utf-8")
    print(f"pages of {len(seeds)} seeds in {args.out}")


if __name__ == "__main__":
    main()
