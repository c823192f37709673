"""Writing by our own decoder: what `generate` writes, whoever else is there, adapters mixed; texts come and go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from koalpaca_tune.engine.prompt_pass import PromptPass
from koalpaca_tune.inference.decoding import Sampling
from koalpaca_tune.inference.generation import choosing, writer
from koalpaca_tune.inference.generation.decoder import Decoder
from koalpaca_tune.inference.generation.request import Request, Token
from koalpaca_tune.inference.generation.session import Session
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.models.forward import causal
from koalpaca_tune.records import Conversation, Turn

PROMPTS = [tuple(range(5, 5 + n)) for n in (1, 9, 4, 23)]
NEW = 9


def theirs(model: Any, ids: Sequence[int], new: int = NEW) -> list[int]:
    with torch.inference_mode():
        out = causal(model).generate(
            torch.tensor([ids]), max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=1
        )
    found: list[int] = out[0, len(ids) :].tolist()
    return found


def decoder(lm: TorchLanguageModel, *adapters: str, slots: int = 3, room: int = 64, **kwargs: Any) -> Decoder:
    with torch.inference_mode():
        return Decoder(
            lm.model,
            lm.loaded.architecture,
            dtype=torch.float32,
            adapters=adapters,
            slots=slots,
            room=room,
            **kwargs,
        )


def run(one: Decoder | Session, requests: Sequence[Request]) -> list[list[int]]:
    session = one if isinstance(one, Session) else Session(one)
    tickets = [session.add(request) for request in requests]
    with torch.inference_mode():
        tokens = list(session.run())
    return [[token.id for token in tokens if token.ticket == ticket] for ticket in tickets]


@pytest.fixture(scope="module")
def mixed(tuned_base: Callable[..., TorchLanguageModel]) -> dict[str, TorchLanguageModel]:
    """Of each family a 4-bit base with two adapters, 'default' and 'wider' (of another rank)."""
    made = {}
    for family in ("gpt_neox", "llama"):
        lm = tuned_base(family, four_bit=True)
        config = lm.model.peft_config["default"]
        lm.model.add_adapter("wider", type(config)(**{**config.to_dict(), "r": 6}))
        generator = torch.Generator().manual_seed(9)
        with torch.no_grad():
            for name, parameter in lm.model.named_parameters():
                if ".wider." in name:
                    parameter.normal_(std=0.1, generator=generator)
        lm.model.eval()
        made[family] = lm
    return made


def test_greedy_tokens_are_those_of_generate_though_texts_wait_for_a_slot(lm: TorchLanguageModel) -> None:
    found = run(decoder(lm, slots=2), [Request(ids, NEW) for ids in PROMPTS])
    assert found == [theirs(lm.model, ids) for ids in PROMPTS]


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_adapters_may_be_mixed_in_a_batch(mixed: dict[str, TorchLanguageModel], family: str) -> None:
    lm = mixed[family]
    expected = {}
    for name in ("default", "wider"):
        lm.model.set_adapter(name)
        expected[name] = [theirs(lm.model, ids) for ids in PROMPTS]
    lm.model.set_adapter("default")
    with lm.without_adapter():
        expected["none"] = [theirs(lm.model, ids) for ids in PROMPTS]
    assert len({str(found) for found in expected.values()}) == 3
    order = ["default", "none", "wider", "default", "wider", "none", "none", "default"]
    requests = [
        Request(PROMPTS[n % 4], NEW, adapter=None if name == "none" else name) for n, name in enumerate(order)
    ]
    wanted = [expected[name][n % 4] for n, name in enumerate(order)]
    beside = decoder(lm, "default", "wider", decoded=True)
    assert run(beside, requests) == wanted
    # and read as they are, in 4 bits; or one of them inside the weights
    assert run(decoder(lm, "default", "wider"), requests[:4]) == wanted[:4]
    inside = decoder(lm, "wider", decoded=True, inside=True)
    assert run(inside, [Request(ids, NEW) for ids in PROMPTS]) == expected["wider"]


@pytest.mark.parametrize("inside", [False, True])
def test_an_adapter_that_has_learned_is_taken_up_anew(tuned: TorchLanguageModel, inside: bool) -> None:
    request = Request(PROMPTS[1], NEW, adapter="default", prefix=4)
    one = decoder(tuned, "default", inside=inside)
    before = run(one, [request])
    assert before == [theirs(tuned.model, request.ids)]
    part = next(parameter for name, parameter in tuned.model.named_parameters() if ".lora_B" in name)
    kept = part.detach().clone()
    try:
        part.data.add_(2.0)
        with torch.inference_mode():
            one.renew()
        assert run(one, [request]) == [theirs(tuned.model, request.ids)] != before
    finally:
        part.data.copy_(kept)


def test_a_common_beginning_is_computed_once_and_changes_nothing(
    lm: TorchLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = tuple(range(40, 60))
    prompts = [begin + ids for ids in PROMPTS]
    computed: list[int] = []
    original = PromptPass.fill

    def fill(self: PromptPass, texts: Sequence[Sequence[int]], *rest: Any) -> Tensor:
        computed.extend(map(len, texts))
        return original(self, texts, *rest)

    monkeypatch.setattr(PromptPass, "fill", fill)
    one = decoder(lm, slots=4)
    found = run(one, [Request(ids, NEW, prefix=len(begin)) for ids in prompts])
    assert computed == [20, 1, 9, 4, 23]
    assert found == [theirs(lm.model, ids) for ids in prompts]
    # again later, and for a prompt that is nothing else: its last token is computed all the same
    computed.clear()
    assert run(one, [Request(prompts[2], NEW, prefix=20), Request(begin, NEW, prefix=20)]) == [
        found[2],
        theirs(lm.model, begin),
    ]
    assert computed == [4, 19, 1]


def test_stops_limits_and_cancelled_texts_leave_and_others_take_their_slots(lm: TorchLanguageModel) -> None:
    whole = [theirs(lm.model, ids, 20) for ids in PROMPTS]
    stop = whole[1][3]
    at = whole[1].index(stop)
    session = Session(decoder(lm, slots=2))
    limit = session.add(Request(PROMPTS[0], 5))
    stopped = session.add(Request(PROMPTS[1], 20, stops=(10**6, stop)))
    given_up = session.add(Request(PROMPTS[2], 20))
    never = session.add(Request(PROMPTS[3], 20))
    last = session.add(Request(PROMPTS[3], 20))
    assert (session.waiting, session.live) == (5, 0)
    tokens: list[Token] = []
    with torch.inference_mode():
        session.cancel(never)
        while session.busy:
            tokens += session.step()
            if sum(token.ticket == given_up for token in tokens) == 3:
                session.cancel(given_up)
                # a second time, and one that is not there, are nothing
                session.cancel(given_up)
                session.cancel(10**6)
    assert (session.waiting, session.live, session.busy) == (0, 0, False)

    def of(ticket: int) -> tuple[list[int], list[str | None]]:
        own = [token for token in tokens if token.ticket == ticket]
        return [token.id for token in own], [token.end for token in own]

    assert of(limit) == (whole[0][:5], [None] * 4 + ["length"])
    assert of(stopped) == (whole[1][: at + 1], [None] * at + ["stop"])
    assert of(never) == ([-1], ["cancelled"])
    ids, ends = of(given_up)
    assert (ids[-1], ends[-1]) == (-1, "cancelled")
    assert ids[:-1] == whole[2][: len(ids) - 1]
    assert 3 <= len(ids) - 1 < 20
    assert of(last) == (whole[3], [None] * 19 + ["length"])


def test_a_text_may_fill_its_slot_to_the_end(lm: TorchLanguageModel) -> None:
    one = decoder(lm, slots=1, room=64)
    request = Request(tuple(range(5, 45)), 25)
    assert one.room == 64
    assert run(one, [request]) == [theirs(lm.model, request.ids, 25)]
    with pytest.raises(ValueError, match="there is room for 65"):
        Session(one).add(Request(request.ids, 26))
    with pytest.raises(ValueError, match="no adapter 'other'"):
        Session(one).add(Request(request.ids, 2, adapter="other"))
    with pytest.raises(ValueError, match="9 stop ids"):
        Session(one).add(Request(request.ids, 2, stops=tuple(range(9))))


def test_what_is_drawn_depends_on_the_seed_and_not_on_neighbours(lm: TorchLanguageModel) -> None:
    requests = [Request(ids, NEW, sampling=Sampling(2.0, 0.95, seed)) for seed, ids in enumerate(PROMPTS)]
    requests.insert(2, Request(PROMPTS[1], NEW))
    state = torch.get_rng_state()
    together = run(decoder(lm, slots=4), requests)
    one = decoder(lm, slots=1)
    assert [run(one, [request])[0] for request in requests] == together
    assert torch.equal(torch.get_rng_state(), state)
    assert together[2] == theirs(lm.model, PROMPTS[1])
    other = Request(PROMPTS[0], NEW, sampling=Sampling(2.0, 0.95, 77))
    assert run(one, [other])[0] != together[0]
    # at next to no temperature only the likeliest is left
    cold = [Request(ids, NEW, sampling=Sampling(1e-4, 1.0, 3)) for ids in PROMPTS]
    assert run(one, cold) == [theirs(lm.model, ids) for ids in PROMPTS]


def drawn(logits: Tensor, draws: int, temperature: float, top_p: float) -> Tensor:
    """How often each token comes, over as many seeds."""
    rows = logits.expand(draws, -1)
    found = choosing.drawn(
        rows,
        torch.full((draws,), temperature),
        torch.full((draws,), top_p),
        torch.arange(draws),
        torch.zeros(draws, dtype=torch.int64),
    )
    return torch.bincount(found, minlength=logits.shape[-1]) / draws


def test_draws_have_the_shares_of_the_softmax_and_stay_within_top_p() -> None:
    shares = torch.tensor([0.1, 0.5, 0.15, 0.25])
    logits = shares.log()
    # four standard errors of 20,000 draws
    assert torch.allclose(drawn(logits, 20_000, 1.0, 1.0), shares, atol=0.015)
    # 0.5 has not reached 0.7, so 0.25 stays; 0.75 has
    found = drawn(logits, 20_000, 1.0, 0.7)
    assert found[0] == found[2] == 0.0
    assert float(found[1]) == pytest.approx(2 / 3, abs=0.015)
    # at temperature 1/2 shares are squared
    squared = shares.square() / shares.square().sum()
    assert torch.allclose(drawn(logits, 20_000, 0.5, 1.0), squared, atol=0.015)
    assert drawn(logits, 100, 1.0, 1e-6).tolist() == [0.0, 1.0, 0.0, 0.0]
    assert drawn(logits, 100, 0.0, 1.0).tolist() == [0.0, 1.0, 0.0, 0.0]


def test_uniform_numbers_fill_the_interval_and_differ_by_seed_and_count() -> None:
    seeds, counts = torch.meshgrid(torch.arange(100), torch.arange(100), indexing="ij")
    found = choosing.uniform(seeds.flatten(), counts.flatten())
    assert 0.0 <= float(found.min()) < 1e-3
    assert 0.999 < float(found.max()) < 1.0
    assert float(found.mean()) == pytest.approx(0.5, abs=0.012)
    assert len(found.unique()) > 9_990
    grid = found.view(100, 100) - 0.5
    # neighbours in seed or count tell nothing of each other: a correlation of 10,000 pairs is within 0.04
    for shifted in (grid.roll(1, 0), grid.roll(1, 1)):
        assert abs(float((grid * shifted).mean() * 12)) < 0.04


def asked(lm: TorchLanguageModel) -> list[Any]:
    texts = (
        "대한민국의 수도는?",
        "물은 몇 도에서 끓나요?",
        "밥 먹었어?",
        "가장 높은 산은 어디에 있나요? 짧게 답해 줘.",
    )
    return [lm.encoder.render(Conversation((Turn("user", text),))) for text in texts]


@pytest.mark.parametrize("four_bit", [False, True])
@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_a_model_writes_the_same_by_our_decoder_and_by_transformers(
    tuned_base: Callable[..., TorchLanguageModel], family: str, four_bit: bool
) -> None:
    lm = tuned_base(family, four_bit=four_bit)
    plain = TorchLanguageModel(lm.model, lm.loaded, lm.encoder, engine="plain")
    assert writer.obstacle_of(lm.model, lm.loaded) is None
    here = lm.write(asked(lm), 12)
    assert here == plain.write(asked(lm), 12)
    assert lm.pace is not None
    assert lm.pace.tokens >= sum(answer.tokens for answer in here)
    assert 0.0 < lm.pace.first <= lm.pace.seconds
    with lm.without_adapter():
        base = lm.write(asked(lm), 12)
        assert base == plain.write(asked(lm), 12) != here
    assert plain.pace is None
    # a little memory means few texts at a time, and the same answers
    small = TorchLanguageModel(lm.model, lm.loaded, lm.encoder, 1)
    assert small.write(asked(lm), 12) == here


def test_what_the_decoder_cannot_compute_is_written_by_transformers(
    tuned_base: Callable[..., TorchLanguageModel],
) -> None:
    lm = tuned_base("gpt_neox", four_bit=False)
    lm.model.add_adapter("second", lm.model.peft_config["default"])
    assert writer.obstacle_of(lm.model, lm.loaded) == "an adapter that is no single LoRA of the blocks' linears"
    plain = TorchLanguageModel(lm.model, lm.loaded, lm.encoder, engine="plain")
    assert lm.write(asked(lm), 6) == plain.write(asked(lm), 6)
    assert lm.pace is None
    other = tuned_base("llama", four_bit=False)
    causal(other.model).get_output_embeddings().to(torch.bfloat16)
    assert writer.obstacle_of(other.model, other.loaded) == "embeddings of another type than the products"
