"""The speed table of training: ours at every goal, and the peers beside it, one after another on this machine.

    python bench/train.py --write-docs                        everything, about 20 minutes on an H200
    python bench/train.py --only-ours --out $OUT              the nine rows of ours, 5 minutes
    python bench/train.py --rows '5.8b.*(unsloth|trl)' --seconds 560 --out $OUT
    python bench/train.py --tables a.jsonl b.jsonl --write-docs      the table again, from the logs of several calls
    python bench/train.py --tiny --out FOLDER --write-docs    on the CPU, two minutes: the whole way on tiny shapes

Each row is a process of its own: bench/ours.py, or bench/peers.py; for Unsloth bench/random_base.py writes a
checkpoint to a memory disk, which is removed after the shape's last row. Results go to OUT/train.jsonl as they
come, all output to OUT/train.log, the table to OUT/train.md. `--rows` is searched in the names that `--list`
prints. With --seconds, a row that would not end in time is left out and said to be. `--set` goes to ours alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import train_docs

HERE = Path(__file__).resolve().parent
OURS = "koalpaca"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        system: `koalpaca`, or a peer of bench/peers.py.
        shape, workload: what is trained.
        budget: ours: GiB to plan for; None: the whole card.
        compute: ours: engine.compute, where it is not auto.
        goal: ours: tokens/s to reach.
        recompute: a peer's checkpointing, yes or no.
        packing, batch: a peer's rows; 0: padded batches, and peers.py's own number of rows.
        extra: not one that the goals are held against: run with --all only.
    """

    system: str
    shape: str
    workload: str = "fixed"
    budget: float | None = None
    compute: str = ""
    goal: int | None = None
    recompute: str = ""
    packing: int = 0
    batch: int = 0
    extra: bool = False

    @property
    def name(self) -> str:
        """How --rows and the log know it."""
        parts = [self.shape, self.workload, self.system]
        if self.budget is not None:
            parts.append(f"{self.budget:g}GiB")
        if self.compute:
            parts.append(self.compute)
        if self.recompute:
            parts.append(f"recompute={self.recompute}")
        if self.packing:
            parts.append(f"packing={self.packing}")
        if self.batch:
            parts.append(f"batch={self.batch}")
        return " ".join(parts)

    @property
    def expected(self) -> int:
        """Seconds that it takes, roughly, checkpoints aside."""
        return 40 if self.system == OURS else 90

    def loads(self, given: argparse.Namespace) -> bool:
        """Whether it reads a checkpoint."""
        return self.system == "unsloth" or (given.from_checkpoint and self.system != OURS)

    def command(self, given: argparse.Namespace) -> list[str]:
        """The process that measures it."""
        if self.system == OURS:
            line = [str(HERE / "ours.py"), self.shape, "--workload", self.workload]
            if self.budget is not None:
                line += ["--budget", str(self.budget)]
            keys = [f"engine.compute={self.compute}"] * bool(self.compute) + given.set
            return [sys.executable, *line, *(["--set", *keys] if keys else [])]
        folder = str(given.checkpoints / self.shape) if self.loads(given) else "memory"
        line = [str(HERE / "peers.py"), self.system, self.shape, folder]
        line += ["--workload", self.workload, "--recompute", self.recompute, "--steps", str(given.peer_steps)]
        line += ["--packing", str(self.packing), "--batch", str(self.batch)]
        return [sys.executable, *line]


