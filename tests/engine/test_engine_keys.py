"""Every key of the engine section takes effect, or is an error: on the CPU, and in the planner for a card."""

from __future__ import annotations

import itertools
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import small_recipe, small_run, variant

from koalpaca_tune.config import load
from koalpaca_tune.config.recipe import Engine
from koalpaca_tune.engine.objective import EngineObjective
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.kernels import plain
from koalpaca_tune.planner import lengths, shape, work
from koalpaca_tune.planner.card import CARDS
from koalpaca_tune.planner.choice import Choice
from koalpaca_tune.planner.choose import Plan, choose
from koalpaca_tune.records import Conversation
from koalpaca_tune.runs.train import Ready
from koalpaca_tune.training import engines
from koalpaca_tune.training.objective import Objective

FAMILIES = ("gpt_neox", "llama")
Talks = Sequence[Conversation]

EFFECTS: dict[str, tuple[dict[str, Any], str]] = {
    "kind": ({"kind": "plain"}, "engine"),
    "memory_budget": ({"memory_budget": 4.0}, "error"),
    "micro_tokens": ({"micro_tokens": 60}, "streams"),
    "recompute": ({"recompute": "blocks"}, "kept"),
    "cached_blocks": ({"cached_blocks": 1}, "buffers"),
    "attention": ({"attention": "flash"}, "error"),
    "kernels": ({"kernels": "triton"}, "error"),
    "compute": ({"compute": "fp8"}, "error"),
    "fold_lora": ({"fold_lora": False}, "room"),
    "graphs": ({"graphs": "always"}, "error"),
}
"""A change of each key, and what of `observe` it changes; error: what it asks for needs a card."""


def observe(ready: Ready) -> dict[str, Any]:
    """What the engine of a run is, and what it keeps of its first step."""
    trainer = ready.trainer
    engine = trainer.engine
    seen: dict[str, Any] = {"engine": type(engine)}
    if not isinstance(engine, EngineObjective):
        return seen
    rows = [[trainer.train[index] for index in row] for row in trainer.steps[0].rows]
    micros = [micro for (micro,) in engine.arrange(rows, grad=True)]
    with torch.no_grad():
        _, _, tape = engine.run(micros[0])
    groups = [group for block in engine._body.blocks for group in block.groups]
    return {
        **seen,
        "streams": [len(micro.ids) for micro in micros],
        "kept": [what(one) for one in tape.kept],  # type: ignore[union-attr]
        "buffers": [group.buffer is not None for group in groups],
        "room": [group.room for group in groups],
    }


def what(kept: Any) -> str:
    """Of one block."""
    if isinstance(kept, torch.Tensor):
        return "input"
    return "all" if kept.wide is not None else "all but the wide tensor"


def refused(base: str | Path, family: str, talks: Talks, **engine: Any) -> str:
    """The one problem of a run that cannot be as the recipe says."""
    with pytest.raises(KoalpacaError) as caught:
        small_run(small_recipe(base, family, engine={"kind": "fast", **engine}), talks)
    (problem,) = caught.value.problems
    assert problem.code == "engine-unsupported"
    return str(problem)


def test_every_key_is_shown_to_take_effect() -> None:
    other = runpy.run_path(str(Path(__file__).parents[1] / "training/test_every_key.py"))
    assert set(EFFECTS) == set(Engine.model_fields)
    named = {key.partition(".")[2] for key in {*other["CHANGES"], *other["ELSEWHERE"]} if key.startswith("engine.")}
    assert named == set(EFFECTS), "what the plain engine takes is shown there, the rest here"


def test_a_run_says_that_the_products_of_its_base_are_in_8_bits() -> None:
    choice = Choice(8192, "none", 28, False)
    for compute, said in (("fp8", True), ("auto", False)):
        prepared = engines.Prepared(True, "", choice, None, 2048, compute=compute)
        assert ("8 bits" in prepared.words()) == said
        assert prepared.as_dict()["compute"] == compute


