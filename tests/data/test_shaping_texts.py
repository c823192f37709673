from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from koalpaca_tune.data.rows import Row
from koalpaca_tune.data.shaping import headings, marked, shapes
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.templates.registry import TEMPLATES
from koalpaca_tune.templates.template import Markers

U, A, S = "user", "assistant", "system"


def parsed(text: str) -> tuple[tuple[str, ...], ...]:
    made = shapes.SHAPES["text"](Row("f:1", {"text": text}))
    assert isinstance(made, Conversation)
    return tuple(
        (turn.role, turn.content) if turn.context is None else (turn.role, turn.content, turn.context)
        for turn in made.turns
    )


PUBLISHED = [
    (
        "### Human: 수도는?### Assistant: 서울입니다.### Human: 인구는?### Assistant: 940만입니다.",
        ((U, "수도는?"), (A, "서울입니다."), (U, "인구는?"), (A, "940만입니다.")),
    ),
    (
        "짧게 답합니다.\n### Human: 수도는?\n### Assistant: 서울입니다.",
        ((S, "짧게 답합니다."), (U, "수도는?"), (A, "서울입니다.")),
    ),
    ("### 질문: 수도는?\n\n### 답변: 서울입니다.<|endoftext|>", ((U, "수도는?"), (A, "서울입니다."))),
    ("### 질문: 수도는?\n\n### 맥락: 한국\n\n### 답변: 서울", ((U, "수도는?", "한국"), (A, "서울"))),
    ("### 질문: 수도는? ### 답변: 서울입니다.", ((U, "수도는?"), (A, "서울입니다."))),
    ("<s>### 질문: 수도는?\r\n\r\n### 답변: 서울</s>", ((U, "수도는?"), (A, "서울"))),
    (
        "아래는 작업을 설명하는 명령어와 추가 컨텍스트를 제공하는 입력이 짝을 이루는 예제입니다. "
        "요청을 적절히 완료하는 응답을 작성하세요.\n\n"
        "### 명령어:\n수도는?\n\n### 입력:\n한국\n\n### 응답:\n서울</s>",
        ((U, "수도는?", "한국"), (A, "서울")),
    ),
    (
        "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\n수도는?\n\n### Response:\n서울",
        ((U, "수도는?"), (A, "서울")),
    ),
    (
        "Below is an instruction that describes a task.\n아래는 작업을 설명하는 명령어입니다.\n\n"
        "Write a response that appropriately completes the request.\n"
        "명령어에 따른 요청을 적절히 완료하는 응답을 작성하세요.\n\n"
        "### Instruction(명령어):\n수도는?\n\n### Response(응답):서울",
        ((U, "수도는?"), (A, "서울")),
    ),
    (
        "### System:\n짧게\n\n### User:\n수도는?\n\n### Assistant:\n서울\n\n"
        "### User:\n인구는?\n\n### Assistant:\n940만",
        ((S, "짧게"), (U, "수도는?"), (A, "서울"), (U, "인구는?"), (A, "940만")),
    ),
    ("\n\nHuman: 수도는?\n\nAssistant: 서울", ((U, "수도는?"), (A, "서울"))),
    (
        "<s>[INST] <<SYS>>\n짧게\n<</SYS>>\n\n수도는? [/INST] 서울 </s><s>[INST] 인구는? [/INST] 940만 </s>",
        ((S, "짧게"), (U, "수도는?"), (A, "서울"), (U, "인구는?"), (A, "940만")),
    ),
    (
        "<s>[INST] 수도는? [/INST] 서울</s>[INST] 인구는? [/INST] 940만</s>",
        ((U, "수도는?"), (A, "서울"), (U, "인구는?"), (A, "940만")),
    ),
    (
        "<|im_start|>system\n짧게<|im_end|>\n<|im_start|>user\n수도는?<|im_end|>\n<|im_start|>assistant\n서울<|im_end|>\n",
        ((S, "짧게"), (U, "수도는?"), (A, "서울")),
    ),
    (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n수도는?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n서울<|eot_id|>",
        ((U, "수도는?"), (A, "서울")),
    ),
    (
        "<bos><start_of_turn>user\n수도는?<end_of_turn>\n<start_of_turn>model\n서울<end_of_turn>\n",
        ((U, "수도는?"), (A, "서울")),
    ),
    # the last answer without its end token, and the place for an answer that is not there
    ("<|im_start|>user\n수도는?<|im_end|>\n<|im_start|>assistant\n서울", ((U, "수도는?"), (A, "서울"))),
    ("### 질문: 수도는?\n\n### 답변:", ((U, "수도는?"),)),
    ("<|im_start|>user\n수도는?<|im_end|>\n<|im_start|>assistant\n", ((U, "수도는?"),)),
    # what only looks like a mark is text
    ("### 질문: 옛말은?\n\n### 답변: <s>밤뫼</s>", ((U, "옛말은?"), (A, "<s>밤뫼</s>"))),
    (
        "### 질문: 형식은?\n\n### 답변: 줄 안의 ### 답변: 은 글입니다.",
        ((U, "형식은?"), (A, "줄 안의 ### 답변: 은 글입니다.")),
    ),
    ("### 질문: 표는?\n\n### 답변: ### 요약:\n[INST] 끝", ((U, "표는?"), (A, "### 요약:\n[INST] 끝"))),
    (
        "### Human: 형식은?### Assistant: `### Human: 글`처럼 씁니다.",
        ((U, "형식은?"), (A, "`### Human: 글`처럼 씁니다.")),
    ),
    # an answer may end with a quote or a code block
    (
        '### Human: 가### Assistant: "나"### Human: 다### Assistant:\n```\n라\n```### Human: 마### Assistant: 바',
        ((U, "가"), (A, '"나"'), (U, "다"), (A, "```\n라\n```"), (U, "마"), (A, "바")),
    ),
    ("### Human: 형식은?### Assistant: 이렇게요.\n### 질문: 글", ((U, "형식은?"), (A, "이렇게요.\n### 질문: 글"))),
]


