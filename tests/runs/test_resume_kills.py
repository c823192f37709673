"""A short version of bench/kills.py: SIGKILL at random moments, a disk that lies, and the end is the same."""

from __future__ import annotations

import collections
import importlib.util
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.runs import train as runs

BENCH = Path(__file__).parents[2] / "bench/kills.py"


@pytest.fixture(scope="module")
def kills() -> Any:
    if not BENCH.is_file():
        pytest.skip("bench/kills.py is in the source tree only")
    spec = importlib.util.spec_from_file_location("kills", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["plain", "fast"])
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(
    kills: Any, on_files: Callable[..., Recipe], tmp_path: Path, kind: str
) -> None:
    def recipe(name: str) -> Recipe:
        training = {"max_steps": 12, "checkpoint_every": 2, "eval_every": 5, "log_every": 3, "batch_size": 2}
        return on_files(
            out=str(tmp_path / name), training=training, engine={"kind": kind}, lora={"r": 4, "dropout": 0.2}
        )

    examples = runs.read_examples(recipe("whole"))
    began = time.perf_counter()
    _, status = os.waitpid(kills.start(recipe("whole"), examples), 0)
    assert status == 0, (tmp_path / "whole.log").read_text(encoding="utf-8")
    seconds = time.perf_counter() - began
    expected = kills.result(tmp_path / "whole")
    counts: collections.Counter[str] = collections.Counter()
    chance = random.Random(3)
    while counts["kills"] < 5:
        counts["lives"] += 1
        name = f"life-{counts['lives']}"
        kills.live(recipe(name), examples, seconds, chance, 5 - counts["kills"], counts)
        found = kills.result(tmp_path / name)
        assert {name for name, value in expected.items() if found[name] != value} == set()
