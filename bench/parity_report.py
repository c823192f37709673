"""What bench/parity.py makes of its runs: differences from the plain engine, the rules, tables and plots."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import parity_heldout

SMOOTHED = 10
SHARE, SHARP, TWICE = 0.1, 0.01, 2.0
NOISE = ("plain, redraw", "plain, split", "plain, again", "plain, float32")
DISTANT = ("plain", "plain, split", "fast", "fp8", "fast, small")
"""Whose distance from float32 is told."""


def smooth(values: Sequence[float]) -> list[float]:
    """Means of 10 neighbours."""
    width = min(SMOOTHED, len(values))
    return [statistics.fmean(values[n : n + width]) for n in range(len(values) - width + 1)]


def apart(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """|difference| at every step."""
    return [abs(a - b) for a, b in zip(one, other, strict=True)]


def between(curves: Sequence[Sequence[float]]) -> list[float]:
    """Standard deviation between seeds at every step; nothing of one seed."""
    return [statistics.stdev(values) for values in zip(*curves, strict=True)] if len(curves) > 1 else []


def average(values: Sequence[float]) -> float | None:
    """The mean, if there is one."""
    return statistics.fmean(values) if values else None


def pairs(runs: dict[str, list[dict[str, Any]]], name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """A variant's runs, each with that of `plain` at its seed."""
    plain = {run["seed"]: run for run in runs["plain"]}
    return [(run, plain[run["seed"]]) for run in runs.get(name, ()) if run["seed"] in plain]


def is_alike(runs: dict[str, list[dict[str, Any]]], name: str) -> bool:
    """Whether a variant started as `plain`, saw the same rows and is what its name says.

    Runs in FP8 whose losses are to the bit those of `fast` were none.
    """
    engine = "plain" if name.startswith("plain") else "fast"
    fast = {run["seed"]: run["loss"] for run in runs.get("fast", ())}
    return all(
        one["engine"] == engine
        and all(one[key] == other[key] for key in ("start", "data", "seed"))
        and not (name == "fp8" and one["loss"] == fast.get(one["seed"]))
        for one, other in pairs(runs, name)
    )


def compare(part: dict[str, Any]) -> dict[str, Any]:
    """The statistics of a family and a dropout, in nats per learned token.

    Runs that did not start alike, did not see the same rows or are of another engine than their name says are
    not within noise, whatever their losses. Of one seed no rule can speak: its verdicts are None.
    """
    runs = part["runs"]
    plain = runs["plain"]
    spread = average(between([smooth(run["loss"]) for run in plain]))
    valid_spread = statistics.stdev([run["valid"] for run in plain]) if len(plain) > 1 else None
    rows: dict[str, dict[str, Any]] = {}
    for name in runs:
        found = pairs(runs, name)
        if name == "plain" or not found:
            continue
        raw = [d for a, b in found for d in apart(a["loss"], b["loss"])]
        paired = [d for a, b in found for d in apart(smooth(a["loss"]), smooth(b["loss"]))]
        signed = [x - y for a, b in found for x, y in zip(a["loss"], b["loss"], strict=True)]
        valid = [a["valid"] - b["valid"] for a, b in found]
        mean, alike = statistics.fmean(paired), is_alike(runs, name)
        rows[name] = {
            "seeds": len(found),
            "mean": statistics.fmean(raw),
            "largest": max(raw),
            "signed": statistics.fmean(signed),
            "smoothed_mean": mean,
            "smoothed_largest": max(paired),
            "share": None if spread is None else mean / spread,
            "valid_mean": statistics.fmean(valid),
            "valid": valid,
            "alike": alike,
            "within": None
            if spread is None or valid_spread is None
            else alike and mean < SHARE * spread and abs(statistics.fmean(valid)) < valid_spread,
        }
    own = max((rows[name]["smoothed_mean"] for name in NOISE if name in rows), default=0.0)
    for row in rows.values():
        near = row["smoothed_mean"] <= TWICE * own
        row["sharp"] = None if row["share"] is None else row["alike"] and (row["share"] < SHARP or near)
    wide = [
        (name, smooth(runs[name][0]["loss"])) for name in ("plain", "fast", "fp8", "fast, small") if name in runs
    ]
    exact = runs.get("plain, float32")
    return {
        "own_noise": own,
        "family": part["family"],
        "dropout": part["dropout"],
        "between_seeds": spread,
        "between_seeds_raw": average(between([run["loss"] for run in plain])),
        "valid_between_seeds": valid_spread,
        "first": statistics.fmean(run["loss"][0] for run in plain),
        "last": statistics.fmean(smooth(run["loss"])[-1] for run in plain),
        "valid_plain": [run["valid"] for run in plain],
        "against_plain": rows,
        "from_float32": {
            name: statistics.fmean(apart(curve, smooth(exact[0]["loss"])))
            for name, curve in wide
            if exact and runs[name][0]["seed"] == exact[0]["seed"]
        },
        "heldout": parity_heldout.compare(part, {name: row["alike"] for name, row in rows.items()}),
    }


def figure(value: float | None, form: str) -> str:
    """A figure that may be missing."""
    return "-" if value is None else f"{value:{form}}"


