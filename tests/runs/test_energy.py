"""Energy is read from NVML's C interface: here from a small library of the same functions, compiled on the spot."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.runs import energy

NVML = """
#include <string.h>
static unsigned long long counted = 5000000; static int counts = 1;
void set(unsigned long long millijoules, int works) { counted = millijoules; counts = works; }
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    *handle = strcmp(uuid, "GPU-b") ? (void *)1 : (void *)2; return strncmp(uuid, "GPU-", 4) != 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *value) {
    *value = counted * (unsigned long long)handle; return counts ? 0 : 3; }
int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned int *value) { *value = 300000; return 0; }
"""


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    (tmp_path / "nvml.c").write_text(NVML)
    made = tmp_path / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(made), str(tmp_path / "nvml.c")], check=True)
    library = ctypes.CDLL(str(made))
    library.set.argtypes = [ctypes.c_ulonglong, ctypes.c_int]
    monkeypatch.setattr(energy, "_library", lambda: library)
    return library


def test_the_counters_of_all_cards_since_the_start(nvml: ctypes.CDLL) -> None:
    meter = energy.Meter(["GPU-a", "GPU-b"])
    nvml.set(5_004_200, 1)
    # 4,200 mJ on the first card and twice that on the second
    assert meter.used() == {"joules": 12.6, "how": "counter"}


def test_an_old_card_has_its_power_limit_times_the_time(nvml: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 160.0])
    monkeypatch.setattr(energy.time, "monotonic", lambda: next(clock))
    nvml.set(0, 0)
    # 300 W for a minute on two cards
    assert energy.Meter(["GPU-a", "GPU-b"]).used() == {"joules": 36000.0, "how": "power-limit"}


def test_nothing_is_made_up() -> None:
    assert energy.Meter([]).used() is None
    assert energy.Meter(["GPU-a"]).used() is None or energy._library() is not None


def test_an_unknown_card_is_not_counted(nvml: ctypes.CDLL) -> None:
    assert energy.Meter(["MIG-a"]).used() is None


def test_a_run_records_it_but_not_one_that_was_resumed(
    nvml: ctypes.CDLL,
    on_files: Callable[..., Recipe],
    carry_out: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A counter that goes on from the middle would tell too little."""
    monkeypatch.setattr(energy, "cards", lambda: ["GPU-a"])
    nvml.set(5000000, 0)
    recipe = on_files(training={"checkpoint_every": 1})
    used = carry_out(recipe)["result"]["energy"]
    assert used["how"] == "power-limit"
    assert used["joules"] > 0
    assert "energy" not in carry_out(recipe, resume=True)["result"]
