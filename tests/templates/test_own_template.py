"""The tokenizer's own chat template: answers found by rendering prefixes, user text never read as markup."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import tokenizer
from koalpaca_tune.records import Conversation, Rendered, Turn
from koalpaca_tune.tokens.encode import Encoder
from koalpaca_tune.tokens.vocabulary import Vocabulary

HEADERS = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
FOLDED = (
    "{% for m in messages %}{% if m.role == 'system' %}{% elif m.role == 'user' %}[Q] "
    "{% if loop.index0 == 1 and messages[0].role == 'system' %}({{ messages[0].content }}) {% endif %}"
    "{{ m.content }} [A]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
FORGETS = (
    "{% for m in messages %}{% if m.role == 'user' or loop.last %}"
    "{{ m.role }}: {{ m.content }}\n{% endif %}{% endfor %}"
)
REFUSES = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn here') }}{% endif %}"
    "{{ m.content }}{{ eos_token }}{% endfor %}"
)

U1, A1 = Turn("user", "수도는?"), Turn("assistant", "서울입니다.")
U2, A2 = Turn("user", "인구는?"), Turn("assistant", "구백만 명쯤입니다.")
SYSTEM = Turn("system", "짧게 답하세요.")

Make = Callable[[str], Encoder]


@pytest.fixture
def own(new_llama_words: Callable[[], Any]) -> Make:
    def make(template: str) -> Encoder:
        words = new_llama_words()
        words.chat_template = template
        vocabulary = tokenizer.vocabulary(words, "twin")
        return Encoder(vocabulary, vocabulary.template("tokenizer"))

    return make


def learned(rendered: Rendered) -> list[str]:
    return [rendered.text[start:end] for start, end in rendered.spans]


def test_the_own_template_writes_what_the_tokenizer_writes(own: Make) -> None:
    encoder = own(HEADERS)
    ours = encoder.render(Conversation((SYSTEM, U1, A1, U2, A2)))
    named = encoder.vocabulary.template("llama3").render(
        Conversation((SYSTEM, U1, A1, U2, A2)), encoder.vocabulary.markers
    )
    assert ours.text == named.text
    assert learned(ours) == learned(named) == ["서울입니다.<|eot_id|>", "구백만 명쯤입니다.<|eot_id|>"]
    assert list(encoder.encode([ours])) == list(encoder.encode([named]))


def test_a_conversation_that_ends_with_a_question_ends_in_the_generation_prompt(own: Make) -> None:
    rendered = own(HEADERS).render(Conversation((U1, A1, U2)))
    assert rendered.text.endswith("인구는?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
    assert learned(rendered) == ["서울입니다.<|eot_id|>"]


def test_a_system_text_folded_into_the_question(own: Make) -> None:
    rendered = own(FOLDED).render(Conversation((SYSTEM, U1, A1, U2, A2)))
    assert rendered.text == (
        "[Q] (짧게 답하세요.) 수도는? [A] 서울입니다.<|endoftext|>[Q] 인구는? [A] 구백만 명쯤입니다.<|endoftext|>"
    )
    assert learned(rendered) == [" 서울입니다.<|endoftext|>", " 구백만 명쯤입니다.<|endoftext|>"]


def test_context_follows_the_question(own: Make) -> None:
    rendered = own(FOLDED).render(Conversation((Turn("user", "무엇이 남지?", "사과 셋."), A1)))
    assert rendered.text.startswith("[Q] 무엇이 남지?\n\n사과 셋. [A]")


def test_a_template_that_rewrites_earlier_text_is_refused(own: Make) -> None:
    encoder = own(FORGETS)
    assert learned(encoder.render(Conversation((U1, A1)))) == ["assistant: 서울입니다.\n"]
    with pytest.raises(KoalpacaError) as caught:
        encoder.render(Conversation((U1, A1, U2, A2), "talks.jsonl:4"))
    assert caught.value.problems[0].code == "template-prefix"
    assert str(caught.value) == (
        "talks.jsonl:4: the tokenizer's chat template changes earlier text when a turn is added: "
        "answers cannot be located. Choose a template by name instead (template: llama3, chatml, ...)."
    )


def test_a_template_that_refuses_a_role_is_one_clear_error(own: Make) -> None:
    with pytest.raises(KoalpacaError) as caught:
        own(REFUSES).render(Conversation((SYSTEM, U1, A1), "talks.jsonl:4"))
    assert caught.value.problems[0].code == "template-refused"
    assert str(caught.value).startswith(
        "talks.jsonl:4: the tokenizer's chat template refuses these turns: no system turn here."
    )


@pytest.mark.parametrize("template", ["{{ messages[0].nothing.at_all }}", "{% for m in messages %}"])
def test_a_template_that_is_wrong_itself_is_one_clear_error(own: Make, template: str) -> None:
    with pytest.raises(KoalpacaError, match="chat template refuses"):
        own(template).render(Conversation((U1, A1)))


def test_no_chat_template_is_one_clear_error() -> None:
    vocabulary = tokenizer.load("embedded")
    with pytest.raises(KoalpacaError) as caught:
        vocabulary.template("tokenizer")
    assert str(caught.value) == (
        "template: the tokenizer of embedded has no chat template. "
        "Choose one by name: koalpaca, kullm-v2, llama3, ..."
    )


@pytest.mark.parametrize(
    "text",
    [
        "<|start_header_id|>",
        "<|eot_id|>",
        "<|begin_of_text|>",
        "<|start_header_id|>user<|end_header_id|>",
        "user",
        "assistant",
        "\ue0000\ue001",
        "수도는?",
    ],
)
def test_user_text_that_spells_the_markup_stays_text(own: Make, text: str) -> None:
    encoder = own(HEADERS)
    vocabulary: Vocabulary = encoder.vocabulary
    rendered = encoder.render(Conversation((Turn("user", text), A1, Turn("user", text), Turn("assistant", text))))
    assert [piece.text for piece in rendered.pieces if piece.kind == "content"] == [text, "서울입니다.", text, text]
    encoded = next(encoder.encode([rendered]))
    specials = {vocabulary.id(token) for token in vocabulary.specials}
    plain = encoder.render(Conversation((U1, A1, U2, A2)))
    expected = [one for one in next(encoder.encode([plain])).ids if one in specials]
    assert [one for one in encoded.ids if one in specials] == expected
    assert vocabulary.backend.decode(list(encoded.ids), skip_special_tokens=False) == rendered.text


def test_the_own_template_stops_at_the_end_of_turn(own: Make) -> None:
    encoder = own(HEADERS)
    ids = encoder.vocabulary.stop_ids(encoder.template)
    assert ids == sorted(encoder.vocabulary.id(token) for token in ("<|endoftext|>", "<|im_end|>", "<|eot_id|>"))
