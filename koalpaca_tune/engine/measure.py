"""What this machine's card is and has free; its rates from the planner's table, or measured in a second."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from koalpaca_tune.planner import card as cards
from koalpaca_tune.planner.card import Card
from koalpaca_tune.planner.support import FP8_CAPABILITY

REPEATS = 8
ATTENTION_SHARE = 0.45
"""Flash attention over matrix products on a card that is not in the table: between H200 and RTX 4090."""
LINK = 20e9
"""Bytes/s to host memory on such a card: PCIe 4 with 16 lanes, in practice."""
FP8_OVER_BF16 = 1.7
"""Products in e4m3 over those in bfloat16 on an unknown card: a guess, below the 1.9 that an H200 sustains."""
MEMORY_INFO = Path("/proc/meminfo")


def this_card() -> tuple[Card, int]:
    """The first CUDA card, else the CPU; and its free memory in bytes."""
    if not torch.cuda.is_available():
        return _cpu()
    device = torch.device("cuda", 0)
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    known = cards.find(properties.name)
    if known is not None:
        return replace(known, memory_gib=total / 2**30), free
    half = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    matmul, copied = _rates(device, half, size=4096, copied=1 << 28)
    torch.cuda.empty_cache()
    capability = torch.cuda.get_device_capability(device)
    return (
        Card(
            properties.name,
            total / 2**30,
            matmul,
            ATTENTION_SHARE * matmul,
            copied,
            LINK,
            matmul,
            source="products and copies measured just now; attention, 8 bits and the link are guesses",
            measured=True,
            capability=capability,
            matmul8=FP8_OVER_BF16 * matmul if capability >= FP8_CAPABILITY else 0.0,
        ),
        free,
    )


def _cpu() -> tuple[Card, int]:
    matmul, copied = _rates(torch.device("cpu"), torch.float32, size=1024, copied=1 << 26)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    made = Card(
        "cpu",
        total / 2**30,
        matmul,
        ATTENTION_SHARE * matmul,
        copied,
        copied,
        matmul,
        source="products and copies measured just now; attention is a guess",
        measured=True,
        capability=(0, 0),
    )
    return made, _available(total)


def _available(total: int) -> int:
    """Linux says what could be had without swapping; elsewhere half of all is taken for free."""
    if not MEMORY_INFO.is_file():
        return total // 2
    lines = dict(line.split(":", 1) for line in MEMORY_INFO.read_text(encoding="ascii").splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def _rates(device: torch.device, dtype: torch.dtype, *, size: int, copied: int) -> tuple[float, float]:
    """FLOP/s of a square product, and bytes/s of a copy (reads and writes)."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = _seconds(device, lambda: torch.mm(left, right))
    copying = _seconds(device, lambda: target.copy_(source))
    return 2.0 * size**3 / product, 2.0 * copied / copying


def _seconds(device: torch.device, do: Callable[[], object]) -> float:
    """Of one call, after a call that warms up."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    do()
    wait()
    began = time.perf_counter()
    for _ in range(REPEATS):
        do()
    wait()
    return (time.perf_counter() - began) / REPEATS
