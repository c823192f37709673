"""Whether an answer followed its instructions, strictly and loosely, and what that comes to over a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.instructions.language import LANGUAGES
from koalpaca_tune.instructions.registry import INSTRUCTIONS, LETTERS, Kind
from koalpaca_tune.instructions.text import plain

IDS: tuple[str, ...] = tuple(INSTRUCTIONS)

METRICS = ("prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose")
"""A prompt counts when all its instructions were followed; the first is the one to test."""

YES_NO = ("prompt_strict", "prompt_loose")

RELATIONS = ("at least", "less than")


@dataclass(frozen=True, slots=True)
class Followed:
    """Which instructions of one question an answer followed, in the question's order."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]

    def scores(self) -> dict[str, float]:
        """The four measures of this one question."""
        return totals([self])


def check(id: str, arguments: Mapping[str, Any], response: str) -> bool:
    """Whether a response follows one instruction, as it stands; an empty one follows none.

    Raises:
        KoalpacaError: unknown id (instruction-id), missing or wrong argument (instruction-argument).
    """
    return _holds(id, _values(id, arguments, "instruction"), response)


def read(ids: Sequence[str], arguments: Sequence[Mapping[str, Any]], origin: str) -> None:
    """Checks the instructions of an item before a model answers it.

    Args:
        ids, arguments: `instruction_id_list` and `kwargs` of the data set. Arguments that are null are absent, as
            in the published table; whole numbers may be floats.
        origin: `file:line`.

    Raises:
        KoalpacaError: unknown id (instruction-id), missing, wrong or unknown argument (instruction-argument).
    """
    if not ids or len(ids) != len(arguments):
        raise KoalpacaError(
            "instruction-argument",
            f"it has {len(ids)} instructions and {len(arguments)} sets of arguments.",
            where=origin,
            fix="Give one mapping under `kwargs` for each id, {} where it takes none.",
        )
    for id, given in zip(ids, arguments, strict=True):
        _values(id, given, origin)


def followed(
    ids: Sequence[str], arguments: Sequence[Mapping[str, Any]], response: str, origin: str = ""
) -> Followed:
    """Judges a response by all instructions of its question.

    Loosely, an instruction is followed when any of eight variants follows it: the response with and without its
    first and last line, each with and without asterisks (Zhou et al., 2023, section 2.2).

    Raises:
        KoalpacaError: as `read`.
    """
    read(ids, arguments, origin)
    variants = loosened(response)
    strict, loose = [], []
    for id, given in zip(ids, arguments, strict=True):
        values = _values(id, given, origin)
        strict.append(_holds(id, values, response))
        loose.append(strict[-1] or any(_holds(id, values, variant) for variant in variants))
    return Followed(tuple(strict), tuple(loose))


def loosened(response: str) -> tuple[str, ...]:
    """The eight variants, the response itself first."""
    lines = plain(response).split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    whole = [plain(response), *cut]
    return (*whole, *(text.replace("*", "") for text in whole))


def totals(answers: Iterable[Followed]) -> dict[str, float]:
    """The four measures over a task, each in 0..1; at least one answer.

    `instruction_*` counts all instructions alike, so a question with three weighs three times one with one.
    """
    every = list(answers)
    counted = sum(len(one.strict) for one in every)
    return {
        "prompt_strict": sum(all(one.strict) for one in every) / len(every),
        "prompt_loose": sum(all(one.loose) for one in every) / len(every),
        "instruction_strict": sum(sum(one.strict) for one in every) / counted,
        "instruction_loose": sum(sum(one.loose) for one in every) / counted,
    }


def _holds(id: str, values: Sequence[Any], response: str) -> bool:
    said = plain(response)
    return bool(said.strip()) and INSTRUCTIONS[id].holds(said, *values)


def _values(id: str, given: Mapping[str, Any], origin: str) -> list[Any]:
    if id not in INSTRUCTIONS:
        fix = "It counts letters of the Latin alphabet; leave it out." if id in LETTERS else did_you_mean(id, IDS)
        raise KoalpacaError("instruction-id", f"there is no instruction '{id}'.", where=origin, fix=fix)
    wanted = INSTRUCTIONS[id].arguments
    present = {name: value for name, value in given.items() if value is not None}
    for name in present:
        if name not in wanted:
            raise KoalpacaError(
                "instruction-argument",
                f"'{id}' takes no '{name}' (it is {present[name]!r}).",
                where=origin,
                fix=did_you_mean(name, list(wanted)),
            )
    return [_value(id, name, kind, present.get(name), origin) for name, kind in wanted.items()]


_WANTED: dict[Kind, str] = {
    "text": "a text that is not empty",
    "texts": "a list of texts that are not empty",
    "count": "a whole number from 0",
    "relation": " or ".join(f"'{relation}'" for relation in RELATIONS),
    "language": f"one of {', '.join(LANGUAGES)}",
}


def _value(id: str, name: str, kind: Kind, value: Any, origin: str) -> Any:
    if kind == "count" and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not _fits(kind, value):
        said = "is missing" if value is None else f"is {value!r}"
        raise KoalpacaError(
            "instruction-argument", f"'{name}' of '{id}' {said}.", where=origin, fix=f"Give {_WANTED[kind]}."
        )
    return value


def _fits(kind: Kind, value: Any) -> bool:
    if kind == "count":
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if kind == "texts":
        return isinstance(value, list | tuple) and bool(value) and all(_fits("text", one) for one in value)
    if kind == "relation":
        return value in RELATIONS
    if kind == "language":
        return value in LANGUAGES
    return isinstance(value, str) and bool(value.strip())