def page(compared: Sequence[dict[str, Any]], parts: Sequence[dict[str, Any]]) -> str:
    """Statistics and verdicts as Markdown."""
    facts, plain = parts[0]["facts"], parts[0]["runs"]["plain"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    compute = "float32" if facts["gpu"] == "CPU" else "bfloat16"
    batch, row = plain[0]["rows"]
    lines = [
        f"{facts['date']} UTC, {facts['gpu']}; {versions}.",
        f"{len(plain[0]['loss'])} steps of {batch} packed rows of {row} tokens, {len(plain)} seeds, products in "
        f"{compute}; differences from `plain` at equal seeds, nats per learned token.",
    ]
    for one in compared:
        valid = ", ".join(f"{value:.5f}" for value in one["valid_plain"])
        lines += [
            "",
            f"**{one['family']}, dropout {one['dropout']}**: the loss of `plain` falls from {one['first']:.3f} to "
            f"{one['last']:.3f} (last {SMOOTHED} steps). Standard deviation between its seeds: "
            f"{figure(one['between_seeds'], '.4f')} smoothed, {figure(one['between_seeds_raw'], '.4f')} raw; of "
            f"the validation loss ({valid}) {figure(one['valid_between_seeds'], '.5f')}.",
            "",
            "| | seeds | mean | largest | signed mean | smoothed mean | smoothed largest | share of between seeds "
            "| validation, each seed | within noise | sharp |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---|---|---|",
        ]
        for name, row in one["against_plain"].items():
            differences = ", ".join(f"{value:+.2e}" for value in row["valid"])
            within = verdict(row, "within") if row["alike"] else "**no**: another start or engine"
            lines.append(
                f"| {name} | {row['seeds']} | {row['mean']:.2e} | {row['largest']:.2e} | {row['signed']:+.2e} "
                f"| {row['smoothed_mean']:.2e} | {row['smoothed_largest']:.2e} | {figure(row['share'], '.4f')} "
                f"| {differences} | {within} | {'' if name in NOISE else verdict(row, 'sharp')} |"
            )
        if one["from_float32"]:
            said = "; ".join(f"{name} {value:.2e}" for name, value in one["from_float32"].items())
            lines += ["", f"Smoothed mean difference from `plain, float32`, first seed: {said}."]
        if one["heldout"]:
            lines += parity_heldout.page(one["heldout"])
    lines.append("")
    return "\n".join([*lines, *verdicts(compared), ""])


def verdict(row: dict[str, Any], rule: str) -> str:
    """In a cell."""
    return "one seed" if row[rule] is None else "yes" if row[rule] else "**no**"


def verdicts(compared: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One line for each way of the fast engine and each rule's sight of the planted defect."""
    for one in compared:
        where = f"{one['family']}, dropout {one['dropout']}"
        for name, row in one["against_plain"].items():
            if name.startswith(("fast", "fp8")):
                within, sharp = (verdict(row, rule).strip("*") for rule in ("within", "sharp"))
                yield (
                    f"- within noise: {within}; sharp: {sharp} ({where}, {name}). Smoothed mean "
                    f"{row['smoothed_mean']:.2e}, between seeds {figure(one['between_seeds'], '.2e')}, plain from "
                    f"itself {one['own_noise']:.2e}; validation {row['valid_mean']:+.2e}, between seeds "
                    f"{figure(one['valid_between_seeds'], '.2e')}"
                )
            elif name == "plain, alpha" and row["within"] is not None:
                seen = [rule for rule in ("within", "sharp") if not row[rule]]
                yield (
                    f"- the planted defect ({where}) was seen by: "
                    f"{', '.join('within noise' if rule == 'within' else rule for rule in seen) or 'no rule'}"
                )
        if one["heldout"]:
            yield from parity_heldout.verdicts(one["heldout"], where)


def draw(parts: Sequence[dict[str, Any]], out: Path) -> None:
    """losses-FAMILY.svg of the first dropout's runs, differences-FAMILY.svg of all, logarithmic."""
    from koalpaca_tune import jsonl, plots

    for family in {part["family"]: None for part in parts}:
        mine = [part for part in parts if part["family"] == family]
        series = {}
        for name in ("plain", "fast", "fp8"):
            for run in mine[0]["runs"].get(name, ())[:3]:
                curve = smooth(run["loss"])
                series[f"{name}, seed {run['seed']}"] = [(n + SMOOTHED, y) for n, y in enumerate(curve)]
        title = f"손실 (loss), {family}, 10단계 평균 (mean of 10 steps)"
        svg = plots.lines(series, title, "단계 (step)", "손실, nats/토큰")
        jsonl.replace(out / f"losses-{family}.svg", [svg])
        series = {}
        for part in mine:
            runs = part["runs"]
            said = f"dropout {part['dropout']:g}"
            lines = {"seeds": between([smooth(run["loss"]) for run in runs["plain"]])}
            for name in ("fast", "fp8", "plain, redraw", "plain, again"):
                curves = [apart(smooth(a["loss"]), smooth(b["loss"])) for a, b in pairs(runs, name)]
                if curves:
                    lines[name] = [statistics.fmean(values) for values in zip(*curves, strict=True)]
            for name, values in lines.items():
                # two runs that are equal to the bit have no logarithm
                points = [(n + SMOOTHED, math.log10(y)) for n, y in enumerate(values) if y > 0]
                if points and (name != "seeds" or part is mine[0]):
                    series["between seeds" if name == "seeds" else f"{name}, {said}"] = points
        title = f"plain과의 차이 (difference from plain), {family}"
        svg = plots.lines(series, title, "단계 (step)", "log10 nats/토큰", height=3.8)
        if series:
            jsonl.replace(out / f"differences-{family}.svg", [svg])