@pytest.mark.parametrize(("text", "turns"), PUBLISHED)
def test_published_formats(text: str, turns: tuple[tuple[str, ...], ...]) -> None:
    assert parsed(text) == turns


MANGLED = [
    # a heading in an answer: one more answer, or one more question, cannot be told from the text
    ("### 질문: 형식은?\n\n### 답변: 이렇게요.\n\n### 답변: 글", "'### 답변:' stands after '### 답변:'"),
    ("### 질문: 형식은?\n\n### 답변: 이렇게요.\n\n### 질문: 가\n\n### 답변: 나", "has no end token"),
    (
        "### 명령어:\n가\n\n### 응답:\n나</s>\n### 명령어:\n다\n\n### 응답:\n라\n### 명령어:\n마\n\n### 응답:\n바",
        "no end token",
    ),
    (
        "### Human: 가### Assistant: 나</s>### Human: 다### Assistant: 라### Human: 마### Assistant: 바",
        "no end token",
    ),
    ("### Human: 가### Human: 나", "'### Human:' stands after '### Human:'"),
    ("### 질문: 가", "no answer after it"),
    ("### 질문: 가\n\n### 맥락: 나", "no answer after it"),
    ("### 맥락: 나\n### 질문: 가\n### 답변: 다", "it starts with '### 맥락:'"),
    ("[INST] 가 [/INST] 나 [INST] 다 [/INST] 라 </s>", "has no end token"),
    ("[INST] 가 [/INST] 나 [/INST] 다 </s>", r"has 2 \[/INST\]"),
    ("[INST] 가", r"has 0 \[/INST\]"),
    ("[INST] 가 [/INST] 나 </s>[INST] <<SYS>>\n다\n<</SYS>>\n\n라 [/INST] 마 </s>", "only the first may"),
    ("<|im_start|>user\n가<|im_start|>assistant\n나<|im_end|>", "turn 1 does not end"),
    ("<|im_start|>user\n가<|im_end|>나<|im_start|>assistant\n다<|im_end|>", "'나' stands after the end of turn 1"),
    ("<|im_start|>user\n가<|im_end|>\n<|im_start|>assistant", None),
    ("<|start_header_id|>user\n가<|eot_id|>", "is no head of a turn"),
    ("대한민국의 수도는 서울이다.", "Looked for: ### 질문: ### 답변:; .*Human:.*<|im_start|>.*INST"),
    ("", "holds no dialogue"),
]


