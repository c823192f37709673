"""Bases loaded anew for each test, since an adapter is put inside the model itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from koalpaca_tune.config.recipe import Base, Lora, Quantization
from koalpaca_tune.models import adapter, base
from koalpaca_tune.models.base import Loaded

FULL = Quantization(load_in_4bit=False)


@pytest.fixture(scope="session")
def load() -> Callable[..., Loaded]:
    """(folder, quantization=full precision) -> a base."""

    def load(folder: str | Path, quantization: Quantization = FULL) -> Loaded:
        return base.load(Base(path=str(folder)), quantization)

    return load


@pytest.fixture(scope="session")
def attach() -> Callable[..., Any]:
    """(loaded, targets, alive) -> the model with an adapter; `alive`: with random B matrices."""

    def attach(loaded: Loaded, targets: list[str], *, alive: bool = True, r: int = 4) -> Any:
        torch.manual_seed(5)
        model = adapter.attach(loaded, Lora(r=r, alpha=16, dropout=0.05, targets=targets), "some/base")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if alive and ".lora_B." in name:
                    parameter.normal_(std=0.2)
        return model.eval()

    return attach


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Tiny products are quicker on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
