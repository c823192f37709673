"""Evaluation parity: what the trained adapters make of held-out text, judged as a user's evaluation judges them.

The saved adapter is put on its NF4 base from the files and scored by `TorchLanguageModel`, the model of
`koalpaca eval`: PEFT's own modules, products in bfloat16 on CUDA. The engine that trained it takes no part.
Two runs are compared document by document. bench/parity.py states the rule.
"""

from __future__ import annotations

import base64
import hashlib
import statistics
import zlib
from collections.abc import Iterator, Sequence
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koalpaca_tune.comparison import stats

EVERY = 4
"""Every so many documents, greedy next tokens are kept at all learned places."""
GAIN = 0.02
"""Share of what training gained that parity leaves room for."""
REPEATS = ("plain, again", "plain, split", "plain, redraw")
"""What `plain` differs from itself by, in the same arithmetic."""

Floats = NDArray[np.float64]
Judged = dict[str, Any]


def judge(lm: Any, path: Path, limit: int) -> Judged:
    """Scores the first `limit` conversations of a file.

    Returns:
        nats (float) and tokens (int) of the learned spans of each document; greedy: the likeliest token at every
        learned place of each fourth document, packed; documents: a digest of their ids.
    """
    from koalpaca_tune.data.load import conversations
    from koalpaca_tune.records import NOT_LEARNED

    drawn = list(islice(conversations(path), limit))
    texts = [lm.encoder.render(one) for one in drawn]
    scores = lm.score(texts)
    picked: list[NDArray[np.uint16]] = []
    for text in texts[::EVERY]:
        (encoded,) = lm.encoder.encode([text])
        (logits,) = lm.logits([text])
        places = np.flatnonzero(np.asarray(encoded.labels) != NOT_LEARNED)
        assert logits.shape[1] <= 2**16, "the vocabulary does not fit into 16 bits"
        # what stands at a place is predicted from the one before it
        picked.append(logits[places[places > 0] - 1].argmax(1).numpy().astype(np.uint16))
    return {
        "documents": hashlib.sha256(" ".join(one.id for one in drawn).encode()).hexdigest()[:12],
        "nats": [round(-score.logprob, 4) for score in scores],
        "tokens": [score.tokens for score in scores],
        "greedy": base64.b85encode(zlib.compress(np.concatenate(picked).tobytes(), 9)).decode(),
    }


def greedy(judged: Judged) -> NDArray[np.uint16]:
    """The likeliest tokens, unpacked."""
    return np.frombuffer(zlib.decompress(base64.b85decode(judged["greedy"])), np.uint16)


def mean(judged: Judged) -> float:
    """Nats per token."""
    return float(sum(judged["nats"]) / sum(judged["tokens"]))


def difference(pairs: Sequence[tuple[Judged, Judged]]) -> dict[str, Any]:
    """Of pairs (one, other), one for each seed: nats per token, one less other.

    Each document's difference is averaged over the seeds; the interval is the paired bootstrap's over documents
    and says nothing of other seeds.

    Returns:
        mean, low, high: the mean over seeds with its 95 % interval; each: of every seed; agreement: share of
        the greedy tokens that are the same.
    """
    tokens = np.asarray(pairs[0][0]["tokens"], np.float64)
    before, after = (
        np.mean([np.asarray(pair[side]["nats"], np.float64) for pair in pairs], axis=0) for side in (1, 0)
    )
    paired = stats.ratios(before, after, tokens, seed=0)
    same = [float((greedy(one) == greedy(other)).mean()) for one, other in pairs]
    return {
        "seeds": len(pairs),
        "mean": paired.difference,
        "low": paired.low,
        "high": paired.high,
        "each": [mean(one) - mean(other) for one, other in pairs],
        "agreement": statistics.fmean(same),
    }