@pytest.mark.parametrize(("text", "said"), MANGLED)
def test_a_text_that_cannot_be_told_apart_is_rejected_and_not_mangled(text: str, said: str | None) -> None:
    if said is None:
        assert parsed(text) == ((U, "가"),)
        return
    with pytest.raises(KoalpacaError, match=said) as caught:
        parsed(text)
    (problem,) = caught.value.problems
    assert problem.code == "row-text"
    assert problem.where == "f:1"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("<|im_start|>tool\n{}<|im_end|>", "row-tool"),
        ("<|im_start|>나그네\n가<|im_end|>", "row-shape"),
        ("<|im_start|>assistant\n가<|im_end|>", "row-turns"),
    ],
)
def test_other_rows_of_text_that_are_not_used(text: str, code: str) -> None:
    with pytest.raises(KoalpacaError) as caught:
        parsed(text)
    assert caught.value.problems[0].code == code


def test_a_system_column_goes_before_the_text() -> None:
    row = Row("f:1", {"text": "### Human: 가### Assistant: 나", "system": "짧게"})
    made = shapes.SHAPES["text"](row)
    assert made == Conversation((Turn("system", "짧게"), Turn("user", "가"), Turn("assistant", "나")), "f:1")


MARKS = (
    *(heading for form in headings.FORMATS for heading in form.parts),
    *(mark for form in marked.FORMATS for mark in (form.head, form.tail, form.head_end) if mark.strip()),
    *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>", "<|endoftext|>", "<|begin_of_text|>"),
)
PIECES = st.sampled_from(
    [
        "가",
        "서울은 ",
        "?",
        "\n",
        "\n\n",
        "#",
        "### ",
        "###",
        ":",
        " ",
        "질문",
        "답변",
        "Human",
        "```",
        "<",
        "|",
        "[",
        "INST",
        "/",
        "s>",
        "'",
        "`",
    ]
)
CONTENT = (
    st.lists(PIECES, min_size=1, max_size=8)
    .map(lambda parts: "".join(parts).strip())
    .filter(lambda text: text and not any(mark in text for mark in MARKS))
)


@st.composite
def conversations(draw: st.DrawFn, contexts: bool) -> Conversation:
    turns = [Turn("system", draw(CONTENT))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        context = draw(st.none() | CONTENT) if contexts else None
        turns += [Turn("user", draw(CONTENT), context), Turn("assistant", draw(CONTENT))]
    if draw(st.booleans()):
        turns.append(Turn("user", draw(CONTENT), draw(st.none() | CONTENT) if contexts else None))
    return Conversation(tuple(turns), "f:1")


MARKERS = st.sampled_from(
    [Markers(None, "<|endoftext|>"), Markers("<s>", "</s>"), Markers("<|endoftext|>", "<|endoftext|>")]
)


@given(st.data(), MARKERS, st.sampled_from(sorted(TEMPLATES)))
def test_what_our_templates_render_is_parsed_back(data: st.DataObject, markers: Markers, name: str) -> None:
    plain = name in ("koalpaca", "koalpaca-v1.0", "kullm-v2")
    conversation = data.draw(conversations(contexts=plain))
    text = TEMPLATES[name].render(conversation, markers).text
    assert shapes.SHAPES["text"](Row("f:1", {"text": text})) == conversation


@given(conversations(contexts=False), st.sampled_from(["", "\n"]))
def test_guanaco_is_parsed_back(conversation: Conversation, between: str) -> None:
    # a heading right after an opening quote is part of the text
    assume(between or not any(re.search(r"(\s|\A)['`]\Z", turn.content) for turn in conversation.turns))
    lead = {"system": "", "user": "### Human: ", "assistant": "### Assistant: "}
    text = "".join(f"{lead[turn.role]}{turn.content}{between}" for turn in conversation.turns)
    assert shapes.SHAPES["text"](Row("f:1", {"text": text})) == conversation


@given(st.lists(st.sampled_from([*MARKS, "가", "\n", " "]), max_size=12).map("".join))
def test_any_heap_of_marks_is_a_conversation_or_a_reason(text: str) -> None:
    made = conversation_or_code(text)
    if isinstance(made, Conversation):
        # nothing but marks and outer space is lost
        said = "".join(turn.content + (turn.context or "") for turn in made.turns)
        assert said.count("가") == text.count("가")
    else:
        assert made in {"row-text", "row-turns", "row-shape", "row-tool"}


def conversation_or_code(text: str) -> Conversation | str:
    try:
        made = shapes.SHAPES["text"](Row("f:1", {"text": text}))
    except KoalpacaError as error:
        return error.problems[0].code
    assert isinstance(made, Conversation)
    return made
