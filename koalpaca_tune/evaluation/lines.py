"""What a line of items.jsonl holds, by kind of task: checked when it is read, because files are edited by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from koalpaca_tune.errors import KoalpacaError

Good = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    # JSON as Python reads it knows NaN and Infinity
    return isinstance(value, int | float) and math.isfinite(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _some(value: Any) -> bool:
    return _number(value) and value > 0


def _yes_no(value: Any) -> bool:
    return isinstance(value, bool)


def _or_none(good: Good) -> Good:
    return lambda value: value is None or good(value)


def _each(good: Good) -> Good:
    return lambda value: isinstance(value, list) and all(map(good, value))


def _values(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_or_none(_number), value.values()))


def _has(fields: Mapping[str, Good]) -> Good:
    return lambda value: isinstance(value, dict) and all(key in value and fields[key](value[key]) for key in fields)


REQUIRED: dict[str, dict[str, Good]] = {
    "choice": {
        "prompt": _text,
        "choices": _each(_text),
        "answer": _count,
        "logprobs": _each(_number),
        "characters": _each(_number),
        "tokens": _each(_number),
    },
    "likelihood": {"nats": _number, "characters": _some, "tokens": _some},
    "generation": {
        "question": _text,
        "reference": _text,
        "text": _text,
        "tokens": _count,
        "stop_rate": _yes_no,
        "repetition": _or_none(_number),
        "hangul_share": _or_none(_number),
        "speech_consistency": _or_none(_yes_no),
        "morpheme_f1": _or_none(_number),
        "measures": _values,
    },
    "answer": {
        "prompt": _text,
        "text": _text,
        "golds": _each(_text),
        "tokens": _count,
        "stopped": _yes_no,
        "scores": _values,
    },
}
"""Kind of a job -> field -> whether a value is one."""

MORE: dict[str, Good] = {
    "category": _text,
    "unconditional": _each(_number),
    "instructions": _each(_has({"strict": _yes_no, "loose": _yes_no})),
    "turns": _each(_has({"question": _text, "answer": _text, "measures": _values})),
    "judgements": _each(_has({"score": _or_none(_number)})),
    "spread": _values,
    "biased": _count,
    "unclear": _yes_no,
}
"""Fields that some tasks have; checked where they are."""

_ALIKE = ("logprobs", "characters", "tokens", "unconditional")
JUDGED = ("turns", "judgements")


def check(line: Mapping[str, Any], kind: str, where: str, also: Collection[str] = ()) -> None:
    """Refuses a line that lacks a field, or holds something else in it.

    Args:
        kind: of its task's job.
        where: `file:line`.
        also: fields of MORE that the task's lines have.

    Raises:
        KoalpacaError: eval-shape.
    """
    wanted = REQUIRED.get(kind, {}) | {name: MORE[name] for name in also}
    for name, good in wanted.items():
        if name not in line:
            raise _wrong(f"'{name}' is missing", where)
        if not good(line[name]):
            raise _wrong(f"'{name}' is {_short(line[name])}", where)
    for name, good in MORE.items():
        if name in line and not good(line[name]):
            raise _wrong(f"'{name}' is {_short(line[name])}", where)
    if kind == "choice":
        _check_choices(line, where)


def check_scores(line: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    """Refuses the line of a written answer without one of its task's scores.

    Raises:
        KoalpacaError: eval-shape.
    """
    for name in names:
        if name not in line["scores"]:
            raise _wrong(f"its scores lack '{name}'", where)


def _check_choices(line: Mapping[str, Any], where: str) -> None:
    count = len(line["choices"])
    for name in _ALIKE:
        if name in line and len(line[name]) != count:
            raise _wrong(f"it has {count} choices and {len(line[name])} '{name}'", where)
    if line["answer"] >= count:
        raise _wrong(f"the answer is choice {line['answer'] + 1} of {count}", where)


def _wrong(what: str, where: str) -> KoalpacaError:
    return KoalpacaError(
        "eval-shape",
        f"{what}: the line is not as `koalpaca eval` wrote it.",
        where=where,
        fix="Take the line out and run the same `koalpaca eval` again: only what is missing is asked.",
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
