"""Loss that saws, falls in steps, drops, or is zero: the threads under "Loss drops, spikes, zero"."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from koalpaca_tune import jsonl
from koalpaca_tune.comparison import stats, verdict
from koalpaca_tune.comparison.verdict import Finding
from koalpaca_tune.config import load as recipes
from koalpaca_tune.config.recipe import Recipe, Training
from koalpaca_tune.diagnosis import curve
from koalpaca_tune.diagnosis.causes import CAUSES
from koalpaca_tune.diagnosis.verdict import diagnose
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import tokenizer
from koalpaca_tune.records import NOT_LEARNED, Encoded, Rendered
from koalpaca_tune.runs import diagnose as runs
from koalpaca_tune.runs import preflight, versions
from koalpaca_tune.templates.template import content, frame
from koalpaca_tune.tokens.encode import Encoder
from koalpaca_tune.tokens.limit import limit
from koalpaca_tune.training.objective import Objective
from koalpaca_tune.training.steps import steps

Make = Callable[..., Recipe]


def code(do: Callable[[], object]) -> str:
    with pytest.raises(KoalpacaError) as caught:
        do()
    return caught.value.problems[0].code


@pytest.mark.parametrize("packing", [False, True])
def test_qlora_84_batches_are_never_sorted_by_length(packing: bool) -> None:
    """A sawtooth loss: `group_by_length` puts the long examples of each lot first."""
    lengths = np.random.default_rng(3).integers(20, 400, 300)
    examples = [Encoded((5,) * int(n), (NOT_LEARNED, *(5,) * int(n - 1)), "") for n in lengths]
    plan = steps(examples, Training(epochs=1, batch_size=2), max_length=400, packing=packing, seed=1)
    tokens = np.array([sum(lengths[i] for row in step.rows for i in row) for step in plan[:-1]])
    assert 0.3 < float((np.diff(tokens) < 0).mean()) < 0.7
    centred = tokens - tokens.mean()
    assert abs(float((centred[1:] * centred[:-1]).sum() / (centred**2).sum())) < 3 / len(tokens) ** 0.5
    # the switch of other trainers is no key here
    assert code(lambda: recipes.load("demo", ("training.group_by_length=true",))) == "config-unknown-key"


def test_qlora_84_a_sawtooth_of_lengths_is_named() -> None:
    """As a trail of another loop shows it: lots of eight, the longest first."""
    noise = np.random.default_rng(0)
    rows = [
        {
            "step": n + 1,
            "epoch": n / 48,
            "loss": 1.5 + 0.004 * (tokens := 400 - 45 * (n % 8) + int(noise.integers(0, 20))),
            "learning_rate": 2e-4,
            "grad_norm": 1.0,
            "tokens": tokens,
            "learned_tokens": tokens // 3,
            "adapter_zero": 0.0,
        }
        for n in range(48)
    ]
    found = diagnose(curve.signals(rows))
    assert found.verdict == "length-order"
    assert CAUSES["length-order"].en == "batches sorted by length"


def test_qlora_290_a_staircase_at_each_epoch_is_memorisation(
    by_heart: Any, pains_recipe: Make, make_ready: Any
) -> None:
    """The loss steps down at each epoch: answers are known by heart, and nothing is learned but they."""
    rows = [row for _, row in jsonl.read(by_heart.folder / "metrics.jsonl")]
    valid = [row["valid_loss"] for row in rows if "valid_loss" in row]
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert valid[-1] > 2 * rows[-1]["loss"]
    read, found = runs.of(by_heart.folder)
    assert found.verdict == "memorisation"
    assert read.signals["curve.ratio_last"] < 0.55
    assert "training.epochs=1" in read.next_command(CAUSES[found.verdict].command)
    # many epochs without a validation loss, which alone would show it, are told of beforehand
    blind = pains_recipe(by_heart.folder / "x", training={"max_steps": None, "epochs": 5}, data={"valid": None})
    (finding,) = [one for one in preflight.of_model(make_ready(blind)) if "(steps)" in one.name]
    assert finding.state == "note"


def test_qlora_117_padding_stands_on_the_right_and_is_masked_by_place(
    trained_neox: Any, pains_recipe: Make, make_ready: Any, tmp_path: Path
) -> None:
    """The loss goes to zero where id 0 pads on the left and counts. Here the end token is id 0 and may pad."""
    ready = make_ready(pains_recipe(tmp_path / "run"))
    end = ready.examples.encoder.vocabulary.id("<|endoftext|>")
    assert end == 0
    some = ready.examples.train[:5]
    assert all(one.labels[-1] == end for one in some)

    def loss(rows: list[list[Encoded]], pad_id: int) -> float:
        objective = Objective(
            ready.trainer.model,
            ready.loaded.architecture,
            pad_id=pad_id,
            device=torch.device("cpu"),
            micro_tokens=10_000,
            scored_tokens=10_000,
        )
        with torch.no_grad():
            return sum(float(objective(*arguments)) for arguments in objective.arrange(rows, grad=False))

    alone = sum(loss([[one]], 7) for one in some)
    together = [[one] for one in some]
    assert loss(together, 0) == pytest.approx(alone, rel=1e-5)
    assert loss(together, 7) == pytest.approx(alone, rel=1e-5)
    assert alone / sum(one.learned for one in some) > 1.0


def test_alpaca_lora_391_the_broken_optimizer_and_the_rate_are_told_of(tmp_path: Path, pains_recipe: Make) -> None:
    """Loss 0 after 15 steps: a rate of 3e-3, and bitsandbytes 0.37.2, whose 8-bit Adam was broken."""
    recipe = pains_recipe(tmp_path / "run", training={"learning_rate": 3e-3, "optimizer": "paged_adamw_8bit"})
    here = versions.Circumstances(recipe, False, None)
    for version, bad in (("0.37.2", True), ("0.41.1", False)):
        found = versions.check(here, {"bitsandbytes": version})
        assert any(one.state == "bad" and "8비트 옵티마이저" in one.seen for one in found) == bad
    assert [one.state for one in preflight.of_recipe(recipe) if "rate" in one.name] == ["note"]


@pytest.fixture
def overflowing(tiny_bases: dict[str, str], tmp_path: Path) -> Path:
    """A base of whose values some go beyond 65,504, the largest of float16."""
    folder = Path(shutil.copytree(tiny_bases["gpt_neox"], tmp_path / "large"))
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if name.endswith("dense_h_to_4h.weight"):
            weights[name] *= 1e6
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_alpaca_lora_170_llama_factory_506_a_float16_overflow_stops_the_run_and_is_named(
    overflowing: Path, pains_recipe: Make, train_it: Any, tmp_path: Path
) -> None:
    """Loss 0 or NaN, and the run goes on for hours: here it ends at once, and the cause is named."""
    half = {"load_in_4bit": True, "bnb_4bit_compute_dtype": "float16"}
    recipe = pains_recipe(tmp_path / "run", base={"path": str(overflowing)}, quantization=half)
    assert code(lambda: train_it(recipe)) == "loss-not-finite"
    assert not (tmp_path / "run" / "adapter").exists()
    read, found = runs.of(tmp_path / "run")
    assert found.verdict == "float16-overflow"
    assert read.next_command(CAUSES[found.verdict].command).endswith("bnb_4bit_compute_dtype=auto")
    # in the type that is chosen by itself the same base has a loss
    auto = pains_recipe(tmp_path / "auto", base={"path": str(overflowing)}, training={"max_steps": 1})
    assert np.isfinite(train_it(auto).record["result"]["loss"])


def test_transformers_34191_unsloth_8261_the_loss_does_not_depend_on_accumulation(
    trained_neox: Any, pains_recipe: Make, train_it: Any, tmp_path: Path
) -> None:
    """A mean of means weighs tokens by their company. Here a step is summed and divided once."""
    cut = train_it(pains_recipe(tmp_path / "run", engine={"micro_tokens": 60}))
    before, after = ([row for _, row in jsonl.read(one.folder / "metrics.jsonl")] for one in (trained_neox, cut))
    assert [row["loss"] for row in after] == pytest.approx([row["loss"] for row in before], rel=1e-5)
    assert [row["grad_norm"] for row in after] == pytest.approx([row["grad_norm"] for row in before], rel=1e-4)


def test_transformers_34191_accumulation_asked_of_the_launcher_is_refused(
    pains_recipe: Make, make_ready: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """accelerate would divide each gradient by it once more, whatever the loop says."""
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "8")
    with pytest.raises(KoalpacaError, match="ACCELERATE_GRADIENT_ACCUMULATION_STEPS=8") as caught:
        make_ready(pains_recipe(tmp_path / "run"))
    assert caught.value.problems[0].code == "launch-option"
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    assert make_ready(pains_recipe(tmp_path / "run")).accelerator.gradient_accumulation_steps == 1


def test_trl_1183_what_is_learned_goes_by_ids_and_a_template_that_does_not_fit_is_refused(
    conversations: Any,
) -> None:
    """A response marker that stands otherwise in the ids is not found: everything or nothing is masked."""
    vocabulary = tokenizer.load("embedded")
    koalpaca = Encoder(vocabulary, vocabulary.template("koalpaca"))
    # a marker with its space: the space belongs to the answer's first token, so the marker's ids are not there
    marked = Rendered(
        (frame("### 질문: 수도는?\n\n### 답변: "), content("서울입니다.", learn=True)), "talks.jsonl:1"
    )
    assert code(lambda: next(koalpaca.encode([marked]))) == "mask-boundary"
    for conversation, one in zip(conversations, koalpaca.conversations(conversations), strict=True):
        learned = [label for label in one.labels if label != NOT_LEARNED]
        said = "".join(f" {turn.content}" for turn in conversation.turns if turn.role == "assistant")
        assert vocabulary.decode(learned) == said


def test_trl_4879_nothing_to_learn_is_an_error_not_a_loss(
    pains_recipe: Make, make_ready: Any, tmp_path: Path
) -> None:
    """All labels masked: the loss is NaN, or looks normal. Here they are counted, and none left is an error."""
    short = pains_recipe(tmp_path / "run", data={"max_length": 12, "too_long": "cut"})
    with pytest.raises(KoalpacaError, match="9 have nothing to learn: none is left") as caught:
        make_ready(short)
    assert caught.value.problems[0].code == "data-nothing-left"
    masked = Encoded((1, 2, 3), (NOT_LEARNED,) * 3, "talks.jsonl:2")
    kept, counts = limit([masked, Encoded((1, 2), (NOT_LEARNED, 2), "")], 100, "drop", "talks.jsonl")
    assert (len(kept), counts.nothing_to_learn) == (1, 1)


def test_koalpaca_blog_a_sudden_drop_has_a_cause_and_no_improvement_is_said(by_heart: Any) -> None:
    """16 hours with a misspelt option, a drop that nobody explained, and "no visible improvement"."""
    assert (
        code(lambda: recipes.load("demo", ("quantization.bnb_4bit_use_double_quany=true",))) == "config-unknown-key"
    )
    read, found = runs.of(by_heart.folder)
    said = read.as_dict(found)["causes"][0]
    assert said["cause"] == "memorisation"
    assert said["evidence"]["curve.valid_last"] > 2 * said["evidence"]["curve.last"]
    assert said["next"].startswith("koalpaca train ")
    # the same items before and after: 50 right of 100, and again 50, of which 8 changed either way
    before = np.arange(100) < 50
    after = (np.arange(100) >= 8) & (np.arange(100) < 58)
    paired = stats.proportions(before, after)
    word = verdict.verdict_of(paired.difference, paired.p, 0.05)
    spoken = verdict.say([Finding("감정", "sentiment", "skill", word)])
    assert (spoken.headline, spoken.headline_en) == ("나아졌다는 근거가 없습니다", "No detectable improvement")
