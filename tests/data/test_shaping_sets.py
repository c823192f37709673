from __future__ import annotations

import json
from typing import Any

import pytest

from koalpaca_tune.data.rows import Rejected, Row
from koalpaca_tune.data.shaping import shapes
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn

ASKED, ANSWER, LOST = Turn("user", "수도는?"), Turn("assistant", "서울"), "부산"


def made(shape: str, values: dict[str, Any]) -> Conversation:
    assert shapes.guess(list(values), "f", rows=[Row("f:1", values)])[0] == shape
    conversation = shapes.SHAPES[shape](Row("f:1", values))
    assert isinstance(conversation, Conversation)
    return conversation


def refused(shape: str, values: dict[str, Any]) -> str:
    with pytest.raises(KoalpacaError) as caught:
        shapes.SHAPES[shape](Row("f:1", values))
    (problem,) = caught.value.problems
    assert problem.where == "f:1"
    return f"{problem.code}: {problem.what}"


def said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


# preference pairs

USER, WON, OTHER = ("user", "수도는?"), ("assistant", "서울"), ("assistant", LOST)
HH = "\n\nHuman: 안녕\n\nAssistant: 네\n\nHuman: 수도는?\n\nAssistant: {}"


@pytest.mark.parametrize(
    ("values", "before"),
    [
        ({"prompt": "수도는?", "chosen": "서울", "rejected": LOST}, ()),
        ({"질문": "수도는?", "선택": "서울", "거부": LOST}, ()),
        ({"system": "짧게", "question": "수도는?", "chosen": "서울", "rejected": LOST}, (Turn("system", "짧게"),)),
        ({"instruction": "수도는?", "chosen_response": "서울", "rejected_response": LOST}, ()),
        # TRL: lists that share the question, or a list before them
        ({"chosen": said(USER, WON), "rejected": said(USER, OTHER)}, ()),
        ({"prompt": said(USER), "chosen": said(WON), "rejected": said(OTHER)}, ()),
        # UltraFeedback: the question stands beside the lists, and the winner again in messages
        (
            {
                "prompt": "수도는?",
                "chosen": said(USER, WON),
                "rejected": said(USER, OTHER),
                "messages": said(USER, WON),
                "score_chosen": 9.0,
            },
            (),
        ),
        ({"prompt": "수도는?", "chosen": json.dumps(said(WON)), "rejected": json.dumps(said(OTHER))}, ()),
        # HH: dialogues in text
        (
            {"chosen": HH.format("서울"), "rejected": HH.format(LOST)},
            (Turn("user", "안녕"), Turn("assistant", "네")),
        ),
        (
            {"prompt": HH.format(""), "chosen": " 서울", "rejected": LOST},
            (Turn("user", "안녕"), Turn("assistant", "네")),
        ),
        (
            {"prompt": HH.format(""), "chosen": HH.format("서울"), "rejected": HH.format(LOST)},
            (Turn("user", "안녕"), Turn("assistant", "네")),
        ),
    ],
)
def test_preference_pairs(values: dict[str, Any], before: tuple[Turn, ...]) -> None:
    conversation = made("preference", values)
    turns = tuple(Turn(turn.role, turn.content.strip(), turn.context) for turn in conversation.turns)
    assert turns == (*before, ASKED, ANSWER)
    assert conversation.dispreferred == LOST


