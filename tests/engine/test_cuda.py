"""What only a card shows: fused kernels, attention kernels, bfloat16, CUDA graphs, memory. See bench/gpu_tests.sh.

Gradients are held against autograd in float32 on the very weights that NF4 stands for, and against the
error that plain PEFT and bitsandbytes make in bfloat16. Each test prints what it found.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from cuda_models import (
    DEVICE,
    LENGTHS,
    SIZES,
    Sizes,
    by_autograd,
    by_engine,
    case,
    clear,
    documents_of,
    engine_of,
    errors,
    in_float32,
    pair,
    poison,
    tuned,
)

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.kernels import flash4
from koalpaca_tune.planner import lengths, memory
from koalpaca_tune.planner.choice import Choice
from koalpaca_tune.planner.shape import of_config
from koalpaca_tune.planner.work import Work
from koalpaca_tune.records import Encoded
from koalpaca_tune.training import engines, loop
from koalpaca_tune.training.engines import Prepared
from koalpaca_tune.training.loop import Trainer

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        not torch.cuda.is_available(),
        reason="needs a CUDA card: bench/gpu_tests.sh runs it, its log is under bench/results",
    ),
]

NOISE = 3e-3
"""flash's backward pass adds up in an order of its own: two runs of the same differ by up to half of it."""
NARROW = ("neox 128", "llama 128")
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "wide": ("mixed", {"recompute": "wide"}),
    "blocks": ("mixed", {"recompute": "blocks"}),
    "offload": ("mixed", {"recompute": "offload"}),
    "cached": ("mixed", {"cached": 3}),
    "one cached, blocks": ("mixed", {"cached": 1, "recompute": "blocks"}),
    "not folded": ("mixed", {"fold": False}),
    "in pieces": ("mixed", {"micro_tokens": 500}),
    "in pieces, offload": ("mixed", {"micro_tokens": 500, "recompute": "offload"}),
    "torch's kernels": ("mixed", {"kernels": "torch"}),
}
"""Name -> lengths of the documents, and how they are computed."""
ATTENTION = {
    name: (packed, {"attention": name})
    for packed in LENGTHS
    for name in ("auto", "flash4", "flash", "efficient", "documents", "cudnn")
    if (name, packed) != ("cudnn", "mixed")
}
GRADIENTS = [
    *[(shape, packed, {"attention": name}) for shape in SIZES for packed, name in (
        ("mixed", "auto"), ("mixed", "flash4"), ("mixed", "flash"), ("mixed", "efficient"), ("mixed", "documents"),
        ("equal", "auto"), ("equal", "flash4"), ("equal", "cudnn"),
    )],
    *[(shape, packed, way) for shape in NARROW for packed, way in WAYS.values()],
]  # fmt: skip


@pytest.fixture(autouse=True)
def new_accelerator() -> Iterator[None]:
    """accelerate keeps its first precision for the whole process; a command is a process of its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def need(attention: str, head_dim: int) -> None:
    """Skips what this card's kernels cannot do."""
    capability = torch.cuda.get_device_capability()
    if attention == "cudnn" and capability[0] != 9:
        pytest.skip("cuDNN's kernel is used on Hopper")
    if attention == "flash4" and (capability < flash4.CAPABILITY or flash4.missing()):
        pytest.skip("flash-attn-4 needs Hopper, and is an extra")
    if attention == "flash" and (
        capability < (8, 0) or (head_dim > 192 and capability[0] != 9 and capability != (8, 0))
    ):
        pytest.skip("flash has no backward pass for heads so wide on this card")


# gradients


