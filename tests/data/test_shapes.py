from __future__ import annotations

import pickle
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
    ("qa", {"문의내용": "수도는?", "답변내용": "서울입니다.", "문의제목": "질문"}, (QUESTION, ANSWER)),
    ("qa", {"문의 내용": "수도는?", "상담원_답변": "서울입니다."}, (QUESTION, ANSWER)),
    ("qa", {"input": "수도는?", "output": "서울입니다."}, (QUESTION, ANSWER)),
    (
        "qa",
        {"instruction": "수도는?", "context": "한국", "response": "서울입니다.", "category": "closed_qa"},
        (Turn("user", "수도는?", "한국"), ANSWER),
    ),
    (
        "alpaca",
        {"id": "alpaca_0", "instruction": "수도는?", "input": "한국", "output": "서울입니다.", "text": "### 질문:"},
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
        "sharegpt",
        {
            "id": "x1",
            "conversations": [{"from": "human", "value": "수도는?"}, {"from": "gpt", "value": "서울입니다."}],
        },
        (QUESTION, ANSWER),
    ),
    (
        "sharegpt",
        {"items": [{"speaker": "human", "text": "수도는?"}, {"speaker": "bing", "text": "서울입니다."}]},
        (QUESTION, ANSWER),
    ),
    (
        "messages",
        {
            "messages": [
                {"role": "developer", "content": "짧게"},
                {
                    "role": "prompter",
                    "content": [{"type": "text", "text": "수도"}, {"type": "text", "text": "는?"}],
                },
                {"role": "assistant", "content": "서울입니다.", "tool_calls": None, "weight": 1},
            ]
        },
        (Turn("system", "짧게"), QUESTION, ANSWER),
    ),
    (
        "messages",
        {"대화": [{"화자": "고객", "발화": "수도는?"}, {"화자": "상담사", "발화": "서울입니다."}]},
        (QUESTION, ANSWER),
    ),
    # as a CSV and as Arrow store a list of messages
    (
        "messages",
        {
            "messages": '[{"role": "user", "content": "수도는?"}, {"role": "assistant", "content": "서울입니다."}]',
        },
        (QUESTION, ANSWER),
    ),
    (
        "sharegpt",
        {"conversations": "[{'from': 'human', 'value': '수도는?'}, {'from': 'gpt', 'value': '서울입니다.'}]"},
        (QUESTION, ANSWER),
    ),
    (
        "sharegpt",
        {"conversations": {"from": ["human", "gpt"], "value": ["수도는?", "서울입니다."]}},
        (QUESTION, ANSWER),
    ),
]


@pytest.mark.parametrize(("shape", "values", "turns"), GOLDEN)
def test_golden(shape: str, values: dict[str, Any], turns: tuple[Turn, ...]) -> None:
    row = Row("f:2", values)
    assert shapes.guess(list(values), "f")[0] == shape
    assert shapes.guess(list(values), "f", rows=[row])[0] == shape
    assert shapes.SHAPES[shape](Row("f:2", values)) == Conversation(turns, "f:2")


def test_column_names_in_nfd_are_recognised() -> None:
    values = {unicodedata.normalize("NFD", name): name for name in ("질문", "답변")}
    shape, columns = shapes.guess(list(values), "f")
    assert shape == "qa"
    assert columns.used == tuple(values)
    made = shapes.SHAPES[shape](Row("f:2", values))
    assert isinstance(made, Conversation)
    assert made.turns[0].content == "질문"


def test_a_json_row_may_leave_an_empty_input_out() -> None:
    made = shapes.SHAPES["alpaca"](Row("f[3]", {"instruction": "수도는?", "output": "서울입니다."}))
    assert made == Conversation((QUESTION, ANSWER), "f[3]")


