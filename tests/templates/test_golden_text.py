"""Every template against the exact text in which it was published; what is learned stands between « and »."""

from __future__ import annotations

import pytest

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Rendered, Turn
from koalpaca_tune.templates.registry import TEMPLATES, find
from koalpaca_tune.templates.template import Markers

MARKERS = Markers(bos="<s>", eos="</s>")

U1, A1 = Turn("user", "수도는?"), Turn("assistant", "서울입니다.")
U2, A2 = Turn("user", "인구는?"), Turn("assistant", "구백만 명쯤입니다.")
WITH = Turn("user", "무엇이 남지?", "사과 셋에서 하나를 먹었다.")
SYSTEM = Turn("system", "짧게 답하세요.")

TALKS = {
    "single": (U1, A1),
    "context": (WITH, A1),
    "turns": (U1, A1, U2, A2),
    "system": (SYSTEM, U1, A1),
    "question": (SYSTEM, U1, A1, U2),
}

V1_0 = (
    "Below is an instruction that describes a task.\n"
    "아래는 작업을 설명하는 명령어입니다.\n\n"
    "Write a response that appropriately completes the request.\n"
    "명령어에 따른 요청을 적절히 완료하는 응답을 작성하세요.\n\n"
)
V1_0_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context.\n"
    "아래는 작업을 설명하는 명령어와 추가적 맥락을 제공하는 입력이 짝을 이루는 예제입니다.\n\n"
    "Write a response that appropriately completes the request.\n"
    "요청을 적절히 완료하는 응답을 작성하세요.\n\n"
)
KULLM = "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요.\n\n"
KULLM_INPUT = (
    "아래는 작업을 설명하는 명령어와 추가 컨텍스트를 제공하는 입력이 짝을 이루는 예제입니다. "
    "요청을 적절히 완료하는 응답을 작성하세요.\n\n"
)
BEGIN, USER, ASSISTANT, SYS = (
    "<|begin_of_text|>",
    "<|start_header_id|>user<|end_header_id|>\n\n",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|start_header_id|>system<|end_header_id|>\n\n",
)

