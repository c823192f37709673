"""The Jinja chat templates write what our templates write, character for character, in the engine of servers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import _compile_jinja_template

from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.templates import jinja
from koalpaca_tune.templates.registry import OWN, TEMPLATES, find
from koalpaca_tune.templates.template import Markers

MARKERS = Markers(bos="<s>", eos="</s>")
RAW = '"따옴표" {{ message }} {% if %} \\n 역슬래시 # 샵\n\n줄 </s> <|im_end|>'


def rendered(name: str, turns: tuple[Turn, ...], markers: Markers = MARKERS, *, adds_bos: bool = False) -> str:
    source = jinja.source(name, markers, adds_bos=adds_bos)
    assert source is not None
    messages = [
        {"role": turn.role, "content": turn.content, **({"context": turn.context} if turn.context else {})}
        for turn in turns
    ]
    # transformers' own engine, which vLLM uses too
    text: str = _compile_jinja_template(source).render(messages=messages, add_generation_prompt=True)
    return text


def test_every_template_has_a_jinja_source_and_the_tokenizers_own_needs_none() -> None:
    assert set(jinja.WRITERS) == set(TEMPLATES)
    assert jinja.source(OWN, MARKERS) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "koalpaca",
            "짧게.\n\n### 질문: 수도는?\n\n### 답변: 서울.</s>\n\n### 질문: 왜?\n\n### 맥락: 글\n\n### 답변:",
        ),
        (
            "llama2",
            "<s>[INST] <<SYS>>\n짧게.\n<</SYS>>\n\n수도는? [/INST] 서울. </s><s>[INST] 왜?\n\n글 [/INST]",
        ),
        (
            "llama3",
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n짧게.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\n수도는?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n서울.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\n왜?\n\n글<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            "chatml",
            "<|im_start|>system\n짧게.<|im_end|>\n<|im_start|>user\n수도는?<|im_end|>\n"
            "<|im_start|>assistant\n서울.<|im_end|>\n<|im_start|>user\n왜?\n\n글<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_golden(name: str, text: str) -> None:
    turns = (
        Turn("system", " 짧게.\n"),
        Turn("user", "수도는?"),
        Turn("assistant", " 서울. "),
        Turn("user", "왜?", " 글 "),
    )
    assert rendered(name, turns) == text


words = st.one_of(st.text("가나다 \n\t.{}%\"'\\<|>#", min_size=1, max_size=12), st.just(RAW))
contexts = st.one_of(st.none(), words)


@given(
    system=st.one_of(st.none(), words),
    exchanges=st.lists(st.tuples(words, contexts, words), min_size=1, max_size=3),
    last=st.one_of(st.none(), st.tuples(words, contexts)),
    bos=st.sampled_from(["<s>", None]),
)
def test_any_conversation_is_the_same_text(
    system: str | None,
    exchanges: list[tuple[str, str | None, str]],
    last: tuple[str, str | None] | None,
    bos: str | None,
) -> None:
    turns = [] if system is None else [Turn("system", system)]
    for asked, context, answer in exchanges:
        turns += [Turn("user", asked, context), Turn("assistant", answer)]
    if last is not None:
        turns.append(Turn("user", *last))
    markers = Markers(bos, "</s>")
    for name in TEMPLATES:
        ours = find(name).render(Conversation(tuple(turns)), markers).text
        assert rendered(name, tuple(turns), markers) == ours, name


def test_begin_of_text_stands_once_where_the_tokenizer_puts_it_in_front() -> None:
    turns = (Turn("user", "수도는?"),)
    for name in TEMPLATES:
        text = rendered(name, turns, adds_bos=True)
        begin = "<|begin_of_text|>" if name == "llama3" else "<s>"
        assert text == begin + find(name).render(Conversation(turns), MARKERS).text.removeprefix(begin), name


@pytest.mark.parametrize("roles", [("assistant",), ("user", "user"), ("user", "system"), ("tool",)])
def test_turns_out_of_order_are_refused(roles: tuple[str, ...]) -> None:
    for name in TEMPLATES:
        source = jinja.source(name, MARKERS)
        assert source is not None
        messages = [{"role": role, "content": "글"} for role in roles]
        with pytest.raises(Exception, match="Turns alternate"):
            _compile_jinja_template(source).render(messages=messages, add_generation_prompt=True)
