"""What only a card shows of writing: compiled kernels, tensor cores, graphs. `pytest -s` prints what is found.

TRITON_INTERPRET=0 python -m pytest -q -s -p no:cacheprovider tests/inference/test_cuda_generation.py
"""

from __future__ import annotations

from itertools import product
from typing import Any

import bitsandbytes.functional as bnb
import pytest
import torch

from koalpaca_tune.config.recipe import Base, Lora, Quantization
from koalpaca_tune.inference.decoding import Sampling
from koalpaca_tune.inference.generation.decoder import Decoder
from koalpaca_tune.inference.generation.request import Request
from koalpaca_tune.inference.generation.session import Session
from koalpaca_tune.kernels import decode, matvec
from koalpaca_tune.kernels.decode import Heads
from koalpaca_tune.kernels.matvec import Beside
from koalpaca_tune.kernels.nf4 import Packed
from koalpaca_tune.models import adapter, base

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card: run this file there"),
]

TARGETS = {"gpt_neox": ("query_key_value", "dense_4h_to_h"), "llama": ("q_proj", "v_proj", "down_proj")}


def draw(*shape: int, dtype: torch.dtype, seed: int = 0, std: float = 1.0) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    return (torch.randn(*shape, device="cuda", generator=generator) * std).to(dtype)


def tuned(tiny_bases: dict[str, str], family: str, *, four_bit: bool, names: tuple[str, ...]) -> tuple[Any, Any]:
    loaded = base.load(Base(path=tiny_bases[family]), Quantization(load_in_4bit=four_bit))
    model = adapter.attach(loaded, Lora(r=4, alpha=16, dropout=0.0, targets=list(TARGETS[family])), "base")
    for name in names[1:]:
        model.add_adapter(name, model.peft_config["default"])
    generator = torch.Generator("cuda").manual_seed(3)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if ".lora_" in key:
                parameter.normal_(std=0.1, generator=generator)
    return loaded, model.eval()


PROMPTS = [tuple(range(5, 5 + n)) for n in (3, 40, 17, 8, 25)]


def written(decoder: Decoder, requests: list[Request]) -> list[list[int]]:
    session = Session(decoder)
    tickets = {session.add(request): n for n, request in enumerate(requests)}
    found: list[list[int]] = [[] for _ in requests]
    for token in session.run():
        found[tickets[token.ticket]].append(token.id)
    return found


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
@pytest.mark.parametrize("four_bit", [False, True])
def test_graphs_alone_together_and_the_reference_agree(
    tiny_bases: dict[str, str], family: str, four_bit: bool
) -> None:
    """In float32 all ways give the same tokens; adapters mixed in a batch, texts that join and leave."""
    names = ("default", "other")
    loaded, model = tuned(tiny_bases, family, four_bit=four_bit, names=names)
    wide = model.float()
    requests = [
        Request(ids, 6 + 5 * n, adapter=(None, *names)[n % 3], prefix=3 if n else 0,
                sampling=Sampling(1.0, 0.9, n) if n % 2 else None)
        for n, ids in enumerate(PROMPTS)
    ]  # fmt: skip
    common: dict[str, Any] = {"dtype": torch.float32, "adapters": names, "room": 128}
    with torch.inference_mode():
        together = written(Decoder(wide, loaded.architecture, slots=4, **common), requests)
        eager = written(Decoder(wide, loaded.architecture, slots=4, graphs=False, **common), requests)
        one = Decoder(wide, loaded.architecture, slots=1, **common)
        alone = [written(one, [request])[0] for request in requests]
        plain = written(
            Decoder(wide, loaded.architecture, slots=4, names="torch", decoded=four_bit, **common), requests
        )
    assert [len(ids) for ids in together] == [request.limit for request in requests]
    assert together == eager
    assert together == alone
    assert together == plain


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_in_bfloat16_answers_follow_those_of_generate(tiny_bases: dict[str, str], family: str) -> None:
    loaded, model = tuned(tiny_bases, family, four_bit=True, names=("default",))
    with torch.inference_mode():
        mine = written(
            Decoder(model, loaded.architecture, dtype=torch.bfloat16, adapters=("default",), slots=8, room=128),
            [Request(ids, 16, adapter="default") for ids in PROMPTS],
        )
        same = 0
        for ids, answer in zip(PROMPTS, mine, strict=True):
            with torch.autocast("cuda", dtype=torch.bfloat16):
                out = model.generate(
                    input_ids=torch.tensor([ids], device="cuda"),
                    max_new_tokens=16,
                    min_new_tokens=16,
                    do_sample=False,
                )
            other = out[0, len(ids) :].tolist()
            same += next((n for n, (x, y) in enumerate(zip(answer, other, strict=True)) if x != y), 16)
    print(f"\n{family}: {same} of {16 * len(PROMPTS)} tokens before the first that differs")
    assert same >= 8 * len(PROMPTS)


