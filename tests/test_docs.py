"""The documentation names what there is, all of it and nothing else; both languages show the same commands."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from koalpaca_tune.cli.main import cli
from koalpaca_tune.config.check import keys
from koalpaca_tune.config.preparation import Input, Preparation
from koalpaca_tune.config.recipe import Recipe

TOP = Path(__file__).resolve().parent.parent
SOURCE = TOP / "koalpaca_tune"


def page(name: str) -> str:
    return (TOP / name).read_text(encoding="utf-8")


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Every KoalpacaError(...) and Problem(...)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("KoalpacaError", "Problem"):
            yield node


def codes() -> set[str]:
    """The error codes of the source: first arguments in so many words, and the two that the command line adds."""
    found = set(re.findall(r"error \[([a-z-]+)\]: ", (SOURCE / "cli/main.py").read_text(encoding="utf-8")))
    for file in SOURCE.rglob("*.py"):
        for call in calls(ast.parse(file.read_text(encoding="utf-8"))):
            if call.args and isinstance(call.args[0], ast.Constant):
                found.add(str(call.args[0].value))
    return found


def test_a_code_that_is_no_word_is_only_handed_on() -> None:
    """`KoalpacaError(row.problem.code, ...)` hands a code on; anything else would hide one from the page."""
    hidden = [
        f"{file.relative_to(TOP)}:{call.lineno}"
        for file in sorted(SOURCE.rglob("*.py"))
        for call in calls(ast.parse(file.read_text(encoding="utf-8")))
        if file.name != "errors.py"
        and not isinstance(call.args[0] if call.args else None, ast.Constant)
        and not (call.args and ast.unparse(call.args[0]).endswith(("code", "problem")))
    ]
    assert hidden == []


def test_the_codes_are_found() -> None:
    assert {"config-unknown-key", "mask-boundary", "lora-target", "system", "out-of-memory"} <= codes()


@pytest.mark.parametrize("name", ["docs/ko/errors.md", "docs/en/errors.md"])
def test_every_error_code_is_explained_and_no_other(name: str) -> None:
    explained = re.findall(r"^## `?([a-z0-9-]+)`?$", page(name), re.MULTILINE)
    assert sorted(set(explained)) == sorted(explained), "explained twice"
    assert set(explained) == codes()


@pytest.mark.parametrize("name", ["docs/ko/recipe.md", "docs/en/recipe.md"])
def test_every_recipe_key_is_described_and_no_other(name: str) -> None:
    text = page(name)
    assert [key for key in keys(Recipe) if f"`{key}`" not in text] == []
    named = set(re.findall(r"^\|\s*`([a-z0-9_.]+)`\s*\|", text, re.MULTILINE))
    assert named <= set(keys(Recipe)), "a key that there is no longer"


@pytest.mark.parametrize("name", ["docs/ko/data.md", "docs/en/data.md"])
def test_every_key_of_a_preparation_is_described_and_no_other(name: str) -> None:
    text = page(name)
    named = re.findall(r"^\|\s*`([a-z0-9_.]+)`\s*\|[^|]*\|[^|]*\|$", text, re.MULTILINE)
    assert sorted(key for key in named if key in keys(Preparation)) == sorted(keys(Preparation))
    assert [key for key in named if "." in key and key not in keys(Preparation)] == []
    assert [key for key in keys(Input) if f"`{key}`" not in text] == []


def paths(command: click.Command, path: str = "koalpaca") -> Iterator[str]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from paths(inner, f"{path} {name}")
    else:
        yield path


@pytest.mark.parametrize("name", ["docs/ko/commands.md", "docs/en/commands.md"])
def test_every_command_and_option_is_described(name: str) -> None:
    text = page(name)
    assert [path for path in paths(cli) if path not in text] == []
    options: set[str] = set()
    for path in paths(cli):
        command: click.Command = cli
        for word in path.split()[1:]:
            assert isinstance(command, click.Group)
            command = command.commands[word]
        options |= {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
    assert sorted(option for option in options if option not in text) == []


def blocks(text: str) -> list[str]:
    return re.findall(r"^```.*?^```$", text, re.MULTILINE | re.DOTALL)


PAIRS = [("README.ko.md", "README.md")]
PAIRS += [(f"docs/ko/{path.name}", f"docs/en/{path.name}") for path in sorted((TOP / "docs/ko").glob("*.md"))]


@pytest.mark.parametrize(("korean", "english"), PAIRS)
def test_both_languages_have_the_same_code_blocks(korean: str, english: str) -> None:
    assert blocks(page(korean)) == blocks(page(english))


def test_both_languages_have_the_same_pages() -> None:
    names = [sorted(path.name for path in (TOP / "docs" / language).glob("*.md")) for language in ("ko", "en")]
    assert names[0] == names[1] != []


@pytest.mark.parametrize("name", [name for pair in PAIRS for name in pair])
def test_links_to_files_lead_somewhere(name: str) -> None:
    broken = [
        target
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page(name))
        if "://" not in target and not target.startswith("mailto:") and not ((TOP / name).parent / target).exists()
    ]
    assert broken == []
