"""Training text that holds items of an evaluation: found by runs of characters, all items at once.

A text that belongs to an item (its question, its passage, one of two sentences; never the task's frame
around them) is found in a record

- when it is long enough, by the share of its 5-grams of characters that the record has too, so that
  another particle, spacing or word does not hide it;
- when it is short, only when a whole turn or context of the record, or a line of it, says that and nothing
  else: to the letter, or from 8 characters with a little changed, but for a negation.

5-grams that many items of one task share say nothing and are left out. What is hashed: normalised texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from koalpaca_tune.data.overlap import grams
from koalpaca_tune.data.overlap.proof import overlap, says_no_alike
from koalpaca_tune.data.overlap.text import CONTEXT, TURN, normalise

Part = Literal["whole", "question", "context", "some"]
"""What of an item a record holds: all its texts; the question without its passage; the passage without the
question; one of two texts of a kind."""

RUN = 5
"""Characters of an n-gram."""

SHORTEST = 5
"""Characters below which a text could be anybody's (최고, 네): an item without a longer one is not protected."""

WHOLE_TURN = 12
"""Characters below which a text must stand alone: a turn or context, or, from 8 characters, a line of one."""

_LINE = 8

ALIKE = 0.65
"""Least Jaccard similarity of the character pairs of a line and of an item's text of 8 to 19 characters."""

CERTAIN = 20
"""Characters below which a text inside another one must be there letter by letter."""

SHARE = 0.6
"""Least share of a longer text's 5-grams."""

_COMMON = 0.02
_COMMON_LEAST = 5

_LINE_MOST = 32
_LABEL = 10
_LABELLED = re.compile(rf"^[^:：]{{1,{_LABEL}}}[:：]")

_PASSAGE = 60
"""Characters of a text that is at least twice as long as the item's others, to be called its passage."""

_SIEVE = 1 << 22
"""Entries of a table that says of most 5-grams at once that no item has them."""


class Leak(NamedTuple):
    """One item in one record.

    Attributes:
        task, item: whose.
        overlap: the largest share of one of the item's texts that was found, 0..1.
        part: which of its texts.
    """

    task: str
    item: str
    overlap: float
    part: Part


@dataclass(frozen=True, slots=True)
class _Item:
    task: str
    id: str
    fields: tuple[int, ...]
    passage: int | None