def compare(part: dict[str, Any], alike: dict[str, bool]) -> dict[str, Any] | None:
    """The statistics of a family and a dropout; None where there is nothing to compare.

    Args:
        part: its runs by variant, each with the base's own scores where they were taken.
        alike: by variant, whether its runs began as `plain` did; others are not in parity whatever they score.
    """
    plain = {run["seed"]: run["heldout"] for run in part["runs"].get("plain", ()) if "heldout" in run}
    base = next((run["base"] for run in part["runs"].get("plain", ()) if "base" in run), None)
    if not plain or base is None:
        return None
    known = base["documents"]
    assert all(judged["documents"] == known for judged in plain.values()), "the runs were judged on other text"
    gain = difference([(judged, base) for judged in plain.values()])
    rows: dict[str, dict[str, Any]] = {}
    for name, runs in part["runs"].items():
        pairs = [
            (run["heldout"], plain[run["seed"]])
            for run in runs
            if name != "plain" and run["seed"] in plain and run.get("heldout", {}).get("documents") == known
        ]
        if pairs:
            rows[name] = difference(pairs)
    spread = statistics.stdev(map(mean, plain.values())) if len(plain) > 1 else None
    own = max((abs(value) for name in REPEATS if name in rows for value in rows[name]["each"]), default=0.0)
    for name, row in rows.items():
        room = GAIN * abs(gain["mean"])
        row["share"] = row["mean"] / abs(gain["mean"])
        row["noise"] = None if spread is None else abs(row["mean"]) < max(spread, own)
        row["small"] = -room < row["low"] and row["high"] < room
        row["parity"] = None if spread is None else bool(alike.get(name) and row["noise"] and row["small"])
    return {
        "documents": len(base["tokens"]),
        "tokens": sum(base["tokens"]),
        "places": len(greedy(base)),
        "base": mean(base),
        "plain": [mean(judged) for judged in plain.values()],
        "spread": spread,
        "own": own,
        "gain": gain,
        "seeds": {(a, b): difference([(plain[b], plain[a])]) for a, b in combinations(sorted(plain), 2)},
        "rows": rows,
    }


def page(one: dict[str, Any]) -> Iterator[str]:
    """Markdown of one comparison."""
    gain, spread = one["gain"], one["spread"]
    said = ", ".join(f"{value:.5f}" for value in one["plain"])
    yield ""
    yield (
        f"Held out, judged by PEFT in the ordinary forward pass: {one['documents']} documents, {one['tokens']:,} "
        f"tokens, greedy tokens at {one['places']:,} places. Base {one['base']:.5f} nats per token, `plain` "
        f"{said}; between its seeds {'-' if spread is None else f'{spread:.5f}'}, from itself {one['own']:.5f}."
    )
    yield ""
    yield "| | seeds | nats per token | 95 % interval | each seed | of the gain | same greedy token | parity |"
    yield "|---|---:|---:|---|---|---:|---:|---|"
    yield _row("base to `plain`: the gain", gain, 1.0, "")
    for (a, b), row in one["seeds"].items():
        yield _row(f"`plain`, seed {b} less seed {a}", row, row["mean"] / abs(gain["mean"]), "")
    for name, row in one["rows"].items():
        verdict = "one seed" if row["parity"] is None else "yes" if row["parity"] else "**no**"
        yield _row(f"{name} less `plain`", row, row["share"], "" if name in REPEATS else verdict)


def _row(name: str, row: dict[str, Any], share: float, verdict: str) -> str:
    each = ", ".join(f"{value:+.5f}" for value in row["each"])
    return (
        f"| {name} | {row['seeds']} | {row['mean']:+.5f} | {row['low']:+.5f} to {row['high']:+.5f} | {each} "
        f"| {share:+.2%} | {row['agreement']:.2%} | {verdict} |"
    )


def verdicts(one: dict[str, Any], where: str) -> Iterator[str]:
    """One line for each way that is not the plain engine itself, and for the planted defect."""
    for name, row in one["rows"].items():
        if name.startswith(("fast", "fp8")):
            verdict = "not told by one seed" if row["parity"] is None else "yes" if row["parity"] else "no"
            yield (
                f"- evaluation parity: {verdict} ({where}, {name}). {row['mean']:+.5f} nats per token, 95 % "
                f"{row['low']:+.5f} to {row['high']:+.5f}, {row['share']:+.2%} of the gain; same greedy token "
                f"{row['agreement']:.2%}"
            )
        elif name == "plain, alpha" and row["parity"] is not None:
            seen = "not seen" if row["parity"] else "seen"
            yield f"- the planted defect ({where}) was {seen} by evaluation parity: {row['mean']:+.5f}"
