"""Records on their way: their lines in a file, their keys in memory.

A million short records take about 0.6 GiB of keys, nearly all of it MinHash signatures; texts stay on disk.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self, TextIO

import numpy as np
from numpy.typing import NDArray

from koalpaca_tune import jsonl
from koalpaca_tune.data.work import Done, Tally

RECORDS, REJECTED, KEYS, COUNTS = "records.tsv", "rejected.jsonl", "keys.npz", "counts.json"


@dataclass(slots=True)
class _Arrays:
    """What is kept in memory of each record, batch by batch."""

    orders: list[NDArray[np.int64]] = field(default_factory=list)
    inputs: list[NDArray[np.int32]] = field(default_factory=list)
    at: list[NDArray[np.int64]] = field(default_factory=list)
    questions: list[NDArray[np.uint64]] = field(default_factory=list)
    near: list[NDArray[np.uint32]] = field(default_factory=list)
    asked: list[NDArray[np.uint32]] = field(default_factory=list)
    exact: bytearray = field(default_factory=bytearray)
    normalised: bytearray = field(default_factory=bytearray)


class Spool:
    """The results of batches, in a folder of their own.

    Attributes:
        rows: input -> rows read.
        rejected: input -> code -> rows set aside.
        tally: the batches' counts.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.rows: Counter[int] = Counter()
        self.rejected: dict[int, Counter[str]] = {}
        self.tally = Tally()
        self._arrays = _Arrays()
        self._size = 0
        self._files = ExitStack()
        self._records: BinaryIO = self._files.enter_context((folder / RECORDS).open("wb"))
        self._rejects: TextIO = self._files.enter_context(
            (folder / REJECTED).open("w", encoding="utf-8", newline="\n")
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def add(self, done: Done) -> None:
        """Takes a batch's results."""
        self.rows[done.input] += done.rows
        self.tally.add(done.tally)
        counts = self.rejected.setdefault(done.input, Counter())
        for order, row in done.rejected:
            counts[row.problem.code] += 1
            self._rejects.write(f"{order}\t{jsonl.dumps(row.as_dict())}\n")
        arrays = self._arrays
        at = np.empty(len(done.records), np.int64)
        for n, (record, measured) in enumerate(zip(done.records, done.measured, strict=True)):
            # JSON holds no tab of its own: it is written \t
            line = f"{record}\t{measured}\n".encode()
            at[n] = self._size
            self._size += len(line)
            self._records.write(line)
        arrays.orders.append(done.orders)
        arrays.inputs.append(np.full(len(done.records), done.input, np.int32))
        arrays.at.append(at)
        arrays.questions.append(done.questions)
        arrays.near.append(done.near)
        arrays.asked.append(done.asked)
        arrays.exact += b"".join(done.exact)
        arrays.normalised += b"".join(done.normalised)

    def finish(self) -> Part:
        """Closes the files and hands over what was gathered."""
        self._files.close()
        arrays = self._arrays
        keys = Keys(
            orders=_joined(arrays.orders, np.int64),
            inputs=_joined(arrays.inputs, np.int32),
            at=_joined(arrays.at, np.int64),
            questions=_joined(arrays.questions, np.uint64),
            near=_stacked(arrays.near),
            asked=_stacked(arrays.asked),
            exact=np.frombuffer(bytes(arrays.exact), "V16"),
            normalised=np.frombuffer(bytes(arrays.normalised), "V16"),
        )
        self._arrays = _Arrays()
        return Part(self.folder, keys, self.rows, self.rejected, self.tally)


def _joined(parts: Sequence[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _stacked(parts: list[NDArray[np.uint32]]) -> NDArray[np.uint32]:
    filled = [part for part in parts if len(part)]
    if not filled:
        return np.empty((0, 1), np.uint32)
    stacked = np.empty((sum(map(len, filled)), filled[0].shape[1]), np.uint32)
    row = 0
    for part in filled:
        stacked[row : row + len(part)] = part
        row += len(part)
    # hundreds of MiB: not held twice for longer than it takes to copy them
    parts.clear()
    return stacked


@dataclass(frozen=True, slots=True)
class Keys:
    """One row for each record, in the order of the rows read.

    Attributes:
        orders: int64 [n], increasing.
        inputs: int32 [n], which input.
        at: int64 [n], byte offset of its line.
        questions: uint64 [n].
        near, asked: uint32 [n, K], signatures of the record and of its question.
        exact, normalised: V16 [n].
    """

    orders: NDArray[np.int64]
    inputs: NDArray[np.int32]
    at: NDArray[np.int64]
    questions: NDArray[np.uint64]
    near: NDArray[np.uint32]
    asked: NDArray[np.uint32]
    exact: NDArray[np.void]
    normalised: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.orders)


@dataclass(frozen=True, slots=True)
class Part:
    """A finished spool: of the whole, or of one worker's share of it (`save`, `Part.load`)."""

    folder: Path
    keys: Keys
    rows: Counter[int]
    rejected: dict[int, Counter[str]]
    tally: Tally

    def save(self) -> None:
        """Writes keys and counts beside the lines, for another process to load."""
        np.savez(self.folder / KEYS, **{name: getattr(self.keys, name) for name in Keys.__slots__})
        counts = {
            "rows": {str(input): count for input, count in self.rows.items()},
            "rejected": {str(input): dict(codes) for input, codes in self.rejected.items()},
            "tally": {name: getattr(self.tally, name) for name in Tally.__slots__},
        }
        # last: a part with counts is whole
        jsonl.write_json(self.folder / COUNTS, counts)

    @classmethod
    def load(cls, folder: Path) -> Part:
        """Reads what `save` wrote.

        Raises:
            KoalpacaError: the part is not whole (file-missing, json-file).
        """
        counts = jsonl.read_json(folder / COUNTS)
        with np.load(folder / KEYS, allow_pickle=False) as stored:
            keys = Keys(**{name: stored[name] for name in Keys.__slots__})
        tally = counts["tally"]
        return cls(
            folder,
            keys,
            Counter({int(input): count for input, count in counts["rows"].items()}),
            {int(input): Counter(codes) for input, codes in counts["rejected"].items()},
            Tally(
                Counter(tally["cleaned"]),
                {step: [tuple(example) for example in found] for step, found in tally["changes"].items()},
                Counter(tally["masked"]),
                tally["masked_records"],
                Counter(tally["leaks"]),
            ),
        )


class Gathered:
    """All parts as one: keys sorted by order, lines in the same order, a line by its index.

    Attributes:
        keys: of all records.
        rows, rejected, tally: summed.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self.rows: Counter[int] = Counter()
        self.rejected: dict[int, Counter[str]] = {}
        self.tally = Tally()
        for part in parts:
            self.rows += part.rows
            self.tally.add(part.tally)
            for input, codes in part.rejected.items():
                self.rejected.setdefault(input, Counter()).update(codes)
        if len(parts) == 1:
            self.keys = parts[0].keys
            self._part = np.zeros(len(self.keys), np.int32)
        else:
            part_of = np.concatenate([np.full(len(part.keys), n, np.int32) for n, part in enumerate(parts)])
            joined = {name: np.concatenate([getattr(part.keys, name) for part in parts]) for name in Keys.__slots__}
            order = np.argsort(joined["orders"], kind="stable")
            self.keys = Keys(**{name: values[order] for name, values in joined.items()})
            self._part = part_of[order]

    def lines(self) -> Iterator[tuple[str, str]]:
        """(record, signals) as JSON, one for each row of `keys`."""
        with ExitStack() as files:
            opened = [files.enter_context((part.folder / RECORDS).open("rb")) for part in self._parts]
            # keys are sorted, and each part's lines lie in the same order
            for part in self._part.tolist():
                record, _, measured = opened[part].readline().decode().rstrip("\n").partition("\t")
                yield record, measured

    def records(self, indices: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Some records, in the order asked for."""
        found: list[dict[str, Any]] = [{}] * len(indices)
        with ExitStack() as files:
            opened = [files.enter_context((part.folder / RECORDS).open("rb")) for part in self._parts]
            # in the order of the file, which disks like
            for n in np.argsort(self.keys.at[indices], kind="stable").tolist():
                file = opened[self._part[indices[n]]]
                file.seek(int(self.keys.at[indices[n]]))
                found[n] = json.loads(file.readline().partition(b"\t")[0])
        return found

    def set_aside(self) -> Iterator[tuple[int, str]]:
        """(order, line of rejected.jsonl) of the rows that were set aside on their own, in order."""
        with ExitStack() as files:
            opened = [
                files.enter_context((part.folder / REJECTED).open(encoding="utf-8", newline="\n"))
                for part in self._parts
            ]
            yield from heapq.merge(*map(_ordered, opened), key=lambda pair: pair[0])


def _ordered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    for line in lines:
        order, _, row = line.partition("\t")
        yield int(order), row
