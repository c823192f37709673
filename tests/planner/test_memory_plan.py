"""Memory: golden bytes of one shape, measured peaks of the plain stack, and what must hold for any work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.planner import memory, plain
from koalpaca_tune.planner.card import CARDS
from koalpaca_tune.planner.choice import RECOMPUTE, Choice
from koalpaca_tune.planner.choose import choose
from koalpaca_tune.planner.shape import Shape
from koalpaca_tune.planner.work import Work

GIB = 1 << 30


def peak(work: Work, choice: Choice) -> int:
    return memory.peak(memory.memory(work, choice))


def test_golden_bytes_of_polyglot_ko_5_8b(measured_work: Callable[..., Work]) -> None:
    """By hand: P = 28 x 12 x 4096^2 in 4 bits, 1/64 and 4/(64 x 256) bytes of constants; 9 H + R elements saved."""
    parts = memory.memory(measured_work("polyglot-ko-5.8b"), Choice(16384, "none", 0, False))
    assert list(parts) == list(memory.PARTS)
    linears = 28 * 12 * 4096**2
    assert parts["weights"] == linears // 2 + linears // 64 + 4 * linears // (64 * 256) == 2_908_028_928
    # two embeddings of 30,080 rows; of each block two norms and four biases; the last norm
    assert parts["embeddings"] == 2 * (2 * 30080 * 4096 + 28 * (4 + 3 + 1 + 4 + 1) * 4096 + 2 * 4096)
    assert parts["adapter"] == 28 * 8 * (4096 + 3 * 4096) * 16
    # R is 8, padded to 64
    assert parts["dequantised"] == 2 * ((3 * 4096 + 64) * (4096 + 64) + 9 * 4096**2)
    assert parts["saved"] == 16384 * 28 * (2 * (9 * 4096 + 64) + 4 * 16)
    assert parts["rebuilt"] == parts["logits"] == 0
    assert peak(measured_work("polyglot-ko-5.8b"), Choice(16384, "none", 0, False)) == pytest.approx(
        37 * GIB, rel=0.02
    )


@pytest.mark.parametrize(
    ("name", "gib"), [("polyglot-ko-5.8b", 58.6), ("polyglot-ko-12.8b", 105.0), ("llama-3-8b", 131.6)]
)
def test_the_plain_engine_keeps_what_trl_kept(name: str, gib: float, measured_work: Callable[..., Work]) -> None:
    """TRL without recompute, one H200, torch 2.11: the same PEFT, transformers and bitsandbytes.

    Its loss is computed in smaller chunks than ours, so the backward pass is its fullest moment.
    """
    work = measured_work(name, engine="plain", dropout=True)
    _, backward = plain.moments(work, 16384, "none")
    held = sum(memory.resident(work, 0).values()) + sum(backward.values())
    assert held / GIB == pytest.approx(gib, rel=0.03)


def test_double_quantisation_and_four_bits_save_what_they_say(measured_work: Callable[..., Work]) -> None:
    choice = Choice(2048, "blocks", 0, False)
    weights = [
        memory.memory(measured_work("llama-2-7b", **kind), choice)["weights"] / (32 * 202_375_168)
        for kind in ({}, {"double_quant": False}, {"four_bit": False})
    ]
    assert weights == pytest.approx([0.5159, 0.5625, 2.0], abs=1e-4)


def test_the_head_is_counted_once_where_it_is_the_embedding(measured_work: Callable[..., Work]) -> None:
    work = measured_work("llama-3-8b")
    tied = replace(work, shape=replace(work.shape, tied=True))
    choice = Choice(2048, "none", 0, False)
    difference = memory.memory(work, choice)["embeddings"] - memory.memory(tied, choice)["embeddings"]
    assert difference == 128256 * 4096 * 2


def test_few_learned_tokens_need_few_logits(measured_work: Callable[..., Work]) -> None:
    """With whole blocks recomputed and few layers, the loss is the worst moment."""
    work = measured_work("llama-3-8b")
    work = replace(work, shape=replace(work.shape, layers=2))
    choice = Choice(2048, "offload", 0, False)
    assert memory.memory(work, choice)["logits"] > 0
    assert peak(replace(work, learned_share=0.1), choice) < peak(work, choice)


def test_offload_moves_the_inputs_of_blocks_to_the_host(measured_work: Callable[..., Work]) -> None:
    work = measured_work("polyglot-ko-12.8b")
    on_card, on_host = Choice(16384, "blocks", 0, False), Choice(16384, "offload", 0, False)
    inputs = 16384 * 40 * 5120 * 2
    assert memory.host_bytes(work, on_card) == 0
    assert memory.host_bytes(work, on_host) == inputs
    # two of forty stay
    assert memory.memory(work, on_card)["saved"] - memory.memory(work, on_host)["saved"] == inputs * 38 // 40


def test_a_cached_block_takes_its_buffers_and_the_last_one_those_that_were_shared(
    measured_work: Callable[..., Work],
) -> None:
    work = measured_work("polyglot-ko-1.3b")
    held = [memory.memory(work, Choice(2048, "none", n, False))["dequantised"] for n in range(25)]
    block = memory.block_buffers(work)
    assert held == [*(block * (n + 1) for n in range(24)), block * 24]


def test_golden_bytes_of_weights_in_e4m3(measured_work: Callable[..., Work]) -> None:
    """Two layouts of a byte an element; at query_key_value LoRA's 8 rows and columns in 16 bits, and 128 folded."""
    work = measured_work("polyglot-ko-5.8b", compute="fp8")
    parts = memory.memory(work, Choice(16384, "none", 3, False))
    assert parts["dequantised"] == 4 * (2 * 12 * 4096**2 + (2 * 8 + 128) * (4096 + 3 * 4096))
    # what is saved is in 16 bits all the same, but x A' has 8 columns instead of 64
    half = memory.memory(measured_work("polyglot-ko-5.8b"), Choice(16384, "none", 3, False))
    assert half["saved"] - parts["saved"] == 28 * 16384 * (64 - 8) * 2
    assert parts["weights"] == half["weights"]


