"""How well each cause fits the signals of a run: 0, not at all, to 1.

Where recipe, record or data prove a cause, it fits at 0.9 and above; where only the curve speaks, below.
The thresholds were set on the seeds below 100 of bench/causes.py and judged on others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

Signals = Mapping[str, float]

HIGH_RATE = 4e-3
"""Peak rates from here on are called too high where the loss diverges; LoRA with AdamW seldom wants 1e-3."""
LOW_RATE = 1e-5
SHUFFLED = 3.5
"""Standard errors of a lag-1 correlation (1 / sqrt(rows)) that shuffled data do not reach."""


def float16_overflow(s: Signals) -> float:
    """float16 products, and a loss that is no number (GPT-NeoX: transformers#17452)."""
    half = s.get("record.float16", 0.0) or s.get("recipe.float16", 0.0)
    if not half:
        return 0.0
    if "record.not_finite" in s:
        return 0.95 if s["record.not_finite"] else 0.0
    # the record does not say how the run ended: killed perhaps, or no number any more
    return 0.6 if s.get("record.unfinished") else 0.0


def dead_adapter(s: Signals) -> float:
    """B stays zero, no gradient arrives, or the validation loss does not move by a digit."""
    if s.get("record.dead") or s.get("curve.adapter_zero", 0.0) >= 0.999:
        return 0.97
    if s.get("curve.norm_zero", 0.0) > 0.9 and s.get("curve.last", 0.0) > 0.05:
        return 0.95
    still = s.get("curve.valid_rows", 0.0) >= 2 and s.get("curve.valid_moved") == 0.0
    return 0.95 if still else 0.7 if s.get("curve.adapter_zero", 0.0) > 0.2 else 0.0


def quantization_not_applied(s: Signals) -> float:
    """The recipe says 4 bits, the loaded modules say otherwise."""
    if "record.linears_4bit" not in s or not s.get("recipe.four_bit"):
        return 0.0
    return 0.96 if s["record.linears_4bit"] == 0 or s.get("record.linears_other", 0.0) > 0 else 0.0


def mask_everything(s: Signals) -> float:
    """Learned tokens are all tokens, though the template would learn the answers only."""
    share, own = s.get("curve.learned_share"), s.get("data.kept_learned_share")
    if share is None:
        return 0.0
    if own is not None:
        return 0.96 if share > 0.9 and own < 0.8 * share else 0.0
    return 0.8 if share > 0.9 else 0.0


def mask_empty(s: Signals) -> float:
    """Far fewer tokens are learned than the answers have, or many examples teach nothing."""
    share, own = s.get("curve.learned_share"), s.get("data.kept_learned_share")
    if share is not None and own is not None and share < 0.4 * own:
        return 0.96
    if s.get("record.nothing_share", 0.0) > 0.3:
        return 0.9
    return 0.75 if own is None and share is not None and share < 0.08 else 0.0


def end_not_learned(s: Signals) -> float:
    """One token of each example is missing from what is learned: its end."""
    if s.get("data.end_learned", 1.0) < 0.5:
        return 0.93
    share, own = s.get("curve.learned_share", 0.0), s.get("data.kept_learned_share", 0.0)
    fewer = share < 0.4 * own
    return 0.93 if 0.7 < s.get("data.learned_missing", 0.0) < 1.5 and not fewer else 0.0


def answers_cut(s: Signals) -> float:
    """A good part of the answers end in the middle."""
    return 0.92 if s.get("record.cut_share", 0.0) > 0.15 else 0.0


def decomposed_hangul(s: Signals) -> float:
    """Text in NFD: every syllable in pieces, twice the tokens."""
    return 0.93 if s.get("data.decomposed", 0.0) > 0.1 else 0.0


def garbled_rows(s: Signals) -> float:
    """Rows whose text was decoded wrongly."""
    return 0.92 if s.get("data.garbled", 0.0) > 0.02 else 0.0


def repeated_data(s: Signals) -> float:
    """The same examples many times within one epoch."""
    if "data.repeated" in s:
        return 0.93 if s["data.repeated"] > 0.4 else 0.0
    # without the data: learned by heart before they were all seen twice
    learned = s.get("curve.last", math.inf) < 0.35 * s.get("curve.begin", 0.0)
    return 0.6 if learned and s.get("curve.epochs", 9.0) < 1.5 else 0.0


def leak(s: Signals) -> float:
    """Validation rows stand among the training rows: the validation loss says nothing."""
    return 0.91 if s.get("data.valid_in_train", 0.0) > 0.1 else 0.0


def length_order(s: Signals) -> float:
    """Batches sorted by length: the loss saws with the length (qlora#84)."""
    rows = s.get("curve.rows", 0.0)
    if rows < 12 or "curve.falling" not in s:
        return 0.0
    # a share of one half, give or take: successive differences vary less than coin throws
    sure = (s["curve.falling"] - 0.5) * math.sqrt(12 * (rows - 1)) / 1.0
    return 0.88 if s["curve.falling"] > 0.7 and sure > 4.5 else 0.0


def source_order(s: Signals) -> float:
    """Neighbouring steps are alike in length or learned share: the data come in blocks, not shuffled."""
    rows = s.get("curve.rows", 0.0)
    if rows < 12 or length_order(s):
        return 0.0
    alike = max(s.get("curve.order_length", 0.0), s.get("curve.order_learned", 0.0))
    return 0.86 if alike > max(0.4, SHUFFLED / math.sqrt(rows)) else 0.0


def accumulation(s: Signals) -> float:
    """The training loss is a multiple or a part of the validation loss, from the first step to the last."""
    begin, last = s.get("curve.ratio_begin"), s.get("curve.ratio_last")
    if begin is None or last is None:
        chance = s.get("data.chance_loss")
        over = chance is not None and s.get("curve.first", 0.0) > 1.3 * chance
        return 0.75 if over else 0.0
    steady = last > 0 and 0.5 < begin / last < 2.0
    many = begin > 1.55 and last > 1.45 and s.get("curve.first", 0.0) > 1.3 * s.get("curve.valid_first", 0.0)
    few = begin < 0.65 and last < 0.65
    return 0.84 if steady and (many or few) else 0.0


def memorisation(s: Signals) -> float:
    """Epoch after epoch the training loss steps down and the validation loss does not (qlora#290)."""
    if s.get("curve.epochs", 0.0) < 1.5 or s.get("curve.last", math.inf) > 0.7 * s.get("curve.begin", 0.0):
        return 0.0
    if "curve.ratio_last" in s:
        worse = s["curve.valid_last"] > 1.05 * s["curve.valid_best"]
        return 0.82 if s["curve.ratio_last"] < 0.55 or (worse and s["curve.ratio_last"] < 0.75) else 0.0
    return 0.7 if s.get("curve.stairs", 0.0) > 0.15 and s.get("curve.stairs_sure", 0.0) > 3 else 0.0


def diverged(s: Signals) -> bool:
    """The loss went well above where it began, or is no number."""
    start = s.get("curve.start", 0.0)
    risen = s.get("curve.highest", 0.0) - start
    return bool(s.get("record.not_finite")) or risen > max(0.8, 0.25 * start)


def rate_too_high(s: Signals) -> float:
    """The loss rises above its beginning at a rate at which that happens (alpaca-lora#391)."""
    if s.get("recipe.rate", 0.0) < HIGH_RATE:
        return 0.0
    # at such a rate the second row may be spoilt already: the first alone is the beginning
    first = s.get("curve.first", 0.0)
    risen = s.get("curve.highest", 0.0) - first
    return 0.85 if diverged(s) or risen > max(0.8, 0.25 * first) else 0.0


def rate_too_low(s: Signals) -> float:
    """The adapter moves, and the loss does not."""
    if s.get("recipe.rate", 1.0) > LOW_RATE or s.get("curve.rows", 0.0) < 6:
        return 0.0
    fallen = s.get("curve.begin", 0.0) - s.get("curve.last", 0.0)
    moved = s.get("curve.valid_moved")
    still = (
        moved < 0.02 * s.get("curve.valid_first", 1.0) if moved is not None else fallen < 0.15 * s["curve.begin"]
    )
    return 0.87 if still else 0.0


def library_fault(s: Signals) -> float:
    """The loss rises for good at a sound rate, with everything else in order; or a version is known to be bad."""
    if s.get("record.bad_versions"):
        return 0.94 if diverged(s) else 0.55
    if not diverged(s) or s.get("recipe.rate", 1.0) >= HIGH_RATE or "curve.jump" not in s:
        return 0.0
    # after a single blow training repairs what it can; a fault that goes on holds the loss where it is
    back = s["curve.highest"] - s["curve.last"]
    stays = back < 0.5 * (s["curve.highest"] - s["curve.lowest"])
    return 0.8 if stays else 0.0
