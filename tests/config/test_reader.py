"""The YAML reader: what people do not mean is refused at its place; nothing but one clear error comes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koalpaca_tune.config import document, load
from koalpaca_tune.config.check import check
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError, Problem


def refused(text: str) -> str:
    with pytest.raises(KoalpacaError) as caught:
        document.parse(text, "r.yaml")
    return f"{caught.value.problems[0].code} | {caught.value}"


def marked(text: str) -> list[str]:
    """Problems that do not stop the reading, as they will be printed."""
    return [f"{problem.code} | {problem}" for problem in document.parse(text, "r.yaml").problems.values()]


def test_plain_values_keep_their_types_and_places() -> None:
    read = document.parse("a: 1\nb: [x, 2.0e-4, true, null, '010']\nc:\n  d: '질문'\n", "r.yaml")
    assert read.value == {"a": 1, "b": ["x", 2.0e-4, True, None, "010"], "c": {"d": "질문"}}
    assert read.where(("b", 1)) == "r.yaml:2:8: b[1]"
    assert read.where(("c", "d")) == "r.yaml:4:6: c.d"
    assert read.where(("c", "d"), key=True) == "r.yaml:4:3: c.d"
    assert read.where(("c", "lacking")) == "r.yaml:4:3: c.lacking"
    assert not read.problems


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c", "yaml-syntax | r.yaml:1:5: this is not YAML: mapping values are not allowed here."),
        ("a: [1", "yaml-syntax | r.yaml:1:6: this is not YAML: expected ',' or ']', but got '<stream end>'."),
        (
            "a: 1\n---\nb: 2\n",
            "yaml-syntax | r.yaml:2:1: this is not YAML: but found another document.",
        ),
        (
            "a: &x [1]\nb: *x\n",
            "yaml-syntax | r.yaml:1:4: this is not YAML: anchors and aliases (&, *) are not used here; "
            "write the value out, or quote it.",
        ),
        (
            "a: *x\n",
            "yaml-syntax | r.yaml:1:4: this is not YAML: anchors and aliases (&, *) are not used here; "
            "write the value out, or quote it.",
        ),
        ("[" * 33 + "]" * 33, "yaml-syntax | r.yaml:1:33: this is not YAML: it is nested too deeply."),
        (
            "a:\n\t- 1\n",
            "yaml-syntax | r.yaml:2:1: this is not YAML: found character '\\t' that cannot start any token.",
        ),
        ("a: " + "x" * 1_000_001, "yaml-size | r.yaml: the file is larger than 1,000,000 bytes."),
    ],
)
def test_what_is_not_our_yaml_is_one_error_at_its_place(text: str, message: str) -> None:
    assert refused(text) == message


@pytest.mark.parametrize(
    "text",
    [
        'a: "\\UFFFFFFFF"',
        'a: "\\U00110000"',
        "%YAML 1." + "1" * 5000 + "\n---\na: 1\n",
        "\x00",
        "a: \x1b",
        "[" * 999,
    ],
)
def test_a_text_that_breaks_the_yaml_library_is_an_error_of_ours(text: str) -> None:
    assert refused(text).startswith("yaml-syntax | r.yaml")


def test_a_yaml_bomb_is_refused_before_it_is_built() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "r.yaml:1:5" in refused("\n".join(lines))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: no",
            "yaml-value | r.yaml:1:4: a: YAML reads 'no' as false. Did you mean 'false'? "
            'For the word itself write "no" in quotes.',
        ),
        (
            "a: [1, On]",
            "yaml-value | r.yaml:1:8: a[1]: YAML reads 'On' as true. Did you mean 'true'? "
            'For the word itself write "On" in quotes.',
        ),
        (
            "a: 2024-01-01",
            "yaml-value | r.yaml:1:4: a: YAML reads '2024-01-01' as a date. Write it in quotes for text.",
        ),
        *(
            (
                f"a: {number}",
                f"yaml-value | r.yaml:1:4: a: '{number}' is not a plain number. "
                "Write it in decimal, or in quotes for text.",
            )
            for number in ("010", "0x1F", "0b11", "1_000", "1:30", ".5", ".inf", "-.inf", ".nan", "1" * 20)
        ),
        ("a: !foo bar", "yaml-value | r.yaml:1:4: a: the tag '!foo' is not used here. Write a plain value."),
        ("a: !foo {b: 1}", "yaml-value | r.yaml:1:4: a: the tag '!foo' is not used here. Write a plain value."),
        (
            "a: !!python/object:os.system {b: 1}",
            "yaml-value | r.yaml:1:4: a: the tag 'tag:yaml.org,2002:python/object:os.system' is not used here. "
            "Write a plain value.",
        ),
        (
            "a: !!set {b}",
            "yaml-value | r.yaml:1:4: a: the tag 'tag:yaml.org,2002:set' is not used here. Write a plain value.",
        ),
        ("<<: {a: 1}", "yaml-value | r.yaml:1:1: a key must be a plain word."),
        ("? [a]\n: 1", "yaml-value | r.yaml:1:3: a key must be a plain word."),
        ("!foo a: 1", "yaml-value | r.yaml:1:1: a key must be a plain word."),
        (
            "a:\n  b: 1\n  b: 2\n  b: 3\n",
            "yaml-duplicate-key | r.yaml:3:3: a.b: 'b' stands here a second time (first on line 2). Keep one.",
        ),
    ],
)
def test_a_value_that_yaml_reads_otherwise_than_it_looks(text: str, message: str) -> None:
    assert marked(text)[0] == message


def test_the_first_of_two_equal_keys_counts_and_every_further_one_is_said() -> None:
    read = document.parse("b: 1\nb: 2\nb: 3\n", "r.yaml")
    assert read.value == {"b": 1}
    assert len(read.problems) == 2


def test_a_quoted_word_is_that_word() -> None:
    text = "a: 'no'\nb: \"2024-01-01\"\nc: '010'\nd: '2e-4'\n"
    read = document.parse(text, "r.yaml")
    assert read.value == {"a": "no", "b": "2024-01-01", "c": "010", "d": "2e-4"}
    assert not read.problems


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "cp949.yaml"
    path.write_bytes("name: 질문".encode("cp949"))
    with pytest.raises(KoalpacaError) as caught:
        load.read(path)
    assert str(caught.value) == f"{path}: it is not UTF-8 (byte 6). Save it as UTF-8."
    assert caught.value.problems[0].code == "yaml-encoding"


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes("\ufeffname: a\n".encode())
    assert load.read(path).value == {"name": "a"}


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(KoalpacaError, match="cannot read it") as caught:
        load.read(tmp_path / "lacking.yaml")
    assert caught.value.problems[0].code == "file-missing"


# fmt: off
PIECES = [
    *("a", "name", "seed", ":", ": ", "- ", "\n", "\n  ", "[", "]", "{", "}", ",", "?", "? ", "!", "!!", "&x "),
    *("*x", "'", '"', "\\", "\\U", "\\x", "|", ">", "%", "%YAML 1.1\n", "---\n", "...\n", "#", "<<: ", "=", "~"),
    *("no", "!!int ", "2e-4", "010", "1_0", "1:30", ".inf", "2024-01-01", "\t", "\r", "\x85", "\u2028", "\ufeff"),
    *("질문", "\U0001f600"),
]
# fmt: on


def problems_of(action: Callable[[], object]) -> tuple[Problem, ...]:
    """What the one permitted kind of error holds; any other exception fails the test."""
    try:
        action()
    except KoalpacaError as error:
        return error.problems
    return ()


@settings(max_examples=400)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=24).map("".join)))
def test_any_text_is_a_document_or_one_error(text: str) -> None:
    for problem in problems_of(lambda: check(Recipe, document.parse(text, "r.yaml"))):
        assert problem.where.startswith("r.yaml")
        assert "\n" not in str(problem)


KEYS = ["seed", "training.epochs", "lora.targets", "x", "="]


@given(st.sampled_from(KEYS), st.sampled_from(KEYS), st.text())
def test_any_override_is_a_recipe_or_one_error(first: str, second: str, value: str) -> None:
    for problem in problems_of(lambda: load.load("demo", [f"{first}={value}", f"{second}={value}"])):
        assert "\n" not in str(problem)
