"""Energy of a run's graphics cards: NVIDIA's own counters, else their power limit times the time, which is more.

NVML counts millijoules since its driver was loaded, on Volta and newer. What else runs on a card meanwhile is
counted too.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from typing import Any

COUNTER, LIMIT = "counter", "power-limit"


class Meter:
    """Counts from when it is made.

    Args:
        cards: UUIDs of the cards as NVML spells them (`GPU-...`); none: nothing is measured.
    """

    def __init__(self, cards: Sequence[str]) -> None:
        self._cards = cards
        self._library = _library() if cards else None
        self._since = time.monotonic()
        self._start = self._joules()

    def used(self) -> dict[str, Any] | None:
        """For record.json: `joules` and `how`; None where neither counter nor limit can be read."""
        now = self._joules()
        if self._start is not None and now is not None and now > self._start:
            return {"joules": round(now - self._start, 1), "how": COUNTER}
        watts = self._read("nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint)
        if watts is None:
            return None
        return {"joules": round(watts * (time.monotonic() - self._since), 1), "how": LIMIT}

    def _joules(self) -> float | None:
        return self._read("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)

    def _read(self, name: str, kind: Any) -> float | None:
        """A thousandth of what NVML says, over all cards; None if it says nothing of one."""
        if self._library is None:
            return None
        total = 0
        for card in self._cards:
            handle, value = ctypes.c_void_p(), kind()
            found = self._library.nvmlDeviceGetHandleByUUID(card.encode(), ctypes.byref(handle))
            if found or getattr(self._library, name)(handle, ctypes.byref(value)):
                return None
            total += int(value.value)
        return total / 1000


def cards() -> list[str]:
    """UUIDs of the cards that torch sees; none without CUDA."""
    import torch

    if not torch.cuda.is_available():
        return []
    found = (torch.cuda.get_device_properties(n).uuid for n in range(torch.cuda.device_count()))
    return [f"GPU-{uuid}" for uuid in found]


def _library() -> Any:
    """NVML, started; None where it is not there."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return None if library.nvmlInit_v2() else library