def test_null_input_is_no_context() -> None:
    made = shapes.SHAPES["alpaca"](Row("f[3]", {"instruction": "수도는?", "input": None, "output": "서울입니다."}))
    assert made == Conversation((QUESTION, ANSWER), "f[3]")


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
        ["Question", "question", "answer"],
        ["문의 내용", "문의내용", "답변"],
        ["prompt", "질문", "chosen", "rejected"],
        ["question", "answer", "answers"],
        ["text", "content"],
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
        ("qa", {"무엇": "?", "답변": "!"}, "row-shape"),
        ("koalpaca", {"instruction": "?", "input": "잃으면 안 될 글", "output": "!"}, "row-shape"),
        ("qa", {"질문": "?", "답변": "!", "응답": "!"}, "row-shape"),
        ("alpaca", {"instruction": "?", "input": 1.5, "output": "!"}, "row-type"),
        ("messages", {"messages": "글"}, "row-shape"),
        ("messages", {"messages": []}, "row-shape"),
        ("messages", {"messages": ["글"]}, "row-shape"),
        ("messages", {"messages": [{"role": "user"}]}, "row-shape"),
        ("messages", {"messages": [message("tool", "x")]}, "row-tool"),
        ("messages", {"messages": [message(None, "x")]}, "row-shape"),
        ("messages", {"messages": [message("user", "x"), message("A", "y")]}, "row-shape"),
        ("messages", {"messages": [{"role": "user", "from": "gpt", "content": "x"}]}, "row-shape"),
        ("messages", {"messages": [message("user", [{"type": "image_url", "image_url": "x"}])]}, "row-type"),
        (
            "messages",
            {
                "messages": [
                    message("user", "x"),
                    {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
                ]
            },
            "row-tool",
        ),
        (
            "messages",
            {"messages": [message("user", "x"), {"role": "assistant", "content": "y", "weight": 0}]},
            "row-weight",
        ),
        ("sharegpt", {"conversations": "[{'from': 'human', 'value': }]"}, "row-shape"),
        ("sharegpt", {"conversations": {"from": ["human", "gpt"], "value": ["a"]}}, "row-shape"),
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


def test_an_old_sharegpt_conversation_that_starts_with_an_answer_is_rejected_and_not_cut() -> None:
    said = [{"from": "gpt", "value": "계속하겠습니다."}, {"from": "human", "value": "네"}]
    with pytest.raises(KoalpacaError, match=r"f:1: it starts with an answer \('계속하겠습니다.'\)") as caught:
        shapes.SHAPES["sharegpt"](Row("f:1", {"conversations": said}))
    assert caught.value.problems[0].code == "row-turns"


def test_a_prepared_set_keeps_the_answer_that_lost() -> None:
    said = [message("user", "수도는?"), message("assistant", "서울입니다.")]
    made = shapes.SHAPES["messages"](Row("f:1", {"id": "1", "messages": said, "dispreferred": "부산"}))
    assert made == Conversation((QUESTION, ANSWER), "f:1", dispreferred="부산")


def test_the_first_rows_tell_a_column_of_dialogues_from_one_of_articles() -> None:
    article = Row("f:1", {"title": "한국", "text": "### 역사\n한국은 ..."})
    dialogue = Row("f:2", {"title": "한국", "text": "### 질문: 수도는?\n\n### 답변: 서울입니다."})
    names = ["title", "text"]
    assert shapes.guess(names, "f", rows=[article, dialogue, dialogue])[0] == "text"
    with pytest.raises(KoalpacaError, match="Most of the first rows hold no dialogue in 'text'") as caught:
        shapes.guess(names, "f", rows=[article, article, dialogue])
    assert caught.value.problems[0].code == "shape-unknown"
    # a shape that was named is not doubted
    assert shapes.guess(names, "f", "text", rows=[article])[0] == "text"


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ({"messages": 3, "질문": "수도는?", "답변": "서울"}, "qa"),
        ({"question": "수도는?", "documents": "보험약관.pdf", "answer": "서울"}, "qa"),
        ({"question": "수도는?", "documents": ["한국"], "answer": "서울"}, "rag"),
        (
            {"prompt": "수도는?", "chosen": "서울", "rejected": "부산", "messages": [message("user", "a")]},
            "preference",
        ),
    ],
)
def test_the_first_rows_tell_a_list_from_something_that_has_its_name(values: dict[str, Any], shape: str) -> None:
    assert shapes.guess(list(values), "f", rows=[Row("f:1", values)])[0] == shape


def test_rows_that_cannot_be_read_keep_the_shape_of_their_columns() -> None:
    """Each of them is then rejected with its own reason; another shape would drop the messages."""
    rows = [Row("f:1", {"messages": "글", "id": 1})]
    assert shapes.guess(["messages", "id"], "f", rows=rows)[0] == "messages"


