"""What a kill costs on this machine: runs left alone twice beside runs that were killed and resumed.

    python bench/resume_noise.py [--lives 2] [--kills 2] [--steps 60] [--only NAME ...] [--out FOLDER]

`koalpaca train demo` itself, on a card where there is one. On the CPU a resumed run is that which was left alone,
bit for bit (bench/kills.py); a card may add up in another order each time, so what counts there is whether a run
that was killed lies as near to one left alone as two runs left alone lie to one another. Kills fall after a drawn
number of rows of metrics.jsonl, half of them while a checkpoint is being written. Prints for each setting the
largest distance of a row's loss (nats) and of the adapter (Frobenius norm of the difference over that of the
adapter), and writes FOLDER/resume_noise.jsonl. Exit status 1 where a run failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent
COMMON = ["lora.dropout=0.05", "training.checkpoint_every=5", "training.log_every=1", "training.eval_every=20"]
CARD = {
    "fast": ["engine.kind=fast", "engine.graphs=never"],
    "fast, graphs": ["engine.kind=fast", "engine.graphs=always"],
    "fast, 8 bits": ["engine.kind=fast", "engine.compute=fp8"],
    "plain, paged AdamW": ["engine.kind=plain", "training.optimizer=paged_adamw_8bit"],
    "rolled back": [
        "engine.kind=fast",
        "training.learning_rate=0.1",
        "training.warmup_steps=60",
        "watch.policy=rollback",
        "watch.rollback_factor=0.02",
    ],
}
CPU = {name: CARD[name] for name in ("fast", "rolled back")}


def command(data: Path, out: Path, steps: int, settings: list[str], *, resume: bool) -> list[str]:
    """`koalpaca train`, as a user gives it."""
    line = [sys.executable, "-m", "koalpaca_tune.cli.main", "train", "demo", f"out={out}", "training.epochs=null"]
    line += [
        f"data.train={data / 'train.jsonl'}",
        f"data.valid={data / 'valid.jsonl'}",
        f"training.max_steps={steps}",
    ]
    return [*line, *COMMON, *settings, *(["--resume"] if resume else [])]


def rows(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def start(line: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(line, stdout=file, stderr=file, cwd=HERE.parent)


def finish(line: list[str], log: Path) -> None:
    if start(line, log).wait():
        raise SystemExit(f"a run failed: {log}\n{log.read_text(errors='replace')[-3000:]}")


def killed_once(line: list[str], folder: Path, log: Path, after: int, at_write: bool, wait: float) -> str | None:
    """Kills a run once it has so many rows; what it was doing, or None if it ended before."""
    process = start(line, log)
    while process.poll() is None:
        writing = [*(folder / "checkpoints").glob(".*.tmp")]
        if rows(folder) >= after and (writing or not at_write):
            break
        time.sleep(0.0005)
    if process.poll() is None:
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
    if process.wait() == 0:
        return None
    if process.returncode != -signal.SIGKILL:
        raise SystemExit(f"a run failed: {log}\n{log.read_text(errors='replace')[-3000:]}")
    left = [*(folder / "checkpoints").glob(".*.tmp")]
    return f"row {rows(folder)}{', writing a checkpoint' if left else ''}"


def result(folder: Path) -> tuple[list[float], dict[str, torch.Tensor], int]:
    """Losses, adapter, rollbacks."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return losses, load_file(folder / "adapter/adapter_model.safetensors"), len(record["rollbacks"])


def apart(one: Any, other: Any) -> dict[str, float]:
    """How far two runs are from each other."""
    losses = [abs(a - b) for a, b in zip(one[0], other[0], strict=True)]
    difference = sum(float((one[1][name].double() - other[1][name].double()).square().sum()) for name in one[1])
    size = sum(float(value.double().square().sum()) for value in one[1].values())
    return {
        "loss": max(losses),
        "equal_rows": sum(value == 0 for value in losses),
        "rows": len(losses),
        "adapter": (difference / size) ** 0.5,
    }


def measure(
    name: str, settings: list[str], given: argparse.Namespace, top: Path, found: list[dict[str, Any]]
) -> None:
    """One setting: two runs left alone, then lives."""
    slug = name.replace(", ", "-").replace(" ", "-")
    chance = random.Random(f"{given.seed} {name}")
    alone = []
    for number in range(2):
        folder = top / f"{slug}-alone-{number}"
        began = time.perf_counter()
        finish(command(given.data, folder, given.steps, settings, resume=False), top / f"{slug}.log")
        print(f"{name}: left alone, {time.perf_counter() - began:.1f} s", flush=True)
        alone.append(result(folder))
    lives = []
    for number in range(given.lives):
        folder = top / f"{slug}-life-{number}"
        moments = []
        for kill in range(given.kills):
            after = given.steps * kill // given.kills + chance.randrange(2, max(3, given.steps // given.kills - 4))
            line = command(given.data, folder, given.steps, settings, resume=(folder / "run.yaml").is_file())
            moment = killed_once(
                line, folder, top / f"{slug}.log", after, chance.random() < 0.5, chance.uniform(0, 0.01)
            )
            if moment:
                moments.append(moment)
        resume = (folder / "run.yaml").is_file()
        if not (folder / "adapter").is_dir():
            finish(command(given.data, folder, given.steps, settings, resume=resume), top / f"{slug}.log")
        lives.append({**apart(alone[0], result(folder)), "kills": moments, "rollbacks": result(folder)[2]})
    row = {
        "setting": name,
        "alone": {**apart(*alone), "rollbacks": alone[0][2]},
        "killed": lives,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    found.append(row)
    print(json.dumps(row, ensure_ascii=False), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lives", type=int, default=2)
    parser.add_argument("--kills", type=int, default=2, help="of each life")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of settings")
    parser.add_argument(
        "--data", type=Path, default=Path("runs/demo-data"), help="of koalpaca data prepare --samples"
    )
    parser.add_argument("--out", type=Path, help="where the results go")
    given = parser.parse_args()
    given.data = given.data.resolve()
    os.environ["PYTHONPATH"] = f"{HERE.parent}:{os.environ.get('PYTHONPATH', '')}"
    settings = CARD if torch.cuda.is_available() else CPU
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as spare:
        threads = [
            threading.Thread(target=measure, args=(name, keys, given, Path(spare), found))
            for name, keys in settings.items()
            if not given.only or name in given.only
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
        (given.out / "resume_noise.jsonl").write_text(text, encoding="utf-8")
    for row in found:
        alone, killed = row["alone"], row["killed"]
        print(
            f"{row['setting']}: two runs left alone differ by {alone['loss']:.2g} nats, "
            f"adapter {alone['adapter']:.2g}; "
            f"{sum(len(one['kills']) for one in killed)} kills in {len(killed)} lives: at most "
            f"{max(one['loss'] for one in killed):.2g} nats, adapter {max(one['adapter'] for one in killed):.2g}"
        )
    return 0 if len(found) == len(threads) else 1


if __name__ == "__main__":
    raise SystemExit(main())
