"""What only a card shows of scoring: attention of branches, bfloat16, memory. `pytest -s` prints what is found.

TRITON_INTERPRET=0 python -m pytest -q -s -p no:cacheprovider tests/inference/test_cuda_scoring.py
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import product
from typing import Any

import bitsandbytes as bnb
import bitsandbytes.functional as decoding
import pytest
import torch

from koalpaca_tune.config.recipe import Base, Lora, Quantization
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.inference.scoring import Scorer
from koalpaca_tune.kernels import fused, trees
from koalpaca_tune.models import adapter, base
from koalpaca_tune.records import Rendered
from koalpaca_tune.templates.template import content
from koalpaca_tune.tokens.encode import Encoder

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card: run this file there"),
]

SHOTS = "한글은 누가 만들었나요? 세종대왕이 만들었습니다.\n\n가장 높은 산은? 에베레스트산입니다.\n\n"
QUESTIONS = (
    "대한민국의 수도는 어디인가요?",
    "물은 몇 도에서 끓나요?",
    "잠이 안 올 때 어떻게 하지?",
    "고기가 없으면?",
)
CHOICES = (" 예", " 아니오", " 서울입니다.", " 섭씨 백 도입니다.", " 섭씨 백 도가 아닙니다.")
TARGETS = {"gpt_neox": ("query_key_value", "dense"), "llama": ("q_proj", "v_proj", "down_proj")}


def asked(front: str, question: str, choice: str) -> Rendered:
    return Rendered((content(front + question), content(choice, learn=True)))


REQUESTS = [asked(front, question, choice) for front, question, choice in product((SHOTS, ""), QUESTIONS, CHOICES)]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("width", [64, 128, 256])
@pytest.mark.parametrize(("name", "dtype"), [("flash", torch.bfloat16), ("efficient", torch.float32)])
def test_kernels_for_branches_equal_each_sequence_alone(
    name: str, dtype: torch.dtype, width: int, own: bool
) -> None:
    device = torch.device("cuda")
    shapes = [(100, 0), (3, 250), (1, 17), (40, 40), (257, 0), (2, 512), (1, 0)]
    queries, keys = [q for q, _ in shapes], [q + more for q, more in shapes]
    generator = torch.Generator(device).manual_seed(0)

    def draw(rows: int, heads: int) -> torch.Tensor:
        return torch.randn(rows, heads, width, device=device, dtype=dtype, generator=generator)

    q, k, v = draw(sum(queries) + 8, 8), draw(sum(keys), 2), draw(sum(keys), 2)
    rows = torch.arange(sum(keys)) if own else torch.randperm(sum(keys))
    layout = trees.layout(8, queries, keys, rows, device, own=own, dense=True)
    found = {}
    for one in (name, "dense", "alone"):
        out = torch.zeros_like(q)
        trees.BACKENDS[one](q, k, v, layout, out, fused.take)
        found[one] = out.float()
    apart = float((found[name] - found["alone"]).abs().max())
    print(f"\n{name} heads of {width}, own {own}: {apart:.1e} from each alone")
    assert apart < (2e-2 if dtype == torch.bfloat16 else 1e-4)
    assert float((found["dense"] - found["alone"]).abs().max()) < (2e-2 if dtype == torch.bfloat16 else 1e-4)


def loaded(tiny_bases: dict[str, str], family: str, *, four_bit: bool) -> base.Loaded:
    return base.load(Base(path=tiny_bases[family]), Quantization(load_in_4bit=four_bit))


def tuned(one: base.Loaded) -> Any:
    family = one.model.config.model_type
    model = adapter.attach(one, Lora(r=8, alpha=16, dropout=0.05, targets=list(TARGETS[family])), "base")
    generator = torch.Generator("cuda").manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.05, generator=generator)
    return model.eval()


def model_of(one: base.Loaded, model: Any, tokens: int | None = None, **kwargs: Any) -> TorchLanguageModel:
    return TorchLanguageModel(
        model, one, Encoder(one.vocabulary, one.vocabulary.template("koalpaca")), tokens, **kwargs
    )


def values(lm: TorchLanguageModel, requests: Sequence[Rendered]) -> torch.Tensor:
    return torch.tensor([score.logprob for score in lm.score(requests)], dtype=torch.float64)


def in_float32(model: Any) -> Any:
    """The same weights, decoded, in float32."""
    wide = copy.deepcopy(model)
    for path, module in list(wide.named_modules()):
        if isinstance(module, bnb.nn.Linear4bit):
            weight = decoding.dequantize_4bit(module.weight.data, module.weight.quant_state).float()
            linear = torch.nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
            linear.weight = torch.nn.Parameter(weight, requires_grad=False)
            if module.bias is not None:
                linear.bias = torch.nn.Parameter(module.bias.detach().float(), requires_grad=False)
            wide.set_submodule(path, linear.to(weight.device))
    return wide.float()


@pytest.mark.parametrize("four_bit", [True, False])
@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_scores_are_as_near_the_truth_as_those_of_transformers(
    tiny_bases: dict[str, str], family: str, four_bit: bool
) -> None:
    one = loaded(tiny_bases, family, four_bit=four_bit)
    model = tuned(one)
    lm, plain = model_of(one, model), model_of(one, model, engine="plain")
    assert isinstance(lm._scorer(), Scorer)
    assert lm._scorer()._pass.backend == "flash"
    wide = in_float32(model)
    for switched in (False, True):
        found: list[torch.Tensor] = []
        truth: list[float] = []
        with torch.no_grad(), wide.disable_adapter() if switched else nullcontext():
            for encoded in lm.encoder.encode(REQUESTS):
                logits = wide(input_ids=torch.tensor([encoded.ids], device="cuda"), use_cache=False).logits[0]
                logs = logits.double().log_softmax(-1)
                scored = [n for n, label in enumerate(encoded.labels[1:]) if label >= 0]
                truth.append(sum(float(logs[n, encoded.ids[n + 1]]) for n in scored))
        for which in (lm, plain):
            with which.without_adapter() if switched else nullcontext():
                found.append(values(which, REQUESTS))
        single = model_of(one, model, 1)
        with single.without_adapter() if switched else nullcontext():
            alone = torch.stack([values(single, [request])[0] for request in REQUESTS])
        here, there = ((x - torch.tensor(truth)).abs() for x in found)
        company = (found[0] - alone).abs().max()
        print(
            f"\n{family}, {'NF4' if four_bit else 'bfloat16'}, adapter {'off' if switched else 'on'}: engine "
            f"{here.mean():.4f} (max {here.max():.4f}), transformers {there.mean():.4f} (max {there.max():.4f}) "
            f"from float32; trees and one at a time {company:.4f} apart at most"
        )
        assert here.mean() < 1.5 * there.mean() + 1e-3


def test_long_requests_fit_into_little_memory(tiny_bases: dict[str, str]) -> None:
    one = loaded(tiny_bases, "gpt_neox", four_bit=True)
    lm = model_of(one, one.model)
    filler = "가나다라마바사 아자차카타파하 " * 14
    long = [asked(f"{n} {filler}", "수도는?", choice) for n in range(64) for choice in CHOICES[:4]]
    expected = values(lm, long)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    room = torch.cuda.memory_allocated() + (3 << 30) // 2
    torch.cuda.set_per_process_memory_fraction(room / total)
    try:
        again = model_of(one, one.model, 10**6)
        found = values(again, long)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    print(f"\nplanned {again._scorer().budget}, peak {again.peak_memory / 2**20:.0f} MiB of {room / 2**20:.0f}")
    assert again.peak_memory < room
    assert float((found - expected).abs().max()) < 0.2
