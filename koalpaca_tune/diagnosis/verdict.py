"""From signals to a verdict: which cause fits best, healthy, or something wrong that no known cause explains."""

from __future__ import annotations

from dataclasses import dataclass

from koalpaca_tune.diagnosis.causes import CAUSES
from koalpaca_tune.diagnosis.fits import Signals, diverged

HEALTHY, NONE, UNKNOWN = "healthy", "none", "too-short"
ENOUGH = 0.5
FEWEST_ROWS = 3
"""Rows below which nothing is said of a curve."""


@dataclass(frozen=True)
class Fit:
    """A cause and how well it fits, 0 to 1."""

    name: str
    strength: float


@dataclass(frozen=True)
class Diagnosis:
    """What a run suffers from.

    Attributes:
        verdict: a key of `CAUSES`, or healthy, none (something is wrong, of which no cause is known), too-short.
        fits: all causes that fit, best first.
        odd: what is unusual in the trail, by name; empty in health.
    """

    verdict: str
    fits: tuple[Fit, ...]
    odd: tuple[str, ...]


def diagnose(signals: Signals) -> Diagnosis:
    """The causes that fit these signals, and the verdict."""
    found = [Fit(name, strength) for name, cause in CAUSES.items() if (strength := cause.fit(signals)) >= ENOUGH]
    fits = tuple(sorted(found, key=lambda fit: -fit.strength))
    unusual = odd(signals)
    if fits:
        return Diagnosis(fits[0].name, fits, unusual)
    if unusual:
        return Diagnosis(NONE, (), unusual)
    return Diagnosis(HEALTHY if signals.get("curve.rows", 0.0) >= FEWEST_ROWS else UNKNOWN, (), ())


def odd(signals: Signals) -> tuple[str, ...]:
    """What no healthy run shows, each by a name that reads in a sentence."""
    found = []
    if signals.get("record.not_finite"):
        found.append("loss-not-finite")
    if diverged(signals):
        found.append("loss-above-start")
    found += [
        name
        for name in ("loss-spike", "loss-rising", "gradient-norm", "dead-adapter", "valid-gap", "loss-drop")
        if signals.get(f"curve.notice_{name}")
    ]
    first, last = signals.get("curve.valid_first", 0.0), signals.get("curve.valid_last", 0.0)
    if last > 1.08 * first:
        found.append("valid-worse")
    if signals.get("curve.jump", 0.0) > 6 * max(signals.get("curve.noise", 0.0), 0.1):
        found.append("loss-jump")
    return tuple(found)