@pytest.fixture(scope="module")
def before(tiny_bases: dict[str, str], conversations: Talks) -> dict[str, Any]:
    """What is seen of the fast engine without a change."""
    return observe(small_run(small_recipe(tiny_bases["gpt_neox"], "gpt_neox"), conversations))


@pytest.mark.parametrize("key", EFFECTS)
def test_the_key_takes_effect(
    tiny_bases: dict[str, str], conversations: Talks, before: dict[str, Any], key: str
) -> None:
    changes, changed = EFFECTS[key]
    base = tiny_bases["gpt_neox"]
    if changed == "error":
        assert refused(base, "gpt_neox", conversations, **changes).startswith(f"engine.{key}: ")
        return
    after = observe(small_run(small_recipe(base, "gpt_neox", engine={"kind": "fast", **changes}), conversations))
    assert after[changed] != before[changed]
    if changed != "engine":
        assert {name for name in after if after[name] != before[name]} == {changed}, "and nothing else changes"


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in engines.ONLY_CUDA.items() for value in values]
)
def test_what_needs_a_card_is_refused_without_one(
    tiny_bases: dict[str, str], conversations: Talks, key: str, value: str
) -> None:
    said = refused(tiny_bases["gpt_neox"], "gpt_neox", conversations, **{key: value})
    assert said == f"engine.{key}: '{value}' needs a CUDA card. Set it to auto."


def test_the_rest_of_what_the_cpu_cannot_do(tiny_bases: dict[str, str], conversations: Talks) -> None:
    base = tiny_bases["gpt_neox"]
    assert refused(base, "gpt_neox", conversations, recompute="offload").startswith("engine.recompute: ")
    assert refused(base, "gpt_neox", conversations, memory_budget=100.0).startswith("engine.memory_budget: ")
    said = refused(base, "gpt_neox", conversations, cached_blocks=3)
    assert said == "engine.cached_blocks: the base has 2 blocks. Set it to 2."


def test_what_the_cpu_can_do_is_done(tiny_bases: dict[str, str], conversations: Talks) -> None:
    asked = {
        "attention": "documents",
        "kernels": "torch",
        "graphs": "never",
        "cached_blocks": 0,
        "micro_tokens": 60,
    }
    made = small_run(small_recipe(tiny_bases["llama"], "llama", engine={"kind": "fast", **asked}), conversations)
    seen = observe(made)
    assert made.trainer.prepared.choice == engines.Choice(60, "none", 0, False)
    assert made.trainer.engine._builder.kernels is plain
    assert max(seen["streams"]) <= 64
    assert len(seen["streams"]) > 1
    assert not any(seen["buffers"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("recompute", "kept"), [("none", "all"), ("wide", "all but the wide tensor"), ("blocks", "input")]
)
def test_what_is_computed_again_is_not_kept(
    tiny_bases: dict[str, str], conversations: Talks, family: str, recompute: str, kept: str
) -> None:
    recipe = small_recipe(tiny_bases[family], family, engine={"kind": "fast", "recompute": recompute})
    assert observe(small_run(recipe, conversations))["kept"] == [kept] * 2


def test_the_last_blocks_are_the_cached_ones(tiny_bases: dict[str, str], conversations: Talks) -> None:
    recipe = small_recipe(tiny_bases["gpt_neox"], "gpt_neox", engine={"kind": "fast", "cached_blocks": 1})
    assert observe(small_run(recipe, conversations))["buffers"] == [False] * 4 + [True] * 4


# kind: auto


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["auto", "fast", "plain"])
def test_the_kind_of_engine(tiny_bases: dict[str, str], conversations: Talks, family: str, kind: str) -> None:
    made = small_run(small_recipe(tiny_bases[family], family, engine={"kind": kind}), conversations)
    prepared = made.trainer.prepared
    assert (prepared.fast, prepared.reason) == (kind != "plain", "")
    assert prepared.name == ("plain" if kind == "plain" else "fast")
    assert type(made.trainer.engine) is (Objective if kind == "plain" else EngineObjective)


