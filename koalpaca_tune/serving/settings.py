"""How answers of a chat are written, changed by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.inference.decoding import Sampling

OFF = ("off", "없음", "끔")
"""Turns sampling off: `temperature=off`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person may set.

    Attributes:
        max_new_tokens: longest answer.
        temperature: None for the likeliest token each time.
        top_p, seed: with a temperature only; None: 0.9 and 42.
    """

    max_new_tokens: int = 256
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            KoalpacaError: one that cannot be, or that would have no effect (chat-setting).
        """
        if self.max_new_tokens < 1:
            raise _bad("max_new_tokens", self.max_new_tokens, "a whole number from 1")
        if self.temperature is not None and not 0 < self.temperature <= 5:
            raise _bad("temperature", self.temperature, "above 0, at most 5; off for the likeliest token")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise _bad("top_p", self.top_p, "above 0, at most 1")
        if self.seed is not None and not 0 <= self.seed < 1 << 32:
            raise _bad("seed", self.seed, "from 0 to 4294967295")
        if self.temperature is None and (self.top_p is not None or self.seed is not None):
            raise KoalpacaError(
                "chat-setting",
                "top_p and seed have an effect with a temperature only.",
                fix="Give temperature=0.7 as well.",
            )

    @property
    def sampling(self) -> Sampling | None:
        """For `TorchLanguageModel.write`."""
        if self.temperature is None:
            return None
        return Sampling(
            self.temperature, 0.9 if self.top_p is None else self.top_p, 42 if self.seed is None else self.seed
        )

    def changed(self, words: Sequence[str]) -> Settings:
        """With some values changed, each written `name=value`; turning sampling off forgets top_p and seed.

        Raises:
            KoalpacaError: an unknown name or a value that cannot be (chat-setting).
        """
        values: dict[str, int | float | None] = {}
        for word in words:
            name, equals, text = word.partition("=")
            if name not in _KINDS or not equals:
                raise KoalpacaError(
                    "chat-setting", f"'{word}' is no setting.", fix=did_you_mean(name, list(_KINDS))
                )
            values[name] = _number(name, text)
        if "temperature" in values and values["temperature"] is None:
            values = {"top_p": None, "seed": None, **values}
        return replace(self, **values)  # type: ignore[arg-type]  # the kinds are those of the fields


_KINDS: dict[str, type[int] | type[float]] = {
    "max_new_tokens": int,
    "temperature": float,
    "top_p": float,
    "seed": int,
}


def _number(name: str, text: str) -> int | float | None:
    if name == "temperature" and text.lower() in OFF:
        return None
    try:
        number = _KINDS[name](text)
    except ValueError:
        raise _bad(name, text, "a number") from None
    if math.isnan(number):
        raise _bad(name, text, "a number")
    return number


def _bad(name: str, value: object, wanted: str) -> KoalpacaError:
    return KoalpacaError("chat-setting", f"{name} is {value}.", fix=f"It has to be {wanted}.")
