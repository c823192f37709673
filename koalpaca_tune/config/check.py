"""A strict model over a document: every problem of a file at once, each at its line and column."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from koalpaca_tune.config.document import Document, Path, dot
from koalpaca_tune.config.elsewhere import ELSEWHERE
from koalpaca_tune.errors import KoalpacaError, Problem, did_you_mean


class Strict(BaseModel):
    """Base of every model read from a file: unknown keys and near-miss types are errors; frozen."""

    gone: ClassVar[Mapping[str, str]] = {}
    """Keys that there once were, and what to write instead."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=Strict)


def check(model: type[Model], document: Document) -> Model:
    """Validates a document.

    Raises:
        KoalpacaError: all problems, sorted by line (codes config-*).
    """
    problems = dict(document.problems)
    if not isinstance(document.value, dict):
        problems[()] = Problem(
            "config-type", f"the file holds {_said(document.value)}, not keys and values.", document.name
        )
        raise KoalpacaError.of(list(problems.values()))
    try:
        checked = model.model_validate(document.value)
    except ValidationError as error:
        # a Union reports every branch; one problem for one place is what a reader can use
        for detail in error.errors():
            path = _in_document(detail["loc"], document.value)
            problems.setdefault(path, _problem(model, document, path, detail))
        raise KoalpacaError.of(sorted(problems.values(), key=_line)) from error
    if problems:
        raise KoalpacaError.of(sorted(problems.values(), key=_line))
    return checked


def _line(problem: Problem) -> tuple[int, int]:
    at = re.search(r":(\d+):(\d+)", problem.where)
    return (int(at[1]), int(at[2])) if at else (0, 0)


def _in_document(loc: tuple[int | str, ...], value: Any) -> Path:
    """pydantic's location less the branch names of unions, which are no keys of the document."""
    path: list[int | str] = []
    for n, part in enumerate(loc):
        if isinstance(value, dict):
            if part not in value and n < len(loc) - 1 and not isinstance(part, int):
                continue
            path.append(part)
            value = value.get(part) if isinstance(part, str) else None
        elif isinstance(value, list) and isinstance(part, int):
            path.append(part)
            value = value[part] if part < len(value) else None
        else:
            break
    return tuple(path)


def _problem(model: type[BaseModel], document: Document, path: Path, detail: Any) -> Problem:
    kind = detail["type"]
    value = detail.get("input")
    if kind == "extra_forbidden":
        return Problem(
            "config-unknown-key",
            f"unknown key '{path[-1]}' (value {_said(value)}).",
            document.where(path, key=True),
            gone(model, path) or did_you_mean(str(path[-1]), _keys_at(model, path[:-1])),
        )
    if kind == "missing":
        return Problem("config-missing-key", f"'{path[-1]}' is missing.", document.where(path), "Add it.")
    where = document.where(path)
    if kind == "literal_error":
        allowed = [str(a) for a in _allowed_at(model, path)]
        return Problem("config-value", f"{_said(value)} is not one of the choices.", where, _choice(value, allowed))
    if kind == "model_type":
        return Problem(
            "config-type", f"{_said(value)} is of the wrong type.", where, "Write keys and values under it."
        )
    if kind in ("float_type", "int_type") and isinstance(value, str):
        number = _as_number(value, whole=kind == "int_type")
        if number and document.plain.get(path) == value:
            return Problem(
                "config-type",
                f"'{value}' is text to YAML, which wants a dot in a number with an exponent.",
                where,
                f"Did you mean {number}?",
            )
        if number:
            return Problem(
                "config-type", f"{_said(value)} is text.", where, f"Did you mean {number}, without quotes?"
            )
    if kind == "value_error":
        what, _, fix = str(detail["ctx"]["error"]).partition(" | ")
        return Problem("config-value", what, where, fix)
    if kind.endswith("_type"):
        return Problem("config-type", f"{_said(value)} is of the wrong type.", where, f"{detail['msg']}.")
    return Problem("config-value", f"{_said(value)} is not allowed.", where, f"{detail['msg']}.")


_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")


def _said(value: object) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _choice(value: object, allowed: list[str]) -> str:
    return did_you_mean(str(value), allowed) if allowed else ""


def _as_number(text: str, *, whole: bool) -> str:
    """`2e-4` as `2.0e-4`, and `2e3` as `2000` where a whole number is wanted; empty if it is none."""
    if not _NUMBER.fullmatch(text):
        return ""
    if whole:
        number = float(text)
        return str(int(number)) if abs(number) < 1e15 and number.is_integer() else ""
    mantissa, e, exponent = text.lower().partition("e")
    if not e:
        return text
    if "." not in mantissa:
        mantissa += ".0"
    sign = "" if exponent[:1] in "+-" else "+"
    return f"{mantissa}e{sign}{exponent}"


def _annotation_at(model: type[BaseModel], path: Path) -> Any:
    """The type annotation of the place `path` points to, Optional stripped; None when there is none."""
    here: Any = model
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            if part not in here.model_fields:
                return None
            here = here.model_fields[str(part)].annotation
        else:
            args = typing.get_args(here)
            here = args[-1] if args else None
        here = _without_none(here)
    return here


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        return rest[0] if len(rest) == 1 else annotation
    return annotation


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    here = _annotation_at(model, path)
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def gone(model: type[BaseModel], path: Path) -> str:
    """What to write in place of a key that there once was, or that other trainers have; empty for any other."""
    here = _annotation_at(model, path[:-1])
    known = isinstance(here, type) and issubclass(here, Strict)
    found = here.gone.get(str(path[-1]), "") if known else ""
    # only a recipe has what other trainers have other names for
    return found or (ELSEWHERE.get(str(path[-1]), "") if "training" in model.model_fields else "")


def _allowed_at(model: type[BaseModel], path: Path) -> list[Any]:
    here = _annotation_at(model, path)
    options = typing.get_args(here) if typing.get_origin(here) in (typing.Union, types.UnionType) else [here]
    return [
        value
        for option in options
        if typing.get_origin(option) is typing.Literal
        for value in typing.get_args(option)
    ]


def keys(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Every dotted key of a model with its one-sentence description, for help and docs."""
    found: dict[str, str] = {}
    for name, info in model.model_fields.items():
        inner = _without_none(info.annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            if inner is not info.annotation:
                # null is a choice of its own
                found[f"{prefix}{name}"] = info.description or ""
            found.update(keys(inner, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = info.description or ""
    return found


__all__ = ["Strict", "check", "dot", "gone", "keys"]
