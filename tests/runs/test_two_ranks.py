"""Two processes learn what one learns from the same rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from koalpaca_tune import jsonl
from koalpaca_tune.config import load
from koalpaca_tune.config.recipe import Recipe


def written(folder: Path) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], load_file(folder / "adapter/adapter_model.safetensors")


KINDS = ("plain", "fast")
BOTH = """import sys
from koalpaca_tune.cli.main import cli
for recipe in sys.argv[1:]:
    cli.main(["train", recipe], standalone_mode=False)
"""
"""One start of two processes for both engines: most of the time goes to importing torch."""


def test_axolotl_3839_two_ranks_equal_one(
    on_files: Callable[..., Recipe], carry_out: Callable[..., Any], tmp_path: Path
) -> None:
    """qlora#96 (one GPU busy); axolotl PR#3839 (DDP with a world of one).

    Nine rows in steps of four: in the last step the second rank has none. In the first, the longest row of the
    first rank is a micro-step of its own, so that the second rank waits in an empty one.
    """

    def recipe(kind: str, ranks: str, batch_size: int) -> Recipe:
        training = {"max_steps": 3, "batch_size": batch_size, "eval_every": 1}
        return on_files(
            "llama",
            out=str(tmp_path / f"{kind}-{ranks}"),
            training=training,
            engine={"kind": kind, "micro_tokens": 80},
            data={"packing": False},
        )

    files = []
    for kind in KINDS:
        carry_out(recipe(kind, "one", 4))
        files.append(str(tmp_path / f"{kind}.yaml"))
        jsonl.replace(Path(files[-1]), [load.dump(recipe(kind, "two", 2))])
    (tmp_path / "both.py").write_text(BOTH, encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(tmp_path / "both.py")]
    done = subprocess.run(
        [sys.executable, *launch, *files],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 x 2 rows") == len(KINDS)
    assert done.stdout.count("어댑터 (adapter):") == len(KINDS), "only one rank reports"
    for kind in KINDS:
        lines, matrices = written(tmp_path / f"{kind}-one")
        two_lines, two_matrices = written(tmp_path / f"{kind}-two")
        assert len(lines) == len(two_lines) == 3
        for one, two in zip(lines, two_lines, strict=True):
            for key in ("loss", "valid_loss", "grad_norm"):
                assert two[key] == pytest.approx(one[key], rel=1e-5)
            assert (two["tokens"], two["learned_tokens"]) == (one["tokens"], one["learned_tokens"])
        assert matrices.keys() == two_matrices.keys()
        for name, matrix in matrices.items():
            assert torch.allclose(two_matrices[name], matrix, rtol=0, atol=1e-5)
