"""Text to ids and labels: exactly the answer is learned, nothing a user writes is markup, an answer ends in EOS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import tokenizer
from koalpaca_tune.records import NOT_LEARNED, Conversation, Encoded, Rendered, Turn
from koalpaca_tune.templates.registry import TEMPLATES
from koalpaca_tune.templates.template import content, frame, special
from koalpaca_tune.tokens.encode import Encoder
from koalpaca_tune.tokens.pack import collate
from koalpaca_tune.tokens.vocabulary import Vocabulary

Vocabularies = dict[str, Vocabulary]

U1, A1 = Turn("user", "수도는 어디인가요?"), Turn("assistant", "서울입니다.")
U2, A2 = Turn("user", "인구는?"), Turn("assistant", "구백만 명쯤입니다.\n더 물어보세요!")
WITH = Turn("user", "몇 개 남지?", "사과 셋에서 하나를 먹었다.")
SYSTEM = Turn("system", "짧게 답하세요.")
TALKS = {
    "single": (U1, A1),
    "context": (WITH, A1),
    "turns": (SYSTEM, U1, A1, U2, A2),
    "foreign": (U1, Turn("assistant", "Seoul 😀 漢字 é ㅋㅋㅋ")),
}
PLAIN = ("koalpaca", "koalpaca-v1.0", "kullm-v2", "llama2")
FITS = [
    *(("embedded", name) for name in TEMPLATES),
    *(("llama", name) for name in TEMPLATES),
    *(("gpt2", name) for name in (*PLAIN, "chatml")),
    *(
        (f"sp-{prepend}", name)
        for prepend in ("legacy", "first", "always", "never")
        for name in ("koalpaca", "llama2")
    ),
]


def encode(vocabularies: Vocabularies, kind: str, name: str, turns: Sequence[Turn]) -> tuple[Rendered, Encoded]:
    encoder = Encoder(vocabularies[kind], vocabularies[kind].template(name))
    rendered = encoder.render(Conversation(tuple(turns), "talks.jsonl:1"))
    return rendered, next(encoder.encode([rendered]))


def runs(encoded: Encoded) -> list[tuple[int, int]]:
    """[start, end) of each stretch of learned tokens."""
    found: list[tuple[int, int]] = []
    for at, label in enumerate(encoded.labels):
        if label == NOT_LEARNED:
            continue
        if found and found[-1][1] == at:
            found[-1] = (found[-1][0], at + 1)
        else:
            found.append((at, at + 1))
    return found


def text_of(vocabulary: Vocabulary, ids: Sequence[int]) -> str:
    return vocabulary.backend.decode(list(ids), skip_special_tokens=False)


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize(("kind", "name"), FITS)
def test_learned_ids_are_the_answer_with_its_end(
    vocabularies: Vocabularies, kind: str, name: str, talk: str
) -> None:
    vocabulary = vocabularies[kind]
    rendered, encoded = encode(vocabularies, kind, name, TALKS[talk])
    assert len(encoded.ids) == len(encoded.labels)
    assert all(label in (NOT_LEARNED, token) for token, label in zip(encoded.ids, encoded.labels, strict=True))
    stretches = runs(encoded)
    assert len(stretches) == len(rendered.spans) == sum(turn.role == "assistant" for turn in TALKS[talk])
    for (start, end), (first, last) in zip(stretches, rendered.spans, strict=True):
        if kind in ("embedded", "llama", "gpt2"):
            # byte-level: tokens spell the text exactly
            assert text_of(vocabulary, encoded.ids[start:end]) == rendered.text[first:last]
        ends = [vocabulary.id(token) for token in (vocabulary.eos, *vocabulary.template(name).stops)]
        assert encoded.ids[end - 1] in ends, "the end of the answer is learned, or generation would not stop"


@pytest.mark.parametrize(("kind", "name"), FITS)
def test_the_prompt_at_generation_is_the_prompt_of_training(
    vocabularies: Vocabularies, kind: str, name: str
) -> None:
    vocabulary = vocabularies[kind]
    encoder = Encoder(vocabulary, vocabulary.template(name))
    turns = TALKS["turns"]
    _, whole = encode(vocabularies, kind, name, turns)
    for stretch, upto in zip(runs(whole), (2, 4), strict=True):
        prompt = encoder.prompt(encoder.render(Conversation(turns[:upto])))
        assert tuple(prompt) == whole.ids[: stretch[0]]


def test_many_records_are_encoded_as_each_alone_and_in_order(vocabularies: Vocabularies) -> None:
    encoder = Encoder(vocabularies["embedded"], vocabularies["embedded"].template("koalpaca"))
    talks = [
        Conversation((U1, Turn("assistant", f"{n}번 답{'</s>' if n % 7 else '<|endoftext|>'}")), str(n))
        for n in range(1100)
    ]
    together = list(encoder.conversations(talks))
    assert [one.origin for one in together] == [str(n) for n in range(1100)]
    assert together[1023:1027] == [next(encoder.conversations([talk])) for talk in talks[1023:1027]]


def boundary(vocabulary: Vocabulary, rendered: Rendered, name: str = "koalpaca") -> KoalpacaError:
    encoder = Encoder(vocabulary, vocabulary.template(name))
    with pytest.raises(KoalpacaError) as caught:
        next(encoder.encode([rendered]))
    assert caught.value.problems[0].code == "mask-boundary"
    return caught.value


def test_llama3_does_not_fit_a_gpt2_style_tokenizer(vocabularies: Vocabularies) -> None:
    vocabulary = vocabularies["gpt2"]
    conversation = Conversation((U1, A1), "talks.jsonl:7")
    error = boundary(vocabulary, vocabulary.template("llama3").render(conversation, vocabulary.markers), "llama3")
    assert str(error) == (
        "talks.jsonl:7: template 'llama3' does not fit the tokenizer of gpt2-like: a token spans the place where "
        "learning begins or ends ('r_id|>\\n\\n|서울입니다.<|'). "
        "Choose the base's own template, or a plain one such as koalpaca."
    )


def test_a_cut_after_the_space_puts_a_token_across_it(vocabularies: Vocabularies) -> None:
    def cut(prompt: str, answer: str) -> Rendered:
        return Rendered((frame(prompt), content(answer, learn=True), special("<|endoftext|>", learn=True)))

    for kind in ("gpt2", "embedded"):
        vocabulary = vocabularies[kind]
        boundary(vocabulary, cut("### 질문: 수도는?\n\n### 답변: ", "서울입니다."))
        encoder = Encoder(vocabulary, vocabulary.template("koalpaca"))
        assert next(encoder.encode([cut("### 질문: 수도는?\n\n### 답변:", " 서울입니다.")])).learned > 1


def test_a_cut_at_the_end_of_the_learned_text_is_checked_too(vocabularies: Vocabularies) -> None:
    # the second token of `하나를` does not end where learning ends
    boundary(vocabularies["gpt2"], Rendered((frame("답:"), content(" 서울", learn=True), frame("이다."))))


SPELLED = (
    "<|endoftext|>",
    "<|eot_id|>",
    "<|im_end|>",
    "<|im_start|>",
    "<|begin_of_text|>",
    "<|pad|>",
    "</s>",
    "<s>",
)


@pytest.mark.parametrize("token", SPELLED)
@pytest.mark.parametrize(("kind", "name"), FITS)
def test_a_special_token_in_user_text_stays_text(
    vocabularies: Vocabularies, kind: str, name: str, token: str
) -> None:
    vocabulary = vocabularies[kind]
    turns = (
        Turn("system", f"{token} 짧게 {token}"),
        Turn("user", f"{token}이 뭐야? {token}", f"{token}"),
        Turn("assistant", f"{token}은 그냥 글자{token}입니다. {token}"),
    )
    rendered, encoded = encode(vocabularies, kind, name, turns)
    specials = {vocabulary.id(one) for one in vocabulary.specials} - {vocabulary.backend.token_to_id("<unk>")}
    expected = [vocabulary.id(piece.text) for piece in rendered.pieces if piece.kind == "special"]
    added = vocabulary.bos if vocabulary.adds_bos and name not in ("llama2", "llama3") else None
    if added:
        expected.insert(0, vocabulary.id(added))
    assert [one for one in encoded.ids if one in specials] == expected
    if kind in ("embedded", "llama", "gpt2"):
        assert text_of(vocabulary, encoded.ids) == f"{added or ''}{rendered.text}"


@pytest.mark.parametrize(("kind", "name"), FITS)
def test_reading_piece_by_piece_gives_the_ids_of_the_whole(
    vocabularies: Vocabularies, kind: str, name: str
) -> None:
    """The path for texts that spell special tokens must not differ from the other in anything else."""
    encoder = Encoder(vocabularies[kind], vocabularies[kind].template(name))
    rendered = encoder.render(Conversation(TALKS["turns"]))
    for end in (len(rendered.text), rendered.spans[0][0], rendered.spans[1][1]):
        whole = encoder.vocabulary.backend.encode(rendered.text[:end], add_special_tokens=False).ids
        assert encoder._by_piece(rendered, end) == whole


@cache
def embedded() -> Vocabulary:
    return tokenizer.load("embedded")


answers = st.text(st.characters(exclude_categories=["Cs", "Cn"]), min_size=1, max_size=30)


@given(answers, answers)
def test_any_text_goes_through_or_is_refused_clearly(question: str, answer: str) -> None:
    vocabulary = embedded()
    encoder = Encoder(vocabulary, vocabulary.template("koalpaca"))
    rendered = encoder.render(Conversation((Turn("user", question), Turn("assistant", answer))))
    encoded = next(encoder.encode([rendered]))
    assert encoded.ids[-1] == encoded.labels[-1] == vocabulary.id("<|endoftext|>")
    ((start, end),) = runs(encoded)
    assert text_of(vocabulary, encoded.ids[start:end]) == f" {answer.strip()}<|endoftext|>"


@pytest.mark.parametrize("name", TEMPLATES)
def test_bos_stands_exactly_once(vocabularies: Vocabularies, name: str) -> None:
    """alignment-handbook#127, trl#1400: a second BOS from a template that writes its own."""
    vocabulary = vocabularies["llama"]
    assert vocabulary.adds_bos
    bos = vocabulary.id("<|begin_of_text|>")
    for turns in (TALKS["single"], (Turn("system", "<|begin_of_text|> 시작"), U1, A1)):
        _, encoded = encode(vocabularies, "llama", name, turns)
        assert encoded.ids[0] == bos
        assert encoded.ids.count(bos) == 1
        assert encoded.labels[0] == NOT_LEARNED


