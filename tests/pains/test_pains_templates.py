"""Answers that never end, doubled BOS, missing pad tokens, and which format a model was trained in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.inference import decoding
from koalpaca_tune.models import tokenizer
from koalpaca_tune.records import NOT_LEARNED, Conversation, Encoded, Turn
from koalpaca_tune.runs import adapters, preflight_data
from koalpaca_tune.templates.registry import TEMPLATES
from koalpaca_tune.tokens.encode import Encoder
from koalpaca_tune.tokens.pack import collate
from koalpaca_tune.tokens.vocabulary import Vocabulary

Make = Callable[..., Recipe]
BOS, EOS, TURN_END = "<|begin_of_text|>", "<|endoftext|>", "<|eot_id|>"


@pytest.fixture(scope="module")
def twin(new_llama_words: Callable[[], Any]) -> Vocabulary:
    """Llama-3's special tokens, BOS put in front by the tokenizer itself, and no pad token, as Llama-3 has it."""
    words = new_llama_words()
    words.pad_token = None
    words.add_tokens([AddedToken(token, special=True) for token in ("<|im_start|>", "<|im_end|>")])
    return tokenizer.vocabulary(words, "twin")


def learned(one: Encoded) -> list[int]:
    return [label for label in one.labels if label != NOT_LEARNED]


def test_trl_1623_2059_734_the_end_is_learned_where_it_pads_too(
    twin: Vocabulary, conversations: Sequence[Conversation]
) -> None:
    """pad = eos, masked by id: no end of an answer is ever learned, and the model never stops."""
    end = twin.id(EOS)
    assert twin.pad_id == end, "nothing else is there to pad with"
    encoded = list(Encoder(twin, twin.template("koalpaca")).conversations(conversations))
    batch = collate([[one] for one in encoded], twin.pad_id)
    answers = sum(turn.role == "assistant" for one in conversations for turn in one.turns)
    assert int((batch.labels == end).sum()) == answers
    # padding is longer than that, and none of it is learned
    assert int((batch.ids == end).sum()) > 2 * answers
    assert batch.learned == sum(len(learned(one)) for one in encoded)


def test_trl_1623_2059_734_training_makes_the_end_likelier(trained_neox: Any, by_heart: Any) -> None:
    """Of the very token that a model trained with a masked end never writes."""
    lm = adapters.open_model(adapters.choose(by_heart.base, by_heart.adapter, None, None))
    question = Turn("user", "대한민국의 수도는 어디인가요?")
    whole = lm.encoder.render(Conversation((question, Turn("assistant", "서울입니다."))))
    end = lm.encoder.vocabulary.id(EOS)

    def chance() -> float:
        (logits,) = lm.logits([whole])
        # after the last letter of the answer
        return float(logits[-2].softmax(-1)[end])

    after = chance()
    with lm.without_adapter():
        before = chance()
    assert after > 20 * before


@pytest.mark.parametrize("name", TEMPLATES)
def test_alignment_handbook_127_trl_1400_bos_stands_once(
    twin: Vocabulary, conversations: Sequence[Conversation], name: str
) -> None:
    """Template and tokenizer both write it: the model sees what it never saw before."""
    bos = twin.id(BOS)
    single = [one for one in conversations if len(one.turns) == 2]
    for one in Encoder(twin, twin.template(name)).conversations(single):
        assert one.ids[0] == bos
        assert one.ids.count(bos) == 1


def test_trl_1400_a_bos_that_the_data_bring_along_is_told_of(
    pains_recipe: Make, make_ready: Any, tmp_path: Path
) -> None:
    ready = make_ready(pains_recipe(tmp_path / "run", "llama", template="koalpaca"))
    ready.examples.train = [
        Encoded((one.ids[0], *one.ids), (NOT_LEARNED, *one.labels), one.origin) for one in ready.examples.train
    ]
    found = [one for one in preflight_data.check(ready.recipe, ready.examples) if "BOS" in one.name]
    assert [one.state for one in found] == ["bad"]