STRANGE: dict[str, tuple[str, dict[str, Any], str]] = {
    "gelu_new": ("gpt_neox", {"hidden_act": "gelu_new"}, "activation 'gelu_new'"),
    "one after the other": ("gpt_neox", {"use_parallel_residual": False}, "no parallel residual"),
    "dropout": ("gpt_neox", {"hidden_dropout": 0.1}, "dropout inside the base"),
    "gelu": ("llama", {"hidden_act": "gelu"}, "activation 'gelu'"),
    "dynamic": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
        "rotary type 'dynamic'",
    ),
}
"""Bases that transformers computes and our blocks do not."""


@pytest.mark.parametrize("name", STRANGE)
def test_another_base_is_computed_by_the_plain_engine_or_is_an_error(
    tiny_bases: dict[str, str], conversations: Talks, tmp_path: Path, name: str
) -> None:
    family, changes, reason = STRANGE[name]
    base = variant(tiny_bases[family], tmp_path / "base", **changes)
    made = small_run(small_recipe(base, family, engine={"kind": "auto", "micro_tokens": 60}), conversations)
    assert (made.trainer.prepared.fast, made.trainer.prepared.reason) == (False, reason)
    assert type(made.trainer.engine) is Objective
    made.trainer.run(tmp_path / "run")
    assert reason in refused(base, family, conversations)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("memory_budget", 4.0),
        ("recompute", "wide"),
        ("recompute", "offload"),
        ("cached_blocks", 1),
        ("attention", "documents"),
        ("kernels", "torch"),
        ("compute", "fp8"),
        ("fold_lora", False),
        ("graphs", "never"),
    ],
)
def test_a_key_of_the_fast_engine_does_not_idle_where_it_fell_back(
    tiny_bases: dict[str, str], conversations: Talks, tmp_path: Path, key: str, value: Any
) -> None:
    base = variant(tiny_bases["gpt_neox"], tmp_path / "base", hidden_act="gelu_new")
    said = refused(base, "gpt_neox", conversations, kind="auto", **{key: value})
    assert said.startswith(f"engine.{key}: ")
    assert "activation 'gelu_new'" in said
    assert "Set it to plain" not in said, "plain is no value of this key"


def test_the_recipe_of_a_run_that_fell_back_reads_back_and_runs(
    tiny_bases: dict[str, str], conversations: Talks, tmp_path: Path
) -> None:
    """run.yaml holds every key: none of those that nobody set may count as set."""
    base = variant(tiny_bases["gpt_neox"], tmp_path / "base", hidden_act="gelu_new")
    recipe = small_recipe(base, "gpt_neox", engine={"kind": "auto"})
    (tmp_path / "run.yaml").write_text(load.dump(recipe), encoding="utf-8")
    again = load.load(str(tmp_path / "run.yaml"))
    assert again == recipe
    assert not small_run(again, conversations).trainer.prepared.fast


@pytest.mark.parametrize("family", FAMILIES)
def test_float16_products_are_left_to_the_plain_engine(
    tiny_bases: dict[str, str], conversations: Talks, family: str
) -> None:
    recipe = small_recipe(
        tiny_bases[family],
        family,
        engine={"kind": "auto"},
        quantization={"bnb_4bit_compute_dtype": "float16"},
    )
    prepared = small_run(recipe, conversations).trainer.prepared
    assert not prepared.fast
    assert "float16" in prepared.reason


# on a card: by the planner, which needs none


def planned(budget_gib: float, **engine: Any) -> Plan:
    """The plan of 8 rows of 2,048 tokens on an H200, for polyglot-ko-5.8b."""
    values = load.load("polyglot-ko-5.8b").model_dump()
    recipe = type(load.load("polyglot-ko-5.8b")).model_validate({**values, "engine": engine})
    job = work.of_recipe(recipe, shape.SHAPES["polyglot-ko-5.8b"], lengths.full_rows(8, 2048), fast=True, cuda=True)
    return choose(job, CARDS["h200"], int(budget_gib * 2**30), work.fixed(recipe.engine))