MIDDLE, LARGE, LLAMA = "polyglot-ko-5.8b", "polyglot-ko-12.8b", "llama3-8b"
ROWS = (
    Row(OURS, MIDDLE, budget=46, goal=26000),
    Row(OURS, MIDDLE, budget=24, goal=22000),
    Row(OURS, MIDDLE, budget=7, goal=15500),
    Row(OURS, MIDDLE, budget=46, compute="fp8", goal=36000),
    Row("unsloth", MIDDLE, recompute="no"),
    Row("unsloth", MIDDLE, recompute="yes"),
    Row("trl", MIDDLE, recompute="no"),
    Row("trl", MIDDLE, recompute="yes"),
    Row("hf", MIDDLE, recompute="yes", extra=True),
    Row(OURS, LARGE, budget=80, goal=12000),
    Row(OURS, LARGE, budget=24, goal=9500),
    Row(OURS, LARGE, budget=80, compute="fp8", goal=17000),
    Row("trl", LARGE, recompute="no"),
    Row("trl", LARGE, recompute="yes"),
    Row("unsloth", LARGE, recompute="no", extra=True),
    Row("unsloth", LARGE, recompute="yes", extra=True),
    Row(OURS, LLAMA, budget=66, goal=19500),
    Row(OURS, LLAMA, budget=24, goal=14500),
    Row(OURS, LLAMA, budget=66, compute="fp8", goal=27000),
    Row("unsloth", LLAMA, recompute="no"),
    Row("unsloth", LLAMA, recompute="yes"),
    Row("trl-liger", LLAMA, recompute="yes"),
    Row("trl", LLAMA, recompute="no", extra=True),
    Row(OURS, MIDDLE, "kosft", goal=24000),
    Row("unsloth", MIDDLE, "kosft", recompute="no", packing=2048),
    Row("unsloth", MIDDLE, "kosft", recompute="no", packing=2048, batch=8, extra=True),
    Row("trl", MIDDLE, "kosft", recompute="yes", packing=8192),
    Row("trl", MIDDLE, "kosft", recompute="yes", extra=True),
    Row(OURS, LLAMA, "kosft", goal=18000),
    Row("unsloth", LLAMA, "kosft", recompute="no"),
    Row("unsloth", LLAMA, "kosft", recompute="no", packing=2048),
    Row("unsloth", LLAMA, "kosft", recompute="no", packing=2048, batch=8, extra=True),
)
TINY = (
    Row(OURS, "tiny-neox", goal=1),
    Row("hf", "tiny-neox", recompute="no"),
    Row(OURS, "tiny-llama", "kosft", goal=10**9),
    Row("hf", "tiny-llama", "kosft", recompute="yes"),
    # the tiny table shows a failure too: transformers' Trainer does not pack
    Row("hf", "tiny-llama", "kosft", recompute="yes", packing=64, extra=True),
)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=re.compile, default=re.compile(""), metavar="REGEX", help="only such rows")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only-ours", "--no-peers", action="store_true", help="no peers, no checkpoints")
    which.add_argument("--no-ours", action="store_true", help="the peers alone")
    parser.add_argument("--all", action="store_true", help="also the rows that the goals are not held against")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and stop")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="recipe keys of ours")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-train"), help="folder of log and table")
    parser.add_argument("--peer-steps", type=int, default=10, help="of which the first three are not counted")
    parser.add_argument("--from-checkpoint", action="store_true", help="hf and trl load one too, as Unsloth must")
    parser.add_argument(
        "--checkpoints", type=Path, default=Path("/dev/shm"), help="where Unsloth's bases are written"
    )
    parser.add_argument("--peers-site", type=Path, help="folder of the peers' packages (bench/gpu_site.sh)")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoints there")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end within so many seconds")
    parser.add_argument("--row-seconds", type=float, default=240, help="stop a row that takes longer")
    parser.add_argument(
        "--tables", type=Path, nargs="+", metavar="JSONL", help="measure nothing: table of these logs"
    )
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/ko and docs/en/speed.md")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs", help="the folder with ko/ and en/")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, for a CPU; docs go to OUT/docs")
    return parser.parse_args()


