"""The preflight on a card: nothing is red, it leaves no trace, and what it took is printed (pytest -s)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.runs import doctor, preflight
from koalpaca_tune.runs import train as runs
from koalpaca_tune.training.window import Window

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        not torch.cuda.is_available(),
        reason="needs a CUDA card: python -m pytest -s tests/runs/test_cuda_preflight.py",
    ),
]

NOISE = 1e-2
"""Relative, of the losses of a few steps: kernels add up in an order of their own."""


@pytest.mark.parametrize(
    ("engine", "training"),
    [
        ({"kind": "fast", "graphs": "never"}, {}),
        ({"kind": "fast", "graphs": "always"}, {}),
        ({"kind": "plain"}, {"optimizer": "paged_adamw_8bit"}),
    ],
)
@pytest.mark.parametrize("dropout", [0.0, 0.05])
def test_a_run_after_a_preflight_is_that_without(
    engine: dict[str, Any], training: dict[str, Any], dropout: float, on_files: Callable[..., Recipe]
) -> None:
    def losses(looked: bool) -> list[float]:
        recipe = on_files(
            base={"path": "embedded"},
            out=f"run-{looked}",
            lora={"dropout": dropout, "targets": ["query_key_value", "dense_4h_to_h"]},
            engine=engine,
            training={"max_steps": 4, "learning_rate": 5e-4, **training},
        )
        ready = runs.make_ready(recipe, runs.read_examples(recipe))
        if looked:
            began = time.perf_counter()
            found = [*preflight.of_model(ready), *preflight.of_probe(ready, Path(recipe.folder))]
            print(f"\n{engine} dropout {dropout}: {time.perf_counter() - began:.2f} s")
            for one in found:
                print(f"  {one.state:4}  {one.name}  {one.seen}  {one.fix}")
            assert [one for one in found if one.state == "bad"] == []
        seen: list[float] = []
        for number in range(4):
            window = Window()
            ready.trainer.take(number, window)
            ready.trainer.settle(window)
            seen.append(window.loss / window.learned)
        return seen

    assert losses(True) == pytest.approx(losses(False), rel=NOISE)


def test_doctor_finds_nothing_wrong(tmp_path: Path) -> None:
    found = doctor.examine(tmp_path, network=False)
    for one in found:
        print(f"  {one.state:4}  {one.name}  {one.seen}  {one.fix}")
    assert [one for one in found if one.state == "bad"] == []