def test_a_context_goes_to_the_question_of_the_pair() -> None:
    values = {"question": "수도는?", "context": "한국", "chosen": said(USER, WON), "rejected": said(USER, OTHER)}
    assert made("preference", values).turns == (Turn("user", "수도는?", "한국"), ANSWER)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (
            {"chosen": said(("user", "가"), WON), "rejected": said(USER, OTHER)},
            "row-preference: the dialogues before",
        ),
        (
            {"prompt": "인구는?", "chosen": said(USER, WON), "rejected": said(USER, OTHER)},
            "row-preference: the prompt is",
        ),
        (
            {"prompt": "수도는?", "chosen": "서울", "rejected": "서울 "},
            "row-preference: the two answers are the same",
        ),
        (
            {"prompt": "수도는?", "chosen": said(USER), "rejected": said(USER)},
            "row-preference: one of them does not end",
        ),
        ({"prompt": "수도는?", "chosen": "서울", "rejected": None}, "row-empty: the rejected answer is empty"),
        ({"chosen": "서울", "rejected": LOST}, "row-shape: there is no prompt"),
        ({"prompt": "", "chosen": "서울", "rejected": LOST}, "row-shape: there is no prompt"),
        ({"prompt": 3, "chosen": "서울", "rejected": LOST}, "row-type"),
        ({"prompt": "수도는?", "chosen": "서울"}, "row-shape: the row has 'prompt', 'chosen'"),
    ],
)
def test_what_makes_no_preference_pair(values: dict[str, Any], reason: str) -> None:
    assert refused("preference", values).startswith(reason)


# retrieval


@pytest.mark.parametrize(
    "documents",
    [
        ["서울은 수도다.", "부산은 항구다."],
        [{"text": "서울은 수도다."}, {"contents": "부산은 항구다.", "title": None}],
        '["서울은 수도다.", "부산은 항구다."]',
        {"content": ["서울은 수도다.", "부산은 항구다."]},
    ],
)
def test_documents_are_numbered(documents: Any) -> None:
    values = {"question": "수도는?", "documents": documents, "answer": "서울입니다 [1]."}
    assert made("rag", values).turns == (
        Turn("user", "수도는?", "[1] 서울은 수도다.\n\n[2] 부산은 항구다."),
        Turn("assistant", "서울입니다 [1]."),
    )


def test_titles_of_documents_stand_above_them() -> None:
    values = {"질문": "수도는?", "문서": [{"제목": "서울", "본문": "수도다."}], "답변": "서울 [1]"}
    assert made("rag", values).turns[0].context == "[1] 서울\n수도다."


DOCUMENTS = [{"id": "가", "text": "하나"}, {"id": "나", "text": "둘"}, {"id": "다", "text": "셋"}]


def cited(answer: str, citations: Any) -> dict[str, Any]:
    return {"question": "?", "documents": DOCUMENTS, "answer": answer, "citations": citations}


@pytest.mark.parametrize("citations", [[3, 1], "3, 1", '["3", "[1]"]', ["다", "가"], [3, 1, 3]])
def test_citations_of_a_column_are_appended(citations: Any) -> None:
    assert made("rag", cited("답입니다.", citations)).turns[-1].content == "답입니다. [3][1]"


@pytest.mark.parametrize("citations", [None, [1, 3], ["가", "다"]])
def test_citations_of_a_column_that_the_answer_has_are_only_checked(citations: Any) -> None:
    assert made("rag", cited("답[1]은 [3, 1]입니다.", citations)).turns[-1].content == "답[1]은 [3, 1]입니다."


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (cited("답 [4]", None), "row-citation: it cites [4], and there are 3 documents"),
        (cited("답 [1, 5]", None), "row-citation: it cites [5]"),
        (cited("답 [2-4]", None), "row-citation: it cites [4]"),
        (cited("답 [0]", None), "row-citation: it cites [0]"),
        (cited("답", [0]), "row-citation: it cites [0]"),
        (cited("답 [1]", [2]), "row-citation: the answer cites [1], the column 'citations' [2]"),
        (cited("답 [1]", []), "row-citation: the answer cites [1], the column 'citations' nothing"),
        (cited("답", ["라"]), "row-citation: '라' names no document"),
        (cited("답", 1.5), "row-citation: 1.5 names no document"),
        ({"question": "?", "documents": [], "answer": "답"}, "row-shape"),
        ({"question": "?", "documents": None, "answer": "답"}, "row-shape"),
        ({"question": "?", "documents": "그냥 글", "answer": "답"}, "row-shape"),
        ({"question": "?", "documents": [{"url": "x"}], "answer": "답"}, "row-shape: documents[0] has 'url'"),
        ({"question": "?", "documents": ["가", " "], "answer": "답"}, "row-shape: documents[1] has no text"),
        ({"question": "?", "documents": ["가", 3], "answer": "답"}, "row-type"),
    ],
)
def test_what_makes_no_grounded_answer(values: dict[str, Any], reason: str) -> None:
    assert refused("rag", values).startswith(reason)


