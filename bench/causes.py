"""Causes of a strange loss curve, each produced with the embedded base, and what `koalpaca diagnose` makes of them.

A seed draws the data, the recipe's knobs and the strength of the fault, so that no two runs of a cause are alike.
Seeds below 100 were there to fit the thresholds of koalpaca_tune/diagnosis; the others judge them and were looked
at when the thresholds stood. `LOOKED_AT` names what was looked at since, and judges no more.
How a cause gets into a run stands in cause_settings.py and nowhere in the product.

    python bench/causes.py --out FOLDER [--only CAUSE ...] [--seeds 1 101 102]   (about 8 s a run on a free core)
    python bench/causes.py --read FOLDER_OR_TABLE [--curve-only]     the confusion matrices, and what is wrong
    python bench/causes.py --read FOLDER --table FILE.jsonl          the signals of every run, one line each
    python bench/causes.py --read FOLDER --draw OUT                 curves of the story page, as SVG
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from cause_settings import CAUSES, Row

FIT, JUDGE = (1, 2, 3), (101, 102, 103, 104, 105)
HEALTHY_FIT, HEALTHY_JUDGE = (*range(1, 9), *range(101, 106)), tuple(range(106, 133))
LOOKED_AT = {"healthy": 105, "rate-too-high": 105}
"""Last seed that a threshold was changed for: a first row that was low by chance; a second one spoilt already."""


def produce(name: str, seed: int, folder: Path) -> Row:
    """Makes one run; returns what was drawn and how it ended."""
    from koalpaca_tune import jsonl
    from koalpaca_tune.config import load
    from koalpaca_tune.errors import KoalpacaError
    from koalpaca_tune.models import base
    from koalpaca_tune.runs import train
    from koalpaca_tune.training import loop

    setting = CAUSES[name](np.random.default_rng([seed, *name.encode()]))
    shutil.rmtree(folder, ignore_errors=True)
    data = folder / "data"
    data.mkdir(parents=True)
    jsonl.write(data / "train.jsonl", setting.train)
    jsonl.write(data / "valid.jsonl", setting.valid)
    run = folder / "run"
    overrides = {
        "name": f"{name}-{seed}",
        "seed": seed,
        "out": run,
        "data.train": data / "train.jsonl",
        "data.valid": data / "valid.jsonl",
        **setting.overrides,
    }
    recipe = load.load("demo", tuple(f"{key}={value}" for key, value in overrides.items()))
    examples = train.read_examples(recipe)
    if setting.encoded:
        setting.encoded(examples)
    faulty = type("Faulty", (loop.Trainer,), setting.faults)
    ended, began = "", time.perf_counter()
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(train, "Trainer", faulty))
        if setting.loaded:
            stack.enter_context(mock.patch.object(base, "load", loading(base.load, setting.loaded)))
        try:
            ready = train.make_ready(recipe, examples)
            train.run(ready, train.check_folder(recipe, False), resume=False)
        except KoalpacaError as error:
            ended = error.problems[0].code
    for big in ("checkpoints", "adapter", "report"):
        shutil.rmtree(run / big, ignore_errors=True)
    if setting.record:
        entry = jsonl.read_json(run / "record.json")
        setting.record(entry)
        jsonl.write_json(run / "record.json", entry)
        (run / "run.yaml").write_text(json.dumps(entry["recipe"], ensure_ascii=False), encoding="utf-8")
    made = {
        "cause": name,
        "seed": seed,
        "told": setting.told,
        "ended": ended,
        "seconds": round(time.perf_counter() - began, 1),
    }
    jsonl.write_json(folder / "made.json", made)
    return made


def loading(load: Callable[..., Any], change: Callable[[Any], None]) -> Callable[..., Any]:
    def loaded(*arguments: Any, **named: Any) -> Any:
        there = load(*arguments, **named)
        change(there.model)
        return there

    return loaded


def seeds_of(name: str) -> tuple[int, ...]:
    if name == "healthy":
        return HEALTHY_FIT + HEALTHY_JUDGE
    fresh = tuple(range(201, 206)) if name in LOOKED_AT else ()
    return FIT + JUDGE + fresh


@dataclass(frozen=True)
class Made:
    """A run that was made, as its folder or a line of a table has it."""

    cause: str
    seed: int
    told: dict[str, Any]
    signals: dict[str, float]

    @property
    def judges(self) -> bool:
        return self.seed > LOOKED_AT.get(self.cause, 100)


def stored(path: Path) -> list[Made]:
    """The runs of a folder, their signals measured now; or the lines of a table."""
    from koalpaca_tune.runs import diagnose

    if path.is_file():
        return [Made(**json.loads(line)) for line in path.open(encoding="utf-8")]
    found = []
    for made in sorted(path.glob("*/made.json")):
        one = json.loads(made.read_text(encoding="utf-8"))
        signals = diagnose.read(made.parent / "run").signals
        found.append(Made(one["cause"], one["seed"], one["told"], signals))
    return found


def write_table(runs: list[Made], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for run in runs:
            signals = {key: float(f"{value:.4g}") for key, value in run.signals.items()}
            line = {"cause": run.cause, "seed": run.seed, "told": run.told, "signals": signals}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def interval(right: int, count: int) -> str:
    """Exact 95 % interval (Clopper & Pearson 1934), in percent."""
    from scipy.stats import binomtest

    found = binomtest(right, count).proportion_ci(method="exact")
    return f"{right}/{count} = {right / count:.1%} [{found.low:.1%}, {found.high:.1%}]"


def report(runs: list[Made], *, curve_only: bool) -> None:
    from koalpaca_tune.diagnosis.verdict import diagnose

    def verdict(run: Made) -> str:
        seen = {k: v for k, v in run.signals.items() if not curve_only or k.startswith(("curve.", "recipe."))}
        return diagnose(seen).verdict

    said = [(run, verdict(run)) for run in runs]
    what = "curve and recipe alone" if curve_only else "curve, recipe, record and data"
    for name, part in (
        ("fitted on", [x for x in said if not x[0].judges]),
        ("judged by", [x for x in said if x[0].judges]),
    ):
        if part:
            print(f"\n## {what}: {name} seeds {min(r.seed for r, _ in part)}-{max(r.seed for r, _ in part)}\n")
            matrix(part)


def matrix(part: list[tuple[Made, str]]) -> None:
    names = [name for name in CAUSES if any(run.cause == name for run, _ in part)]
    columns = names + sorted({said for _, said in part} - set(names))
    counts = Counter((run.cause, said) for run, said in part)
    width = max(len(name) for name in columns)
    print(" " * (width + 5) + "  ".join(f"{n:>2}" for n in range(1, len(columns) + 1)))
    for n, name in enumerate(names, 1):
        cells = (counts[name, column] for column in columns)
        print(f"{n:>2}  {name:<{width}} " + "  ".join(f"{count or '.':>2}" for count in cells))
    for n, name in enumerate(columns[len(names) :], len(names) + 1):
        print(f"{n:>2}  {name} (said only)")
    right = sum(run.cause == said for run, said in part)
    sick = [(run, said) for run, said in part if run.cause != "healthy"]
    well = [(run, said) for run, said in part if run.cause == "healthy"]
    print(f"\nall right:               {interval(right, len(part))}")
    if sick:
        print(f"causes named rightly:    {interval(sum(r.cause == s for r, s in sick), len(sick))}")
    if well:
        print(f"healthy called healthy:  {interval(sum(r.cause == s for r, s in well), len(well))}")
    for run, said in part:
        if run.cause != said:
            print(f"  wrong: {run.cause} seed {run.seed} {json.dumps(run.told)} -> {said}")


def alarms(runs: list[Made]) -> None:
    """What the watch says in the runs: in healthy ones, false alarms."""
    prefix = "curve.notice_"
    print("\n## watch: runs with a notice, and which\n")
    for name in CAUSES:
        own = [run for run in runs if run.cause == name]
        told = [{key.removeprefix(prefix) for key in run.signals if key.startswith(prefix)} for run in own]
        names = Counter(notice for one in told for notice in one)
        if own:
            rows = f" ({sum(int(run.signals['curve.rows']) for run in own)} rows)" if name == "healthy" else ""
            words = ", ".join(f"{notice} {count}" for notice, count in names.most_common())
            print(f"{name:<25} {sum(map(bool, told))}/{len(own)}{rows}  {words}")


STORY = {
    "healthy": 3,
    "memorisation": 3,
    "repeated-data": 3,
    "source-order": 2,
    "length-order": 2,
    "mask-empty": 3,
    "rate-too-high": 3,
    "library-fault": 3,
    "dead-adapter": 3,
    "accumulation": 3,
}
"""Causes whose curves the story page shows, and of which seed: what a drop may come from, and its like."""


def draw(folder: Path, out: Path) -> None:
    """The curves of the story page as SVG, each with its validation losses."""
    from koalpaca_tune import jsonl, plots

    out.mkdir(parents=True, exist_ok=True)
    for name, seed in STORY.items():
        rows = [row for _, row in jsonl.read(folder / f"{name}-{seed}" / "run" / "metrics.jsonl")]
        series = {
            label: [(row["step"], row[key]) for row in rows if row.get(key) is not None]
            for label, key in (("학습 (train)", "loss"), ("검증 (valid)", "valid_loss"))
        }
        title = f"{name}, seed {seed}"
        svg = plots.lines(
            {k: v for k, v in series.items() if v}, title, "단계 (step)", "손실, nats/토큰", width=5.2, height=2.4
        )
        (out / f"cause-{name}.svg").write_text(svg, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", default=list(CAUSES), choices=list(CAUSES))
    parser.add_argument("--seeds", nargs="*", type=int)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--curve-only", action="store_true", help="hide record and data")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--draw", type=Path, help="curves of the story page, as SVG, from --read FOLDER")
    asked = parser.parse_args()
    if not asked.out and not asked.read:
        parser.error("--out or --read")
    if asked.out:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        for name in asked.only:
            for seed in asked.seeds or seeds_of(name):
                folder = asked.out / f"{name}-{seed}"
                if not (folder / "made.json").is_file():
                    print(json.dumps(produce(name, seed, folder), ensure_ascii=False), flush=True)
    if asked.draw:
        draw(asked.read, asked.draw)
        return
    runs = stored(asked.read or asked.out)
    if asked.table:
        write_table(runs, asked.table)
    report(runs, curve_only=asked.curve_only)
    alarms(runs)


if __name__ == "__main__":
    main()