class Protected:
    """The items of some tasks. A few numpy arrays: quick to send to another process.

    Attributes:
        items: task -> items that are protected.
        unprotected: task -> items too short to tell.
    """

    def __init__(
        self, items: Sequence[_Item], texts: Sequence[str], tasks: Sequence[str], unprotected: Mapping[str, int]
    ) -> None:
        self._items = tuple(items)
        self.items = dict(Counter(item.task for item in items))
        self.unprotected = dict(unprotected)
        keys, owners = _runs(texts)
        order = np.lexsort((owners, keys))
        keys, owners = keys[order], owners[order]
        new = np.append(True, (keys[1:] != keys[:-1]) | (owners[1:] != owners[:-1]))[: len(keys)]
        keys, owners = keys[new], owners[new]
        told = ~np.isin(keys, _common(keys, owners, tasks))
        keys, owners = keys[told], owners[told]
        sizes = np.bincount(owners, minlength=len(texts))
        lengths = np.array([len(text) for text in texts], np.int64)
        # a text of which little is left beyond what all items share is only found whole
        by_runs = (lengths >= WHOLE_TURN) & (sizes * 2 >= lengths - RUN + 1)
        self._least = np.where(lengths >= CERTAIN, SHARE, 1.0) * sizes
        self._sizes = sizes
        keep = by_runs[owners]
        self._keys, counts = np.unique(keys[keep], return_counts=True)
        self._at = np.concatenate(([0], np.cumsum(counts)))
        self._owners = owners[keep]
        self._sieve = np.zeros(_SIEVE, np.bool_)
        self._sieve[self._keys & np.uint64(_SIEVE - 1)] = True
        self._whole: dict[str, list[int]] = {}
        for field in np.flatnonzero(~by_runs).tolist():
            self._whole.setdefault(texts[field], []).append(field)
        self._short = _Short(texts)
        self._item_of = np.empty(len(texts), np.int64)
        for n, item in enumerate(self._items):
            self._item_of[list(item.fields)] = n

    @classmethod
    def of(cls, tasks: Mapping[str, Sequence[tuple[str, Sequence[str]]]]) -> Protected:
        """From task -> (item, its texts).

        Texts of fewer than 5 characters beside longer ones (a linking word, the word asked about) and
        texts that at least a tenth of a task's items share word for word, unless they are passages, are
        not looked for.
        """
        items: list[_Item] = []
        texts: list[str] = []
        of_task: list[str] = []
        unprotected: Counter[str] = Counter()
        for task, given in tasks.items():
            normal = [(id, list(dict.fromkeys(filter(None, map(normalise, fields))))) for id, fields in given]
            seen = Counter(text for _, fields in normal for text in fields)
            often = {
                text
                for text, count in seen.items()
                if count >= _COMMON_LEAST and count * 10 >= len(normal) and len(text) < _PASSAGE
            }
            for id, fields in normal:
                own = [text for text in fields if len(text) >= SHORTEST and text not in often]
                # beside a text that can be found by its runs, a short one is its company: a word, a label
                own = [text for text in own if len(text) >= WHOLE_TURN] or own
                if not own:
                    unprotected[task] += 1
                    continue
                first = len(texts)
                texts += own
                of_task += [task] * len(own)
                items.append(_Item(task, id, tuple(range(first, len(texts))), _passage(own, first)))
        return cls(items, texts, of_task, unprotected)

    def hits(self, texts: Sequence[str]) -> list[tuple[Leak, ...]]:
        """The items that each text holds, in the order of the tasks and their items.

        Args:
            texts: records as `text.near_text` gives them, some hundreds at a time.
        """
        parts = [text.replace(CONTEXT, TURN).split(TURN) for text in texts]
        normal = [[normalise(part) for part in some] for some in parts]
        found: list[dict[int, float]] = [{} for _ in texts]
        lines: list[str] = []
        owners: list[int] = []
        for n, (some, wholes) in enumerate(zip(parts, normal, strict=True)):
            found[n].update((field, 1.0) for whole in wholes for field in self._whole.get(whole, ()))
            alone = [whole for whole in (*wholes, *_lines(some)) if _LINE <= len(whole) <= _LINE_MOST]
            lines += alone
            owners += [n] * len(alone)
        for line, field, share in self._short.alike(lines):
            known = found[owners[line]]
            known[field] = max(share, known.get(field, 0.0))
        if len(self._keys):
            self._by_runs(normal, found)
        return [self._leaks(fields) if fields else () for fields in found]

    def _by_runs(self, normal: list[list[str]], found: list[dict[int, float]]) -> None:
        keys, owners = _runs([part for parts in normal for part in parts])
        # which of the parts' owners is which text
        owners = np.repeat(np.arange(len(normal)), [len(parts) for parts in normal])[owners]
        sieved = self._sieve[keys & np.uint64(_SIEVE - 1)]
        keys, owners = keys[sieved], owners[sieved]
        at = np.searchsorted(self._keys, keys)
        at[at == len(self._keys)] = 0
        known = self._keys[at] == keys
        pairs = np.unique((owners[known] << 32) | at[known])
        owners, at = pairs >> 32, pairs & 0xFFFFFFFF
        counts = self._at[at + 1] - self._at[at]
        places = _spread(self._at[at], counts)
        shared, sizes = np.unique((np.repeat(owners, counts) << 32) | self._owners[places], return_counts=True)
        fields = shared & 0xFFFFFFFF
        enough = sizes >= self._least[fields]
        shares = sizes / np.maximum(self._sizes[fields], 1)
        for owner, field, share in zip(
            (shared >> 32)[enough].tolist(), fields[enough].tolist(), shares[enough].tolist(), strict=True
        ):
            found[owner][field] = max(share, found[owner].get(field, 0.0))

    def _leaks(self, fields: Mapping[int, float]) -> tuple[Leak, ...]:
        leaks = []
        for n in sorted({int(self._item_of[field]) for field in fields}):
            item = self._items[n]
            own = {field: fields[field] for field in item.fields if field in fields}
            leaks.append(Leak(item.task, item.id, max(own.values()), _part(item, own)))
        return tuple(leaks)


def _lines(parts: Sequence[str]) -> Iterator[str]:
    """The short lines of longer texts, normalised, without a label (`문장: `) before them."""
    for part in parts:
        if "\n" in part:
            for line in part.split("\n"):
                # spacing and punctuation make a line longer than what is compared, by half at most
                if len(line) <= 2 * _LINE_MOST + _LABEL:
                    yield normalise(_LABELLED.sub("", line))


