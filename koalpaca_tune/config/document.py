"""YAML with positions, without YAML's surprises.

PyYAML's parser gives nodes with line and column; this module turns them into plain values and refuses,
at the place, what people do not mean: duplicate keys, `no` read as false, dates, octal and base-60
numbers, anchors (and with them YAML bombs), tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from koalpaca_tune.errors import KoalpacaError, Problem

Path = tuple[str | int, ...]
"""Where a value stands in a document: keys and list positions from the root."""

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 20_000
"""Keys and values together. PyYAML takes about 20 microseconds for each, and a file of ours has some hundred."""


@dataclass(frozen=True)
class Document:
    """A parsed file: plain values, and where each stands.

    Attributes:
        name: the file's name, for messages.
        value: dicts, lists, str, int, float, bool, None.
        key_marks, marks: path -> (line, column), both from 1, of the key and of the value.
        plain: paths of scalars written without quotes, with their text.
        problems: values that YAML reads otherwise than they look, by path; `check` reports them with its own.
    """

    name: str
    value: Any = None
    key_marks: dict[Path, tuple[int, int]] = field(default_factory=dict)
    marks: dict[Path, tuple[int, int]] = field(default_factory=dict)
    plain: dict[Path, str] = field(default_factory=dict)
    problems: dict[Path, Problem] = field(default_factory=dict)

    def where(self, path: Path, *, key: bool = False) -> str:
        """`file:line:column: a.b.c` of a key or value; of its nearest parent when it is not in the file."""
        marks = self.key_marks if key else self.marks
        at = path
        while at and at not in marks:
            at = at[:-1]
            marks = self.marks
        line, column = marks.get(at, (1, 1))
        place = f"{self.name}:{line}:{column}" if line else "command line"
        dotted = dot(path)
        return f"{place}: {dotted}" if dotted else place


def dot(path: Path) -> str:
    """('data', 'train', 0) as `data.train[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def parse(text: str, name: str) -> Document:
    """Reads one YAML document.

    Raises:
        KoalpacaError: the file cannot be read as YAML at all (yaml-size, yaml-syntax).
    """
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise KoalpacaError("yaml-size", f"the file is larger than {MAX_BYTES:,} bytes.", where=name)
    try:
        node = _compose(text, name)
    except RecursionError as error:
        raise KoalpacaError("yaml-syntax", "it is nested too deeply.", where=name) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        said = getattr(error, "problem", None) or str(error)
        raise KoalpacaError("yaml-syntax", f"this is not YAML: {said}.", where=place) from error
    except (ValueError, OverflowError) as error:
        # PyYAML lets these out: an escape beyond Unicode, a directive with a number of 5,000 digits
        raise KoalpacaError("yaml-syntax", f"this is not YAML: {error}.", where=name) from error
    document = Document(name)
    value = None if node is None else _value(node, (), document)
    return replace(document, value=value)


def _compose(text: str, name: str) -> yaml.Node | None:
    loader = yaml.SafeLoader(text)
    try:
        depth = nodes = 0
        for event in _events(text):
            nodes += isinstance(event, yaml.NodeEvent)
            if nodes > MAX_NODES:
                raise KoalpacaError(
                    "yaml-size",
                    f"it holds more than {MAX_NODES:,} keys and values.",
                    where=f"{name}:{event.start_mark.line + 1}",
                )
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise yaml.MarkedYAMLError(problem="it is nested too deeply", problem_mark=event.start_mark)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise yaml.MarkedYAMLError(
                    problem="anchors and aliases (&, *) are not used here; write the value out, or quote it",
                    problem_mark=event.start_mark,
                )
        node: yaml.Node | None = loader.get_single_node()
        return node
    finally:
        loader.dispose()


def _events(text: str) -> Iterator[Any]:
    yield from yaml.parse(text, Loader=yaml.SafeLoader)


def _value(node: yaml.Node, path: Path, document: Document) -> Any:
    document.marks[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
        what = f"the tag '{node.tag}' is not used here."
        document.problems[path] = Problem("yaml-value", what, document.where(path), "Write a plain value.")
        return None
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, (*path, n), document) for n, child in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    if node.style is None:
        document.plain[path] = node.value
    try:
        return _scalar(node)
    except ValueError as error:
        what, _, fix = str(error).partition(" | ")
        document.problems[path] = Problem("yaml-value", what, document.where(path), fix)
        return None


def _mapping(node: yaml.MappingNode, path: Path, document: Document) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
        if (
            not isinstance(key_node, yaml.ScalarNode)
            or not key_node.tag.startswith(_YAML)
            or key_node.tag == f"{_YAML}merge"
            or _CONTROL.search(key_node.value)
        ):
            bad = Problem("yaml-value", "a key must be a plain word.", f"{document.name}:{line}:{column}")
            document.problems[(*path, f"{line}:{column}")] = bad
            continue
        key = key_node.value
        here = (*path, key)
        if key in mapping:
            first = document.key_marks[here][0]
            document.problems[(*here, f"{line}:{column}")] = Problem(
                "yaml-duplicate-key",
                f"'{key}' stands here a second time (first on line {first}).",
                f"{document.name}:{line}:{column}: {dot(here)}",
                "Keep one.",
            )
            continue
        document.key_marks[here] = (line, column)
        mapping[key] = _value(value_node, here, document)
    return mapping


_YAML = "tag:yaml.org,2002:"
_COLLECTIONS = (f"{_YAML}map", f"{_YAML}seq")
# they move the cursor of who reads a message, end a path early, or cannot be written as UTF-8
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?[0-9]+\.[0-9]*([eE][-+]?[0-9]+)?")


def _scalar(node: yaml.ScalarNode) -> Any:
    """Raises ValueError("what | what to do") for a value that YAML reads otherwise than it looks."""
    kind = node.tag.removeprefix(_YAML)
    text: str = node.value
    if kind == "str":
        if found := _CONTROL.search(text):
            raise ValueError(
                f"the text holds the character U+{ord(found[0]):04X}, which nobody sees. | Take it out."
            )
        return text
    if kind == "null":
        return None
    if kind == "bool":
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        read_as = text.lower() in ("yes", "on")
        raise ValueError(
            f"YAML reads '{text}' as {str(read_as).lower()}. | "
            f"Did you mean '{str(read_as).lower()}'? For the word itself write \"{text}\" in quotes."
        )
    if kind == "int" and _INT.fullmatch(text) and len(text) < 20:
        return int(text)
    if kind == "float" and _FLOAT.fullmatch(text):
        return float(text)
    if kind in ("int", "float"):
        raise ValueError(f"'{text}' is not a plain number. | Write it in decimal, or in quotes for text.")
    if kind == "timestamp":
        raise ValueError(f"YAML reads '{text}' as a date. | Write it in quotes for text.")
    raise ValueError(f"the tag '{node.tag}' is not used here. | Write a plain value.")
