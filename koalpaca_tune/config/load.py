"""A recipe from a file or by a shipped name, with `key=value` overrides through the same check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from koalpaca_tune import resources
from koalpaca_tune.config import document as doc
from koalpaca_tune.config.check import Strict, check, gone, keys
from koalpaca_tune.config.document import Document, dot
from koalpaca_tune.config.preparation import Preparation
from koalpaca_tune.config.recipe import Engine, Quantization, Recipe
from koalpaca_tune.errors import KoalpacaError, Problem, did_you_mean


def names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in resources.RECIPES.glob("*.yaml"))


def find(name: str) -> Path:
    """A recipe's file: a path as given, or a shipped recipe by its name.

    Raises:
        KoalpacaError: neither (recipe-missing).
    """
    path = Path(name)
    if path.is_file():
        return path
    if name in names():
        return resources.RECIPES / f"{name}.yaml"
    raise KoalpacaError(
        "recipe-missing",
        f"there is no such file or shipped recipe: '{name}'.",
        where="recipe",
        fix=did_you_mean(name, names()),
    )


def read(path: Path) -> Document:
    """Parses a YAML file.

    Raises:
        KoalpacaError: unreadable (file-missing, yaml-encoding) or not YAML as we read it (yaml-*).
    """
    if path.exists() and not path.is_file():
        # a pipe or a device might never end
        raise KoalpacaError("file-missing", "it is not a file.", where=str(path), fix="Check the path.")
    try:
        with path.open("rb") as file:
            raw = file.read(doc.MAX_BYTES + 1)
        # cut at a letter's middle it would not be UTF-8; `parse` says that it is too much
        text = raw.decode("utf-8-sig", "replace" if len(raw) > doc.MAX_BYTES else "strict")
    except OSError as error:
        raise KoalpacaError("file-missing", f"cannot read it ({error.strerror}).", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise KoalpacaError(
            "yaml-encoding", f"it is not UTF-8 (byte {error.start}).", where=str(path), fix="Save it as UTF-8."
        ) from error
    return doc.parse(text, str(path))


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Reads, overrides and checks a recipe.

    Args:
        name: a file, or the name of a shipped recipe.
        overrides: `training.max_steps=20`; the value is YAML.

    Raises:
        KoalpacaError: every problem of file and overrides at once.
    """
    document = read(find(name))
    return check(Recipe, override(document, overrides))


def preparation(path: Path | None, overrides: Sequence[str] = ()) -> Preparation:
    """Reads, overrides and checks a preparation; without a file, all defaults.

    Args:
        path: a YAML file, or None.
        overrides: `duplicates.threshold=0.9`; the value is YAML.

    Raises:
        KoalpacaError: every problem of file and overrides at once.
    """
    document = read(path) if path else doc.parse("{}", "command line")
    return check(Preparation, override(document, overrides, Preparation))


def override(document: Document, overrides: Sequence[str], model: type[Strict] = Recipe) -> Document:
    """A document with dotted keys of its model set; their positions read `key=value`."""
    if not overrides or not isinstance(document.value, dict):
        return document
    value = _copy(document.value)
    marks, key_marks, plain = dict(document.marks), dict(document.key_marks), dict(document.plain)
    inherited = dict(document.problems)
    problems: list[Problem] = []
    known = list(keys(model))
    seen: set[str] = set()
    for text in overrides:
        key, equals, raw = text.partition("=")
        if not equals:
            problems.append(Problem("override", f"'{text}' is not key=value.", "command line", "Example: seed=1"))
            continue
        try:
            given = doc.parse(raw, f"command line: {key}")
        except KoalpacaError as error:
            problems += error.problems
            continue
        if key not in known:
            fix = gone(model, tuple(key.split("."))) or did_you_mean(key, known)
            problems.append(Problem("config-unknown-key", f"unknown key '{key}'.", "command line", fix))
            continue
        if key in seen:
            problems.append(Problem("override", f"'{key}' is given twice.", "command line", "Keep one."))
            continue
        around = [other for other in seen if key.startswith(f"{other}.") or other.startswith(f"{key}.")]
        if around:
            what = f"'{key}' and '{around[0]}' cannot both be given."
            problems.append(Problem("override", what, "command line", "Keep one."))
            continue
        seen.add(key)
        *parents, last = key.split(".")
        here = value
        for part in parents:
            inner = here.get(part)
            if not isinstance(inner, dict):
                inner = here[part] = {}
            here = inner
        here[last] = given.value
        path = tuple(key.split("."))
        # what the file said of this key and of all within it is gone
        for stored in (inherited, marks, key_marks, plain):
            for old in [old for old in stored if old[: len(path)] == path]:
                del stored[old]
        for within, bad in given.problems.items():
            inherited[path + within] = replace(bad, where=f"command line: {dot(path + within)}")
        # line 0: `where` prints the dotted key without a line
        marks[path] = key_marks[path] = (0, 0)
        plain.update({path + within: text for within, text in given.plain.items()})
        for other in _replaced(key, given.value):
            if f"{'.'.join(parents)}.{other}" not in seen:
                here.pop(other, None)
    inherited |= {("command line", n): problem for n, problem in enumerate(problems)}
    return Document(document.name, value, key_marks, marks, plain, inherited)


def _replaced(key: str, value: Any) -> Sequence[str]:
    """The file's keys beside `key` that mean nothing once it is set: an override says what is wanted instead."""
    if key == "training.max_steps" and value is not None:
        return ["epochs"]
    if key == "training.epochs" and value is not None:
        return ["max_steps"]
    four_bit = [name for name in Quantization.model_fields if name.startswith("bnb_")]
    if key == "quantization.load_in_4bit" and isinstance(value, bool):
        return ["load_in_8bit", "llm_int8_threshold"] if value else four_bit
    if key == "quantization.load_in_8bit" and isinstance(value, bool):
        return ["load_in_4bit", *four_bit] if value else ["llm_int8_threshold"]
    if key == "engine.kind" and value == "plain":
        return [name for name in Engine.model_fields if name not in Engine.plain_keys]
    return []


def _copy(value: dict[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = {}
    for key, inner in value.items():
        copied[key] = _copy(inner) if isinstance(inner, dict) else inner
    return copied


def dump(recipe: Recipe | Preparation) -> str:
    """The resolved recipe (or preparation) as YAML that reads back to the same."""
    text: str = yaml.safe_dump(recipe.model_dump(), allow_unicode=True, sort_keys=False)
    return text


def explained(model: Strict, indent: str = "") -> str:
    """Every key of a model with its value, each under the sentence that describes it, as YAML."""
    lines: list[str] = []
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, Strict):
            about = (type(value).__doc__ or "").splitlines()[0]
            lines += ["", f"{indent}# {about}", f"{indent}{name}:", explained(value, indent + "  ")]
        else:
            lines += [f"{indent}# {info.description}", indent + _line(name, value)]
    return "\n".join(lines)


def _line(name: str, value: Any) -> str:
    flow = None if isinstance(value, list) else False
    text: str = yaml.safe_dump({name: value}, allow_unicode=True, default_flow_style=flow, width=1000)
    return text.rstrip("\n")
