"""A disk that is really full: a small file system, mounted for the test. Nothing is lost, and resume goes on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.runs import train as runs
from koalpaca_tune.training import checkpoint

SIZE = 1 << 20
"""Bytes of the disk."""
CLOCK = ("seconds", "data_seconds", "tokens_per_second", "host_memory_gib", "notices")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty folder on a disk of its own of SIZE bytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], capture_output=True, text=True
        )
    except OSError as error:
        pytest.skip(f"there is no mount here ({error})")
    if done.returncode:
        pytest.skip(f"a file system may not be mounted here ({done.stderr.strip()})")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, left: int) -> Path:
    """Leaves so many bytes free on the disk."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(SIZE - left))
    return ballast


def result(folder: Path) -> dict[str, Any]:
    """All that must be the same."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    weights = load_file(folder / "adapter/adapter_model.safetensors")
    return {
        "trail": [{key: value for key, value in line.items() if key not in CLOCK} for line in lines],
        "adapter": {name: matrix.tolist() for name, matrix in weights.items()},
    }


@pytest.mark.parametrize("left", [4096, 64 << 10, 192 << 10], ids=["record", "first checkpoint", "later"])
def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on_when_there_is_room(
    disk: Path, left: int, on_files: Callable[..., Recipe], carry_out: Callable[..., Any], tmp_path: Path
) -> None:
    training = {"max_steps": 8, "checkpoint_every": 1, "keep_checkpoints": 100, "log_every": 1}
    ballast = fill(disk, left)
    recipe = on_files(out=str(disk / "run"), training=training)
    with pytest.raises(KoalpacaError) as caught:
        carry_out(recipe)
    (problem,) = caught.value.problems
    assert problem.code == "run-write"
    assert "No space left on device" in problem.what
    assert "\n" not in str(problem)
    # whatever has a checkpoint's name is a whole one
    whole = checkpoint.listed(disk / "run/checkpoints")
    assert [path for path in whole if checkpoint.fault(path)] == []
    assert bool(whole) == (left > 100_000)
    ballast.unlink()
    subprocess.run(["mount", "-o", f"remount,size={16 * SIZE}", str(disk)], check=True)
    begun = (disk / "run/run.yaml").is_file()
    assert begun == (left > 10_000)
    carry_out(recipe, resume=begun)
    assert not list((disk / "run").rglob("*.tmp"))
    carry_out(on_files(out=str(tmp_path / "run"), training=training))
    assert result(disk / "run") == result(tmp_path / "run")


def test_a_disk_too_small_for_the_run_is_told_before_it(disk: Path, on_files: Callable[..., Recipe]) -> None:
    from koalpaca_tune.runs import preflight

    ready = runs.make_ready(on_files(out=str(disk / "run")), runs.read_examples(on_files()))
    found = preflight._disk(ready, disk / "run")
    assert found.state == "bad"
    assert "GiB 남음 (free)" in found.seen
    assert list(disk.iterdir()) == []