class Bench:
    """The rows of one call, in the order of the table, a shape's checkpoint made once."""

    def __init__(self, given: argparse.Namespace, rows: list[Row]) -> None:
        self.given = given
        self.rows = rows
        self.began = time.monotonic()
        self.made: set[str] = set()
        given.out.mkdir(parents=True, exist_ok=True)
        self.results = given.out / "train.jsonl"
        self.results.touch()
        self.log = given.out / "train.log"

    def left(self) -> float:
        """Seconds until --seconds."""
        return float(self.given.seconds) - (time.monotonic() - self.began)

    def run(self) -> None:
        """Measures every row; ours first within a shape."""
        shapes = list(dict.fromkeys(row.shape for row in self.rows))
        with tempfile.TemporaryDirectory() as folder:
            for shape in shapes:
                rows = sorted((row for row in self.rows if row.shape == shape), key=lambda row: row.system != OURS)
                for row in rows:
                    self._row(row, Path(folder))
                if shape in self.made and not self.given.keep:
                    shutil.rmtree(self.given.checkpoints / shape, ignore_errors=True)

    def _row(self, row: Row, folder: Path) -> None:
        checkpoint = row.loads(self.given) and row.shape not in self.made
        if self.left() < row.expected + 40 * checkpoint:
            print(f"left out, {self.left():.0f} s to go: {row.name}", flush=True)
            return
        if row.loads(self.given) and not self._checkpoint(row.shape, folder):
            print(f"left out, no checkpoint: {row.name}", flush=True)
            return
        began = time.monotonic()
        site = None if row.system == OURS else self.given.peers_site
        output = self._process(row.command(self.given), folder, site)
        result = measure.found(output)
        if result is None:
            said = [line for line in output.splitlines() if line.strip()]
            # libraries go on talking after an exception
            raised = [line for line in said if re.match(r"[\w.]*(Error|Exception|Interrupt)\b|stopped: ", line)]
            result = {"error": (raised or said or ["it said nothing"])[-1]}
            print("\n".join(said[-12:]))
        entry = {"row": row.name, **fields(row), **result, "wall_seconds": round(time.monotonic() - began, 1)}
        with self.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        speed, peak = entry.get("tokens_per_second"), entry.get("peak_gib")
        said_so = f"{speed:,.0f} tokens/s, {peak} GiB" if speed else f"failed: {entry['error'][:200]}"
        print(f"{row.name}: {said_so} ({entry['wall_seconds']} s)", flush=True)

    def _checkpoint(self, shape: str, folder: Path) -> bool:
        where: Path = self.given.checkpoints / shape
        # written last
        whole = where / "tokenizer.json"
        if not whole.is_file() and shape not in self.made:
            self.made.add(shape)
            self._process([sys.executable, str(HERE / "random_base.py"), shape, str(where)], folder)
        return whole.is_file()

    def _process(self, command: list[str], folder: Path, site: Path | None = None) -> str:
        """Runs a command in an empty folder (Unsloth writes what it compiles where it stands); its output."""
        here = [HERE.parent, *(Path(path) for path in os.environ.get("PYTHONPATH", "").split(":") if path)]
        paths = [path.resolve() for path in (*here, *([site] if site else []))]
        environment = {
            **os.environ,
            "PYTHONPATH": ":".join(map(str, paths)),
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            "UNSLOTH_DISABLE_STATISTICS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, cwd=folder, env=environment, start_new_session=True
            )
            late = ""
            try:
                process.wait(timeout=min(self.given.row_seconds, max(1.0, self.left())))
            except subprocess.TimeoutExpired:
                # its data loader's workers too
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                late = "\nstopped: it took too long\n"
            file.seek(0)
            output = file.read() + late
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command)}\n{output}")
        return output


def fields(row: Row) -> dict[str, Any]:
    """What the table needs of a row that failed, too."""
    return {
        "system": row.system,
        "shape": row.shape,
        "workload": row.workload,
        "budget_gib": row.budget,
        "compute": row.compute,
        "goal": row.goal,
        "recompute": row.recompute,
        "packing": row.packing,
        "batch": row.batch or (1 if row.packing else 8),
    }


def main() -> None:
    """Measures, then writes the table."""
    given = parsed()
    # the processes stand in a folder of their own
    given.out, given.checkpoints = given.out.resolve(), given.checkpoints.resolve()
    table = list(TINY if given.tiny else ROWS)
    rows = [row for row in table if given.rows.search(row.name) and (given.all or not row.extra)]
    rows = [
        row
        for row in rows
        if (row.system == OURS or not given.only_ours) and (row.system != OURS or not given.no_ours)
    ]
    if given.list:
        print("\n".join(row.name for row in rows))
        return
    if given.tiny:
        given.docs = given.out / "docs"
        given.checkpoints = given.out / "checkpoints"
    if not given.tables:
        bench = Bench(given, rows)
        bench.run()
        given.tables = [bench.results]
    given.out.mkdir(parents=True, exist_ok=True)
    text = train_docs.table(train_docs.read(given.tables), [row.name for row in table])
    (given.out / "train.md").write_text(text, encoding="utf-8")
    print("\n" + text)
    if given.write_docs:
        for page in train_docs.write(given.docs, text):
            print(f"written: {page}")


if __name__ == "__main__":
    main()
