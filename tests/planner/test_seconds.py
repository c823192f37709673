"""Time: what was measured on the H200 comes out, and what must be faster is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from koalpaca_tune.planner import fp8
from koalpaca_tune.planner.card import CARDS
from koalpaca_tune.planner.choice import RECOMPUTE, Choice, Recompute
from koalpaca_tune.planner.seconds import PARTS, seconds, useful_flop
from koalpaca_tune.planner.work import Work

H200 = CARDS["h200"]
WHOLE = Choice(16384, "none", 0, False)


def total(work: Work, choice: Choice, card: str = "h200") -> float:
    return sum(seconds(work, choice, CARDS[card]).values())


# What ceiling.py's bursts of a second reach; in a run of minutes the card's 700 W allow a tenth less.
BURST = 748e12

# shared/bench/ceiling.py on one H200: matrix products, cuDNN's and flash's attention, head, in ms for 16,384 tokens
CEILING = {
    "polyglot-ko-5.8b": (494, 70, 126, 10),
    "polyglot-ko-12.8b": (1131, 104, 217, 12),
    "llama-3-8b": (630, 69, 155, 48),
}


@pytest.mark.parametrize("name", CEILING)
def test_products_attention_and_head_take_what_was_measured(name: str, measured_work: Callable[..., Work]) -> None:
    products, cudnn, flash, head = (ms / 1e3 for ms in CEILING[name])
    parts = seconds(measured_work(name), WHOLE, replace(H200, matmul=BURST))
    assert parts["matmuls"] == pytest.approx(products, rel=0.05)
    assert parts["attention"] == pytest.approx(cudnn, rel=0.06)
    assert parts["head"] == pytest.approx(head, abs=0.004)
    flashed = seconds(measured_work(name, attention="flash"), WHOLE, H200)
    assert flashed["attention"] == pytest.approx(flash, rel=0.1)


# bench/ours.py on one H200, 2026-11-21 (bench/results/train-h200-2026-11-21.log): tokens/s
OURS = [
    ("polyglot-ko-5.8b", Choice(8192, "none", 28, False), 23_493),
    ("polyglot-ko-5.8b", Choice(8192, "none", 0, False), 22_948),
    ("polyglot-ko-5.8b", Choice(16384, "offload", 0, False), 18_619),
    ("polyglot-ko-12.8b", Choice(8192, "none", 40, False), 11_453),
    ("polyglot-ko-12.8b", Choice(4096, "none", 0, False), 10_784),
    ("llama-3-8b", Choice(16384, "none", 8, False), 17_163),
    ("llama-3-8b", Choice(4096, "none", 8, False), 16_682),
]


# bench/results/scaling-h200-2026-11-21.jsonl: seconds of 16,384 tokens in documents of 2,048 (or of a micro-step)
SCALING = [
    ("polyglot-ko-1.3b", Choice(512, "none", 24, True), 0.2323),
    ("polyglot-ko-1.3b", Choice(1024, "none", 24, False), 0.6521),
    ("polyglot-ko-1.3b", Choice(16384, "none", 18, False), 0.1655),
    ("polyglot-ko-3.8b", Choice(1024, "none", 32, False), 0.8579),
    ("polyglot-ko-3.8b", Choice(2048, "none", 32, False), 0.4811),
    ("polyglot-ko-3.8b", Choice(16384, "none", 32, False), 0.4551),
    ("polyglot-ko-5.8b", Choice(512, "none", 28, False), 1.5590),
    ("polyglot-ko-5.8b", Choice(2048, "none", 28, False), 0.6924),
    ("polyglot-ko-5.8b", Choice(16384, "none", 28, False), 0.6747),
    ("polyglot-ko-12.8b", Choice(1024, "none", 40, False), 1.5077),
    ("polyglot-ko-12.8b", Choice(8192, "none", 40, False), 1.4080),
    ("llama-2-7b", Choice(512, "none", 32, False), 2.7146),
    ("llama-2-7b", Choice(2048, "none", 32, False), 0.8700),
    ("llama-2-7b", Choice(16384, "none", 32, False), 0.8098),
]


@pytest.mark.parametrize(("name", "choice", "took"), SCALING)
def test_small_and_large_micro_steps_take_what_was_measured(
    name: str, choice: Choice, took: float, measured_work: Callable[..., Work]
) -> None:
    row = min(choice.micro_tokens, 2048)
    work = measured_work(name, document_tokens=float(row), longest=row)
    assert total(work, choice) == pytest.approx(took, rel=0.05)


@pytest.mark.parametrize(("name", "choice", "speed"), OURS)
def test_a_step_takes_what_ours_was_measured_to(
    name: str, choice: Choice, speed: int, measured_work: Callable[..., Work]
) -> None:
    assert 16384 / total(measured_work(name), choice) == pytest.approx(speed, rel=0.06)


@pytest.mark.parametrize(
    ("name", "recompute", "speed"),
    [
        ("polyglot-ko-5.8b", "none", 15_586),
        ("polyglot-ko-5.8b", "blocks", 11_396),
        ("polyglot-ko-12.8b", "none", 7_659),
        ("polyglot-ko-12.8b", "blocks", 5_713),
        ("llama-3-8b", "none", 11_225),
        ("llama-3-8b", "blocks", 7_856),
    ],
)
def test_the_plain_engine_is_as_fast_as_trl_was(
    name: str, recompute: Recompute, speed: int, measured_work: Callable[..., Work]
) -> None:
    work = measured_work(name, engine="plain", dropout=True)
    assert 16384 / total(work, replace(WHOLE, recompute=recompute)) == pytest.approx(speed, rel=0.1)


def test_parts_have_one_order_and_none_is_negative(measured_work: Callable[..., Work]) -> None:
    for recompute in RECOMPUTE:
        parts = seconds(measured_work("llama-3-8b"), Choice(2048, recompute, 4, False), H200)
        assert tuple(parts) == PARTS
        assert min(parts.values()) >= 0.0


def test_more_recompute_is_never_faster_and_a_larger_micro_step_never_slower(
    measured_work: Callable[..., Work],
) -> None:
    work = measured_work("polyglot-ko-3.8b")
    took = [total(work, replace(WHOLE, recompute=policy)) for policy in RECOMPUTE]
    assert took == sorted(took)
    cut = [total(work, replace(WHOLE, micro_tokens=size)) for size in (16384, 8192, 4096, 2048)]
    assert cut == sorted(cut)


def test_a_cache_saves_dequantising_and_nothing_else(measured_work: Callable[..., Work]) -> None:
    work = measured_work("polyglot-ko-5.8b")
    without, whole = (seconds(work, Choice(2048, "none", n, False), H200) for n in (0, 28))
    assert whole["dequantise"] == 0.0
    # performance.md: 8.5 % of a step at 2,048 tokens
    assert without["dequantise"] / sum(without.values()) == pytest.approx(0.085, abs=0.03)
    assert {part for part in PARTS if without[part] != whole[part]} == {"dequantise"}


def test_small_micro_steps_wait_for_the_host_unless_a_graph_is_replayed(measured_work: Callable[..., Work]) -> None:
    work = measured_work("polyglot-ko-1.3b", step_tokens=128, document_tokens=64.0, longest=100)
    slow = seconds(work, Choice(128, "none", 0, False), H200)
    assert slow["launches"] > 0.0
    assert seconds(work, Choice(128, "none", 0, True), H200)["launches"] == 0.0
    assert seconds(measured_work("polyglot-ko-12.8b"), WHOLE, H200)["launches"] == 0.0


def test_attention_takes_the_kernel_that_the_engine_takes(measured_work: Callable[..., Work]) -> None:
    """Padding to 64 tokens makes a last document that is not as long as the others: no cuDNN."""

    def attention(card: str, **different: object) -> float:
        return seconds(measured_work("polyglot-ko-5.8b", **different), WHOLE, CARDS[card])["attention"]

    flash = attention("h200", attention="flash")
    assert attention("h200") < flash
    assert attention("h200", document_tokens=1500.0) > attention("h200", attention="cudnn")
    # flash-attn-4 is quicker than flash whatever the lengths, but `auto` does not count on finding it
    assert attention("h200", attention="flash4") < flash
    uneven = {"step_tokens": 8 * 2047, "longest": 2047, "document_tokens": 2047.0}
    assert attention("h200", **uneven) > attention("h200")
    # heads of 256 have no flash backward pass on an RTX 4090; those of 128 have
    assert attention("4090") > attention("4090", attention="flash")
    assert attention("a100-80") == attention("a100-80", attention="flash")


def test_short_documents_have_little_attention_and_unlearned_tokens_no_head(
    measured_work: Callable[..., Work],
) -> None:
    long = seconds(measured_work("llama-3-8b", attention="flash"), WHOLE, H200)
    short = seconds(measured_work("llama-3-8b", document_tokens=256.0, learned_share=0.25), WHOLE, H200)
    assert short["attention"] < long["attention"] / 4
    assert short["head"] == pytest.approx(long["head"] / 4)


@pytest.mark.parametrize(
    ("slower", "part"),
    [
        ({"fold_lora": False}, "lora"),
        ({"dropout": True}, "lora"),
        ({"fused": False}, "elementwise"),
        ({"double_quant": False}, "dequantise"),
        ({"optimizer_bytes": 16.0}, "optimizer"),
        ({"compute_bytes": 4}, "matmuls"),
    ],
)
def test_every_setting_has_its_price(
    slower: dict[str, object], part: str, measured_work: Callable[..., Work]
) -> None:
    quick, slow = (seconds(measured_work("llama-3-8b", **kind), WHOLE, H200) for kind in ({}, slower))
    assert slow[part] > quick[part]


def test_products_in_e4m3_take_half_the_time_and_head_and_attention_what_they_took(
    measured_work: Callable[..., Work],
) -> None:
    half, narrow = (seconds(measured_work("llama-3-8b", **kind), WHOLE, H200) for kind in ({}, {"compute": "fp8"}))
    assert narrow["matmuls"] == pytest.approx(half["matmuls"] * H200.matmul / H200.matmul8)
    assert narrow["attention"] == half["attention"]
    assert narrow["head"] == half["head"]
    # LoRA's narrow products stay; something must be quantised; of uncached weights fewer bytes are written
    assert 0.5 * half["lora"] < narrow["lora"] <= half["lora"]
    apart = seconds(measured_work("llama-3-8b", compute="fp8", fold_lora=False), WHOLE, H200)
    assert apart["lora"] > narrow["lora"]
    assert narrow["elementwise"] > half["elementwise"]
    assert narrow["dequantise"] < half["dequantise"]
    again = replace(WHOLE, recompute="blocks")
    both = [seconds(measured_work("llama-3-8b", **kind), again, H200) for kind in ({}, {"compute": "fp8"})]
    assert both[1]["recompute"] < 0.6 * both[0]["recompute"]


def test_bytes_that_e4m3_moves_for_a_token_of_a_block(measured_work: Callable[..., Work]) -> None:
    """GPT-NeoX with LoRA on query_key_value, by hand; H hidden, F = 4 H, Q = H."""
    forward, backward = fp8.moved(measured_work("polyglot-ko-5.8b", compute="fp8"))
    # qkv's input once more, up's and down's in half; attention's result quantised; dense and down added up
    assert forward == 4096 * (1 - 1 - 4 + 3 + 4)
    # the gradients at qkv's result and at the residual quantised; GELU's written in half
    assert backward == 4096 * (9 + 3 - 4)
    wide = fp8.moved(measured_work("llama-3-8b", compute="fp8"))
    assert wide == (4096 * (1 + 1 + 3) + 14336, 3 * (4096 + 2 * 1024) + 2 * 3 * 4096 + 2 * 14336)


def test_without_fast_products_in_e4m3_nothing_is_gained_by_them(measured_work: Callable[..., Work]) -> None:
    """Of a card that is not in the table the rate may not be known; plain kernels multiply in 16 bits."""
    work = measured_work("polyglot-ko-5.8b", compute="fp8")
    unknown = seconds(work, WHOLE, replace(H200, matmul8=0.0))
    assert unknown["matmuls"] == seconds(measured_work("polyglot-ko-5.8b"), WHOLE, H200)["matmuls"]
    assert seconds(replace(work, fused=False), WHOLE, H200)["matmuls"] == unknown["matmuls"]


def test_offload_waits_where_the_link_is_slower_than_the_card(measured_work: Callable[..., Work]) -> None:
    work = measured_work("polyglot-ko-1.3b")
    choice = Choice(16384, "offload", 0, False)
    slow = seconds(work, choice, replace(H200, host_link=2e9))
    assert slow["offload"] > 10 * seconds(work, choice, H200)["offload"]


def test_useful_work_is_that_of_the_roofline(measured_work: Callable[..., Work]) -> None:
    """performance.md: the limit of 786 TFLOP/s is 32.0k, 14.7k and 24.8k tokens/s (LoRA's own products aside)."""
    for name, limit in (("polyglot-ko-5.8b", 32_000), ("polyglot-ko-12.8b", 14_700), ("llama-3-8b", 24_800)):
        work = measured_work(name)
        flop = useful_flop(work) - 6 * work.adapter_parameters * work.step_tokens
        assert 16384 * 786e12 / flop == pytest.approx(limit, rel=0.03)