@pytest.mark.parametrize("name", ["polyglot-ko-5.8b", "llama-3-8b"])
def test_copies_in_e4m3_stand_beside_what_they_were_made_from(
    name: str, measured_work: Callable[..., Work]
) -> None:
    """At least the gradient at the residual, at most the widest tensors once more."""
    for recompute in RECOMPUTE:
        choice = Choice(16384, recompute, 0, False)
        shape = measured_work(name).shape
        half, narrow = (
            memory.memory(measured_work(name, fold_lora=False, **kind), choice) for kind in ({}, {"compute": "fp8"})
        )
        more = (narrow["gradients"] - half["gradients"]) / 16384
        assert 0 < more <= 2 * shape.intermediate + 2 * shape.hidden
        # x A' has fewer columns
        assert 0 <= half["saved"] - narrow["saved"] < 0.02 * half["saved"]


WORKS = st.builds(
    lambda family, layers, heads, kv, share, wide, targets, dropout, fold, kind, longest, documents: Work(
        shape=Shape(family, layers, 64 * heads, wide * 32 * heads, heads, kv if family == "llama" else heads, 64,
                    5000, 32, False, family == "gpt_neox"),
        lora_r=8,
        targets=(("query_key_value", "dense_4h_to_h") if family == "gpt_neox" else ("q_proj", "up_proj"))[:targets],
        step_tokens=longest * documents,
        document_tokens=longest * share,
        longest=longest,
        learned_share=share,
        dropout=dropout,
        fold_lora=fold,
        engine="plain" if kind == "plain" else "fast",
        compute="fp8" if kind == "fp8" else "auto",
    ),
    family=st.sampled_from(["gpt_neox", "llama"]),
    layers=st.integers(4, 48),
    heads=st.sampled_from([4, 8, 32]),
    kv=st.sampled_from([1, 4]),
    share=st.sampled_from([0.3, 1.0]),
    wide=st.integers(4, 8),
    targets=st.integers(1, 2),
    dropout=st.booleans(),
    fold=st.booleans(),
    kind=st.sampled_from(["fast", "plain", "fp8"]),
    longest=st.sampled_from([64, 512, 2048]),
    documents=st.integers(1, 16),
)  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(work=WORKS, micro_tokens=st.integers(1, 40_000))
def test_more_recompute_never_needs_more_memory(work: Work, micro_tokens: int) -> None:
    policies = RECOMPUTE if work.engine == "fast" else ("none", "blocks")
    needs = [peak(work, Choice(micro_tokens, policy, 0, False)) for policy in policies]
    assert needs == sorted(needs, reverse=True)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    work=WORKS, sizes=st.tuples(st.integers(1, 40_000), st.integers(1, 40_000)), policy=st.sampled_from(RECOMPUTE)
)
def test_smaller_micro_steps_and_less_dropout_never_need_more(work: Work, sizes: tuple[int, int], policy) -> None:  # type: ignore[no-untyped-def]
    small, large = (Choice(size, policy, 0, False) for size in sorted(sizes))
    assert peak(work, small) <= peak(work, large)
    assert peak(replace(work, dropout=False), large) <= peak(replace(work, dropout=True), large)
    assert peak(work, large) <= peak(work, replace(large, graphs=True)) or work.engine == "plain"


