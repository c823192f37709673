"""Lengths of a run's data, and the work that a recipe makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from koalpaca_tune.config import load
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.planner import constants, lengths
from koalpaca_tune.planner.choice import Choice
from koalpaca_tune.planner.shape import SHAPES
from koalpaca_tune.planner.work import ADAMW_8BIT_BYTES, fixed, of_recipe, settled
from koalpaca_tune.records import NOT_LEARNED, Encoded


def example(size: int, learned: int) -> Encoded:
    ids = tuple(range(size))
    return Encoded(ids, tuple([NOT_LEARNED] * (size - learned)) + ids[size - learned :])


def test_lengths_of_steps() -> None:
    """Two steps: rows of 10 + 30 and 20 tokens, then the 20 again."""
    examples = [example(10, 5), example(30, 10), example(20, 15)]
    made = lengths.of_steps(examples, [[(0, 1), (2,)], [(2,)]])
    assert made == lengths.Lengths(
        step_tokens=60,
        document_tokens=(100 + 900 + 400 + 400) / 80,
        longest_document=30,
        longest_row=40,
        learned_share=45 / 80,
        steps=2,
        tokens=80,
    )


def test_without_data_every_row_is_full() -> None:
    assert lengths.full_rows(8, 1024) == lengths.Lengths(8192, 1024.0, 1024, 1024, 1.0, None, None)


LENGTHS = lengths.Lengths(8000, 300.0, 700, 1000, 0.5, 10, 80_000)


def test_a_recipe_as_work(tmp_path: Path) -> None:
    changes = [
        "lora.r=16", "lora.dropout=0", "training.optimizer=paged_adamw_8bit", "engine.fold_lora=false",
        "engine.kernels=torch", "engine.attention=flash", "quantization.bnb_4bit_use_double_quant=false",
    ]  # fmt: skip
    shape = SHAPES["polyglot-ko-5.8b"]
    plain = of_recipe(load.load("polyglot-ko-5.8b"), shape, LENGTHS, fast=True, cuda=True)
    other = of_recipe(load.load("polyglot-ko-5.8b", changes), shape, LENGTHS, fast=True, cuda=True)
    assert (plain.lora_r, plain.dropout, plain.optimizer_bytes, plain.fold_lora) == (8, True, 8.0, True)
    assert (plain.fused, plain.attention, plain.double_quant, plain.compute_bytes) == (True, "auto", True, 2)
    assert (other.lora_r, other.dropout, other.optimizer_bytes, other.fold_lora) == (
        16,
        False,
        ADAMW_8BIT_BYTES,
        False,
    )
    assert (other.fused, other.attention, other.double_quant) == (False, "flash", False)
    assert (plain.longest, plain.learned_share, plain.step_tokens) == (700, 0.5, 8000)


def test_the_plain_engine_computes_rows_and_float32_takes_four_bytes() -> None:
    recipe = load.load("llama3-8b", ["engine.kind=plain", "quantization.bnb_4bit_compute_dtype=float32"])
    work = of_recipe(recipe, SHAPES["llama-3-8b"], LENGTHS, fast=False, cuda=True)
    assert (work.engine, work.longest, work.compute_bytes, work.weight_bytes) == ("plain", 1000, 4, 4)
    cpu = of_recipe(load.load("llama3-8b"), SHAPES["llama-3-8b"], LENGTHS, fast=True, cuda=False)
    assert (cpu.compute_bytes, cpu.attention, cpu.fused, cpu.groups[0].padded) == (4, "documents", False, 24)


def test_a_target_that_the_base_lacks_is_refused() -> None:
    with pytest.raises(KoalpacaError, match="'query_key_value' matches no linear module of llama") as error:
        of_recipe(load.load("polyglot-ko-5.8b"), SHAPES["llama-3-8b"], LENGTHS, fast=True, cuda=True)
    assert error.value.problems[0].code == "lora-target"


def test_what_the_engine_section_fixes() -> None:
    free = fixed(load.load("llama3-8b").engine)
    assert (free.micro_tokens, free.recompute, free.cached_blocks, free.graphs) == (None, None, None, None)
    changes = [
        "engine.micro_tokens=2048", "engine.recompute=wide", "engine.cached_blocks=0", "engine.graphs=never",
    ]  # fmt: skip
    some = fixed(load.load("llama3-8b", changes).engine)
    assert (some.micro_tokens, some.recompute, some.cached_blocks, some.graphs) == (2048, "wide", 0, False)


def test_the_plain_engine_is_not_planned() -> None:
    from koalpaca_tune.training import objective

    assert constants.PLAIN_TOKENS == objective.MICRO_TOKENS
    assert constants.PLAIN_LOGIT_ROWS == objective.ROWS
    recipe, shape = load.load("llama3-8b", ["engine.kind=plain"]), SHAPES["llama-3-8b"]
    card = settled(recipe, shape, fast=False, cuda=True, memory_bytes=0)
    cpu = settled(recipe, shape, fast=False, cuda=False, memory_bytes=0)
    assert (card.micro_tokens, card.recompute, cpu.recompute) == (4096, "blocks", "none")
    asked = load.load("llama3-8b", ["engine.kind=plain", "engine.micro_tokens=512", "engine.recompute=none"])
    own = settled(asked, shape, fast=False, cuda=True, memory_bytes=0)
    assert (own.micro_tokens, own.recompute) == (512, "none")


@pytest.mark.parametrize(
    "changes", [[], ["engine.recompute=blocks", "engine.micro_tokens=512"], ["engine.cached_blocks=2"]]
)
@pytest.mark.parametrize("name", ["demo", "polyglot-ko-12.8b"])
def test_on_the_cpu_the_engine_follows_a_rule(name: str, changes: list[str]) -> None:
    import os

    import transformers

    from koalpaca_tune.planner.shape import of_config
    from koalpaca_tune.training import engines

    recipe = load.load(name, changes)
    sizes = (256, 1024, 7, 4) if name == "demo" else (20480, 81920, 80, 40)
    config = transformers.GPTNeoXConfig(
        hidden_size=sizes[0], intermediate_size=sizes[1], num_hidden_layers=sizes[2], num_attention_heads=sizes[3]
    )
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    made = settled(recipe, of_config(config), fast=True, cuda=False, memory_bytes=memory_bytes)
    theirs = engines._on_cpu(recipe.engine, config)
    assert Choice(made.micro_tokens, made.recompute, made.cached_blocks, bool(made.graphs)) == theirs  # type: ignore[arg-type]


def test_constants_are_those_of_the_engine() -> None:
    from koalpaca_tune.engine import build, head
    from koalpaca_tune.training import engines

    assert constants.RANK_MULTIPLE == build.ALIGNED
    assert (constants.LOGIT_CHUNK_BYTES, constants.LOGIT_CHUNK_ROWS) == (head.CHUNK_BYTES, head.CHUNK_ROWS)
    assert (constants.CPU_TOKENS, constants.CPU_SHARE) == (engines.CPU_TOKENS, engines.CPU_SHARE)
