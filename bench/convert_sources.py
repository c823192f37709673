"""Every row of every described file below a data root as an instruction: converted, or why not; rows per second.

python bench/convert_sources.py ../shared/data
python bench/convert_sources.py ../shared/data --examples 3 --only kobest
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

from koalpaca_tune.data import instructions, sources
from koalpaca_tune.data.reading import readers
from koalpaca_tune.data.rows import Rejected
from koalpaca_tune.data.sources import Part, Source
from koalpaca_tune.errors import KoalpacaError


def convert(source: Source, part: Part, path: Path, examples: int) -> tuple[int, int]:
    """Prints what became of one file, and its first examples."""
    assert part.task is not None
    task, shape = source.tasks[part.task], sources.shaper(source.name, part.task)
    reasons: Counter[str] = Counter()
    rows, start = 0, time.perf_counter()
    for row in instructions.rows(readers.read(path).rows, task):
        rows += 1
        if isinstance(row, Rejected):
            reasons[row.problem.code] += 1
            continue
        try:
            made = shape(row)
        except KoalpacaError as error:
            reasons[error.problems[0].code] += 1
            continue
        if rows <= examples * len(task.phrasings):
            asked, answered = made.turns
            print("---", asked.content, *([f"[맥락] {asked.context[:200]}"] if asked.context else []), sep="\n")
            print("=>", answered.content[:300])
    seconds = time.perf_counter() - start
    left = rows - reasons.total()
    why = ", ".join(f"{code} {count}" for code, count in reasons.items()) or "-"
    print(
        f"{source.name:15} {part.file:28} {part.split:6} {rows:7,} {left:7,} {why:12} {rows / seconds:9,.0f} rows/s"
    )
    return rows, left


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--examples", type=int, default=0)
    parser.add_argument("--only")
    given = parser.parse_args()
    total = [0, 0]
    for name in [given.only] if given.only else sources.names():
        source = sources.load(name)
        for part in source.parts:
            path = given.root / (source.folder or "") / (part.file or "")
            if part.file is None or part.task is None:
                continue
            if not path.is_file():
                print(f"{name:15} {part.file:28} not here")
                continue
            rows, left = convert(source, part, path, given.examples)
            total = [total[0] + rows, total[1] + left]
    print(f"{total[0]:,} rows, {total[1]:,} converted")


if __name__ == "__main__":
    main()
