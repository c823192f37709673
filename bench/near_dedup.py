"""Near-dedup of one million short Korean records: ours beside datasketch (and rensa), one core each.

    python bench/near_dedup.py [../shared/data] [--records 1000000] [--beside 100000]

The records repeat and perturb real ones (NSMC, chatbot_data, question_pair), seeded: 30 % as they are, 10 %
with a changed character, 10 % with other marks at the end, 10 % with one word exchanged, 40 % with half
their words exchanged. All take the same normalised texts, character pairs, threshold 0.8, 60 values in 12
bands of 5. Each job runs in a process of its own; its peak memory includes Python, numpy and the keys, and
for datasketch and rensa nothing of the texts beyond the record at hand.

datasketch is used as its documentation advises for bulk work (MinHash.generator, then query and insert), once
with its own SHA-1 and once with xxhash, and does not verify its candidates; ours does, on the texts, which it
reads from the file. rensa is timed for signatures only.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from koalpaca_tune.data.overlap import grams, minhash, near
from koalpaca_tune.data.overlap.text import TURN, normalise

SHARED = Path(__file__).parents[2] / "shared" / "data"
THRESHOLD, BANDS, ROWS, BATCH, SEED = 0.8, 12, 5, 512, 20261121


class Result(NamedTuple):
    """What one job did.

    Attributes:
        seconds: name of a step -> its wall time.
        peak: bytes, of the whole process.
        dropped: indices of the records that go.
    """

    seconds: dict[str, float]
    peak: int
    dropped: list[int]


def real(root: Path) -> Iterator[str]:
    """Talks as near_text gives them, reviews, questions."""
    with (root / "chatbot_data/ChatbotData.csv").open(encoding="utf-8-sig", newline="") as file:
        yield from (row["Q"] + TURN + row["A"] for row in csv.DictReader(file))
    for name, columns in (("nsmc/train.tsv", (1,)), ("question_pair/train.txt", (0, 1))):
        with (root / name).open(encoding="utf-8-sig") as lines:
            next(lines)
            for line in lines:
                cells = line.rstrip("\n").split("\t")
                yield from (cells[column] for column in columns)


def make(root: Path, path: Path, count: int) -> None:
    """Writes one record a line."""
    rng = random.Random(SEED)
    base = [text for text in real(root) if len(normalise(text)) >= 5]
    words = [word for text in base for word in text.split()]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for _ in range(count):
            file.write(_changed(rng.choice(base), words, rng).replace("\n", " ") + "\n")


def _changed(text: str, words: list[str], rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        return text
    if kind < 0.4:
        at = rng.randrange(len(text))
        return text[:at] + chr(rng.randrange(0xAC00, 0xD7A4)) + text[at + 1 :]
    if kind < 0.5:
        return text + rng.choice(["!", "..", "~", " ㅋㅋ", " ^^"])
    own = text.split(" ")
    for at in [rng.randrange(len(own))] if kind < 0.6 else rng.sample(range(len(own)), (len(own) + 1) // 2):
        own[at] = rng.choice(words)
    return " ".join(own)


def _lines(path: Path, count: int) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        yield from (line.rstrip("\n") for line in islice(file, count))


def _batches(path: Path, count: int) -> Iterator[list[str]]:
    lines = _lines(path, count)
    while batch := list(islice(lines, BATCH)):
        yield batch


def ours(path: Path, count: int) -> Result:
    """koalpaca_tune.data.overlap."""
    start = time.perf_counter()
    signatures, offsets, row, at = np.empty((count, minhash.WIDTH), np.uint32), np.empty(count + 1, np.int64), 0, 0
    for batch in _batches(path, count):
        signatures[row : row + len(batch)] = minhash.sign(batch)
        for text in batch:
            offsets[row], row = at, row + 1
            at += len(text.encode()) + 1
    signed = time.perf_counter()
    with path.open("rb") as file:

        def texts(indices: np.ndarray) -> list[str]:
            found = []
            for place in offsets[indices].tolist():
                file.seek(place)
                found.append(file.readline().decode().rstrip("\n"))
            return found

        groups = near.clusters(signatures, THRESHOLD, texts)
        grouped = time.perf_counter()
        stands = near.repeats(groups, THRESHOLD, texts)
    done = time.perf_counter()
    dropped = np.flatnonzero(stands != np.arange(count)).tolist()
    return Result(
        {"sign": signed - start, "cluster": grouped - signed, "repeats": done - grouped}, _peak(), dropped
    )


def sha1(path: Path, count: int) -> Result:
    """datasketch with the hash function it brings."""
    from datasketch.hashfunc import sha1_hash32

    return _datasketch(path, count, sha1_hash32)


def xxh32(path: Path, count: int) -> Result:
    """datasketch with the fastest hash function at hand."""
    from xxhash import xxh32_intdigest

    return _datasketch(path, count, xxh32_intdigest)


def _datasketch(path: Path, count: int, hashed: Callable[[bytes], int]) -> Result:
    from datasketch import MinHash, MinHashLSH

    start = time.perf_counter()
    index = MinHashLSH(num_perm=minhash.SLOTS, params=(BANDS, ROWS))
    sets = ([pair.encode() for pair in _pairs(normalise(text))] for text in _lines(path, count))
    dropped = []
    signatures = MinHash.generator(sets, num_perm=minhash.SLOTS, seed=1, hashfunc=hashed)
    for n, signature in enumerate(signatures):
        if index.query(signature):
            dropped.append(n)
        else:
            index.insert(n, signature, check_duplication=False)
    return Result({"all": time.perf_counter() - start}, _peak(), dropped)


def _pairs(normal: str) -> set[str]:
    padded = f"\n{normal}\n"
    return {padded[n : n + 2] for n in range(len(padded) - 1)}


def rensa(path: Path, count: int) -> Result:
    """Signatures only, from the hashes that ours begins with too."""
    from rensa import RMinHash

    start = time.perf_counter()
    for batch in _batches(path, count):
        pairs, starts = grams.bigrams([normalise(text) for text in batch])
        ends = np.append(starts, len(pairs)).astype(np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(grams.mixed(pairs), ends, minhash.SLOTS, 1)
        np.array(matrix.to_rows(), np.uint32)
    return Result({"sign": time.perf_counter() - start}, _peak(), [])


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _alone(job: Callable[[Path, int], Result], path: Path, count: int) -> Result:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(job, (path, count))


def _show(name: str, count: int, result: Result) -> None:
    whole = sum(result.seconds.values())
    steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in result.seconds.items())
    dropped = f"{len(result.dropped):,} dropped, " if result.dropped else ""
    print(
        f"{name:13} {count:>9,} records  {count / whole:>9,.0f} records/s  ({steps})  {dropped}"
        f"peak {result.peak / 2**20:,.0f} MiB",
        flush=True,
    )


def main(root: Path, records: int, beside: int) -> None:
    """Prints the figures."""
    print(", ".join(f"{name} {metadata.version(name)}" for name in ("numpy", "datasketch", "rensa")))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.txt"
        make(root, path, max(records, beside))
        mine = _alone(ours, path, beside)
        _show("ours", beside, mine)
        theirs = _alone(sha1, path, beside)
        _show("datasketch", beside, theirs)
        faster = _alone(xxh32, path, beside)
        _show("  with xxhash", beside, faster)
        _show("rensa (sign)", beside, _alone(rensa, path, beside))
        one, other = set(mine.dropped), set(theirs.dropped)
        took = [sum(result.seconds.values()) for result in (mine, theirs, faster)]
        print(
            f"datasketch takes {took[1] / took[0]:.1f} times as long as ours, with xxhash {took[2] / took[0]:.1f}"
        )
        print(
            f"dropped by both {len(one & other):,}, by ours alone {len(one - other):,}, "
            f"by datasketch alone {len(other - one):,}"
        )
        whole = _alone(ours, path, records)
        _show("ours", records, whole)
        print(f"signatures: {records * minhash.WIDTH * 4 / 2**20:,.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=SHARED)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--beside", type=int, default=100_000)
    given = parser.parse_args()
    main(given.root, given.records, given.beside)