@pytest.mark.parametrize(
    ("kind", "dtype", "count"),
    [
        *product(("whole", "nf4"), (torch.bfloat16,), (1, 16, 64)),
        ("fp4 plain", torch.bfloat16, 1),
        ("nf4", torch.float32, 1),
        ("nf4", torch.float32, 5),
    ],
)
def test_products_equal_the_reference(kind: str, dtype: torch.dtype, count: int) -> None:
    from koalpaca_tune.kernels import triton_matvec

    for outputs, width in ((8200, 1088),):
        weight: Any = draw(outputs, width, dtype=dtype, std=width**-0.5)
        if kind != "whole":
            found = bnb.quantize_4bit(
                weight, blocksize=64, compress_statistics=not kind.endswith("plain"), quant_type=kind.split()[0]
            )
            weight = Packed(*found)
        x, bias, added = (
            draw(count, width, dtype=dtype),
            draw(outputs, dtype=dtype),
            draw(count, outputs, dtype=dtype),
        )
        a, b = draw(3, 16, width, dtype=dtype, std=width**-0.5), draw(3, 16, outputs, dtype=dtype)
        which = (torch.arange(count, device="cuda") % 4 - 1).int() + (count == 1)
        projected = torch.empty(count, 16, device="cuda")
        expected = torch.empty(count, 16, device="cuda")
        triton_matvec.project(x, a, which, projected)
        matvec.project(x, a, which, expected)
        assert torch.allclose(projected, expected, atol=2e-3), (projected - expected).abs().max()
        wide = bnb.dequantize_4bit(weight.data, weight.state) if isinstance(weight, Packed) else weight
        for given in (
            {"bias": bias, "gelu": True},
            {"beside": Beside(projected, b, which), "added": added, "bias": bias},
        ):
            out = torch.empty(count, outputs, dtype=dtype, device="cuda")
            triton_matvec.linear(x, weight, out, **given)
            truth = torch.empty(count, outputs, dtype=torch.float64, device="cuda")
            double = {
                key: value.double() if isinstance(value, torch.Tensor) else value for key, value in given.items()
            }
            if "beside" in given:
                double["beside"] = Beside(projected, b, which)
            matvec.linear(x.double(), wide.double(), truth, **double)
            error = float((out.double() - truth).abs().max() / truth.abs().max())
            assert error < (1e-2 if dtype == torch.bfloat16 else 2e-5), (outputs, width, list(given), error)


@pytest.mark.parametrize("shares", [1, 16])
@pytest.mark.parametrize("width", [80, 256])
@pytest.mark.parametrize("joined", [True, False])
def test_attention_equals_the_reference(joined: bool, width: int, shares: int | None) -> None:
    from koalpaca_tune.kernels import triton_decode

    heads = Heads(8, 8 if joined else 2, width, joined)
    lengths = torch.tensor([0, 1, 31, 32, 33, 700, 1999], device="cuda")
    slots = torch.tensor([3, 0, 7, 1, 2, 9, 4], device="cuda")
    rows = draw(len(lengths), heads.outputs, dtype=torch.bfloat16)
    angles = draw(2048, width // 4, dtype=torch.float32, seed=1)
    caches = [draw(10, heads.keys, 2048, width, dtype=torch.bfloat16, seed=n) for n in (2, 3)]
    own, theirs = [one.clone() for one in caches], [one.clone() for one in caches]
    out, expected = (torch.empty(len(lengths), 8 * width, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    triton_decode.attend(rows, heads, angles.cos(), angles.sin(), *own, slots, lengths, out, shares=shares)
    decode.attend(rows, heads, angles.cos(), angles.sin(), *theirs, slots, lengths, expected)
    for here, there in zip(own, theirs, strict=True):
        assert torch.allclose(here.float(), there.float(), atol=2e-2)
    assert torch.allclose(out.float(), expected.float(), atol=2e-2), (out - expected).abs().max()