def test_an_input_that_is_no_text_does_not_make_a_file_one_without_inputs() -> None:
    rows = [Row("f:1", {"instruction": "수도는?", "input": 3, "output": "서울"})]
    assert shapes.guess(["instruction", "input", "output"], "f", rows=rows)[0] == "alpaca"


def test_what_is_not_used_is_known_down_to_the_keys_of_messages() -> None:
    said = [{"role": "user", "content": "a", "time": 1}, {"role": "assistant", "content": "b", "weight": 0.5}]
    row = Row("f:1", {"messages": said, "label": 1})
    _, columns = shapes.guess(list(row.values), "f", rows=[row])
    assert shapes.unused(list(row.values), columns, [row]) == ("label", "messages[].time", "messages[].weight")


@pytest.mark.parametrize(("name", "shape"), [("guanaco", "text"), ("KULLM", "alpaca"), ("dpo", "preference")])
def test_other_names_of_a_shape_are_answered_with_ours(name: str, shape: str) -> None:
    with pytest.raises(KoalpacaError, match=f"It is called '{shape}' here"):
        shapes.guess(["a"], "f", name)


def test_shapes_travel_to_other_processes() -> None:
    row = Row("f:1", {"질문": "수도는?", "답변": "서울입니다."})
    mapped = shapes.mapped({"question": "질문", "answer": "답변"}, list(row.values), "f")
    for shape in (shapes.SHAPES["qa"], mapped):
        assert pickle.loads(pickle.dumps(shape))(row) == Conversation((QUESTION, ANSWER), "f:1")  # noqa: S301


def test_columns_of_any_name_can_be_told() -> None:
    names = ["번호", unicodedata.normalize("NFD", "고객 글"), "우리 글"]
    mapped = shapes.mapped({"question": "고객 글", "answer": "우리 글"}, names, "f")
    assert mapped.name == "qa"
    assert mapped.columns.used == (names[1], "우리 글")
    assert mapped(Row("f:2", dict(zip(names, ["1", "수도는?", "서울입니다."], strict=True)))) == Conversation(
        (QUESTION, ANSWER), "f:2"
    )
    # rows of JSON may spell a name otherwise, and leave it out
    assert mapped(Row("f:3", {"고객 글": "수도는?", "우리 글": "서울입니다."})) == Conversation(
        (QUESTION, ANSWER), "f:3"
    )
    with pytest.raises(KoalpacaError, match=r"f:4: the row has '번호', and no .*the question") as caught:
        mapped(Row("f:4", {"번호": "1"}))
    assert caught.value.problems[0].code == "row-shape"


@pytest.mark.parametrize(
    ("columns", "shape"),
    [
        ({"text": "a"}, "text"),
        ({"messages": "a", "system": "b"}, "messages"),
        ({"question": "a", "answer": "b", "context": "c"}, "qa"),
        ({"question": "a", "answer": "b", "documents": "c", "citations": "d"}, "rag"),
        ({"question": "a", "answer": "b", "rejected": "c"}, "preference"),
    ],
)
def test_the_meanings_make_the_shape(columns: dict[str, str], shape: str) -> None:
    assert shapes.mapped(columns, ["a", "b", "c", "d"], "f").name == shape


def test_all_mistakes_in_the_meanings_come_at_once() -> None:
    with pytest.raises(KoalpacaError) as caught:
        shapes.mapped({"quesion": "문의내용", "answer": "담변"}, ["문의내용", "답변"], "my.csv")
    assert [problem.code for problem in caught.value.problems] == ["columns-meaning", "columns-missing"]
    assert "Did you mean 'question'?" in str(caught.value)
    assert "'담변'" in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"question": "a"}, "question alone makes no conversation"),
        ({}, "nothing alone"),
        ({"question": "a", "answer": "a"}, "'a' has two meanings"),
        ({"text": "a", "context": "b"}, "context cannot stand beside text"),
        ({"question": "a", "answer": "b", "documents": "c", "rejected": "d"}, "cannot stand beside"),
    ],
)
def test_meanings_that_make_no_shape_are_an_error(columns: dict[str, str], said: str) -> None:
    with pytest.raises(KoalpacaError, match=said) as caught:
        shapes.mapped(columns, ["a", "b", "c", "d"], "f")
    assert caught.value.problems[0].code == "columns-meaning"
