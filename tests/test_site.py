"""The documentation as a site: every page is in its navigation, and what the pages tell people to type exists.

Nothing is run: command lines are parsed by the commands themselves. Links are checked where the site is built
(scripts/site.sh).
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import yaml

from koalpaca_tune.cli.main import cli
from koalpaca_tune.config.check import keys
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.config.space import NAMED

TOP = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [*TOP.glob("*.md"), *TOP.glob("docs/**/*.md"), *TOP.glob("bench/*.md"), *TOP.glob("scripts/**/*.md")]
)
TAKES_KEYS = ("train", "plan", "sweep")
"""Commands whose last arguments are KEY=VALUE of a recipe."""


class Line(NamedTuple):
    """A command line of a page. `shown`: what the page says it prints."""

    page: str
    words: tuple[str, ...]
    shown: str


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose slugify is an object of Python."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def site() -> dict[str, Any]:
    loader = Loader((TOP / "mkdocs.yml").read_text(encoding="utf-8"))
    found: dict[str, Any] = loader.get_single_data()
    return found


def pages_of(nav: Any) -> Iterator[str]:
    """Names of the pages, in order."""
    if isinstance(nav, str):
        yield nav
    else:
        for inner in nav.values() if isinstance(nav, dict) else nav:
            yield from pages_of(inner)


def headings_of(nav: Any) -> Iterator[str]:
    """Names that the navigation gives, to groups and to pages."""
    for entry in nav:
        if isinstance(entry, dict):
            for name, inner in entry.items():
                yield name
                yield from headings_of(inner if isinstance(inner, list) else [])


def command_lines(text: str, page: str) -> Iterator[Line]:
    """The `koalpaca ...` lines of the blocks that people copy from, continued lines joined."""
    for kind, block in re.findall(r"^```(bash|console|sh|shell)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        block = re.sub(r"\\\n\s*", " ", block)
        # what a here-document writes to a file is not typed
        block = re.sub(r"<<'?(\w+)'?.*?^\1$", "", block, flags=re.MULTILINE | re.DOTALL)
        lines = block.splitlines()
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            typed = line.removeprefix("$ ") if kind == "console" else line
            for part in re.split(r"&&|\|\||;|\||>", typed):
                # `accelerate launch ... -m koalpaca_tune.cli.main train` is the same command
                part = re.sub(r"^.*-m koalpaca_tune\.cli\.main", "koalpaca", part)
                found = re.match(r"\s*(?:[A-Z_]+=\S+\s+)*(koalpaca\s.*)", part)
                if found:
                    yield Line(page, tuple(shlex.split(found[1], comments=True)), after)


def fault(words: tuple[str, ...]) -> str | None:
    """What the command line would say of these words, without running anything; None where they would do."""
    command: click.Command = cli
    context = click.Context(cli, info_name="koalpaca", **cli.context_settings)
    left = list(words[1:])
    try:
        while isinstance(command, click.Group):
            if not left or left[0] in ("-h", "--help", "--version"):
                return None
            inner = command.commands.get(left[0])
            if inner is None:
                return f"no command '{left[0]}'"
            context = click.Context(inner, parent=context, info_name=left[0])
            command, left = inner, left[1:]
        if left in (["-h"], ["--help"]):
            return None
        given, rest, _ = command.make_parser(context).parse_args(list(left))
    except click.UsageError as error:
        return error.format_message()
    for parameter in command.params:
        value = given.get(parameter.name or "")
        missing = value is None or value in ((), []) or "UNSET" in repr(value)
        if missing:
            if parameter.required:
                return f"needs {parameter.human_readable_name}"
            continue
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(parameter.type, click.Choice) and one not in parameter.type.choices:
                return f"'{one}' is no choice of {parameter.human_readable_name}"
    if rest:
        return f"too many words: {rest}"
    if command.name in TAKES_KEYS:
        named = [word.partition("=")[0] for word in left if re.match(r"[a-z_0-9.]+=", word)]
        known = {*keys(Recipe), *(NAMED if command.name == "sweep" else ())}
        unknown = [key for key in named if key not in known]
        if unknown:
            return f"unknown key '{unknown[0]}'"
    return None


LINES = [
    line for path in PAGES for line in command_lines(path.read_text(encoding="utf-8"), str(path.relative_to(TOP)))
]


def test_every_command_line_of_a_page_would_be_understood() -> None:
    assert len(LINES) > 150, "the pages' blocks are found"
    found = {line: fault(line.words) for line in LINES}
    # a page that shows the error means the mistake
    wrong = [
        f"{line.page}: {shlex.join(line.words)}: {said}"
        for line, said in found.items()
        if said and not line.shown.startswith("error [")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("koalpaca trian demo", "no command 'trian'"),
        ("koalpaca train demo --dryrun", "No such option"),
        ("koalpaca train", "needs RECIPE"),
        ("koalpaca train demo lora.rank=16", "unknown key 'lora.rank'"),
        ("koalpaca compare one two three --out x", "too many words"),
        ("koalpaca compare one two", "needs out"),
        ("koalpaca plan demo --card h300", "'h300' is no choice"),
        ("koalpaca data prepare my.csv --out", "requires an argument"),
        ("koalpaca hub --help", None),
        ("koalpaca train demo training.max_steps=3 --dry-run", None),
    ],
)
def test_a_wrong_command_line_is_noticed(line: str, said: str | None) -> None:
    found = fault(tuple(shlex.split(line)))
    assert found is None if said is None else found is not None and said in found


def test_commands_are_found_however_a_block_writes_them() -> None:
    text = (
        "```bash\n"
        "cat > my.csv <<'CSV'\nkoalpaca is no command here\nCSV\n"
        "HF_HUB_OFFLINE=1 koalpaca train demo \\\n  --resume  # again\n"
        "koalpaca compare a b --out c --gate || exit 1\n"
        "accelerate launch --num_processes 2 -m koalpaca_tune.cli.main train demo\n"
        "```\n\n```console\n$ koalpaca doctor\nkoalpaca: printed\n```\n\n```text\nkoalpaca neither\n```\n"
    )
    assert [" ".join(line.words) for line in command_lines(text, "page")] == [
        "koalpaca train demo --resume",
        "koalpaca compare a b --out c --gate",
        "koalpaca train demo",
        "koalpaca doctor",
    ]


def test_commands_named_in_a_sentence_exist() -> None:
    """`koalpaca hub push` within a line: the words before the first that is no name of a command."""
    wrong = []
    for path in PAGES:
        text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for said in re.findall(r"`koalpaca ([a-z][^`]*)`", text):
            command: click.Command = cli
            for word in said.split():
                if not isinstance(command, click.Group):
                    break
                inner = command.commands.get(word.rstrip(",."))
                if inner is None:
                    wrong.append(f"{path.relative_to(TOP)}: koalpaca {said}")
                    break
                command = inner
    assert wrong == []


def test_every_page_is_in_the_navigation_once() -> None:
    listed = list(pages_of(site()["nav"]))
    assert sorted(listed) == sorted(path.name for path in (TOP / "docs/ko").glob("*.md"))


def test_every_name_in_the_navigation_has_an_english_one() -> None:
    found = site()
    i18n = next(plugin["i18n"] for plugin in found["plugins"] if isinstance(plugin, dict) and "i18n" in plugin)
    english = next(one for one in i18n["languages"] if one["locale"] == "en")["nav_translations"]
    assert sorted(english) == sorted(headings_of(found["nav"]))


@pytest.mark.parametrize("language", ["ko", "en"])
def test_the_architecture_names_every_package_and_no_other(language: str) -> None:
    text = (TOP / "docs" / language / "architecture.md").read_text(encoding="utf-8")
    rows = [row.split("|")[1] for row in re.findall(r"^\| `.*$", text.split("setup.cfg")[1], re.MULTILINE)]
    named = [name for row in rows for name in re.findall(r"`([a-z]+)`", row)]
    packages = {path.parent.name for path in (TOP / "koalpaca_tune").glob("*/__init__.py")}
    assert sorted(name for name in named if name != "engine.kind") == sorted(packages)


def test_the_examples_of_the_statistics_page_print_what_stands_below_them() -> None:
    """The Korean page: the English one has the same blocks (test_docs.py)."""
    text = (TOP / "docs/ko/statistics.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(examples) == text.count("```python\n") > 0
    for code, printed in examples:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, "statistics.md", "exec"), {})
        assert out.getvalue() == printed
