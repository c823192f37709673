"""What a loss curve looks like, in numbers: the signals that need nothing but metrics.jsonl.

A signal that cannot be known from a trail is not in the result; nothing stands for "not known".
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median

import numpy as np

from koalpaca_tune.config.recipe import Watch as Settings
from koalpaca_tune.diagnosis.signs import Row, number, numbers
from koalpaca_tune.diagnosis.watch import Watch

Signals = dict[str, float]
EDGE = 5
"""Rows that stand for the beginning, the end, or a side of an epoch's border."""
FEWEST = 12
"""Rows from which an order among them can be told from chance."""


def signals(rows: Sequence[Row]) -> Signals:
    """All signals of a trail, each under `curve.`; of an empty one, the count alone."""
    taken = [row for row in rows if number(row, "loss") is not None]
    found: Signals = {"rows": float(len(taken)), "valid_rows": float(len(numbers(rows, "valid_loss")))}
    if taken:
        found |= _levels(taken) | _gradients(taken) | _order(taken) | _epochs(taken) | _learned(taken)
        found |= _validation(rows, taken) | _jumps(taken)
        if "valid_first" in found:
            found["ratio_begin"] = found["begin"] / max(found["valid_first"], 1e-6)
    found |= _notices(rows)
    return {f"curve.{name}": float(value) for name, value in found.items()}


def _levels(rows: Sequence[Row]) -> Signals:
    """Where the loss begins, ends and has been; `noise` is the spread from row to row."""
    losses = numbers(rows, "loss")
    smooth = [fmean(losses[max(0, at - 2) : at + 3]) for at in range(len(losses))]
    found: Signals = {
        "first": losses[0],
        # one row may be low by chance, and a rate far too high shows in the third
        "start": max(losses[:2]),
        "last": fmean(losses[-EDGE:]),
        "highest": max(smooth),
        "lowest": min(smooth),
        "begin": fmean(losses[: max(2, min(EDGE, len(losses) // 6))]),
    }
    if len(losses) > 2:
        found["noise"] = 1.0484 * median(abs(b - a) for a, b in pairwise(losses))
    return found


def _gradients(rows: Sequence[Row]) -> Signals:
    norms = numbers(rows, "grad_norm")
    found: Signals = {}
    if norms:
        found |= {"norm": median(norms), "norm_highest": max(norms), "norm_zero": fmean(n == 0.0 for n in norms)}
    zero = numbers(rows, "adapter_zero")
    if zero and (number(rows[-1], "step") or 0) > 1:
        found["adapter_zero"] = zero[-1]
    return found


def _order(rows: Sequence[Row]) -> Signals:
    """How alike neighbouring rows are in length and learned share (shuffled data: not at all).

    `order` is the lag-1 correlation; `falling` the share of neighbours of which the later is shorter: a
    half in shuffled data, nearly all where batches are sorted by length.
    """
    full = rows[:-1]  # the last row may stand for fewer steps
    if len(full) < FEWEST:
        return {}
    lengths = np.asarray(numbers(full, "tokens"))
    learned = np.asarray(numbers(full, "learned_tokens"))
    if len(lengths) != len(full) or len(learned) != len(full):
        return {}
    found: Signals = {"order_length": _lag(lengths), "order_learned": _lag(learned / lengths)}
    steps = np.diff(lengths)
    found["falling"] = max(float((steps < 0).mean()), float((steps > 0).mean()))
    return found


def _lag(values: np.ndarray) -> float:
    """Lag-1 autocorrelation; 0 where nothing varies."""
    centred = values - values.mean()
    whole = float((centred**2).sum())
    return float((centred[1:] * centred[:-1]).sum()) / whole if whole > 0 else 0.0


def _epochs(rows: Sequence[Row]) -> Signals:
    """The staircase: how much of the loss falls at the borders of epochs, and how surely.

    At each border the rows on either side are compared; `stairs` is the fall there as a share of the
    loss, `stairs_sure` the same in standard errors.
    """
    epochs, losses = np.asarray(numbers(rows, "epoch")), np.asarray(numbers(rows, "loss"))
    if len(epochs) != len(losses):
        return {}
    found: Signals = {"epochs": float(epochs[-1])}
    whole = np.floor(epochs - 1e-9)
    falls, errors = [], []
    for border in range(1, int(whole[-1]) + 1):
        left, right = losses[whole == border - 1][-EDGE:], losses[whole == border][:EDGE]
        if len(left) >= 2 and len(right) >= 2:
            falls.append(float(left.mean() - right.mean()) / max(float(left.mean()), 1e-6))
            error = np.sqrt(left.var(ddof=1) / len(left) + right.var(ddof=1) / len(right))
            errors.append(float(error) / max(float(left.mean()), 1e-6))
    if falls:
        found["stairs"] = fmean(falls)
        found["stairs_sure"] = sum(falls) / max(float(np.sqrt(np.square(errors).sum())), 1e-6)
    return found


def _learned(rows: Sequence[Row]) -> Signals:
    learned, tokens = sum(numbers(rows, "learned_tokens")), sum(numbers(rows, "tokens"))
    return {"learned_share": learned / tokens} if tokens else {}


def _validation(rows: Sequence[Row], taken: Sequence[Row]) -> Signals:
    """Validation against itself, and against training at the same steps."""
    points = [(row["step"], value) for row in rows if (value := number(row, "valid_loss")) is not None]
    if not points:
        return {}
    values = [value for _, value in points]
    # loss of training around each validation
    ratios = [
        fmean(near) / value
        for step, value in points
        if value > 0 and (near := numbers([row for row in taken if row["step"] <= step][-EDGE:], "loss"))
    ]
    found: Signals = {"valid_last": values[-1], "valid_first": values[0], "valid_best": min(values)}
    if ratios:
        found |= {"ratio_first": ratios[0], "ratio_last": ratios[-1]}
    if len(values) > 1:
        found["valid_moved"] = max(values) - min(values)
    return found


def _jumps(rows: Sequence[Row]) -> Signals:
    """The largest rise of the level from one side of a row to the other, and how much of it came at once."""
    losses = np.asarray(numbers(rows, "loss"))
    if len(losses) < 2 * EDGE:
        return {}
    places = range(4, len(losses) - 2)
    rises = [float(losses[at : at + 3].mean() - losses[max(0, at - 4) : at].mean()) for at in places]
    best = int(np.argmax(rises))
    at = places[best]
    found: Signals = {"jump": rises[best], "jump_at": at / len(losses)}
    after = losses[at:]
    found["after_jump_fall"] = float(after[:3].mean() - after[-EDGE:].mean())
    found["after_jump_rise"] = float(after.max() - after[:2].max())
    drops = [float(np.median(losses[max(0, at - 6) : at]) - losses[at : at + 3].mean()) for at in places]
    found["drop"] = max(drops)
    return found


def _notices(rows: Sequence[Row]) -> Signals:
    """What the watch would have said: how often each notice."""
    watch = Watch(Settings(), int(rows[-1]["step"]) if rows else 1)
    found: Signals = {}
    for row in rows:
        for notice in watch.see(row):
            found[f"notice_{notice.name}"] = found.get(f"notice_{notice.name}", 0.0) + 1.0
    return found
