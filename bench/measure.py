"""What every timed run says of itself: where, with what, and how fast."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

WARM = 3
"""Steps that are not counted: compilation, autotuning and the allocator's first requests."""
MARK = "RESULT "
PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "trl",
    "liger-kernel",
    "unsloth",
    "flash-attn-4",
)


def facts() -> dict[str, Any]:
    """Date (UTC), GPU and versions."""
    import torch

    cuda = torch.cuda.is_available()
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "gpu": torch.cuda.get_device_name(0) if cuda else "CPU",
        "cuda": torch.version.cuda,
        "versions": versions,
    }


def synchronize() -> None:
    """Waits for the card."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def memory() -> dict[str, float | None]:
    """Peaks in GiB since the last reset: what tensors held, and what the allocator took for them."""
    import torch

    if not torch.cuda.is_available():
        return {"peak_gib": None, "reserved_gib": None}
    return {
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2),
    }


def forget_peak() -> None:
    """Peaks count from here."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def speed(tokens: Sequence[float], seconds: Sequence[float], warm: int = WARM) -> dict[str, Any]:
    """Real tokens a second of the steps after the warm-up: the median of steps, and all of them together.

    Args:
        tokens: real tokens of each step, no padding.
        seconds: of each step.
        warm: steps left out at the start.
    """
    counted = list(zip(tokens, seconds, strict=True))[warm:]
    if not counted:
        raise ValueError(f"{len(seconds)} steps, of which {warm} are for warming up.")
    return {
        "tokens_per_second": round(statistics.median(count / second for count, second in counted), 1),
        "tokens_per_second_mean": round(sum(t for t, _ in counted) / sum(s for _, s in counted), 1),
        "tokens": [round(count, 1) for count in tokens],
        "seconds": [round(second, 4) for second in seconds],
        "counted_steps": len(counted),
    }


def since_start() -> float:
    """Seconds since this process was started, imports included (Linux)."""
    ticks = int(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def emit(result: dict[str, Any]) -> None:
    """Prints the result as one line that `found` finds among what libraries print."""
    print(MARK + json.dumps(result, ensure_ascii=False), flush=True)


def found(output: str) -> dict[str, Any] | None:
    """The last result of a run's output."""
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    return json.loads(lines[-1].removeprefix(MARK)) if lines else None
