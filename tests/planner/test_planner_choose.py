"""Choosing: always within the budget, never slower for more of it, and a clear word where nothing fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.planner import constants
from koalpaca_tune.planner.card import CARDS, budget, find
from koalpaca_tune.planner.choice import Choice, Fixed
from koalpaca_tune.planner.choose import choose, smallest
from koalpaca_tune.planner.shape import SHAPES
from koalpaca_tune.planner.work import Work

GIB = 1 << 30
H200 = CARDS["h200"]


def refused(work: Work, gib: float, fixed: Fixed | None = None) -> str:
    with pytest.raises(KoalpacaError) as error:
        choose(work, H200, int(gib * GIB), fixed or Fixed())
    (problem,) = error.value.problems
    assert problem.code == "memory-short"
    return str(problem)


def test_a_large_card_recomputes_nothing_and_a_small_one_does(measured_work: Callable[..., Work]) -> None:
    work = measured_work("polyglot-ko-12.8b")
    large, small = choose(work, H200, 130 * GIB), choose(work, H200, 9 * GIB)
    assert large.choice.recompute == "none"
    assert small.choice.recompute in ("blocks", "offload")
    assert large.tokens_per_second > small.tokens_per_second
    assert large.micro_steps < small.micro_steps or large.choice.micro_tokens >= small.choice.micro_tokens


def test_alternatives_are_the_other_policies_that_fit(measured_work: Callable[..., Work]) -> None:
    plan = choose(measured_work("polyglot-ko-5.8b"), H200, 60 * GIB)
    policies = [other.choice.recompute for other in plan.alternatives]
    assert sorted([plan.choice.recompute, *policies]) == ["blocks", "none", "offload", "wide"]
    assert all(other.peak <= plan.budget for other in plan.alternatives)
    assert all(other.step_seconds >= plan.step_seconds * 0.99 for other in plan.alternatives)
    assert choose(measured_work("polyglot-ko-5.8b"), H200, 60 * GIB, Fixed(recompute="wide")).alternatives == ()


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(SHAPES)),
    tokens=st.sampled_from([512, 4096, 16384, 65536]),
    longest=st.sampled_from([256, 1024, 4096]),
    equal=st.booleans(),
    engine=st.sampled_from(["fast", "plain"]),
    card=st.sampled_from(["h200", "a100-40", "4090", "cpu"]),
    gib=st.floats(10.0, 120.0),
    more=st.floats(1.0, 2.0),
)
def test_the_choice_is_within_the_budget_and_more_is_never_slower(
    name: str,
    tokens: int,
    longest: int,
    equal: bool,
    engine: Literal["fast", "plain"],
    card: str,
    gib: float,
    more: float,
) -> None:
    shape = SHAPES[name]
    work = Work(
        shape=shape,
        lora_r=8,
        targets=("query_key_value",) if shape.family == "gpt_neox" else ("q_proj", "v_proj"),
        step_tokens=max(tokens, longest),
        document_tokens=longest if equal else longest / 3,
        longest=longest,
        engine=engine,
        cuda=card != "cpu",
        compute_bytes=4 if card == "cpu" else 2,
    )
    try:
        plan = choose(work, CARDS[card], int(gib * GIB))
    except KoalpacaError:
        assert smallest(work, CARDS[card])[0] > int(gib * GIB)
        return
    assert plan.peak == sum(plan.memory.values()) <= plan.budget
    assert 0 <= plan.choice.cached_blocks <= shape.layers
    assert longest <= plan.choice.micro_tokens <= max(tokens, longest)
    assert not (card == "cpu" and (plan.choice.graphs or plan.choice.recompute == "offload"))
    larger = choose(work, CARDS[card], int(gib * more * GIB))
    assert larger.step_seconds <= plan.step_seconds * (1 + constants.TIE)
    assert larger.tokens_per_second * larger.step_seconds == pytest.approx(work.step_tokens)


def test_what_is_fixed_stays(measured_work: Callable[..., Work]) -> None:
    work = measured_work("polyglot-ko-5.8b")
    fixed = Fixed(micro_tokens=4096, recompute="blocks", cached_blocks=3, graphs=True)
    assert choose(work, H200, 100 * GIB, fixed).choice == Choice(4096, "blocks", 3, True)


def test_equally_long_documents_are_cut_between_documents(measured_work: Callable[..., Work]) -> None:
    """2,048 tokens a document: a micro-step of 5,000 would compute two and keep room for half a third."""
    work = measured_work("polyglot-ko-5.8b")
    assert work.tokens_at_once(5000) == 4096
    assert work.micro_steps(Choice(5000, "none", 0, False)) == 4
    assert choose(work, H200, 14 * GIB).choice.micro_tokens % 2048 == 0


def test_a_document_is_never_cut(measured_work: Callable[..., Work]) -> None:
    """A recipe may ask for less than a document: it is computed alone, and its memory counts."""
    work = measured_work("polyglot-ko-5.8b", document_tokens=500.0)
    assert work.tokens_at_once(64) == 2048
    assert (
        choose(work, H200, 60 * GIB, Fixed(micro_tokens=64)).peak
        == choose(work, H200, 60 * GIB, Fixed(micro_tokens=2048)).peak
    )


def test_graphs_are_for_work_that_waits_for_the_host(measured_work: Callable[..., Work]) -> None:
    tiny = measured_work("polyglot-ko-1.3b", step_tokens=128, document_tokens=64.0, longest=100)
    assert choose(tiny, H200, 40 * GIB).choice.graphs
    assert not choose(measured_work("polyglot-ko-5.8b"), H200, 60 * GIB).choice.graphs


@pytest.mark.parametrize(
    ("name", "tokens", "graphs"),
    [
        ("polyglot-ko-1.3b", 512, True),
        ("polyglot-ko-1.3b", 1024, True),
        ("polyglot-ko-1.3b", 2048, True),
        ("polyglot-ko-1.3b", 8192, False),
        ("polyglot-ko-3.8b", 1024, True),
        ("polyglot-ko-5.8b", 512, True),
        ("polyglot-ko-12.8b", 512, True),
        ("polyglot-ko-12.8b", 4096, False),
        ("llama-2-7b", 1024, True),
        ("llama-2-7b", 4096, False),
    ],
)
def test_graphs_where_the_host_was_measured_to_be_slower_than_the_card(
    name: str, tokens: int, graphs: bool, measured_work: Callable[..., Work]
) -> None:
    """bench/results/scaling-h200-2026-11-21.jsonl: 25,125 tokens/s without them at 1,024, 70,530 with at 512."""
    row = min(tokens, 2048)
    work = measured_work(name, document_tokens=float(row), longest=row)
    assert choose(work, H200, 130 * GIB, Fixed(micro_tokens=tokens)).choice.graphs == graphs


def test_nothing_fits_and_the_base_is_too_large(measured_work: Callable[..., Work]) -> None:
    work = measured_work("polyglot-ko-12.8b", longest=64, document_tokens=64.0)
    said = refused(work, 5)
    least, _ = smallest(work, H200)
    needs = float(said.split("needs ")[1].split(" GiB")[0])
    assert least / GIB <= needs <= least / GIB + 0.1
    assert "and 5.0 GiB may be used. Use a smaller base, or a card with" in said


def test_nothing_fits_and_shorter_rows_would(measured_work: Callable[..., Work]) -> None:
    work = measured_work("polyglot-ko-5.8b", step_tokens=65536, longest=32768, document_tokens=32768.0)
    said = refused(work, 8)
    length = int(said.split("data.max_length to ")[1].split(" or less")[0].replace(",", ""))
    assert choose(replace(work, longest=length, document_tokens=float(length)), H200, 8 * GIB).peak <= 8 * GIB


def test_nothing_fits_and_the_recipe_is_why(measured_work: Callable[..., Work]) -> None:
    said = refused(measured_work("polyglot-ko-5.8b"), 8, Fixed(micro_tokens=16384, recompute="none"))
    assert "Leave engine.micro_tokens and engine.recompute to the planner" in said


def test_nothing_fits_in_sixteen_bits(measured_work: Callable[..., Work]) -> None:
    assert "quantization.load_in_4bit" in refused(measured_work("polyglot-ko-5.8b", four_bit=False), 9)


def test_more_blocks_to_cache_than_there_are(measured_work: Callable[..., Work]) -> None:
    with pytest.raises(KoalpacaError, match="29 blocks are to be cached, and the base has 28") as error:
        choose(measured_work("polyglot-ko-5.8b"), H200, 60 * GIB, Fixed(cached_blocks=29))
    assert error.value.problems[0].code == "cached-blocks"


def test_a_margin_of_one_gib_or_four_percent() -> None:
    assert budget(10 * GIB) == 9 * GIB
    assert budget(100 * GIB) == 96 * GIB
    assert budget(GIB // 2) == 0


def test_cards_by_the_name_that_torch_gives() -> None:
    assert find("NVIDIA H200") is H200
    assert find("NVIDIA GeForce RTX 4090 Laptop GPU") is None
    assert all(find(device) is card for card in CARDS.values() for device in card.devices)


def test_only_what_was_measured_says_so() -> None:
    assert [card.name for card in CARDS.values() if card.measured] == ["h200"]
    assert all(card.matmul < card.peak for card in CARDS.values())
    # products in e4m3 are twice as fast at the most, and only there since Hopper
    assert all((card.matmul8 > 0.0) == (card.capability >= (9, 0)) for card in CARDS.values())
    assert all(card.matmul8 < 2 * card.peak for card in CARDS.values())
    assert all("estimated" in card.source or "guess" in card.source for card in CARDS.values() if not card.measured)
