from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from koalpaca_tune.data.rows import Row
from koalpaca_tune.data.shaping import shapes
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn

QUESTION, ANSWER = Turn("user", "수도는?"), Turn("assistant", "서울입니다.")

GOLDEN: list[tuple[str, dict[str, Any], tuple[Turn, ...]]] = [
    ("qa", {"질문": "수도는?", "답변": "서울입니다."}, (QUESTION, ANSWER)),
    ("qa", {"Q": "수도는?", "A": "서울입니다.", "label": "0"}, (QUESTION, ANSWER)),
    ("qa", {"Question": "수도는?", "ANSWER": "서울입니다."}, (QUESTION, ANSWER)),
    ("qa", {" prompt ": "수도는?", "completion": "서울입니다."}, (QUESTION, ANSWER)),
    ("qa", {"명령어": "수도는?", "응답": "서울입니다."}, (QUESTION, ANSWER)),
    ("qa", {"질문": "수도는?", "맥락": "한국", "답변": "서울입니다."}, (Turn("user", "수도는?", "한국"), ANSWER)),
    (
        "qa",
        {"system_prompt": "짧게", "question": "수도는?", "response": "서울입니다."},
        (Turn("system", "짧게"), QUESTION, ANSWER),
    ),
    (
        "alpaca",
        {"instruction": "수도는?", "input": "한국", "output": "서울입니다."},
        (Turn("user", "수도는?", "한국"), ANSWER),
    ),
    ("alpaca", {"명령어": "수도는?", "입력": "", "응답": "서울입니다."}, (QUESTION, ANSWER)),
    ("koalpaca", {"instruction": "수도는?", "output": "서울입니다.", "url": "https://x"}, (QUESTION, ANSWER)),
    (
        "messages",
        {"messages": [{"role": "user", "content": "수도는?"}, {"role": "assistant", "content": "서울입니다."}]},
        (QUESTION, ANSWER),
    ),
    (
        "messages",
        {
            "messages": [
                {"role": "system", "content": "짧게"},
                {"role": "user", "content": "수도는?", "context": "한국"},
                {"role": "assistant", "content": "서울입니다."},
            ]
        },
        (Turn("system", "짧게"), Turn("user", "수도는?", "한국"), ANSWER),
    ),
    (
        "messages",
        {
            "id": "x1",
            "conversations": [{"from": "human", "value": "수도는?"}, {"from": "gpt", "value": "서울입니다."}],
        },
        (QUESTION, ANSWER),
    ),
]


@pytest.mark.parametrize(("shape", "values", "turns"), GOLDEN)
def test_golden(shape: str, values: dict[str, Any], turns: tuple[Turn, ...]) -> None:
    assert shapes.guess(list(values), "f")[0] == shape
    assert shapes.SHAPES[shape](Row("f:2", values)) == Conversation(turns, "f:2")


def test_column_names_in_nfd_are_recognised() -> None:
    values = {unicodedata.normalize("NFD", name): name for name in ("질문", "답변")}
    shape, columns = shapes.guess(list(values), "f")
    assert shape == "qa"
    assert columns.used == tuple(values)
    assert shapes.SHAPES[shape](Row("f:2", values)).turns[0].content == "질문"


def test_a_json_row_may_leave_an_empty_input_out() -> None:
    made = shapes.alpaca(Row("f[3]", {"instruction": "수도는?", "output": "서울입니다."}))
    assert made.turns == (QUESTION, ANSWER)


def test_null_input_is_no_context() -> None:
    made = shapes.alpaca(Row("f[3]", {"instruction": "수도는?", "input": None, "output": "서울입니다."}))
    assert made.turns == (QUESTION, ANSWER)


def test_unknown_columns_are_one_error_with_columns_shapes_and_a_suggestion() -> None:
    with pytest.raises(KoalpacaError) as caught:
        shapes.guess(["qustion", "answer"], "my.csv")
    (problem,) = caught.value.problems
    assert problem.code == "shape-unknown"
    text = str(problem)
    assert "\n" not in text
    for part in ("my.csv", "'qustion'", "'answer'", *shapes.SHAPES, "Did you mean 'question'?"):
        assert part in text


def test_without_anything_close_the_advice_is_a_header_line() -> None:
    with pytest.raises(KoalpacaError, match="header line"):
        shapes.guess(["안녕하세요", "반갑습니다"], "my.csv")


def test_a_shape_set_by_name_is_held_to() -> None:
    columns = ["instruction", "input", "output"]
    assert shapes.guess(columns, "f")[0] == "alpaca"
    assert shapes.guess(columns, "f", "koalpaca")[0] == "koalpaca"
    with pytest.raises(KoalpacaError, match="not those of the shape 'qa'"):
        shapes.guess(columns, "f", "qa")
    with pytest.raises(KoalpacaError, match="Did you mean 'alpaca'") as caught:
        shapes.guess(columns, "f", "alpacca")
    assert caught.value.problems[0].code == "shape-name"


@pytest.mark.parametrize(
    "columns",
    [
        ["question", "answer", "response"],
        ["질문", "답변", "맥락", "context"],
        ["messages", "conversations"],
    ],
)
def test_two_ways_to_read_the_columns_are_an_error_not_a_choice(columns: list[str]) -> None:
    with pytest.raises(KoalpacaError) as caught:
        shapes.guess(columns, "my.csv")
    assert caught.value.problems[0].code == "shape-ambiguous"
    assert caught.value.problems[0].where == "my.csv"
    assert shapes.recognises(columns)


def message(role: object, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("shape", "values", "code"),
    [
        ("qa", {"질문": 3, "답변": "삼"}, "row-type"),
        ("qa", {"질문": "셋은?", "답변": ["삼"]}, "row-type"),
        ("qa", {"물음": "?", "답변": "!"}, "row-shape"),
        ("qa", {"질문": "?", "답변": "!", "응답": "!"}, "row-shape"),
        ("alpaca", {"instruction": "?", "input": 1.5, "output": "!"}, "row-type"),
        ("messages", {"messages": "글"}, "row-shape"),
        ("messages", {"messages": []}, "row-shape"),
        ("messages", {"messages": ["글"]}, "row-shape"),
        ("messages", {"messages": [{"role": "user"}]}, "row-shape"),
        ("messages", {"messages": [message("tool", "x")]}, "row-shape"),
        ("messages", {"messages": [message(None, "x")]}, "row-shape"),
        ("messages", {"messages": [message("user", 5)]}, "row-type"),
        ("messages", {"messages": [message("user", "a"), message("user", "b")]}, "row-turns"),
        ("messages", {"messages": [message("assistant", "a")]}, "row-turns"),
        ("messages", {"messages": [message("system", "a")]}, "row-turns"),
        ("messages", {"system": "b", "messages": [message("system", "a"), message("user", "c")]}, "row-turns"),
    ],
)
def test_broken_rows(shape: str, values: dict[str, Any], code: str) -> None:
    with pytest.raises(KoalpacaError) as caught:
        shapes.SHAPES[shape](Row("f.jsonl:7", values))
    (problem,) = caught.value.problems
    assert problem.code == code
    assert problem.where == "f.jsonl:7"


def test_every_shape_is_explained_and_found() -> None:
    assert list(shapes.SHAPES) == list(shapes.WANTED)
