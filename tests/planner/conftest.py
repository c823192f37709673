"""The work that was measured: 8 x 2,048 tokens, r 8; GPT-NeoX on query_key_value, Llama on all linears."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from koalpaca_tune.planner.shape import SHAPES
from koalpaca_tune.planner.work import Work


@pytest.fixture
def measured_work() -> Callable[..., Work]:
    """(name of a shape, **what differs) -> one step of it."""

    def make(name: str, **different: Any) -> Work:
        shape = SHAPES[name]
        names = [member for _, members in shape.linears for member, _ in members]
        work = Work(
            shape=shape,
            lora_r=8,
            targets=tuple(names if shape.family == "llama" else names[:1]),
            step_tokens=16384,
            document_tokens=2048.0,
            longest=2048,
        )
        return replace(work, **different)

    return make
