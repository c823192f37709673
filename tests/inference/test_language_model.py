"""Scores against a plain forward pass, answers against transformers' own, and neither swayed by its company."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference.decoding import Sampling, Stream, written
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.inference.reference import HEAD_ROWS, batches
from koalpaca_tune.models import forward
from koalpaca_tune.records import NOT_LEARNED, Conversation, Piece, Rendered, Turn
from koalpaca_tune.templates.template import content
from koalpaca_tune.tokens.encode import Encoder

PAIRS = (
    ("대한민국의 수도는?", "서울이다."),
    ("물은 몇 도에서 끓나요?", "섭씨 백 도에서 끓습니다. 높은 산에서는 더 낮은 온도에서 끓어요."),
    ("밥 먹었어?", "응"),
    ("가을에는 산이 왜 붉어지는지 자세히 설명해 주세요. 아이에게 말하듯이요.", "단풍이 들어서 그래요!"),
    ("영화는 어땠나요?", "정말 재미있었어요. 다시 보고 싶네요!"),
)


def requests(lm: TorchLanguageModel) -> list[Rendered]:
    return [lm.encoder.render(Conversation((Turn("user", q), Turn("assistant", a)))) for q, a in PAIRS]


def prompts(lm: TorchLanguageModel) -> list[Rendered]:
    return [lm.encoder.render(Conversation((Turn("user", q),))) for q, _ in PAIRS]


def reference(lm: TorchLanguageModel, request: Rendered) -> tuple[float, int]:
    """Full logits of one unpadded text with the model's own forward."""
    encoded = next(lm.encoder.encode([request]))
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([encoded.ids]), use_cache=False).logits[0].double()
    logprobs = logits.log_softmax(-1)
    places = [n for n, label in enumerate(encoded.labels) if label != NOT_LEARNED and n]
    return sum(float(logprobs[n - 1, encoded.ids[n]]) for n in places), len(places)


def with_stop(lm: TorchLanguageModel, token: int, batch_tokens: int = 2048) -> TorchLanguageModel:
    """The same model, for which an ordinary token ends an answer."""
    text = lm.encoder.vocabulary.backend.id_to_token(token)
    template = replace(lm.encoder.template, stops=(text,))
    return TorchLanguageModel(lm.model, lm.loaded, Encoder(lm.encoder.vocabulary, template), batch_tokens)


def produced(lm: TorchLanguageModel, prompt: Rendered, limit: int) -> list[int]:
    """transformers' own greedy search, one prompt, no padding."""
    ids = torch.tensor([lm.encoder.prompt(prompt)])
    out = forward.causal(lm.model).generate(ids, max_new_tokens=limit, do_sample=False, eos_token_id=[0])
    new: list[int] = out[0, ids.shape[1] :].tolist()
    return new


def test_scores_equal_a_plain_forward(lm: TorchLanguageModel) -> None:
    for score, request in zip(lm.score(requests(lm)), requests(lm), strict=True):
        logprob, tokens = reference(lm, request)
        assert score.logprob == pytest.approx(logprob, abs=1e-4)
        assert score.tokens == tokens > 0


def test_scores_with_adapter_equal_a_plain_forward_and_differ_from_the_base(tuned: TorchLanguageModel) -> None:
    after = tuned.score(requests(tuned))
    for score, request in zip(after, requests(tuned), strict=True):
        assert score.logprob == pytest.approx(reference(tuned, request)[0], abs=1e-4)
    with tuned.without_adapter():
        before = tuned.score(requests(tuned))
    assert all(abs(a.logprob - b.logprob) > 1e-2 for a, b in zip(after, before, strict=True))
    assert tuned.score(requests(tuned)) == after


@pytest.mark.parametrize("batch_tokens", [1, 64, 150, 100_000])
def test_company_in_a_batch_does_not_change_a_score(lm: TorchLanguageModel, batch_tokens: int) -> None:
    other = TorchLanguageModel(lm.model, lm.loaded, lm.encoder, batch_tokens)
    for a, b in zip(lm.score(requests(lm)), other.score(requests(lm)[::-1])[::-1], strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)
        assert a.tokens == b.tokens


def test_spans_longer_than_one_call_of_the_head(lm: TorchLanguageModel) -> None:
    one = lm.score(requests(lm))
    times = HEAD_ROWS // sum(score.tokens for score in one) + 2
    wide = TorchLanguageModel(lm.model, lm.loaded, lm.encoder, 10**6)
    for a, b in zip(wide.score(requests(lm) * times), one * times, strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)