GOLDEN = {
    "koalpaca": {
        "single": "### 질문: 수도는?\n\n### 답변:« 서울입니다.</s>»",
        "context": "### 질문: 무엇이 남지?\n\n### 맥락: 사과 셋에서 하나를 먹었다.\n\n### 답변:« 서울입니다.</s>»",
        "turns": (
            "### 질문: 수도는?\n\n### 답변:« 서울입니다.</s>»\n\n"
            "### 질문: 인구는?\n\n### 답변:« 구백만 명쯤입니다.</s>»"
        ),
        "system": "짧게 답하세요.\n\n### 질문: 수도는?\n\n### 답변:« 서울입니다.</s>»",
        "question": (
            "짧게 답하세요.\n\n### 질문: 수도는?\n\n### 답변:« 서울입니다.</s>»\n\n### 질문: 인구는?\n\n### 답변:"
        ),
    },
    "koalpaca-v1.0": {
        "single": V1_0 + "### Instruction(명령어):\n수도는?\n\n### Response(응답):«서울입니다.</s>»",
        "context": (
            V1_0_INPUT
            + "### Instruction(명령어):\n무엇이 남지?\n\n### Input(입력):\n사과 셋에서 하나를 먹었다.\n\n"
            "### Response(응답):«서울입니다.</s>»"
        ),
        "turns": (
            V1_0 + "### Instruction(명령어):\n수도는?\n\n### Response(응답):«서울입니다.</s>»\n\n"
            "### Instruction(명령어):\n인구는?\n\n### Response(응답):«구백만 명쯤입니다.</s>»"
        ),
        "system": (
            "짧게 답하세요.\n\n"
            + V1_0
            + "### Instruction(명령어):\n수도는?\n\n### Response(응답):«서울입니다.</s>»"
        ),
        "question": (
            "짧게 답하세요.\n\n"
            + V1_0
            + "### Instruction(명령어):\n수도는?\n\n### Response(응답):«서울입니다.</s>»\n\n"
            "### Instruction(명령어):\n인구는?\n\n### Response(응답):"
        ),
    },
    "kullm-v2": {
        "single": KULLM + "### 명령어:\n수도는?\n\n### 응답:\n«서울입니다.</s>»",
        "context": (
            KULLM_INPUT + "### 명령어:\n무엇이 남지?\n\n### 입력:\n사과 셋에서 하나를 먹었다.\n\n"
            "### 응답:\n«서울입니다.</s>»"
        ),
        "turns": (
            KULLM + "### 명령어:\n수도는?\n\n### 응답:\n«서울입니다.</s>»\n\n"
            "### 명령어:\n인구는?\n\n### 응답:\n«구백만 명쯤입니다.</s>»"
        ),
        "system": "짧게 답하세요.\n\n" + KULLM + "### 명령어:\n수도는?\n\n### 응답:\n«서울입니다.</s>»",
        "question": (
            "짧게 답하세요.\n\n" + KULLM + "### 명령어:\n수도는?\n\n### 응답:\n«서울입니다.</s>»\n\n"
            "### 명령어:\n인구는?\n\n### 응답:\n"
        ),
    },
    "llama2": {
        "single": "<s>[INST] 수도는? [/INST]« 서울입니다. </s>»",
        "context": "<s>[INST] 무엇이 남지?\n\n사과 셋에서 하나를 먹었다. [/INST]« 서울입니다. </s>»",
        "turns": "<s>[INST] 수도는? [/INST]« 서울입니다. </s>»<s>[INST] 인구는? [/INST]« 구백만 명쯤입니다. </s>»",
        "system": "<s>[INST] <<SYS>>\n짧게 답하세요.\n<</SYS>>\n\n수도는? [/INST]« 서울입니다. </s>»",
        "question": (
            "<s>[INST] <<SYS>>\n짧게 답하세요.\n<</SYS>>\n\n수도는? [/INST]« 서울입니다. </s>»"
            "<s>[INST] 인구는? [/INST]"
        ),
    },
    "llama3": {
        "single": f"{BEGIN}{USER}수도는?<|eot_id|>{ASSISTANT}«서울입니다.<|eot_id|>»",
        "context": (
            f"{BEGIN}{USER}무엇이 남지?\n\n사과 셋에서 하나를 먹었다.<|eot_id|>{ASSISTANT}«서울입니다.<|eot_id|>»"
        ),
        "turns": (
            f"{BEGIN}{USER}수도는?<|eot_id|>{ASSISTANT}«서울입니다.<|eot_id|>»"
            f"{USER}인구는?<|eot_id|>{ASSISTANT}«구백만 명쯤입니다.<|eot_id|>»"
        ),
        "system": f"{BEGIN}{SYS}짧게 답하세요.<|eot_id|>{USER}수도는?<|eot_id|>{ASSISTANT}«서울입니다.<|eot_id|>»",
        "question": (
            f"{BEGIN}{SYS}짧게 답하세요.<|eot_id|>{USER}수도는?<|eot_id|>{ASSISTANT}«서울입니다.<|eot_id|>»"
            f"{USER}인구는?<|eot_id|>{ASSISTANT}"
        ),
    },
    "chatml": {
        "single": "<|im_start|>user\n수도는?<|im_end|>\n<|im_start|>assistant\n«서울입니다.<|im_end|>»\n",
        "context": (
            "<|im_start|>user\n무엇이 남지?\n\n사과 셋에서 하나를 먹었다.<|im_end|>\n"
            "<|im_start|>assistant\n«서울입니다.<|im_end|>»\n"
        ),
        "turns": (
            "<|im_start|>user\n수도는?<|im_end|>\n<|im_start|>assistant\n«서울입니다.<|im_end|>»\n"
            "<|im_start|>user\n인구는?<|im_end|>\n<|im_start|>assistant\n«구백만 명쯤입니다.<|im_end|>»\n"
        ),
        "system": (
            "<|im_start|>system\n짧게 답하세요.<|im_end|>\n"
            "<|im_start|>user\n수도는?<|im_end|>\n<|im_start|>assistant\n«서울입니다.<|im_end|>»\n"
        ),
        "question": (
            "<|im_start|>system\n짧게 답하세요.<|im_end|>\n"
            "<|im_start|>user\n수도는?<|im_end|>\n<|im_start|>assistant\n«서울입니다.<|im_end|>»\n"
            "<|im_start|>user\n인구는?<|im_end|>\n<|im_start|>assistant\n"
        ),
    },
}