@pytest.mark.parametrize(
    ("shape", "packed", "way"),
    GRADIENTS,
    ids=[f"{shape}-{packed}-{' '.join(f'{k}={v}' for k, v in way.items())}" for shape, packed, way in GRADIENTS],
)
def test_gradients_are_as_near_to_float32_as_those_of_peft(shape: str, packed: str, way: dict[str, Any]) -> None:
    truth = case(shape, packed)
    need(way.get("attention", "auto"), truth.sizes.head_dim)
    objective = engine_of(truth.model, truth.sizes, truth.longest, **way)
    loss, found = by_engine(truth.model, objective, truth.documents)
    whole, worst = errors(found, truth.wanted)
    print(f"{shape} {packed} {way}: loss {loss / truth.loss - 1:+.1e}, gradient {whole:.2e}, worst {worst:.2e}")
    assert loss == pytest.approx(truth.loss, rel=2e-3)
    with torch.no_grad():
        scored = sum(float(objective(*micro)) for micro in objective.arrange([truth.documents], grad=False))
    assert scored == pytest.approx(truth.loss, rel=2e-3)
    assert whole <= 1.1 * truth.peft[0], "of all matrices"
    assert worst <= 1.25 * truth.peft[1], "of one matrix"
    if truth.sizes.family == "gpt_neox":
        assert whole < 1e-2


@pytest.mark.parametrize("attention", ["efficient", "documents"])
@pytest.mark.parametrize("shape", NARROW)
def test_in_float32_the_fused_kernels_are_exact(shape: str, attention: str) -> None:
    """Rounding to bfloat16 would hide a small mistake."""
    sizes, documents = SIZES[shape], documents_of(LENGTHS["mixed"])
    model = tuned(sizes, torch.float32)
    loss, wanted = by_autograd(in_float32(model), sizes.architecture, documents)
    for way in ({"recompute": "wide"}, {"recompute": "blocks", "fold": False, "cached": 1}):
        objective = engine_of(model, sizes, 400, dtype=torch.float32, attention=attention, **way)
        again, found = by_engine(model, objective, documents)
        whole, worst = errors(found, wanted)
        print(f"{shape} float32 {attention} {way}: gradient {whole:.2e}, worst {worst:.2e}")
        assert again == pytest.approx(loss, rel=1e-5)
        assert worst < 2e-4


@pytest.mark.parametrize("shape", NARROW)
def test_documents_shorter_than_the_padding(shape: str) -> None:
    """A stream is padded to 64 tokens; a position of the padding is beyond the longest document's."""
    sizes = SIZES[shape]
    model, whole = pair(shape)
    for sizes_of in ((5,), (9, 7, 20)):
        documents = documents_of(sizes_of)
        poison()
        objective = engine_of(model, sizes, max(sizes_of))
        ((micro,),) = objective.arrange([documents], grad=True)
        assert int(micro.positions.max()) < len(objective._cos), "the rotary tables end before"
        loss, wanted = by_autograd(whole, sizes.architecture, documents)
        again, found = by_engine(model, objective, documents)
        assert again == pytest.approx(loss, rel=5e-3)
        assert errors(found, wanted)[0] < 3e-2


@pytest.mark.parametrize("shape", NARROW)
def test_a_stream_of_padding_adds_nothing(shape: str) -> None:
    model, _ = pair(shape)
    poison()
    objective = engine_of(model, SIZES[shape], 8)
    clear(model)
    ((micro,),) = objective.arrange([], grad=True, count=1)
    loss = objective(micro)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)
    clear(model)


# products in 8 bits


EIGHT: dict[str, dict[str, Any]] = {
    "kept": {},
    "blocks": {"recompute": "blocks"},
    "cached": {"cached": 3},
    "cached, wide, in pieces": {"cached": 2, "recompute": "wide", "micro_tokens": 500},
    "torch's kernels": {"kernels": "torch"},
}


