"""LLM.int8: loaded as asked and proved so; what its numbers depend on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bitsandbytes as bnb
import pytest
import torch

from koalpaca_tune.config.recipe import Base, Quantization
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import base, proof
from koalpaca_tune.models.base import Loaded
from koalpaca_tune.models.forward import causal

EIGHT = Quantization(load_in_8bit=True)
FULL = Quantization(load_in_4bit=False)


def test_every_linear_of_the_blocks_is_8_bit_and_the_head_is_not(tiny: str, load: Callable[..., Loaded]) -> None:
    loaded = load(tiny, EIGHT)
    linears = 2 * len(loaded.architecture.linears)
    said = loaded.proof
    assert (said.linears_8bit, said.linears_other, said.linears_4bit) == (linears, 0, 0)
    assert (said.bits, said.threshold, said.quant_type) == (8, 6.0, None)
    assert type(loaded.model.get_output_embeddings()) is torch.nn.Linear
    assert said.dtypes.keys() == {"float32"}
    assert all(not parameter.requires_grad for parameter in loaded.model.parameters())


def test_a_weight_is_off_by_half_a_step_of_its_row_at_most(tiny: str, load: Callable[..., Loaded]) -> None:
    """Rows are scaled by their largest value to -127..127 (in float16, which rounds by 2^-11 more)."""
    exact = dict(load(tiny, FULL).model.named_modules())
    eight = {n: m for n, m in load(tiny, EIGHT).model.named_modules() if isinstance(m, bnb.nn.Linear8bitLt)}
    for name, module in eight.items():
        wanted = exact[name].weight
        largest = wanted.abs().amax(1, keepdim=True)
        scales = module.weight.SCB if module.state.SCB is None else module.state.SCB
        found = module.weight.float() * scales[:, None] / 127
        assert torch.equal(scales, largest[:, 0].half().float())
        assert bool(((found - wanted).abs() <= largest / 254 + wanted.abs() * 2**-10).all())


def test_a_base_loaded_otherwise_than_asked_is_refused(tiny_bases: dict[str, str]) -> None:
    def compared(asked: Quantization, loaded: Quantization) -> str:
        said = base.load(Base(path=tiny_bases["gpt_neox"]), loaded).proof
        with pytest.raises(KoalpacaError) as caught:
            base._compare(said, asked, torch.float32, "here")
        assert caught.value.problems[0].code == "quantization-not-applied"
        return caught.value.problems[0].what

    assert "8 linear modules are not 8-bit, 0 are" in compared(EIGHT, FULL)
    assert "8 modules are 8-bit, asked none" in compared(FULL, EIGHT)
    low = Quantization(load_in_8bit=True, llm_int8_threshold=0.0)
    assert "threshold is 6.0, asked 0.0" in compared(low, EIGHT)
    assert "8 modules are 4-bit, asked none; 0 linear modules are not 8-bit, 0 are" in compared(
        EIGHT, Quantization()
    )


@pytest.mark.parametrize(("threshold", "depends"), [(2.0, True), (0.0, False)])
def test_with_a_threshold_a_text_depends_on_those_beside_it(
    threshold: float, depends: bool, tiny_bases: dict[str, str], load: Callable[..., Loaded]
) -> None:
    """A threshold that some tokens of a tiny base pass, as those of a trained base pass 6."""
    quantization = Quantization(load_in_8bit=True, llm_int8_threshold=threshold)
    loaded = load(tiny_bases["gpt_neox"], quantization)
    assert proof.company(loaded.proof) is depends
    ids = torch.randint(5, 300, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        alone, together = loaded.model(ids[:1]).logits, loaded.model(ids).logits[:1]
    assert torch.allclose(alone, together, atol=1e-5) is not depends


def test_lora_learns_on_it(tiny_bases: dict[str, str], load: Callable[..., Loaded], attach: Any) -> None:
    model = attach(load(tiny_bases["llama"], EIGHT), ["q_proj", "down_proj"]).train()
    ids = torch.randint(5, 300, (2, 16), generator=torch.Generator().manual_seed(0))
    model(input_ids=ids, labels=ids).loss.backward()
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(".lora_" in name for name in learning)
    assert all(p.grad is not None and bool(p.grad.any()) for p in learning.values())
    assert {type(m) for m in causal(model).modules() if isinstance(m, bnb.nn.Linear8bitLt)} == {bnb.nn.Linear8bitLt}
