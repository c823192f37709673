"""Signs of trouble in a trail of metrics rows. Each looks at the newest row against those before it.

A row of steps carries `loss`; a row of validation alone does not and is no row here. Fields that a row
lacks (older runs, the CPU) are no sign of anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median, variance
from typing import Any

Row = Mapping[str, Any]
Evidence = dict[str, float]

BEFORE = 12
"""Rows that the newest is compared with."""
ENOUGH = 6
"""Rows that must be there before anything is called unusual."""
SPREADS = 6.0
"""Spreads away from the middle that a healthy loss does not reach (measured: bench/causes.py)."""
LEAST_SPREAD = 0.06
"""The spread is at least this share of the middle: a dozen rows may lie close together by chance."""
EARLY, SECOND = 1.4, 3.0
"""A spike within the first rows stands so far above the highest of them; in the second row, above the first."""
DROP = 0.4
"""A sudden drop takes at least this share of the loss away."""
RISE, RISE_NATS, RISE_ROWS = 1.25, 0.3, 6
"""Rising: the mean of so many rows stands so far above the lowest such mean, all rows of which came before."""
SURE = 4.0
"""Standard errors by which it must."""
NORM_FACTOR = 10.0
GAP_SHARE, GAP_NATS = 0.6, 0.5
"""Train/validation gap, against the validation loss."""
WORSE = 1.05
"""Validation losses, two in a row, above the best by this factor."""
SLOW = 0.4
"""Share of the usual tokens per second."""
SLOW_SECONDS = 20.0
"""So long it must stay there: on a shared machine a few short rows are slow by chance, and cost less than this."""
STALLED = 0.3
"""Share of the time spent waiting for data."""
CREEP_ROWS, CREEP = 8, 1.1
"""Memory has crept when it grew in so many successive rows, and by this factor over them."""


def number(row: Row, key: str) -> float | None:
    """A field as a finite number; None where it is missing, null or not finite."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def numbers(rows: Sequence[Row], key: str) -> list[float]:
    """The finite values of a field, in order."""
    return [value for row in rows if (value := number(row, key)) is not None]


def spread(values: Sequence[float]) -> float:
    """Median absolute deviation, scaled to a normal distribution's standard deviation."""
    middle = median(values)
    return 1.4826 * median(abs(value - middle) for value in values)


def not_finite(rows: Sequence[Row]) -> Evidence | None:
    """Loss or gradient norm is there but no finite number. Seen in its own row."""
    newest = rows[-1]
    bad = [key for key in ("loss", "grad_norm") if key in newest and number(newest, key) is None]
    return {key: math.nan for key in bad} or None


def loss_spike(rows: Sequence[Row]) -> Evidence | None:
    """The loss stands far above that of the rows before it. Seen in its own row, the second or a later one."""
    early = numbers(rows[:-1], "loss")
    newest = number(rows[-1], "loss")
    if newest is not None and 1 <= len(early) < ENOUGH:
        # too few to know their spread: far above the highest of them, and farther above a single one
        highest = max(early)
        factor, nats = (EARLY, 1.0) if len(early) > 1 else (SECOND, 3.0)
        far = newest > max(factor * highest, highest + nats)
        return {"loss": newest, "usual": highest, "spread": 0.0} if far else None
    found = _away(rows)
    if found is None or found["loss"] - found["usual"] < SPREADS * found["spread"]:
        return None
    return found


def loss_drop(rows: Sequence[Row]) -> Evidence | None:
    """The loss stands far below that of the rows before it, twice in a row. Seen in the second such row.

    A single low row is what a step with a few easy tokens looks like.
    """
    found = [_away(rows[:end]) for end in (len(rows) - 1, len(rows))]
    first, second = found
    if first is None or second is None:
        return None
    low = max(first["loss"], second["loss"])
    if first["usual"] - low < max(SPREADS * first["spread"], DROP * first["usual"]):
        return None
    return {**first, "loss": second["loss"]}


def _away(rows: Sequence[Row]) -> Evidence | None:
    newest = number(rows[-1], "loss") if rows else None
    before = numbers(rows[:-1], "loss")[-BEFORE:]
    if newest is None or len(before) < ENOUGH:
        return None
    usual = median(before)
    return {"loss": newest, "usual": usual, "spread": max(spread(before), LEAST_SPREAD * abs(usual), 1e-3)}


