"""Scores by the engine's trees: those of transformers one request at a time, whatever stands beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from koalpaca_tune.inference import prefixes, scoring
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.inference.reference import Reference
from koalpaca_tune.inference.scoring import Scorer
from koalpaca_tune.records import Rendered
from koalpaca_tune.templates.template import content

SHOTS = "한글은 누가 만들었나요? 세종대왕이 만들었습니다.\n\n가장 높은 산은? 에베레스트산입니다.\n\n"
QUESTIONS = (
    "대한민국의 수도는 어디인가요?",
    "물은 몇 도에서 끓나요?",
    "잠이 안 올 때 어떻게 하지?",
    "고기가 없으면?",
)
CHOICES = (" 예", " 아니오", " 서울입니다.", " 섭씨 백 도입니다.", " 섭씨 백 도가 아닙니다.")


def asked(front: str, question: str, choice: str) -> Rendered:
    return Rendered((content(front + question), content(choice, learn=True)))


REQUESTS = [asked(front, question, choice) for front, question, choice in product((SHOTS, ""), QUESTIONS, CHOICES)]
"""Shared examples, shared questions, choices that begin alike."""


def one_by_one(lm: TorchLanguageModel, requests: Sequence[Rendered]) -> list[float]:
    """transformers' full logits of each text alone, in float64 after the head."""
    found = []
    for encoded in lm.encoder.encode(requests):
        with torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([encoded.ids]), use_cache=False).logits[0].double()
        logs = logits.log_softmax(-1)
        found.append(
            sum(float(logs[n, encoded.ids[n + 1]]) for n, label in enumerate(encoded.labels[1:]) if label >= 0)
        )
    return found


def close(scores: Sequence[float], others: Sequence[float]) -> None:
    assert max(abs(a - b) for a, b in zip(scores, others, strict=True)) < 1e-4


def values(lm: TorchLanguageModel, requests: Sequence[Rendered]) -> list[float]:
    return [score.logprob for score in lm.score(requests)]


@pytest.mark.parametrize("four_bit", [False, True])
@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_trees_score_as_transformers_one_at_a_time(
    tuned_base: Callable[..., TorchLanguageModel], family: str, four_bit: bool
) -> None:
    lm = tuned_base(family, four_bit=four_bit)
    assert isinstance(lm._scorer(), Scorer)
    tuned = values(lm, REQUESTS)
    close(tuned, one_by_one(lm, REQUESTS))
    with lm.without_adapter():
        plain = values(lm, REQUESTS)
        close(plain, one_by_one(lm, REQUESTS))
    assert min(abs(a - b) for a, b in zip(tuned, plain, strict=True)) > 1e-3
    assert values(lm, REQUESTS) == tuned


def test_bases_without_adapters_and_whole_texts(lm: TorchLanguageModel) -> None:
    whole = [Rendered((content(question + choice, learn=True),)) for question in QUESTIONS for choice in CHOICES]
    close(values(lm, whole), one_by_one(lm, whole))


def test_what_learns_is_read_anew(tuned_base: Callable[..., TorchLanguageModel]) -> None:
    lm = tuned_base("gpt_neox", four_bit=False)
    before = values(lm, REQUESTS)
    with torch.no_grad():
        for name, parameter in lm.model.named_parameters():
            if ".lora_B." in name:
                parameter.mul_(2.0)
    after = values(lm, REQUESTS)
    assert max(abs(a - b) for a, b in zip(after, before, strict=True)) > 1e-2
    close(after, one_by_one(lm, REQUESTS))


ALONE: dict[int, list[float]] = {}
"""Scores of the requests each by itself, by model."""


@settings(max_examples=25)
@given(data=st.data())
def test_a_score_does_not_depend_on_its_company(lm: TorchLanguageModel, data: st.DataObject) -> None:
    if id(lm) not in ALONE:
        ALONE[id(lm)] = [values(lm, [request])[0] for request in REQUESTS]
    alone = ALONE[id(lm)]
    chosen = data.draw(st.lists(st.integers(0, len(REQUESTS) - 1), min_size=1, max_size=30))
    tokens = data.draw(st.integers(1, 400))
    other = TorchLanguageModel(lm.model, lm.loaded, lm.encoder, tokens)
    close(values(other, [REQUESTS[n] for n in chosen]), [alone[n] for n in chosen])


def test_a_lot_fits_whatever_is_asked(lm: TorchLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 requests of some 450 tokens, which share all but the end, and as many that share nothing."""
    filler = "가나다라마바사 아자차카타파하 " * 12
    long = [asked(f"{filler} {n}", "수도는?", choice) for n in range(8) for choice in CHOICES[:4]]
    long += [asked(f"{n} {filler}", "수도는?", choice) for n in range(8) for choice in CHOICES[:4]]
    scorer = Scorer(lm.model, lm.loaded.architecture, torch.float32, adapter=False)
    one = scorer._pass.token_bytes
    seen: list[prefixes.Lot] = []
    compute = Scorer._compute

    def watched(self: Scorer, lot: prefixes.Lot) -> scoring.Sums:
        seen.append(lot)
        return compute(self, lot)

    monkeypatch.setattr(Scorer, "_compute", watched)
    # room for 600 tokens and their keys beside the head's logits
    head = 3 * 4 * scorer._rows * scorer._pass.vocabulary
    monkeypatch.setattr(scoring, "CPU_BYTES", head + 2 * 600 * one)
    encoded = list(lm.encoder.encode(long))
    assert max(len(request.ids) for request in encoded) > 300
    with torch.inference_mode():
        short = scorer.scores(encoded, 16384)
    assert len(seen) > 8
    assert all(lot.tokens <= 600 and lot.keys * scorer._pass.key_bytes <= 600 * one for lot in seen)
    close(short, values(lm, long))


def test_peak_memory_is_told(lm: TorchLanguageModel) -> None:
    other = TorchLanguageModel(lm.model, lm.loaded, lm.encoder)
    assert other.peak_memory == 0
    other.score(REQUESTS[:2])
    assert other.peak_memory > sum(p.numel() * p.element_size() for p in lm.model.parameters())


def test_transformers_stand_in_for_what_the_engine_cannot_compute(
    tuned_base: Callable[..., TorchLanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tuned_base("llama", four_bit=False)
    expected = values(lm, REQUESTS)
    monkeypatch.setattr(lm.model.config, "hidden_act", "gelu")
    assert isinstance(TorchLanguageModel(lm.model, lm.loaded, lm.encoder)._scorer(), Reference)
    monkeypatch.undo()
    plain = TorchLanguageModel(lm.model, lm.loaded, lm.encoder, engine="plain")
    assert isinstance(plain._scorer(), Reference)
    close(values(plain, REQUESTS), expected)
    # a merged adapter is in the weights already, and need not have been so at the first call
    assert isinstance(lm._scorer(), Scorer)
    lm.model.merge_adapter()
    assert isinstance(lm._scorer(), Reference)
    close(values(lm, REQUESTS), expected)
    merged = TorchLanguageModel(lm.model, lm.loaded, lm.encoder)
    assert isinstance(merged._scorer(), Reference)
    close(values(merged, REQUESTS), expected)