def marked(rendered: Rendered) -> str:
    """The text with « before and » after each learned span."""
    text, out, at = rendered.text, "", 0
    for start, end in rendered.spans:
        out += f"{text[at:start]}«{text[start:end]}»"
        at = end
    return out + text[at:]


def test_each_template_has_its_golden_texts() -> None:
    assert set(GOLDEN) == set(TEMPLATES)
    assert all(set(texts) == set(TALKS) for texts in GOLDEN.values())


@pytest.mark.parametrize("kind", TALKS)
@pytest.mark.parametrize("name", GOLDEN)
def test_the_exact_text_and_what_is_learned(name: str, kind: str) -> None:
    rendered = find(name).render(Conversation(TALKS[kind], "my.csv:3"), MARKERS)
    assert marked(rendered) == GOLDEN[name][kind]
    assert rendered.origin == "my.csv:3"


@pytest.mark.parametrize("name", GOLDEN)
def test_a_prompt_is_the_beginning_of_its_training_text(name: str) -> None:
    template = find(name)
    prompt = template.render(Conversation((SYSTEM, U1, A1, U2)), MARKERS).text
    whole = template.render(Conversation((SYSTEM, U1, A1, U2, A2)), MARKERS).text
    assert whole.startswith(prompt)
    assert whole[len(prompt) :].lstrip().startswith("구백만")


@pytest.mark.parametrize("name", GOLDEN)
def test_spaces_around_a_text_do_not_change_the_format(name: str) -> None:
    plain = find(name).render(Conversation((SYSTEM, WITH, A1)), MARKERS).text
    wide = tuple(
        Turn(turn.role, f" \n{turn.content}\n ", f"\n{turn.context} " if turn.context else None)
        for turn in (SYSTEM, WITH, A1)
    )
    assert find(name).render(Conversation(wide), MARKERS).text == plain


@pytest.mark.parametrize("name", GOLDEN)
def test_user_text_is_content_and_markers_are_special(name: str) -> None:
    template = find(name)
    pieces = template.render(Conversation((SYSTEM, WITH, A1)), MARKERS).pieces
    kinds = {kind: "".join(piece.text for piece in pieces if piece.kind == kind) for kind in ("content", "frame")}
    for text in ("짧게 답하세요.", "무엇이 남지?", "사과 셋에서 하나를 먹었다.", "서울입니다."):
        assert text in kinds["content"]
        assert text not in kinds["frame"]
    assert all(kinds["frame"].count(token) == 0 for token in ("</s>", *template.needs))


def test_llama2_without_a_bos_in_the_tokenizer() -> None:
    rendered = find("llama2").render(Conversation((U1, A1, U2, A2)), Markers(bos=None, eos="</s>"))
    assert rendered.text == "[INST] 수도는? [/INST] 서울입니다. </s>[INST] 인구는? [/INST] 구백만 명쯤입니다. </s>"


def test_an_unknown_template_names_the_nearest() -> None:
    with pytest.raises(KoalpacaError) as caught:
        find("koalpaca-v1")
    assert str(caught.value) == "template: there is no template 'koalpaca-v1'. Did you mean 'koalpaca-v1.0'?"
    assert caught.value.problems[0].code == "template-unknown"
