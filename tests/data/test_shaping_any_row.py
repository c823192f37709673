from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from koalpaca_tune.data.rows import Rejected, Row
from koalpaca_tune.data.shaping import shapes
from koalpaca_tune.data.shaping.mapped import mapped
from koalpaca_tune.errors import KoalpacaError, Problem
from koalpaca_tune.records import ROLES, Conversation

WORDS = [
    *("role", "content", "from", "value", "text", "title", "context", "qas", "question", "answers", "id", "type"),
    *("messages", "conversations", "items", "prompt", "chosen", "rejected", "documents", "citations", "answer"),
    *("paragraphs", "is_impossible", "system", "instruction", "input", "output", "질문", "답변", "문서", "weight"),
]
TEXTS = st.sampled_from(
    ["", " ", "가", "user", "gpt", "tool", "[1]", "[9]", "[]", "[{", "### Human: 가", "true"]
) | st.text(max_size=5)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.sampled_from(["user", "assistant"])
KEYS = st.sampled_from(WORDS) | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
ROWS = st.dictionaries(KEYS, VALUES, max_size=6)


def outcomes(shape: Any, row: Row) -> list[Conversation | Problem]:
    try:
        made = shape(row)
    except KoalpacaError as error:
        return list(error.problems)
    several = made if isinstance(made, tuple) else (made,)
    return [one.problem if isinstance(one, Rejected) else one for one in several]


def check(shape: Any, row: Row) -> None:
    found = outcomes(shape, row)
    assert found
    for one in found:
        if isinstance(one, Problem):
            assert one.code.startswith("row-")
            assert one.where.startswith(row.origin)
            assert "\n" not in str(one)
        else:
            assert one.origin.startswith(row.origin)
            for turn in one.turns:
                assert turn.role in ROLES
                assert isinstance(turn.content, str)
                assert turn.context is None or (turn.role == "user" and isinstance(turn.context, str))
            assert one.dispreferred is None or isinstance(one.dispreferred, str)


@given(st.sampled_from(list(shapes.SHAPES)), ROWS)
def test_any_row_is_a_conversation_or_a_reason(name: str, values: dict[str, Any]) -> None:
    check(shapes.SHAPES[name], Row("f:1", values))


@given(st.data(), st.sampled_from(list(shapes.SHAPES)))
def test_any_values_in_the_right_columns_too(data: st.DataObject, name: str) -> None:
    columns = {
        "preference": ["prompt", "chosen", "rejected"],
        "messages": ["messages"],
        "sharegpt": ["conversations"],
        "squad": ["question", "answers"],
        "rag": ["question", "documents", "answer", "citations"],
        "alpaca": ["instruction", "input", "output"],
        "koalpaca": ["instruction", "output"],
        "qa": ["질문", "답변"],
        "text": ["text"],
    }[name]
    messages = st.lists(st.fixed_dictionaries({"role": TEXTS | SCALARS, "content": VALUES}), max_size=4)
    check(shapes.SHAPES[name], Row("f:1", {column: data.draw(VALUES | messages) for column in columns}))


@given(st.lists(ROWS, min_size=1, max_size=4), st.none() | st.sampled_from(list(shapes.SHAPES)))
def test_a_guess_names_a_shape_or_a_reason(values: list[dict[str, Any]], shape: str | None) -> None:
    rows = [Row(f"f:{n}", row) for n, row in enumerate(values)]
    names = list(dict.fromkeys(name for row in values for name in row))
    try:
        found, columns = shapes.guess(names, "f", shape, rows)
    except KoalpacaError as error:
        codes = {problem.code for problem in error.problems}
    else:
        codes = set()
        assert found == (shape or found)
        assert set(columns.used) <= set(names)
        assert set(shapes.unused(names, columns)) == set(names) - set(columns.used)
    assert codes <= {"shape-unknown", "shape-ambiguous"}


@given(st.dictionaries(st.sampled_from(shapes.MEANINGS), st.sampled_from("abcd"), max_size=4), ROWS)
def test_any_row_under_named_columns(columns: dict[str, str], values: dict[str, Any]) -> None:
    named = {column: value for column, value in zip("abcd", values.values(), strict=False)}
    try:
        shape = mapped(columns, "abcd", "f")
    except KoalpacaError as error:
        codes = {problem.code for problem in error.problems}
    else:
        codes = set()
        check(shape, Row("f:1", named))
    assert codes <= {"columns-meaning", "columns-missing"}