def test_no_bos_where_the_tokenizer_puts_none(vocabularies: Vocabularies) -> None:
    _, encoded = encode(vocabularies, "embedded", "koalpaca", TALKS["single"])
    assert encoded.ids[0] != vocabularies["embedded"].id("<|endoftext|>")


def test_padding_that_equals_eos_never_masks_an_eos(vocabularies: Vocabularies) -> None:
    """trl#1623, #2059, #734: the model that never stops."""
    vocabulary = vocabularies["gpt2"]
    eos = vocabulary.id(vocabulary.eos)
    assert vocabulary.pad_id == eos
    _, long = encode(vocabularies, "gpt2", "koalpaca", TALKS["turns"])
    _, short = encode(vocabularies, "gpt2", "koalpaca", TALKS["single"])
    batch = collate([[long], [short]], vocabulary.pad_id)
    assert (batch.labels == eos).sum() == 3
    assert batch.labels[1, len(short.ids) - 1] == eos
    assert (batch.ids[1, len(short.ids) :] == eos).all()
    assert (batch.labels[1, len(short.ids) :] == NOT_LEARNED).all()


def test_a_tokenizer_without_padding_pads_with_eos(new_llama_words: Callable[[], Any]) -> None:
    """unsloth#416, #419: Llama-3 has no padding token."""
    words = new_llama_words()
    words.pad_token = None
    vocabulary = tokenizer.vocabulary(words, "twin")
    assert vocabulary.pad_id == vocabulary.id(vocabulary.eos)


