"""Tiny bases with an adapter that already does something, and their gradients by PEFT and autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from peft_gradients import Tuned

from koalpaca_tune.config.recipe import Base, Engine, Lora, Quantization
from koalpaca_tune.engine.build import Builder
from koalpaca_tune.engine.objective import EngineObjective
from koalpaca_tune.models import adapter, base
from koalpaca_tune.planner.choice import Choice
from koalpaca_tune.records import NOT_LEARNED, Encoded


@pytest.fixture
def tuned(tiny_bases: dict[str, str]) -> Callable[..., Tuned]:
    """(family, targets, four_bit=, dropout=) -> a tuned base whose B matrices are not zero."""

    def make(family: str, targets: Sequence[str], *, four_bit: bool = True, dropout: float = 0.0) -> Tuned:
        loaded = base.load(Base(path=tiny_bases[family]), Quantization(load_in_4bit=four_bit))
        torch.manual_seed(3)
        for name, parameter in loaded.model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.1)  # ones and zeros would hide a swapped pair
        lora = Lora(r=4, alpha=16, dropout=dropout, targets=list(targets))
        model = adapter.attach(loaded, lora, "tiny")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_B." in name:
                    parameter.normal_(std=0.1)
        return Tuned(loaded, model)

    return make


@pytest.fixture
def engine() -> Callable[..., EngineObjective]:
    """(tuned, recompute=, cached=, fold=, micro_tokens=, dtype=, narrow=, seed=) -> the engine on it, training."""

    def make(
        tuned: Tuned,
        *,
        recompute: Any = "none",
        cached: int = 0,
        fold: bool = True,
        micro_tokens: int = 1000,
        dtype: torch.dtype = torch.float32,
        narrow: bool = False,
        seed: int | None = None,
    ) -> EngineObjective:
        builder = Builder(
            tuned.model,
            tuned.loaded.architecture,
            dtype=dtype,
            names="torch",
            fold=fold,
            narrow=narrow,
            seed=seed,
        )
        choice = Choice(micro_tokens=micro_tokens, recompute=recompute, cached_blocks=cached, graphs=False)
        return EngineObjective(builder, Engine(), choice, longest=64, pad_id=0)

    return make


@pytest.fixture(scope="session")
def documents() -> list[Encoded]:
    """Five, of 5 to 40 tokens; two equally long; the first third of each is not learned."""
    rng = np.random.default_rng(0)
    made = []
    for length in (17, 33, 5, 40, 33):
        ids = [int(n) for n in rng.integers(5, 500, length)]
        labels = [NOT_LEARNED] * (length // 3) + ids[length // 3 :]
        made.append(Encoded(ids=tuple(ids), labels=tuple(labels)))
    return made


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Tiny products are quicker on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