def test_dropout_stays_out_and_training_mode_comes_back(tuned: TorchLanguageModel) -> None:
    calm = tuned.score(requests(tuned))
    tuned.model.train()
    try:
        assert tuned.score(requests(tuned)) == calm
        assert tuned.model.training
    finally:
        tuned.model.eval()


def test_nothing_to_score_is_an_error(lm: TorchLanguageModel) -> None:
    with pytest.raises(KoalpacaError, match="marks no token"):
        lm.score(prompts(lm))


def test_too_long_for_the_base_is_an_error_before_any_work(lm: TorchLanguageModel) -> None:
    long = Rendered((content("가나다라마바사 " * 300), content(" 아", learn=True)), "a.csv:7")
    with pytest.raises(KoalpacaError, match=r"a\.csv:7: the text is \d+ tokens long; the base has room for 512"):
        lm.score([*requests(lm), long])
    with pytest.raises(KoalpacaError, match="with 500 new tokens"):
        lm.write(prompts(lm), 500)


@pytest.mark.parametrize("batch_tokens", [1, 2048])
def test_greedy_answers_equal_transformers_own(lm: TorchLanguageModel, batch_tokens: int) -> None:
    here = TorchLanguageModel(lm.model, lm.loaded, lm.encoder, batch_tokens)
    for answer, prompt in zip(here.write(prompts(here), 24), prompts(here), strict=True):
        ids = produced(here, prompt, 24)
        assert answer == written(here.encoder.vocabulary, [0], ids)


def test_stop_tokens_end_answers_and_are_left_out(lm: TorchLanguageModel) -> None:
    raw = [produced(lm, prompt, 24) for prompt in prompts(lm)]
    stop = raw[0][5]
    answers = with_stop(lm, stop).write(prompts(lm), 24)
    assert answers[0].stopped
    for answer, ids in zip(answers, raw, strict=True):
        assert answer == written(lm.encoder.vocabulary, [0, stop], ids)
        assert answer.stopped == bool({0, stop} & set(ids))
    assert answers[0].tokens == raw[0].index(stop)


