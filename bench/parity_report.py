"""What bench/parity.py makes of its runs: differences from the plain engine, the two rules, tables and plots."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SMOOTHED = 10
SHARE, SHARP, TWICE = 0.1, 0.01, 2.0
NOISE = ("plain, redraw", "plain, split", "plain, again", "plain, float32")


def smooth(values: Sequence[float]) -> list[float]:
    """Means of 10 neighbours."""
    width = min(SMOOTHED, len(values))
    return [statistics.fmean(values[n : n + width]) for n in range(len(values) - width + 1)]


def apart(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """|difference| at every step."""
    return [abs(a - b) for a, b in zip(one, other, strict=True)]


def between(curves: Sequence[Sequence[float]]) -> list[float]:
    """Standard deviation between seeds at every step."""
    return [statistics.stdev(values) for values in zip(*curves, strict=True)]


def compare(part: dict[str, Any]) -> dict[str, Any]:
    """The statistics of a family and a dropout, in nats per learned token.

    Runs that did not start alike, did not see the same rows or are of another engine than their name says are
    not within noise, whatever their losses.
    """
    runs = part["runs"]
    plain = runs["plain"]
    smoothed = {name: [smooth(run["loss"]) for run in several] for name, several in runs.items()}
    spread = statistics.fmean(between(smoothed["plain"]))
    valid_spread = statistics.stdev([run["valid"] for run in plain])
    rows: dict[str, dict[str, Any]] = {}
    for name, others in runs.items():
        if name == "plain":
            continue
        raw = [d for a, b in zip(others, plain, strict=False) for d in apart(a["loss"], b["loss"])]
        paired = [d for a, b in zip(smoothed[name], smoothed["plain"], strict=False) for d in apart(a, b)]
        signed = [
            x - y for a, b in zip(others, plain, strict=False) for x, y in zip(a["loss"], b["loss"], strict=True)
        ]
        alike = all(
            a["engine"] == name.split(",")[0] and all(a[key] == b[key] for key in ("start", "data", "seed"))
            for a, b in zip(others, plain, strict=False)
        )
        valid = [a["valid"] - b["valid"] for a, b in zip(others, plain, strict=False)]
        rows[name] = {
            "seeds": len(others),
            "mean": statistics.fmean(raw),
            "largest": max(raw),
            "signed": statistics.fmean(signed),
            "smoothed_mean": statistics.fmean(paired),
            "smoothed_largest": max(paired),
            "share": statistics.fmean(paired) / spread,
            "valid_mean": statistics.fmean(valid),
            "valid": valid,
            "alike": alike,
            "within": alike
            and statistics.fmean(paired) < SHARE * spread
            and abs(statistics.fmean(valid)) < valid_spread,
        }
    own = max((rows[name]["smoothed_mean"] for name in NOISE if name in rows), default=0.0)
    for row in rows.values():
        row["sharp"] = row["alike"] and (row["share"] < SHARP or row["smoothed_mean"] <= TWICE * own)
    return {
        "own_noise": own,
        "family": part["family"],
        "dropout": part["dropout"],
        "between_seeds": spread,
        "between_seeds_raw": statistics.fmean(between([run["loss"] for run in plain])),
        "valid_between_seeds": valid_spread,
        "first": statistics.fmean(run["loss"][0] for run in plain),
        "last": statistics.fmean(smooth(run["loss"])[-1] for run in plain),
        "valid_plain": [run["valid"] for run in plain],
        "against_plain": rows,
        "from_float32": {
            name: statistics.fmean(apart(smoothed[name][0], smoothed["plain, float32"][0]))
            for name in ("plain", "plain, split", "fast", "fast, small")
            if "plain, float32" in smoothed and name in smoothed
        },
    }


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
            f"{one['between_seeds']:.4f} smoothed, {one['between_seeds_raw']:.4f} raw; of the validation loss "
            f"({valid}) {one['valid_between_seeds']:.5f}.",
            "",
            "| | seeds | mean | largest | signed mean | smoothed mean | smoothed largest | share of between seeds "
            "| validation, each seed | within noise | sharp |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---|---|---|",
        ]
        for name, row in one["against_plain"].items():
            differences = ", ".join(f"{value:+.2e}" for value in row["valid"])
            verdict = "yes" if row["within"] else "**no**" if row["alike"] else "**no**: another start"
            lines.append(
                f"| {name} | {row['seeds']} | {row['mean']:.2e} | {row['largest']:.2e} | {row['signed']:+.2e} "
                f"| {row['smoothed_mean']:.2e} | {row['smoothed_largest']:.2e} | {row['share']:.4f} "
                f"| {differences} | {verdict} | {'' if name in NOISE else 'yes' if row['sharp'] else '**no**'} |"
            )
        if one["from_float32"]:
            said = "; ".join(f"{name} {value:.2e}" for name, value in one["from_float32"].items())
            lines += ["", f"Smoothed mean difference from `plain, float32`, first seed: {said}."]
    lines.append("")
    return "\n".join([*lines, *verdicts(compared), ""])


def verdicts(compared: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One line for each way of the fast engine."""
    for one in compared:
        for name, row in one["against_plain"].items():
            if name.startswith("fast"):
                verdict, sharp = ("yes" if row[rule] else "no" for rule in ("within", "sharp"))
                yield (
                    f"- within noise: {verdict}; sharp: {sharp} ({one['family']}, dropout {one['dropout']}, "
                    f"{name}). Smoothed mean {row['smoothed_mean']:.2e}, between seeds {one['between_seeds']:.2e}, "
                    f"plain from itself {one['own_noise']:.2e}; validation {row['valid_mean']:+.2e}, between seeds "
                    f"{one['valid_between_seeds']:.2e}"
                )
            elif name == "plain, alpha":
                seen = [rule for rule in ("within", "sharp") if not row[rule]]
                yield (
                    f"- the planted defect ({one['family']}, dropout {one['dropout']}) was seen by: "
                    f"{', '.join('within noise' if rule == 'within' else rule for rule in seen) or 'no rule'}"
                )


