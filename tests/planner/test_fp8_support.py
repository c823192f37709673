"""Why products in e4m3 cannot be, in a few words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from koalpaca_tune.planner.card import CARDS
from koalpaca_tune.planner.shape import SHAPES
from koalpaca_tune.planner.support import fp8_obstacle

SHAPE = SHAPES["polyglot-ko-5.8b"]
HOPPER = CARDS["h200"].capability


@pytest.mark.parametrize("compute", ["auto", "bfloat16", "torch.bfloat16"])
@pytest.mark.parametrize("capability", [(9, 0), (10, 0), (12, 0)])
def test_published_bases_can_on_ada_and_newer(compute: str, capability: tuple[int, int]) -> None:
    for shape in SHAPES.values():
        assert fp8_obstacle(shape, compute, capability, fast=True) is None


@pytest.mark.parametrize(
    ("compute", "capability", "fast", "said"),
    [
        ("auto", (0, 0), True, "it needs a CUDA card"),
        ("auto", (8, 6), True, "compute capability is 8.6"),
        ("auto", (8, 0), True, "it needs 9.0 or more"),
        ("auto", (8, 9), True, "it needs 9.0 or more"),
        ("torch.float32", HOPPER, True, "would be float32"),
        ("float16", HOPPER, True, "would be float16"),
        ("auto", HOPPER, False, "only the fast engine"),
    ],
)
def test_what_stands_in_the_way(compute: str, capability: tuple[int, int], fast: bool, said: str) -> None:
    why = fp8_obstacle(SHAPE, compute, capability, fast=fast)
    assert why is not None
    assert said in why


def test_rows_of_sixteen_bytes() -> None:
    odd = replace(SHAPE, intermediate=16392)
    assert "linears 16392 wide" in (fp8_obstacle(odd, "auto", HOPPER, fast=True) or "")
    # a key head of 8 is too narrow by itself
    narrow = replace(SHAPES["llama-3-8b"], kv_heads=1, head_dim=8)
    assert "8 wide" in (fp8_obstacle(narrow, "auto", HOPPER, fast=True) or "")