def loss_rising(rows: Sequence[Row]) -> Evidence | None:
    """Over six rows the loss stands above what it once was: it diverges without a single spike."""
    losses = numbers(rows, "loss")
    if number(rows[-1], "loss") is None or len(losses) < 2 * RISE_ROWS:
        return None
    newest = losses[-RISE_ROWS:]
    earlier = [losses[at : at + RISE_ROWS] for at in range(len(losses) - 2 * RISE_ROWS + 1)]
    best = min(earlier, key=fmean)
    error = math.sqrt((variance(newest) + variance(best)) / RISE_ROWS)
    risen = fmean(newest) - fmean(best)
    if risen < max((RISE - 1) * fmean(best), RISE_NATS, SURE * error):
        return None
    return {"loss": fmean(newest), "lowest": fmean(best)}


def gradient_norm(rows: Sequence[Row]) -> Evidence | None:
    """The largest gradient norm is ten times the usual one, or zero. Seen in its own row."""
    newest, before = number(rows[-1], "grad_norm"), numbers(rows[:-1], "grad_norm")[-BEFORE:]
    if newest is None:
        return None
    if newest == 0.0:
        return {"grad_norm": 0.0}
    if len(before) < ENOUGH or newest < NORM_FACTOR * median(before):
        return None
    return {"grad_norm": newest, "usual": median(before)}


def dead_adapter(rows: Sequence[Row]) -> Evidence | None:
    """LoRA B matrices are still all zero after steps with a rate above zero. Seen in the second row."""
    zero = number(rows[-1], "adapter_zero")
    taken = [row for row in rows if (number(row, "learning_rate") or 0.0) > 0.0]
    if not zero or len(taken) < 2:
        return None
    return {"adapter_zero": zero}


def gap(rows: Sequence[Row]) -> Evidence | None:
    """Validation gets worse twice in a row, or stands far above training. Seen in the second such row."""
    valid, train = numbers(rows, "valid_loss"), numbers(rows, "loss")[-4:]
    if "valid_loss" not in rows[-1] or not valid or not train:
        return None
    evidence = {"valid_loss": valid[-1], "best_valid_loss": min(valid), "train_loss": fmean(train)}
    if len(valid) > 2 and min(valid[-2:]) > WORSE * min(valid[:-2]):
        return evidence
    apart = valid[-1] - fmean(train)
    return evidence if apart > max(GAP_SHARE * valid[-1], GAP_NATS) else None


def throughput(rows: Sequence[Row]) -> Evidence | None:
    """Tokens per second fell under two fifths of the usual, in two rows and for twenty seconds. Seen then."""
    timed = [
        (speed, seconds)
        for row in rows[1:]  # the first row holds start-up costs
        if (speed := number(row, "tokens_per_second")) is not None
        and (seconds := number(row, "seconds")) is not None
    ]
    if number(rows[-1], "tokens_per_second") is None or not timed:
        return None
    lasted, count = 0.0, 0
    while count < len(timed) and (count < 2 or lasted < SLOW_SECONDS):
        count += 1
        lasted += timed[-count][1]
    before = [speed for speed, _ in timed[: len(timed) - count][-4 * BEFORE :]]
    if lasted < SLOW_SECONDS or len(before) < ENOUGH:
        return None
    usual = median(before)
    if max(speed for speed, _ in timed[-count:]) > SLOW * usual:
        return None
    return {"tokens_per_second": timed[-1][0], "usual": usual}


def memory(rows: Sequence[Row]) -> Evidence | None:
    """Memory of card or machine grew in eight successive rows, by a tenth over them. Seen in the eighth."""
    for key in ("memory_gib", "peak_memory_gib", "host_memory_gib"):
        values = numbers(rows, key)[-CREEP_ROWS - 1 :]
        # the first rows meet longer and longer examples: their peak grows in health
        if len(values) <= CREEP_ROWS or len(rows) < 2 * CREEP_ROWS or number(rows[-1], key) is None:
            continue
        steady = all(later > sooner for sooner, later in pairwise(values))
        if steady and values[-1] >= CREEP * values[0]:
            return {key: values[-1], "before": values[0], "now": values[-1]}
    return None


def stalled(rows: Sequence[Row]) -> Evidence | None:
    """A third of the time went by waiting for data, twice in a row. Seen in the second such row."""
    shares = [
        waited / taken
        for row in rows[-2:]
        if (waited := number(row, "data_seconds")) is not None and (taken := number(row, "seconds"))
    ]
    return {"share": shares[-1]} if len(shares) == 2 and min(shares) > STALLED else None