def test_brackets_in_code_cite_nothing() -> None:
    answer = "`a[7]` 또는\n```\nb[9]\n```\n입니다 [2]."
    assert made("rag", cited(answer, None)).turns[-1].content == answer


def test_a_context_that_is_a_list_is_documents_when_the_shape_is_set() -> None:
    values = {"question": "?", "context": ["가", "나"], "answer": "답 [2]"}
    assert shapes.guess(list(values), "f", "rag")[1].documents == "context"
    conversation = shapes.SHAPES["rag"](Row("f:1", values))
    assert isinstance(conversation, Conversation)
    assert conversation.turns[0].context == "[1] 가\n\n[2] 나"


# questions on a passage


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["서울", "서울시"], "answer_start": [0, 0]},
        [{"text": "서울", "answer_start": 0}, {"text": "서울시", "answer_start": 0}],
        ["서울", "서울시"],
        "{'text': ['서울'], 'answer_start': [0]}",
        "서울",
    ],
)
def test_of_several_answers_the_first_is_taken(answers: Any) -> None:
    values = {"guid": "1", "title": "한국", "context": "수도는 서울", "question": "수도는?", "answers": answers}
    assert made("squad", values).turns == (Turn("user", "수도는?", "수도는 서울"), ANSWER)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"question": "?", "answers": {"text": [], "answer_start": []}}, "row-empty: there is no answer"),
        (
            {"question": "?", "answers": {"text": ["그럴듯한 답"]}, "is_impossible": True},
            "row-empty: the question is",
        ),
        ({"question": "?", "answers": "답", "is_impossible": "True"}, "row-empty: the question is"),
        ({"question": "?", "answers": [3]}, "row-type"),
        ({"question": "?", "answers": {"answer_start": [1]}}, "row-empty: there is no answer"),
        ({"paragraphs": "글"}, "row-shape"),
        ({"paragraphs": []}, "row-shape"),
    ],
)
def test_questions_without_an_answer_are_set_aside(values: dict[str, Any], reason: str) -> None:
    assert refused("squad", values).startswith(reason)


def question(name: str, answers: Any, **more: Any) -> dict[str, Any]:
    return {"id": name, "question": f"{name}?", "answers": answers, **more}


def test_a_nested_row_becomes_a_conversation_for_each_question_and_a_reason_for_the_others() -> None:
    good = [{"text": "답", "answer_start": 0}]
    values = {
        "title": "한국",
        "paragraphs": [
            {"context": "글 1", "qas": [question("가", good), question("나", [], is_impossible=True)]},
            {"context": "글 2", "qas": [question("다", good), {"question": "라?", "answers": good}, "마"]},
            "바",
        ],
    }
    assert shapes.guess(list(values), "f", rows=[Row("f[7]", values)])[0] == "squad"
    several = shapes.SHAPES["squad"](Row("f[7]", values))
    assert isinstance(several, tuple)
    assert [one.origin for one in several] == ["f[7]#가", "f[7]#나", "f[7]#다", "f[7]#p2q2", "f[7]#p2q3", "f[7]#p3"]
    assert several[2] == Conversation((Turn("user", "다?", "글 2"), Turn("assistant", "답")), "f[7]#다")
    lost = [(one.origin, one.problem.code, one.problem.where) for one in several if isinstance(one, Rejected)]
    assert lost == [
        ("f[7]#나", "row-empty", "f[7]#나"),
        ("f[7]#p2q3", "row-shape", "f[7]#p2q3"),
        ("f[7]#p3", "row-shape", "f[7]#p3"),
    ]


def test_a_row_of_one_passage_with_its_questions() -> None:
    values = {"context": "글", "qas": [question("가", ["답"])]}
    assert shapes.SHAPES["squad"](Row("f:1", values)) == (
        Conversation((Turn("user", "가?", "글"), Turn("assistant", "답")), "f:1#가"),
    )
