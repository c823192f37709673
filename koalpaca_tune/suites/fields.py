"""Published columns to fields: rename, tables, lists, and which choice a column calls right."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from koalpaca_tune.errors import KoalpacaError, did_you_mean
from koalpaca_tune.patterns import fill
from koalpaca_tune.suites.asking import Listing
from koalpaca_tune.suites.rows import plain
from koalpaca_tune.suites.schema import Answer, Rule

Value = str | list[str]
Fields = dict[str, Value]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def read(rules: Mapping[str, str | list[str] | Rule], row: Mapping[str, Any], origin: str) -> Fields:
    """The fields of a row: every column whose name is a word, then those of the rules.

    Raises:
        KoalpacaError: no such column (item-columns), a value that a table does not have (item-value), or text that
            is not the list it should be (item-shape).
    """
    fields: Fields = {}
    for name, value in row.items():
        if name.isidentifier() and (told := _value(value)) is not None:
            fields[name] = told
    for name, given in rules.items():
        rule = given if isinstance(given, Rule) else Rule(column=given)
        fields[name] = _by_rule(name, rule, row, origin)
    return fields


def _by_rule(name: str, rule: Rule, row: Mapping[str, Any], origin: str) -> Value:
    _, raw = column(rule.column, row, origin)
    value = _value(raw)
    if value is None:
        raise KoalpacaError(
            "item-value", f"'{name}' is {_short(raw)}: neither text nor a list of texts.", where=origin
        )
    if rule.strip:
        value = value.strip() if isinstance(value, str) else [one.strip() for one in value]
    if rule.parse is not None and isinstance(value, str):
        value = _parsed(value, rule.parse, origin)
    if rule.table is not None:
        if not isinstance(value, str) or value not in rule.table:
            raise KoalpacaError(
                "item-value",
                f"'{name}' is {_short(value)}, which its table does not have.",
                where=origin,
                fix=did_you_mean(str(value), list(rule.table)),
            )
        value = rule.table[value]
    return value


def column(names: str | list[str], row: Mapping[str, Any], origin: str) -> tuple[str, Any]:
    """The first of the columns that a row has, and its value; `a.b` looks inside, through lists too.

    Raises:
        KoalpacaError: it has none of them (item-columns).
    """
    wanted = [names] if isinstance(names, str) else names
    for name in wanted:
        if name in row:
            return name, row[name]
        found = _inside(row, name.split("."))
        if found is not _NOTHING:
            return name, found
    called = " or ".join(f"'{name}'" for name in wanted)
    columns = [name for name in row if not name.startswith("_")]
    raise KoalpacaError(
        "item-columns",
        f"there is no column {called} (found: {', '.join(columns)}).",
        where=origin,
        fix=did_you_mean(wanted[0], columns),
    )


_NOTHING = object()


def _inside(value: Any, path: Sequence[str]) -> Any:
    for n, part in enumerate(path):
        if isinstance(value, list):
            found = [_inside(one, path[n:]) for one in value]
            return _NOTHING if any(one is _NOTHING for one in found) else found
        if not isinstance(value, Mapping) or part not in value:
            return _NOTHING
        value = value[part]
    return value


def _value(value: Any) -> Value | None:
    """A column's value as a field: text, or a list of texts; nothing is the empty text; None: neither."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, list | tuple) and all(one is None or isinstance(one, str | int | float) for one in value):
        return ["" if one is None else str(one) for one in value]
    return None


def _parsed(text: str, how: str, origin: str) -> list[str]:
    if how == "lines":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        value = None
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise KoalpacaError("item-shape", f"{_short(text)} is not a list of texts.", where=origin, fix="['a', 'b']")
    return value


def options(named: str | list[str] | None, fields: Fields, origin: str) -> list[str]:
    """The item's own options; empty options at the end are none.

    Raises:
        KoalpacaError: a field that is not there or is not of the kind (item-shape).
    """
    if named is None:
        return []
    for name in [named] if isinstance(named, str) else named:
        if name not in fields:
            raise missing(name, fields, origin)
    found = fields[named] if isinstance(named, str) else [fields[name] for name in named]
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise KoalpacaError("item-shape", "its choices are not a list of texts.", where=origin)
    listed = [str(one) for one in found]
    while listed and not listed[-1].strip():
        listed.pop()
    return listed


def missing(name: str, fields: Mapping[str, Value], origin: str) -> KoalpacaError:
    """The error for a field that an item does not have."""
    return KoalpacaError(
        "item-shape",
        f"there is no field '{name}' that is a text or a list of texts.",
        where=origin,
        fix=did_you_mean(name, sorted(fields)),
    )


def of_options(listed: Sequence[str], listing: Listing | None) -> dict[str, str]:
    """Fields that patterns may name: {option_1} and on, {letters}, and {listing}."""
    made = {f"option_{n}": option for n, option in enumerate(listed, 1)}
    made["letters"] = ", ".join(LETTERS[: len(listed)])
    if listing is not None:
        made["listing"] = listing.join.join(fill(listing.each, one) for one in each(listed))
    return made


def each(listed: Sequence[str]) -> list[dict[str, str]]:
    """What a pattern may name of one option: {option} (also {choice}), {letter}, {number}."""
    return [
        {"option": option, "choice": option, "letter": LETTERS[n], "number": str(n + 1)}
        for n, option in enumerate(listed)
    ]


def answer(rule: Answer, row: Mapping[str, Any], listed: Sequence[str], origin: str) -> int:
    """Index of the right choice.

    Raises:
        KoalpacaError: no such column (item-columns), or a value that is no answer (item-answer).
    """
    while rule.otherwise is not None and not _has(rule.column, row):
        rule = rule.otherwise
    name, value = column(rule.column, row, origin)
    found, expected = _index(rule, value, listed)
    if found is None:
        raise KoalpacaError("item-answer", f"'{name}' is {_short(value)}, not {expected}.", where=origin)
    return found


def _has(names: str | list[str], row: Mapping[str, Any]) -> bool:
    return any(name in row for name in ([names] if isinstance(names, str) else names))


def _index(rule: Answer, value: Any, listed: Sequence[str]) -> tuple[int | None, str]:
    text = "" if value is None else str(value).strip()
    if rule.labels is not None:
        labels = {plain(label): index for label, index in rule.labels.items()}
        return labels.get(plain(text)), f"one of {', '.join(rule.labels)}"
    if rule.at_least is not None:
        try:
            return int(float(text) >= rule.at_least), ""
        except ValueError:
            return None, "a number"
    if rule.read == "letter":
        # (A), A., A
        letter = text.strip("().: ").upper()
        return (LETTERS.index(letter) if len(letter) == 1 and letter in LETTERS else None), "a letter from A"
    if rule.read == "choice":
        stripped = [one.strip() for one in listed]
        return (stripped.index(text) if text in stripped else None), "the text of one of the choices"
    whole = text.removesuffix(".0")
    if isinstance(value, bool) or not (whole.isascii() and whole.isdigit()):
        return None, "a whole number"
    if rule.read == "number":
        return (int(whole) - 1 if int(whole) else None), "a number from 1"
    return int(whole), "an index from 0"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
