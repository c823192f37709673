"""Every detector on real data, damaged on purpose: found, false, precision, recall, restored; in one table.

    python bench/detectors.py ../shared/data [--markdown]

Runs detect_reading, detect_cleaning, detect_quality and detect_overlap (each says there how it damages what),
and keys of exact and normalised duplicates here. `damaged` and `clean` are records (files, for reading; pairs
that differ, for near duplicates). Precision is the share of right alarms were damaged and clean records equally
many; `false` is counted as it is. A row of fewer than 100 damaged or 1,000 clean records is marked with *.
About 1 minute.
"""

from __future__ import annotations

import argparse
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol

import detect_cleaning
import detect_overlap
import detect_quality
import detect_reading

from koalpaca_tune.data.overlap import text
from koalpaca_tune.data.overlap.text import TURN
from koalpaca_tune.records import Conversation, Turn

DAMAGED, SEED = 300, 42
LEAST_DAMAGED, LEAST_CLEAN = 100, 1000


class Scored(Protocol):
    """What each bench's rows have."""

    @property
    def name(self) -> str: ...
    @property
    def damaged(self) -> int: ...
    @property
    def clean(self) -> int: ...
    @property
    def found(self) -> int: ...
    @property
    def false(self) -> int: ...
    @property
    def repaired(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table."""

    name: str
    damaged: int
    clean: int
    found: int
    false: int
    repaired: int | None = None

    @classmethod
    def of(cls, score: Scored, suffix: str = "") -> Line:
        return cls(score.name + suffix, score.damaged, score.clean, score.found, score.false, score.repaired)

    @property
    def recall(self) -> float:
        return self.found / self.damaged if self.damaged else 0.0

    @property
    def precision(self) -> float:
        alarm = self.false / self.clean if self.clean else 0.0
        return self.recall / (self.recall + alarm) if self.recall + alarm else 0.0

    @property
    def enough(self) -> bool:
        return self.damaged >= LEAST_DAMAGED and self.clean >= LEAST_CLEAN


_MOJIBAKE = (" as latin-1", " as cp1252", " as cp949", "mojibake", "garbled")
_TRANSLATION = (
    *("english-words", "wrong-language", "literal-phrases", "placeholders", "hanja", "foreign-hanja", "kana"),
    *("other-scripts", "lost-numbers", "new-numbers", "lost-code", "missing-input"),
)
GROUPS: dict[str, Callable[[str], bool]] = {
    "decomposed letters (NFD)": lambda name: name.startswith("NFD"),
    "encoding of a file": lambda name: " file, " in name,
    "mojibake": lambda name: any(sign in name for sign in _MOJIBAKE),
    "HTML": lambda name: name == "HTML",
    "personal data": lambda name: name in detect_cleaning._SAID,
    "duplicates": lambda name: name.startswith(("exact", "normalised", "near")),
    "translation damage": lambda name: name.startswith(_TRANSLATION),
    "particle errors": lambda name: name.startswith("particle-errors"),
    "evaluation items in training data": lambda name: name.startswith("kobest"),
    "other characters": lambda name: name in detect_cleaning.STEP_DAMAGES,
    "other quality": lambda name: True,
}
"""Heading of the table -> which rows stand under it; the first that fits."""


def keys(root: Path) -> Iterator[Line]:
    """Exact and normalised duplicates: copies in other dress, against pairs that people call different."""
    real = [one for one in detect_overlap.real(root) if TURN in one or " " in one]
    rng = random.Random(SEED)
    pairs = [pair for some in detect_overlap.different(root).values() for pair in some if pair[0] != pair[1]]
    for name, key, change in (
        ("exact: spaces doubled or at the ends", text.exact_key, _spaced),
        ("normalised: spacing, marks, ㅋㅋ, case", text.normalised_key, _dressed),
    ):
        chosen = rng.sample(real, DAMAGED)
        found = sum(key(_talk(one)) == key(_talk(change(one, rng))) for one in chosen)
        false = sum(key(_talk(one)) == key(_talk(other)) for one, other in pairs)
        yield Line(name, DAMAGED, len(pairs), found, false)


def _talk(near_text: str) -> Conversation:
    return Conversation(tuple(Turn("user", part) for part in near_text.split(TURN)))


def _spaced(one: str, rng: random.Random) -> str:
    return TURN.join(
        rng.choice([" {}", "{} ", "{}"]).format(part.replace(" ", "  ", 1)) for part in one.split(TURN)
    )


def _dressed(one: str, rng: random.Random) -> str:
    dressed = one.replace(" ", "", 1) if rng.random() < 0.5 else one
    return dressed.rstrip(".!? ").upper() + rng.choice(["!", "~~", "...", " ^^", " 😊", "?"])


def lines(root: Path, tell: Callable[[str], None]) -> list[Line]:
    """All rows."""
    found: list[Line] = []

    def add(what: str, scores: Callable[[], Sequence[Scored]], suffix: str = "") -> None:
        start = time.process_time()
        found.extend(Line.of(score, suffix) for score in scores())
        tell(f"{what}: {time.process_time() - start:.0f} s")

    clean, informal = detect_quality.clean_records(root), detect_quality.reviews(root)
    samples = Path(__file__).parents[1] / "data/samples/tasks.jsonl"
    # of the clean records only some have numbers
    numbered = list(dict.fromkeys([*clean, *detect_quality._wiki(root, 3000)]))
    add("reading", lambda: detect_reading.rows(root))
    add("cleaning", lambda: detect_cleaning.rows(detect_cleaning.shared_texts()))
    add("quality", lambda: [*detect_quality.rows(clean), *detect_quality.input_rows(numbered, samples)])
    particles = [one for one in detect_quality.DAMAGES if one[0] == "particle-errors: any"]
    add("quality of reviews", lambda: _some(informal, particles), " (NSMC)")
    add("keys", lambda: list(keys(root)))
    add("overlap", lambda: detect_overlap.rows(root))
    return found


def _some(
    pool: Sequence[detect_quality.Real],
    damages: Sequence[tuple[str, detect_quality.Damage, str, detect_quality.Detect]],
) -> list[Scored]:
    measured = detect_quality.measure([detect_quality.conversation(real) for real in pool])
    scores: list[Scored] = []
    for name, damage, _, detect in damages:
        damaged = detect_quality._damaged(damage, pool, DAMAGED)
        found = sum(map(detect, detect_quality.measure(damaged)))
        scores.append(Line(name, len(damaged), len(pool), found, sum(map(detect, measured))))
    return scores


def grouped(some: Sequence[Line]) -> dict[str, list[Line]]:
    """Heading -> rows, in the order of GROUPS."""
    groups: dict[str, list[Line]] = {heading: [] for heading in GROUPS}
    for line in some:
        groups[next(heading for heading, fits in GROUPS.items() if fits(line.name))].append(line)
    return groups


def head() -> str:
    """Date, machine and versions."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("kiwipiepy", "numpy", "zstandard"))
    return f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, Python {platform.python_version()}, {versions}"


COLUMNS = ("damage", "clean", "damaged", "found", "false", "precision", "recall", "restored")


def cells(line: Line) -> tuple[str, ...]:
    """As shown."""
    restored = "-" if line.repaired is None else f"{line.repaired / line.damaged:.1%}"
    counts = (f"{count:,}" for count in (line.clean, line.damaged, line.found, line.false))
    return (
        line.name + " *" * (not line.enough),
        *counts,
        f"{line.precision:.1%}",
        f"{line.recall:.1%}",
        restored,
    )


def markdown(groups: dict[str, list[Line]]) -> str:
    """One table, with the headings as rows."""
    shown = [f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    for heading, some in groups.items():
        if some:
            shown.append(f"| **{heading}** |" + " |" * (len(COLUMNS) - 1))
            shown += [f"| {' | '.join(cells(line))} |" for line in some]
    return "\n".join(shown)


def plain(groups: dict[str, list[Line]]) -> str:
    """For a terminal."""
    shown = [f"{COLUMNS[0]:44}" + "".join(f"{name:>10}" for name in COLUMNS[1:])]
    for heading, some in groups.items():
        if some:
            shown += ["", heading]
            shown += [
                f"  {cells(line)[0]:42}" + "".join(f"{cell:>10}" for cell in cells(line)[1:]) for line in some
            ]
    return "\n".join(shown)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    groups = grouped(lines(given.root, lambda said: print(said, file=sys.stderr, flush=True)))
    if given.markdown:
        print(f"`python bench/detectors.py ../shared/data --markdown` ({head()})\n")
        print(markdown(groups))
    else:
        print(head(), plain(groups), sep="\n\n")
    if not all(line.enough for some in groups.values() for line in some):
        print("\n\\* fewer than 100 damaged or 1,000 clean records")


if __name__ == "__main__":
    main()
