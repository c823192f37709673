"""Merging on a card: the same weights as on the CPU, but for the last bit of a product.

TRITON_INTERPRET=0 python -m pytest -q -s -p no:cacheprovider tests/inference/test_cuda_merge.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from koalpaca_tune.config.recipe import Base
from koalpaca_tune.inference.merging.merge import merge
from koalpaca_tune.inference.merging.report import Onto
from koalpaca_tune.models import base as bases

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card: run this file there"),
]


@pytest.mark.parametrize("onto", ["base", "trained"])
def test_the_card_merges_as_the_cpu_does(
    onto: Onto, base_folder: Path, four_bit_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Base(path=str(base_folder))
    card = merge(given, four_bit_run, tmp_path / "card", dtype="float32", onto=onto)
    monkeypatch.setattr(bases, "default_device", lambda: torch.device("cpu"))
    cpu = merge(given, four_bit_run, tmp_path / "cpu", dtype="float32", onto=onto)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("card", "cpu"))
    # where a weight lies between two values of NF4, the two may round it apart
    apart = sum(int((one[name] - other[name]).abs().gt(1e-5).sum()) for name in one)
    count = sum(value.numel() for value in one.values())
    print(f"{onto}: {apart} of {count} weights; card {card.merged}; cpu {cpu.merged}")
    assert apart <= count // 10_000
    assert card.merged.largest < 1e-3