def test_unsloth_416_419_no_pad_token_is_needed_and_none_is_added(twin: Vocabulary) -> None:
    """Llama-3 has no pad token: trainers refuse, or add one beyond the embedding, or take the end and mask it."""
    entries = twin.backend.get_vocab_size()
    assert twin.pad_id < entries
    assert not [token for token in twin.specials if "pad" in token and twin.id(token) == twin.pad_id]
    row = Encoded((5, 6, 7), (NOT_LEARNED, 6, 7), "")
    batch = collate([[row], [Encoded((5, twin.pad_id), (NOT_LEARNED, twin.pad_id), "")]], twin.pad_id)
    assert batch.ids[1].tolist() == [5, twin.pad_id, twin.pad_id]
    assert batch.labels[1].tolist() == [NOT_LEARNED, twin.pad_id, NOT_LEARNED]


def test_llama_cookbook_640_both_ends_stop_an_answer(twin: Vocabulary) -> None:
    """Llama-3 ends a turn with one token and a text with another; who knows one only writes on and on."""
    stops = twin.stop_ids(twin.template("llama3"))
    assert stops == sorted([twin.id(EOS), twin.id(TURN_END)])
    said = twin.literal_ids("서울입니다.", begins=True)
    for token in (EOS, TURN_END):
        found = decoding.written(twin, stops, [*said, twin.id(token), *said])
        assert (found.text, found.stopped) == ("서울입니다.", True)


def test_koalpaca_50_91_31_8_the_format_is_written_down_and_used(trained_neox: Any) -> None:
    """Which format was it? People guess from old scripts. The name goes with the adapter, and the text is fixed."""
    assert trained_neox.record["template"]["name"] == "kullm-v2"
    opened = adapters.open_model(adapters.choose(trained_neox.base, trained_neox.adapter, None, None))
    asked = Conversation((Turn("user", "수도는?", "대한민국"),))
    assert opened.encoder.render(asked).text == (
        "아래는 작업을 설명하는 명령어와 추가 컨텍스트를 제공하는 입력이 짝을 이루는 예제입니다. "
        "요청을 적절히 완료하는 응답을 작성하세요.\n\n### 명령어:\n수도는?\n\n### 입력:\n대한민국\n\n### 응답:\n"
    )
    koalpaca = TEMPLATES["koalpaca"].render(asked, opened.encoder.vocabulary.markers)
    assert koalpaca.text == "### 질문: 수도는?\n\n### 맥락: 대한민국\n\n### 답변:"


@pytest.mark.parametrize("name", TEMPLATES)
def test_komt_training_and_answering_read_the_same_text(
    twin: Vocabulary, conversations: Sequence[Conversation], name: str
) -> None:
    """The README's prompt and the trainer's are two texts. Here the prompt is the beginning of what was learned."""
    encoder = Encoder(twin, twin.template(name))
    for conversation in conversations:
        (one,) = encoder.conversations([conversation])
        asked = encoder.prompt(encoder.render(Conversation(conversation.turns[:-1])))
        assert one.ids[: len(asked)] == tuple(asked)
        last = encoder.vocabulary.decode(one.ids[len(asked) :]).strip()
        assert last == conversation.turns[-1].content
        assert one.labels[len(asked)] != NOT_LEARNED


def test_ms_swift_2187_answers_alone_are_learned(twin: Vocabulary, conversations: Sequence[Conversation]) -> None:
    """Response-only loss is an option elsewhere. Here it is the way; every answer of a talk, with its end."""
    encoder = Encoder(twin, twin.template("llama3"))
    for conversation, one in zip(conversations, encoder.conversations(conversations), strict=True):
        said = [turn.content for turn in conversation.turns if turn.role == "assistant"]
        text = twin.backend.decode(learned(one), skip_special_tokens=False)
        assert text == "".join(answer + TURN_END for answer in said)
