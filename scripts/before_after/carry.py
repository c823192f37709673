#!/usr/bin/env python3
"""What a GPU machine without a network needs, packed into folders small enough to be carried one call each.

    python scripts/before_after/carry.py pack runs/base100m carry/base100m        here
    python scripts/before_after/carry.py receive carry/base100m /dev/shm/base100m there, in every call
    python scripts/before_after/carry.py gather /dev/shm/base100m OUT.tar.xz      there, at the end

Things are packed in the order in which they are needed, so the first calls can work while the last parts are still
missing. A part is whatever fits: only the parts of one thing together can be unpacked, and its hash says so.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

MANIFEST = "manifest.json"
SMALL = ("tokenizer.json", "tokenizer_config.json", "train.json", "held_out.json", "data.json", "held_out.npy")
PREPARED = ("train.jsonl", "valid.jsonl", "heldout.jsonl", "report.json")


# What comes back. Lines of items are there once, in judged-*: `koalpaca compare` makes the others of them.
RESULTS = (
    "results",
    *(f"seed-*/{name}" for name in ("comparison.json", "report.html", "report.md")),
    *(f"between-seeds/{name}" for name in ("comparison.json", "report.html", "report.md")),
    *(f"judged-*/*/{name}" for name in ("identity.json", "items.jsonl", "result.json")),
    *(f"tuned-*/{name}" for name in ("metrics.jsonl", "record.json", "run.yaml")),
    "pretrain.log",
    "model/config.json",
    "model/provenance.json",
    "prepared/report.json",
)


def archive(files: Sequence[tuple[Path, str]]) -> bytes:
    """Return files and folders as one .tar.xz, under the names given."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        for path, name in files:
            tar.add(path, name, filter=_plain)
    return packed.getvalue()


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what Python compiled here, and whose file it was."""
    if "__pycache__" in entry.name:
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def things(work: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what is needed, first things first: packages, the tokens in two halves, the tuning's data, Kiwi."""
    if (work / "site").is_dir():
        yield "site", archive([(work / "site", "site")])
    tokens = np.load(work / "train.npy")
    half = len(tokens) // 2
    for n, part in enumerate((tokens[:half], tokens[half:]), 1):
        np.save(work / f"train-{n}.npy", part)
        beside = [(work / name, name) for name in SMALL if n == 1]
        yield f"tokens-{n}", archive([*beside, (work / f"train-{n}.npy", f"train-{n}.npy")])
        (work / f"train-{n}.npy").unlink()
    prepared = [(work / "prepared" / name, f"prepared/{name}") for name in PREPARED]
    yield "tuning", archive([*prepared, (work / "data", "data")])
    if (work / "kiwi").is_dir():
        yield "kiwi", archive([(work / "kiwi", "kiwi")])


def pack(work: Path, out: Path, limit: int) -> None:
    """Write OUT/call-1, call-2, ... of at most `limit` bytes each, with the list of all parts in every one."""
    for old in out.glob("call-*"):
        shutil.rmtree(old)
    call, room = 0, 0
    manifest: dict[str, dict[str, object]] = {}
    for name, blob in things(work):
        parts: list[str] = []
        start = 0
        while start < len(blob):
            if room == 0:
                call, room = call + 1, limit
                (out / f"call-{call}").mkdir(parents=True)
            piece = blob[start : start + room]
            parts.append(f"{name}.{len(parts) + 1}")
            (out / f"call-{call}" / parts[-1]).write_bytes(piece)
            start, room = start + len(piece), room - len(piece)
        manifest[name] = {"parts": parts, "sha256": hashlib.sha256(blob).hexdigest()}
        print(f"{name}: {len(blob):,} bytes, complete with call {call}", flush=True)
    for folder in sorted(out.glob("call-*")):
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def receive(carried: Path, store: Path) -> list[str]:
    """Keep the parts that came, unpack what is complete now, and return the names of all that is.

    Raises:
        SystemExit: nothing came, or a thing is not what was packed.
    """
    parts = store / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    for path in sorted(carried.glob("call-*/*")):
        shutil.copyfile(path, parts / path.name)
    if not (parts / MANIFEST).is_file():
        raise SystemExit(f"error: {carried} holds no call-* folder. Name one in carry.")
    complete = []
    for name, thing in json.loads((parts / MANIFEST).read_text(encoding="utf-8")).items():
        done = store / f".{name}"
        files = [parts / part for part in thing["parts"]]
        if not done.exists() and all(file.is_file() for file in files):
            blob = b"".join(file.read_bytes() for file in files)
            if hashlib.sha256(blob).hexdigest() != thing["sha256"]:
                raise SystemExit(
                    f"error: {name} is not what was packed. Remove {store}, and carry all parts again."
                )
            with tarfile.open(fileobj=io.BytesIO(blob), mode="r:xz") as tar:
                tar.extractall(store, filter="data")
            done.touch()
        if done.exists():
            complete.append(name)
    _join(store)
    return complete


def _join(store: Path) -> None:
    """Make train.npy of the halves that are here: the first one is enough for a trial."""
    halves = [path for n in (1, 2) if (path := store / f"train-{n}.npy").is_file()]
    if halves:
        np.save(store / "train.npy", np.concatenate([np.load(path) for path in halves]))


def gather(work: Path, out: Path) -> None:
    """Write what is to come back as one file."""
    files = sorted(path for pattern in RESULTS for path in work.glob(pattern))
    out.write_bytes(archive([(path, str(path.relative_to(work))) for path in files]))
    print(f"{out}: {out.stat().st_size:,} bytes")


def main() -> None:
    """Pack, receive or gather."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write the folders to carry")
    packing.add_argument("work", type=Path, help="folder of run.sh")
    packing.add_argument("out", type=Path)
    packing.add_argument("--mib", type=float, default=40.0, help="most that one call carries")
    receiving = commands.add_parser("receive", help="unpack what came")
    receiving.add_argument("carried", type=Path)
    receiving.add_argument("store", type=Path)
    gathering = commands.add_parser("gather", help="pack the results")
    gathering.add_argument("work", type=Path)
    gathering.add_argument("out", type=Path)
    args = parser.parse_args()
    if args.command == "pack":
        pack(args.work, args.out, int(args.mib * 2**20))
    elif args.command == "gather":
        gather(args.work, args.out)
    else:
        print("complete:", *receive(args.carried, args.store))


if __name__ == "__main__":
    main()