class _Short:
    """The texts between _LINE and CERTAIN characters, to hold lines against."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._fields = [n for n, text in enumerate(texts) if _LINE <= len(text) < CERTAIN]
        self._texts = [texts[n] for n in self._fields]
        keys, owners = _pair_sets(self._texts)
        order = np.argsort(keys, kind="stable")
        self._owners = owners[order]
        self._keys, counts = np.unique(keys[order], return_counts=True)
        self._at = np.concatenate(([0], np.cumsum(counts)))

    def alike(self, lines: Sequence[str]) -> list[tuple[int, int, float]]:
        """(line, text, similarity) of those that are alike."""
        if not self._fields or not lines:
            return []
        keys, owners = _pair_sets(lines)
        at = np.searchsorted(self._keys, keys)
        at[at == len(self._keys)] = 0
        counts = np.where(self._keys[at] == keys, self._at[at + 1] - self._at[at], 0)
        # An alike text has one of a line's rarest pairs, whichever they are: the others are fewer than ALIKE of
        # the line's (prefix filtering, Chaudhuri, Ganti and Kaushik 2006).
        order = np.lexsort((counts, owners))
        owners, at, counts = owners[order], at[order], counts[order]
        sizes = np.bincount(owners, minlength=len(lines))
        rank = np.arange(len(owners)) - (np.cumsum(sizes) - sizes)[owners]
        rare = (rank <= sizes[owners] - np.ceil(ALIKE * sizes[owners])) & (counts > 0)
        owners, at, counts = owners[rare], at[rare], counts[rare]
        pairs = np.unique((np.repeat(owners, counts) << 32) | self._owners[_spread(self._at[at], counts)])
        found = []
        for line, place in zip((pairs >> 32).tolist(), (pairs & 0xFFFFFFFF).tolist(), strict=True):
            share = overlap(lines[line], self._texts[place])
            if share >= ALIKE and says_no_alike(lines[line], self._texts[place]):
                found.append((line, self._fields[place], share))
        return found


def _pair_sets(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The different character pairs of each text, and whose they are."""
    keys, starts = grams.bigrams(texts)
    owners = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(np.append(starts, len(keys))))
    # 42 bits of key leave 22 for the text
    both = grams.distinct(keys | (owners << np.uint64(42)))
    return both & np.uint64((1 << 42) - 1), (both >> np.uint64(42)).astype(np.int64)


def _spread(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers from each start, as many as its count, one after the other."""
    places: NDArray[np.int64] = np.repeat(starts - (np.cumsum(counts) - counts), counts)
    places += np.arange(len(places))
    return places


def _part(item: _Item, found: Mapping[int, float]) -> Part:
    if len(found) == len(item.fields):
        return "whole"
    if item.passage is None:
        return "some"
    return "question" if item.passage not in found else "context" if len(found) == 1 else "some"


def _passage(texts: Sequence[str], first: int) -> int | None:
    longest = max(range(len(texts)), key=lambda n: len(texts[n]))
    others = sum(map(len, texts)) - len(texts[longest])
    return first + longest if others and len(texts[longest]) >= max(_PASSAGE, 2 * others) else None


def _runs(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of the 5-grams inside each text, and whose they are."""
    chars, starts = grams.codes(texts)
    if len(chars) < RUN:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    wide = chars.astype(np.uint64)
    count = len(chars) - RUN + 1
    keys = np.zeros(count, np.uint64)
    for n in range(RUN):
        keys *= np.uint64(0x100000001B3)
        keys += wide[n : n + count]
    inside = np.ones(count, np.bool_)
    edges = np.flatnonzero(chars == ord(grams.EDGE))
    for n in range(RUN):
        inside[np.clip(edges - n, 0, count - 1)[(edges - n >= 0) & (edges - n < count)]] = False
    owners = np.repeat(np.arange(len(texts)), np.diff(np.append(starts, len(chars))))[:count]
    return grams.mixed(keys[inside]), owners[inside]


def _common(keys: NDArray[np.uint64], owners: NDArray[np.int64], tasks: Sequence[str]) -> NDArray[np.uint64]:
    """The 5-grams that many texts of one task have: its frame, and the commonest words."""
    found = [np.empty(0, np.uint64)]
    names = np.array(tasks, object)
    for task in dict.fromkeys(tasks):
        mine = names == task
        several, counts = np.unique(keys[mine[owners]], return_counts=True)
        found.append(several[counts >= max(_COMMON_LEAST, _COMMON * int(mine.sum()))])
    return np.unique(np.concatenate(found))