def test_golden_bytes_of_polyglot_ko_1_3b_in_8_bits(measured_work: Callable[..., Work]) -> None:
    """A byte for each weight, and a float32 scale for each row: 9 H of them in a block of GPT-NeoX."""
    work = measured_work("polyglot-ko-1.3b", engine="plain", four_bit=False, eight_bit=True)
    parts = memory.memory(work, Choice(4096, "blocks", 0, False))
    assert parts["weights"] == 24 * (12 * 2048**2 + 4 * 9 * 2048)
    # one linear at a time, in the type of the products
    assert parts["dequantised"] == 4 * 2048 * 2048 * 2
    # bitsandbytes keeps the inputs of all four, 7 H, though the block is computed again
    four = memory.memory(replace(work, eight_bit=False, four_bit=True), Choice(4096, "blocks", 0, False))
    assert parts["saved"] - four["saved"] == 4096 * 24 * 7 * 2048 * 2


def test_golden_bytes_of_full_fine_tuning(measured_work: Callable[..., Work]) -> None:
    """In 16 bits a weight, its float32 copy, gradient and two moments: 18 bytes; in float32 no copy: 16."""
    different = {"engine": "plain", "four_bit": False, "full": True, "lora_r": 0, "targets": ()}
    work = measured_work("polyglot-ko-1.3b", **different)
    count = work.shape.parameters
    assert count == 1_331_810_304
    held = memory.resident(work, 0)
    assert held["weights"] + held["embeddings"] == 2 * count
    assert held["adapter"] == 16 * count
    assert held["dequantised"] == 0
    whole = memory.resident(replace(work, weight_bytes=4, compute_bytes=4), 0)
    assert sum(whole.values()) == 16 * count
    small = memory.resident(replace(work, optimizer_bytes=2.0), 0)
    assert small["adapter"] == 10 * count


def test_full_fine_tuning_that_does_not_fit_is_told_what_would(measured_work: Callable[..., Work]) -> None:
    different = {"engine": "plain", "four_bit": False, "full": True, "lora_r": 0, "targets": ()}
    work = measured_work("polyglot-ko-5.8b", **different)
    with pytest.raises(KoalpacaError, match=r"Train an adapter \(lora\) on a base in 4 bits") as error:
        choose(work, CARDS["4090"], 22 * GIB)
    assert error.value.problems[0].code == "memory-short"