@pytest.mark.parametrize("shape", list(SIZES))
def test_gradients_through_products_in_8_bits(shape: str) -> None:
    """However it is computed it is the same but for attention's own noise, and near float32."""
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("this card has no products in 8 bits")
    truth = case(shape, "mixed")
    found = {}
    for name, way in EIGHT.items():
        poison()
        objective = engine_of(truth.model, truth.sizes, truth.longest, narrow=True, **way)
        loss, found[name] = by_engine(truth.model, objective, truth.documents)
        whole, worst = errors(found[name], truth.wanted)
        between, _ = errors(found[name], found["kept"])
        print(
            f"{shape} fp8, {name}: loss {loss / truth.loss - 1:+.1e}, gradient {whole:.2e}, worst {worst:.2e}, "
            f"from the first way {between:.1e}"
        )
        assert loss == pytest.approx(truth.loss, rel=1e-2)
        assert whole < 0.3
        # flash's noise moves a value over the border between two roundings now and then; torch's kernels add up
        # more exactly, which moves many
        assert between < (0.2 if "kernels" in way else 0.05)


# dropout


@pytest.mark.parametrize("shape", NARROW)
def test_the_mean_gradient_under_dropout_is_that_without(shape: str) -> None:
    """100 masks. B is small, so that the mean has no part of second order in the masks.

    Each matrix's gradient is seen along one random direction; the mean must be within 5 standard errors.
    """
    sizes, documents = SIZES[shape], documents_of((120, 200, 64))
    model = tuned(sizes, dropout=0.1, b_std=1e-3)
    objective = engine_of(model, sizes, 200)
    generator = torch.Generator(DEVICE).manual_seed(0)

    def seen(found: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.stack([(found[name] * directions[name]).sum() / scale[name] for name in directions])

    objective.eval()
    _, without = by_engine(model, objective, documents)
    directions = {n: torch.randn(one.shape, generator=generator, device=DEVICE) for n, one in without.items()}
    scale = {name: one.norm() for name, one in without.items()}
    objective.train()
    draws = []
    for seed in range(100):
        torch.manual_seed(seed)
        draws.append(seen(by_engine(model, objective, documents)[1]))
    drawn = torch.stack(draws)
    error = drawn.std(0) / math.sqrt(len(draws))
    apart = ((drawn.mean(0) - seen(without)) / error).abs()
    print(f"{shape} dropout: largest of {len(apart)}: {float(apart.max()):.1f} standard errors")
    assert float(error.min()) > 1e-4, "the masks differ"
    assert float(apart.max()) < 5.0
    torch.manual_seed(7)
    once = by_engine(model, objective, documents)
    torch.manual_seed(7)
    again = by_engine(model, objective, documents)
    assert errors(again[1], once[1])[0] < 1e-3
    torch.manual_seed(8)
    assert errors(by_engine(model, objective, documents)[1], once[1])[0] > 1e-2


@pytest.mark.parametrize("shape", NARROW)
@pytest.mark.parametrize("way", [{}, {"recompute": "blocks"}, {"fold": False}])
def test_the_same_places_are_dropped_in_backward(shape: str, way: dict[str, Any]) -> None:
    """In float32: along the gradient, the loss with the same mask moves as the gradient says."""
    sizes, documents = SIZES[shape], documents_of((120, 64))
    model = tuned(sizes, torch.float32, dropout=0.3)
    objective = engine_of(model, sizes, 120, dtype=torch.float32, **way)

    def loss() -> tuple[float, dict[str, torch.Tensor]]:
        torch.manual_seed(11)
        return by_engine(model, objective, documents)

    _, found = loss()
    size = float(torch.stack([one.norm() for one in found.values()]).norm())
    step, ends = 0.02 / size, []
    for sign in (1.0, -1.0):
        move(model, found, sign * step)
        ends.append(loss()[0])
        move(model, found, -sign * step)
    assert ends[0] - ends[1] == pytest.approx(2 * step * size**2, rel=0.03)


def move(model: Any, along: dict[str, torch.Tensor], much: float) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in along:
                parameter.add_(along[name], alpha=much)


# documents


@pytest.mark.parametrize("attention", ["flash", "efficient", "documents"])
@pytest.mark.parametrize("shape", list(SIZES))
def test_documents_of_a_pack_never_see_each_other(shape: str, attention: str) -> None:
    """Bit for bit: another document in the middle leaves the residuals of the others as they are."""
    sizes = SIZES[shape]
    need(attention, sizes.head_dim)
    model, _ = pair(shape)
    objective = engine_of(model, sizes, 300, attention=attention)
    first, second, third = documents_of((130, 300, 77))
    (other,) = documents_of((300,), seed=1)
    states = []
    for middle in (second, other):
        ((micro,),) = objective.arrange([[first, middle, third]], grad=False)
        states.append(objective.residual(micro))
    assert torch.equal(states[0][:130], states[1][:130])
    assert torch.equal(states[0][430:507], states[1][430:507])
    assert not torch.equal(states[0][130:430], states[1][130:430])


# CUDA graphs


GRAPHED: dict[str, dict[str, Any]] = {
    "flash": {"attention": "flash"},
    "flash4": {"attention": "flash4"},
    "flash, cached, wide": {"attention": "flash", "cached": 3, "recompute": "wide"},
    "efficient, one cached, blocks": {"attention": "efficient", "cached": 1, "recompute": "blocks"},
    "cudnn": {"attention": "cudnn"},
    "documents": {"attention": "documents"},
    "torch's kernels": {"attention": "flash", "kernels": "torch"},
    "fp8": {"attention": "flash", "narrow": True},
    "fp8, one cached, blocks": {"attention": "flash", "narrow": True, "cached": 1, "recompute": "blocks"},
}
STREAMS = ((300, 212, 512), (512, 512), (128,) * 8, (400, 400, 224), (64, 448, 512))
"""Each 1,024 tokens, with room for eight documents: one graph."""
BATCHES = ((256,) * 4,) * 5
"""For a kernel that takes equal documents only."""


@pytest.mark.parametrize("name", GRAPHED)
@pytest.mark.parametrize("shape", NARROW)
def test_a_micro_step_that_is_replayed_is_the_one_that_is_computed(shape: str, name: str) -> None:
    """The first is computed, the second captured, the rest replayed; documents and adapter change between them."""
    sizes, way = SIZES[shape], GRAPHED[name]
    need(way["attention"], sizes.head_dim)
    # a value on the border between two roundings goes either way
    noise = 0.05 if way.get("narrow") else NOISE
    model, _ = pair(shape)
    replayed = engine_of(model, sizes, 512, micro_tokens=1024, graphs=True, **way)
    computed = engine_of(model, sizes, 512, micro_tokens=1024, **way)
    capturable = name not in ("documents", "torch's kernels")
    assert (replayed._graphs is not None) == capturable, "these two ask the host"
    grown = 0
    try:
        for number, sizes_of in enumerate(BATCHES if name == "cudnn" else STREAMS):
            documents = documents_of(sizes_of, seed=number)
            loss, wanted = by_engine(model, computed, documents)
            again, found = by_engine(model, replayed, documents)
            whole, _ = errors(found, wanted)
            print(f"{shape} graphs, {name}, {number}: loss {again / loss - 1:+.1e}, gradient {whole:.1e}")
            assert again == pytest.approx(loss, rel=NOISE)
            assert whole < noise
            if number == 2:
                scale(model, 2.0)
                grown = 1
    finally:
        scale(model, 0.5**grown)
    if replayed._graphs is not None:
        assert len(replayed._graphs._captured) == 1, "nothing was captured"


def scale(model: Any, much: float) -> None:
    """All LoRA matrices, in place, as an optimizer changes them; a power of two can be undone."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.mul_(much)


@pytest.mark.parametrize("attention", ["flash", "efficient"])
@pytest.mark.parametrize("shape", NARROW)
def test_padding_of_a_graph_that_is_longer_than_any_document(shape: str, attention: str) -> None:
    """The last micro-step of a step is short: its padding is one long document that nobody reads."""
    sizes = SIZES[shape]
    need(attention, sizes.head_dim)
    model, whole = pair(shape)
    poison()
    objective = engine_of(model, sizes, 100, attention=attention, micro_tokens=1024, graphs=True)
    for number, sizes_of in enumerate(((100,) * 8, (100, 60), (33,), (90, 80, 70), (100,))):
        documents = documents_of(sizes_of, seed=number)
        loss, wanted = by_autograd(whole, sizes.architecture, documents)
        again, found = by_engine(model, objective, documents)
        print(f"{shape} graphs, padded, {attention}, {number}: gradient {errors(found, wanted)[0]:.1e}")
        assert again == pytest.approx(loss, rel=5e-3)
        assert errors(found, wanted)[0] < 3e-2


@pytest.mark.parametrize("shape", NARROW)
def test_a_graph_draws_a_new_mask_each_time(shape: str) -> None:
    sizes, documents = SIZES[shape], documents_of(STREAMS[0])
    model = tuned(sizes, dropout=0.1)
    replayed = engine_of(model, sizes, 512, attention="flash", micro_tokens=1024, graphs=True)
    computed = engine_of(model, sizes, 512, attention="flash", micro_tokens=1024)
    found = []
    for seed in range(4):
        torch.manual_seed(seed)
        loss, wanted = by_engine(model, computed, documents)
        torch.manual_seed(seed)
        again, one = by_engine(model, replayed, documents)
        assert again == pytest.approx(loss, rel=NOISE)
        assert errors(one, wanted)[0] < NOISE
        found.append(one)
    assert errors(found[2], found[3])[0] > 1e-2


# memory

MIDDLE = (
    Sizes("gpt_neox", 2048, 8192, heads=16, layers=8, vocabulary=30080),
    Sizes("llama", 2048, 5632, heads=16, kv_heads=4, layers=8, vocabulary=32000),
)


@pytest.mark.parametrize("sizes", MIDDLE, ids=["neox", "llama"])
def test_memory_is_what_the_planner_says(sizes: Sizes) -> None:
    """8,192 tokens in one micro-step; within 10 %, for what is kept and what is computed again."""
    # else those of the tests before would be missing from what is counted
    torch._C._cuda_clearCublasWorkspaces()
    gc.collect()
    before = torch.cuda.memory_allocated()
    model = tuned(sizes)
    gc.collect()
    documents = documents_of((700, 324) * 8, vocabulary=sizes.vocabulary)
    data = lengths.of_steps(documents, [[tuple(range(len(documents)))]])
    work = Work(
        shape=of_config(model.get_base_model().config),
        lora_r=8,
        targets=sizes.architecture.linears,
        step_tokens=data.step_tokens,
        document_tokens=data.document_tokens,
        longest=data.longest_document,
        learned_share=data.learned_share,
        optimizer_bytes=0.0,
        attention="flash",
    )
    apart = {}
    ways: tuple[tuple[Any, int], ...] = (("none", 0), ("wide", 0), ("blocks", 0), ("offload", 0), ("none", 8))
    for recompute, cached in ways:
        objective = engine_of(model, sizes, 700, attention="flash", recompute=recompute, cached=cached)
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            for arguments in objective.arrange([documents], grad=True):
                objective(*arguments).backward()
        measured = torch.cuda.max_memory_allocated() - before
        predicted = memory.peak(memory.memory(work, Choice(100_000, recompute, cached, False)))
        apart[recompute, cached] = predicted / measured - 1
        print(
            f"{sizes.family} {recompute}, {cached} cached: measured {measured / 2**30:.3f} GiB, "
            f"planned {predicted / 2**30:.3f} ({apart[recompute, cached]:+.1%})"
        )
        clear(model)
        del objective, arguments
        gc.collect()
    assert max(map(abs, apart.values())) < 0.1, apart


# a whole run


def recipe_of(sizes: Sizes, **sections: dict[str, Any]) -> Recipe:
    """Of ten steps of four packed rows; base and data are given beside it."""
    values: dict[str, Any] = {
        "name": "card",
        "base": {"path": "random"},
        "lora": {"r": 8, "alpha": 16, "dropout": 0.0, "targets": list(sizes.architecture.linears)},
        "data": {"train": "none", "max_length": 512},
        "training": {"max_steps": 10, "batch_size": 4, "learning_rate": 0.003, "log_every": 1},
    }
    for section, changes in sections.items():
        values[section] = {**values.get(section, {}), **changes}
    return Recipe.model_validate(values)


def training_set() -> list[Encoded]:
    """60 documents of 20 to 300 tokens."""
    return documents_of([int(n) for n in np.random.default_rng(2).integers(20, 300, 60)])


def trainer_of(model: Any, sizes: Sizes, recipe: Recipe, train: list[Encoded] | None = None) -> Trainer:
    """With a validation set of three documents, two of them longer than any that is trained on."""
    valid, runner = documents_of((400, 350, 30), seed=9), loop.accelerator(torch.bfloat16, DEVICE)
    return Trainer(recipe, model, sizes.architecture, train or training_set(), valid, pad_id=0, accelerator=runner)


def trail(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("shape", NARROW)
def test_a_run_by_the_planner_is_that_of_the_plain_engine(shape: str, tmp_path: Path) -> None:
    sizes, rows = SIZES[shape], {}
    for kind in ("plain", "fast"):
        model = tuned(sizes, b_std=0.0)
        trainer = trainer_of(model, sizes, recipe_of(sizes, engine={"kind": kind}))
        print(f"{shape} {kind}: {trainer.prepared.choice}")
        trainer.run(tmp_path / kind)
        rows[kind] = trail(tmp_path / kind)
        assert rows[kind][-1]["peak_memory_gib"] > 0.0
        assert (tmp_path / kind / "adapter/adapter_model.safetensors").is_file()
    for plain, fast in zip(rows["plain"], rows["fast"], strict=True):
        print(f"{shape} step {fast['step']}: plain {plain['loss']:.4f}, fast {fast['loss']:.4f}")
        assert fast["loss"] == pytest.approx(plain["loss"], rel=1e-2)
        assert (fast["tokens"], fast["learned_tokens"]) == (plain["tokens"], plain["learned_tokens"])
    assert rows["fast"][0]["grad_norm"] == pytest.approx(rows["plain"][0]["grad_norm"], rel=5e-2)
    assert rows["fast"][-1]["valid_loss"] == pytest.approx(rows["plain"][-1]["valid_loss"], rel=1e-2)


@pytest.mark.parametrize("kind", ["plain", "fast"])
def test_a_loss_that_is_not_finite_takes_no_step(kind: str, tmp_path: Path) -> None:
    """The optimizer is told on the card, before the host knows."""
    sizes = SIZES["neox 128"]
    model = tuned(sizes)
    trainer = trainer_of(model, sizes, recipe_of(sizes, engine={"kind": kind}))
    before = {n: p.detach().clone() for n, p in model.named_parameters() if ".lora_" in n}
    with torch.no_grad():
        model.get_base_model().get_output_embeddings().weight[5] = float("nan")
    with pytest.raises(KoalpacaError) as caught:
        trainer.run(tmp_path)
    assert caught.value.problems[0].code == "loss-not-finite"
    assert "at step 1 " in str(caught.value)
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], one) for name, one in before.items())


def test_a_resumed_run_goes_on_as_the_whole_one(tmp_path: Path) -> None:
    """Not bit for bit: attention's backward pass adds up in any order."""
    sizes = SIZES["llama 128"]
    sections = {"training": {"checkpoint_every": 4}, "lora": {"dropout": 0.1}, "engine": {"kind": "fast"}}

    class Pulled(BaseException):
        pass

    def pull(done: int, total: int, row: dict[str, Any]) -> None:
        if done == 6:
            raise Pulled

    def fresh() -> Trainer:
        model = tuned(sizes, dropout=0.1, b_std=0.0)
        torch.manual_seed(42)
        return trainer_of(model, sizes, recipe_of(sizes, **sections))

    fresh().run(tmp_path / "whole")
    with pytest.raises(Pulled):
        fresh().run(tmp_path / "part", progress=pull)
    fresh().run(tmp_path / "part", resume=True)
    for whole, part in zip(trail(tmp_path / "whole"), trail(tmp_path / "part"), strict=True):
        assert part["loss"] == pytest.approx(whole["loss"], rel=3e-3)
        assert (part["step"], part["tokens"]) == (whole["step"], whole["tokens"])


def prepared_of(sizes: Sizes, compute: torch.dtype = torch.bfloat16, **engine: Any) -> Prepared:
    """What is decided before any weights are loaded."""
    recipe, train = recipe_of(sizes, engine={"kind": "fast", **engine}), training_set()
    steps = loop.plan(recipe, train, loop.accelerator(compute, DEVICE))
    try:
        return engines.prepare(recipe, sizes.config(), compute, train, steps, DEVICE)
    finally:
        # engine.memory_budget limits torch's allocator for the whole process
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("graphs", ["always", "never"])
def test_the_budget_reaches_the_planner(graphs: str) -> None:
    sizes = SIZES["neox 128"]
    free = prepared_of(sizes, graphs=graphs).plan
    assert free is not None
    budget = 0.8 * free.peak / 2**30
    less = prepared_of(sizes, graphs=graphs, memory_budget=budget).plan
    assert less is not None
    assert less.peak <= budget * 2**30 < free.peak
    assert free.choice.graphs == less.choice.graphs == (graphs == "always")
    with pytest.raises(KoalpacaError) as caught:
        prepared_of(sizes, graphs=graphs, memory_budget=0.001)
    assert caught.value.problems[0].code == "memory-short"


@pytest.mark.parametrize(
    ("attention", "compute"),
    [("flash", torch.float32), ("cudnn", torch.float32), ("cudnn", torch.bfloat16)],
)
def test_a_kernel_that_cannot_do_it_is_refused_beforehand(attention: str, compute: torch.dtype) -> None:
    """flash and cuDNN take 16 bits only; cuDNN documents of one length only."""
    with pytest.raises(KoalpacaError) as caught:
        prepared_of(SIZES["neox 128"], compute, attention=attention)
    assert caught.value.problems[0].code == "engine-unsupported"
    assert caught.value.problems[0].where == "engine.attention"


def test_documents_all_equal_and_validation_that_is_not(tmp_path: Path) -> None:
    """cuDNN was asked for and fits the training set; what is only scored has other lengths."""
    need("cudnn", 128)
    sizes = SIZES["neox 128"]
    model = tuned(sizes, b_std=0.0)
    recipe = recipe_of(
        sizes,
        engine={"kind": "fast", "attention": "cudnn"},
        data={"packing": False},
        training={"max_steps": 2},
    )
    train = documents_of((256,) * 8)
    trainer = trainer_of(model, sizes, recipe, train)
    trainer.run(tmp_path)
    plain = trainer_of(model, sizes, recipe_of(sizes, engine={"kind": "plain"}), train)
    assert trail(tmp_path)[-1]["valid_loss"] == pytest.approx(plain.mean_loss(plain.valid), rel=5e-3)


def test_every_value_that_needs_a_card_is_taken_on_one() -> None:
    """What the CPU refuses; `kernels` and `attention` were computed above."""
    sizes = SIZES["llama 128"]
    model = tuned(sizes)
    for key, values in engines.ONLY_CUDA.items():
        for value in values:
            if (key, value) == ("attention", "cudnn") or (value == "flash4" and flash4.missing()):
                continue
            trainer = trainer_of(model, sizes, recipe_of(sizes, engine={"kind": "fast", key: value}))
            micro = trainer.engine.arrange([trainer.train[:4]], grad=True)[0]
            loss = trainer.engine(*micro)
            loss.backward()
            assert math.isfinite(float(loss.detach()))
            if key == "compute":
                assert all(group.narrow for block in trainer.engine._body.blocks for group in block.groups)
            clear(model)