def test_a_smaller_budget_is_a_smaller_and_no_faster_plan() -> None:
    plans = [planned(gib) for gib in (60.0, 24.0, 8.0)]
    for large, small in itertools.pairwise(plans):
        assert small.peak < large.peak
        assert small.step_seconds >= large.step_seconds
    for plan, gib in zip(plans, (60.0, 24.0, 8.0), strict=True):
        assert plan.peak <= gib * 2**30
    with pytest.raises(KoalpacaError) as caught:
        planned(3.0)
    assert caught.value.problems[0].code == "memory-short"


def test_the_budget_is_what_the_recipe_says() -> None:
    """All of it but what the prediction may miss, whatever the card has free."""
    device, asked = torch.device("cpu"), 7.5 * 2**30
    budgets = {engines._budget(Engine(memory_budget=7.5), free, device, 1) for free in (10**9, 10**12)}
    assert len(budgets) == 1
    assert 0.9 * asked <= budgets.pop() <= asked


@pytest.mark.parametrize(
    ("engine", "seen"),
    [
        ({"micro_tokens": 4096}, ("micro_tokens", 4096)),
        ({"recompute": "wide"}, ("recompute", "wide")),
        ({"recompute": "offload"}, ("recompute", "offload")),
        ({"cached_blocks": 5}, ("cached_blocks", 5)),
        ({"graphs": "always"}, ("graphs", True)),
        ({"graphs": "never"}, ("graphs", False)),
    ],
)
def test_what_is_set_is_what_is_planned(engine: dict[str, Any], seen: tuple[str, Any]) -> None:
    assert getattr(planned(60.0, **engine).choice, seen[0]) == seen[1]


@pytest.mark.parametrize("graphs", ["always", "never"])
def test_graphs_are_not_given_up_for_memory(graphs: str) -> None:
    """Whole blocks with their inputs on the host need least, and cannot be captured."""
    planned_for = 0
    for gib in (60.0, 10.0, 8.0, 7.0, 6.0, 5.5, 5.0):
        try:
            plan = planned(gib, graphs=graphs)
        except KoalpacaError:
            break
        assert plan.choice.graphs == (graphs == "always"), gib
        planned_for += 1
    assert planned_for > 2


def test_more_cached_blocks_than_there_are() -> None:
    with pytest.raises(KoalpacaError) as caught:
        planned(60.0, cached_blocks=29)
    assert caught.value.problems[0].code == "cached-blocks"


@pytest.mark.parametrize(
    "engine", [{"kernels": "torch"}, {"attention": "documents"}, {"attention": "flash"}, {"fold_lora": False}]
)
def test_the_plan_knows_how_it_will_be_computed(engine: dict[str, Any]) -> None:
    fixed = {"micro_tokens": 16384, "recompute": "none", "cached_blocks": 0, "graphs": "never"}
    usual, other = planned(130.0, **fixed), planned(130.0, **fixed, **engine)
    assert (other.step_seconds, other.memory) != (usual.step_seconds, usual.memory)


def test_without_triton_the_plain_kernels_serve_and_asking_for_it_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch for CUDA brings Triton on Linux, not everywhere."""
    from koalpaca_tune.engine import build
    from koalpaca_tune.kernels import fused, plain

    card = torch.device("cuda", 0)
    assert build.kernels("auto", card) is fused
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    assert build.kernels("auto", card) is plain
    with pytest.raises(KoalpacaError) as caught:
        engines._check_cuda(Engine(kernels="triton"), card, torch.bfloat16, 128, {64})
    assert caught.value.problems[0].code == "engine-unsupported"
    assert caught.value.problems[0].where == "engine.kernels"
