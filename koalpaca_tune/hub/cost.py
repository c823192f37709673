"""What a run took: hours, energy, and what follows from them where the user says a price or a grid's carbon.

Nothing is guessed. Energy is what the graphics card counted itself, or its power limit times the time, which is
more than was used; the model card says which. A price, and the carbon of a kilowatt-hour, differ by place and
month: whoever publishes gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub.facts import NOT_KNOWN, UNKNOWN, Fact

COUNTED = "counter"
"""record.result.energy.how of a run whose cards counted it."""

_HOW = {
    COUNTED: ("카드가 센 값", "counted by the card"),
    "power-limit": ("전력 한도 × 시간, 쓴 것보다 많음", "power limit × time: more than was used"),
}


@dataclass(frozen=True)
class Rates:
    """What only the user knows.

    Attributes:
        usd_per_hour: price of the machine.
        grams_per_kwh: CO2 equivalent of the place's electricity.
    """

    usd_per_hour: float | None = None
    grams_per_kwh: float | None = None


class Energy(NamedTuple):
    """Energy of a run's cards.

    Attributes:
        kwh: kilowatt-hours.
        how: COUNTED or power-limit.
    """

    kwh: float
    how: str


def energy(record: Mapping[str, Any]) -> Energy | None:
    """What the run recorded; None: it did not."""
    found = (record.get("result") or {}).get("energy")
    if not isinstance(found, dict) or found.get("how") not in _HOW:
        return None
    joules = found.get("joules")
    if not isinstance(joules, int | float) or isinstance(joules, bool) or not 0 < joules < 1e15:
        return None
    return Energy(joules / 3.6e6, found["how"])


def facts(record: Mapping[str, Any], rates: Rates) -> list[Fact]:
    """Hours and energy of the training alone, and what they come to.

    Raises:
        KoalpacaError: a rate is given, and what it is of was not recorded (card-cost).
    """
    hours, used = _hours(record), energy(record)
    for rate, known, name in (
        (rates.usd_per_hour, hours, "--usd-per-hour"),
        (rates.grams_per_kwh, used, "--grams-per-kwh"),
    ):
        if rate is not None and known is None:
            raise KoalpacaError(
                "card-cost",
                f"{name} is given, but the run did not record its {'time' if known is hours else 'energy'}.",
                where="hub card",
                fix="Leave it away.",
            )
    made = [
        Fact(
            "장치 시간",
            UNKNOWN if hours is None else f"{hours:.2f}시간 × {_cards(record)}",
            "Device hours",
            NOT_KNOWN if hours is None else f"{hours:.2f} h × {_cards(record)}",
        ),
        Fact(
            "에너지",
            "재지 않음" if used is None else f"{used.kwh:.3f} kWh ({_HOW[used.how][0]})",
            "Energy",
            "not measured" if used is None else f"{used.kwh:.3f} kWh ({_HOW[used.how][1]})",
        ),
    ]
    grams = emissions(record, rates)
    if grams is not None:
        of = f"{grams:,.0f} g CO₂eq ({rates.grams_per_kwh:g} g/kWh)"
        made.append(Fact("탄소", of, "Carbon", of))
    if rates.usd_per_hour is not None and hours is not None:
        price = f"${hours * rates.usd_per_hour:,.2f} (${rates.usd_per_hour:g}/h)"
        made.append(Fact("비용", price, "Cost", price))
    return made


def emissions(record: Mapping[str, Any], rates: Rates) -> float | None:
    """Grams of CO2 equivalent, where both factors are known."""
    used = energy(record)
    return None if used is None or rates.grams_per_kwh is None else used.kwh * rates.grams_per_kwh


def _hours(record: Mapping[str, Any]) -> float | None:
    seconds = (record.get("result") or {}).get("seconds")
    return None if seconds is None else float(seconds) / 3600


def _cards(record: Mapping[str, Any]) -> int:
    return max(1, int((record.get("machine") or {}).get("count") or 1))