def draw(parts: Sequence[dict[str, Any]], out: Path) -> None:
    """losses-FAMILY.svg of the first dropout's runs, differences-FAMILY.svg of all, logarithmic."""
    from koalpaca_tune import jsonl, plots

    for family in {part["family"]: None for part in parts}:
        mine = [part for part in parts if part["family"] == family]
        series = {}
        for name in ("plain", "fast"):
            for run in mine[0]["runs"][name][:3]:
                curve = smooth(run["loss"])
                series[f"{name}, seed {run['seed']}"] = [(n + SMOOTHED, y) for n, y in enumerate(curve)]
        title = f"손실 (loss), {family}, 10단계 평균 (mean of 10 steps)"
        svg = plots.lines(series, title, "단계 (step)", "손실, nats/토큰")
        jsonl.replace(out / f"losses-{family}.svg", [svg])
        series = {}
        for part in mine:
            curves = {name: [smooth(run["loss"]) for run in runs] for name, runs in part["runs"].items()}
            said = f"dropout {part['dropout']:g}"
            lines = {"seeds": between(curves["plain"])}
            for name in ("fast", "plain, redraw", "plain, again"):
                if name in curves:
                    pairs = [apart(a, b) for a, b in zip(curves[name], curves["plain"], strict=False)]
                    lines[name] = [statistics.fmean(values) for values in zip(*pairs, strict=True)]
            for name, values in lines.items():
                # two runs that are equal to the bit have no logarithm
                points = [(n + SMOOTHED, math.log10(y)) for n, y in enumerate(values) if y > 0]
                if points and (name != "seeds" or part is mine[0]):
                    series["between seeds" if name == "seeds" else f"{name}, {said}"] = points
        title = f"plain과의 차이 (difference from plain), {family}"
        svg = plots.lines(series, title, "단계 (step)", "log10 nats/토큰", height=3.8)
        jsonl.replace(out / f"differences-{family}.svg", [svg])
