"""What the fast engine trains is an ordinary PEFT adapter, and the one that the plain engine would have trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import peft
import pytest
import torch
import transformers
from small_runs import small_recipe, small_run
from torch.nn import functional

from koalpaca_tune.records import NOT_LEARNED, Conversation
from koalpaca_tune.runs.train import Ready

FAMILIES = ("gpt_neox", "llama")
KINDS = ("plain", "fast")
Run = tuple[Ready, Path]


@pytest.fixture(scope="module")
def runs(
    tiny_bases: dict[str, str], conversations: Sequence[Conversation], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Run]:
    """By family and engine: a run of six steps on a 4-bit base, all linears, and its folder."""
    top = tmp_path_factory.mktemp("trained")
    made = {}
    for family in FAMILIES:
        for kind in KINDS:
            # several micro-steps in a step
            engine = {"kind": kind, "micro_tokens": 128}
            recipe = small_recipe(tiny_bases[family], family, training={"max_steps": 6}, engine=engine)
            ready = small_run(recipe, conversations)
            ready.trainer.run(top / family / kind)
            made[family, kind] = (ready, top / family / kind)
    return made


def by_peft_alone(base: str, adapter: Path) -> Any:
    """A base and a saved adapter, by transformers, bitsandbytes and PEFT."""
    four_bit = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        base, quantization_config=four_bit, dtype=torch.float32, device_map="cpu"
    )
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            # it would multiply in bfloat16 on some processors, whatever the config says
            module.support_avx512bf16_for_cpu = False
    return peft.PeftModel.from_pretrained(model, str(adapter)).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_adapter_loads_in_peft_alone_and_gives_the_same_logits(
    runs: dict[tuple[str, str], Run], tiny_bases: dict[str, str], family: str
) -> None:
    ready, folder = runs[family, "fast"]
    trainer = ready.trainer
    assert trainer.prepared.fast
    alone = by_peft_alone(tiny_bases[family], folder / "adapter")
    trainer.model.eval()
    total, learned = 0.0, 0
    with torch.no_grad():
        for one in trainer.train:
            ids = torch.tensor([one.ids])
            logits = alone(input_ids=ids).logits[0]
            assert torch.allclose(logits, trainer.model(input_ids=ids).logits[0], rtol=0, atol=1e-5)
            with alone.disable_adapter():
                assert not torch.allclose(logits, alone(input_ids=ids).logits[0], rtol=0, atol=1e-2), (
                    "it does something"
                )
            labels = torch.tensor(one.labels)[1:]
            total += float(functional.cross_entropy(logits[:-1], labels, ignore_index=NOT_LEARNED, reduction="sum"))
            learned += int((labels != NOT_LEARNED).sum())
    assert trainer.mean_loss(trainer.train) == pytest.approx(total / learned, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_both_engines_train_the_same_adapter(runs: dict[tuple[str, str], Run], family: str) -> None:
    trails, adapters = [], []
    for kind in KINDS:
        ready, folder = runs[family, kind]
        assert ready.trainer.prepared.name == kind
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 6
        trainer = ready.trainer
        trails.append((lines, trainer.mean_loss(trainer.train)))
        adapters.append({n: p.detach() for n, p in trainer.model.named_parameters() if ".lora_" in n})
    rows = [[json.loads(line) for line in lines] for lines, _ in trails]
    for plain, fast in zip(*rows, strict=True):
        for key in ("loss", "grad_norm"):
            assert fast[key] == pytest.approx(plain[key], rel=1e-4)
        for key in ("step", "epoch", "learning_rate", "tokens", "learned_tokens"):
            assert fast[key] == plain[key]
    assert trails[0][1] == pytest.approx(trails[1][1], rel=1e-4)
    assert rows[0][-1]["loss"] < rows[0][0]["loss"]
    plain_adapter, fast_adapter = adapters
    assert plain_adapter.keys() == fast_adapter.keys()
    for name, matrix in plain_adapter.items():
        # Adam divides by a gradient's own size: where it is all but zero, rounding decides the direction
        assert float((fast_adapter[name] - matrix).norm()) < 1e-3 * float(matrix.norm())