def test_a_stop_text_ends_an_answer_before_it(lm: TorchLanguageModel) -> None:
    whole = lm.write(prompts(lm), 24)
    raw = [produced(lm, prompt, 24) for prompt in prompts(lm)]
    decode = lm.encoder.vocabulary.decode
    # two characters from the middle of the first answer; a text that no answer has
    text = decode(raw[0])
    until = (text[len(text) // 2 : len(text) // 2 + 2], "\n\n없는 말")
    answers = lm.write(prompts(lm), 24, until=until)
    for answer, before, ids in zip(answers, whole, raw, strict=True):
        here = decode(ids)
        if until[0] in here:
            assert answer.text == here[: here.index(until[0])].strip()
            assert answer.stopped
            assert answer.tokens < before.tokens
            assert decode(ids[: answer.tokens]).startswith(here[: here.index(until[0])])
        else:
            assert answer == before
    assert until[0] in text
    # alone each answer is the same
    assert [lm.write([prompt], 24, until=until)[0] for prompt in prompts(lm)] == answers


def test_a_batch_is_over_when_all_have_met_a_stop_text(
    lm: TorchLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = [lm.encoder.vocabulary.decode(produced(lm, prompt, 24)) for prompt in prompts(lm)]
    # the first character of each answer that is no space: all end with their first word
    until = tuple({text.strip()[0] for text in raw})
    steps: list[int] = []
    model = forward.causal(lm.model)
    original = model.forward

    def counted(*args: object, **kwargs: object) -> object:
        steps.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counted)
    plain = TorchLanguageModel(lm.model, lm.loaded, lm.encoder, engine="plain")
    answers = plain.write(prompts(lm), 24, until=until)
    assert len(steps) < 12
    assert all(answer.stopped and answer.text == "" for answer in answers)


def test_a_stop_text_that_ends_in_the_middle_of_a_token(lm: TorchLanguageModel) -> None:
    vocabulary = lm.encoder.vocabulary
    ids = vocabulary.backend.encode(" 서울입니다.\n질문: 부산은?").ids
    answer = written(vocabulary, [0], ids, ["\n", "질문"])
    assert answer == written(vocabulary, [0], [*vocabulary.backend.encode(" 서울입니다.").ids, 0])
    # the first place counts, not the first text
    assert written(vocabulary, [0], ids, ["부산", "입니다"]).text == "서울"
    # nothing before it; and a stop token that comes first
    assert written(vocabulary, [0], ids, [" 서울"]) == ("", True, 0)
    cut = written(vocabulary, [0], [*ids[:2], 0, *ids[2:]], ["질문"])
    assert cut == written(vocabulary, [0], [*ids[:2], 0])


def test_the_limit_is_not_a_stop(lm: TorchLanguageModel) -> None:
    answers = lm.write(prompts(lm), 3)
    assert all(answer.tokens == 3 and not answer.stopped for answer in answers)


def test_the_cache_is_on_even_when_training_recomputes(
    tuned: TorchLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []
    model = forward.causal(tuned.model)
    original = model.forward

    def counted(*args: object, **kwargs: object) -> object:
        widths.append(kwargs["input_ids"].shape[1])  # type: ignore[attr-defined]
        return original(*args, **kwargs)

    plain = TorchLanguageModel(tuned.model, tuned.loaded, tuned.encoder, engine="plain")
    before = plain.write(prompts(tuned)[:2], 6)
    monkeypatch.setattr(model, "forward", counted)
    tuned.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    tuned.model.train()
    try:
        assert plain.write(prompts(tuned)[:2], 6) == before
        assert tuned.write(prompts(tuned)[:2], 6) == before
    finally:
        tuned.model.gradient_checkpointing_disable()
        tuned.model.eval()
    assert widths[0] > 1
    assert widths[1:] == [1] * (len(widths) - 1)


def test_the_base_own_generation_settings_do_not_join_in(
    lm: TorchLanguageModel, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    lm = TorchLanguageModel(lm.model, lm.loaded, lm.encoder, engine="plain")
    before = lm.write(prompts(lm), 12)
    own = lm.model.generation_config
    theirs = type(own)(repetition_penalty=5.0, temperature=0.1, top_p=0.3, do_sample=True, max_length=20)
    lm.model.generation_config = theirs
    try:
        logging.getLogger("transformers").propagate = True
        caplog.clear()
        capfd.readouterr()
        assert lm.write(prompts(lm), 12) == before
        assert lm.model.generation_config is theirs
    finally:
        logging.getLogger("transformers").propagate = False
        lm.model.generation_config = own
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert capfd.readouterr().err == ""


def test_sampling_depends_on_the_seed_alone(lm: TorchLanguageModel) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = lm.write(prompts(lm), 8, sampling=Sampling(1.5, 0.95, seed=7))
    assert torch.equal(torch.get_rng_state(), state)
    assert lm.write(prompts(lm)[2:], 8, sampling=Sampling(1.5, 0.95, seed=7)) == first[2:]
    assert lm.write(prompts(lm), 8, sampling=Sampling(1.5, 0.95, seed=8)) != first


def test_a_stream_is_the_answer_in_whole_syllables(lm: TorchLanguageModel) -> None:
    shown: list[str] = []
    answers = lm.write(prompts(lm)[:1], 24, show=shown.append)
    assert "".join(shown) == answers[0].text


def test_half_a_syllable_waits(lm: TorchLanguageModel) -> None:
    vocabulary = lm.encoder.vocabulary
    ids = vocabulary.backend.encode(" 뷁이 왔다").ids
    shown: list[str] = []
    stream = Stream(vocabulary, [0], shown.append)
    stream.put(torch.tensor([[5, 6, 7]]))
    for token in ids:
        stream.put(torch.tensor([token]))
    stream.end()
    assert "".join(shown) == "뷁이 왔다"
    assert not any("\ufffd" in text for text in shown)
    cut = written(vocabulary, [0], vocabulary.backend.encode(" 왔뷁").ids[:-1])
    assert cut.text.startswith("왔")
    assert "\ufffd" not in cut.text


def test_no_requests_no_results(lm: TorchLanguageModel) -> None:
    assert lm.score([]) == []
    assert lm.write([], 5) == []


@pytest.mark.parametrize(("costs", "budget"), [([3, 9, 1, 9, 4], 12), ([5], 1), ([], 4), ([2] * 7, 6)])
def test_batches_hold_everything_once_within_the_budget(costs: Sequence[int], budget: int) -> None:
    groups = list(batches(costs, budget))
    assert sorted(n for group in groups for n in group) == list(range(len(costs)))
    for group in groups:
        assert len(group) == 1 or max(costs[n] for n in group) * len(group) <= budget


def test_literal_special_tokens_in_a_question_stay_text(lm: TorchLanguageModel) -> None:
    user = lm.encoder.render(Conversation((Turn("user", "이게 <|endoftext|> 뭐야?"), Turn("assistant", "끝"))))
    assert isinstance(user.pieces[0], Piece)
    encoded = next(lm.encoder.encode([user]))
    assert encoded.ids.count(0) == 1
    assert lm.score([user])[0].logprob == pytest.approx(reference(lm, user)[0], abs=1e-4)