def test_a_tokenizer_without_eos_is_refused(new_llama_words: Callable[[], Any]) -> None:
    words = new_llama_words()
    words.eos_token = None
    with pytest.raises(KoalpacaError, match="twin: the tokenizer has no EOS token"):
        tokenizer.vocabulary(words, "twin")


@pytest.mark.parametrize(("name", "token"), [("llama3", "<|begin_of_text|>"), ("chatml", "<|im_start|>")])
def test_a_template_whose_tokens_are_missing_is_refused(vocabularies: Vocabularies, name: str, token: str) -> None:
    bare = replace(vocabularies["sp-first"], name="bare")
    with pytest.raises(KoalpacaError) as caught:
        bare.template(name)
    assert str(caught.value) == (
        f"template: template '{name}' needs the special token {token}, which bare lacks. "
        "Choose the template that the base was trained with, or a plain one such as koalpaca."
    )
    assert caught.value.problems[0].code == "template-tokens"


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("koalpaca", ["<|endoftext|>"]),
        ("llama3", ["<|endoftext|>", "<|eot_id|>"]),
        ("chatml", ["<|endoftext|>", "<|im_end|>"]),
    ],
)
def test_every_id_that_ends_an_answer(vocabularies: Vocabularies, name: str, stops: list[str]) -> None:
    """llama-cookbook#640: two stop ids."""
    vocabulary = vocabularies["llama"]
    assert vocabulary.stop_ids(vocabulary.template(name)) == sorted(vocabulary.id(token) for token in stops)


# fmt: off
GOLDEN = (
    6, 6, 6, 1640, 483, 29, 2046, 1621, 273, 34, 202, 202, 6, 6, 6, 4101, 1203, 29, 1336, 4133, 17, 0,
    202, 202, 6, 6, 6, 1640, 483, 29, 4409, 34, 202, 202, 6, 6, 6, 4101, 1203, 29,
)
# fmt: on
LEARNED = [18, 19, 20, 21]


class Counted(Encoder):
    """Keeps the texts that the tokenizer is given."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary, vocabulary.template("koalpaca"))
        self.read: list[str] = []

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        self.read += texts
        return super()._ids(texts)


@pytest.mark.parametrize("kind", ["embedded", "llama", "gpt2", "sp-legacy"])
def test_choices_of_one_question_share_the_reading_of_its_prompt(vocabularies: Vocabularies, kind: str) -> None:
    asked = [
        Rendered((content(question), replace(content(choice), learn=True)), f"x:{n}")
        for n, question in enumerate(("질문: 수도는?\n답:", "<|endoftext|> 질문: 수도는?\n답:"))
        for choice in (" 서울", " 부산", " 서울")
    ]
    counted = Counted(vocabularies[kind])
    together = list(counted.encode(asked))
    # two prompts with two different choices each
    assert len(counted.read) == len(set(counted.read)) == 6
    assert together == [next(Counted(vocabularies[kind]).encode([one])) for one in asked]
    assert together[0].ids == together[2].ids != together[1].ids


def test_golden_ids_of_the_embedded_tokenizer() -> None:
    vocabulary = embedded()
    encoder = Encoder(vocabulary, vocabulary.template("koalpaca"))
    encoded = next(
        encoder.conversations(
            [Conversation((Turn("user", "대한민국의 수도는?"), Turn("assistant", "서울입니다."), U2))]
        )
    )
    assert encoded.ids == GOLDEN
    assert [n for n, label in enumerate(encoded.labels) if label != NOT_LEARNED] == LEARNED
