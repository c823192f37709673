"""One million short records through `koalpaca data prepare`: the whole, and each stage alone on one core.

    python bench/prepare_million.py ../shared/data [--records 1000000] [--workers 2] [--stage-records 50000]

The records repeat and perturb real ones (chatbot_data, NSMC, question_pair), seeded: a tenth are exact
repeats, a tenth near ones, the rest have words exchanged with other records. Prints records/s and the peak
memory of all processes together.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil


def texts(root: Path) -> Iterator[tuple[str, str]]:
    """Real questions and answers; reviews are asked with another review's text for an answer."""
    with (root / "chatbot_data/ChatbotData.csv").open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            yield row["Q"], row["A"]
    reviews = []
    with (root / "nsmc/train.tsv").open(encoding="utf-8") as lines:
        next(lines)
        reviews = [line.rstrip("\n").split("\t")[1] for line in lines]
    yield from zip(reviews[::2], reviews[1::2], strict=False)
    with (root / "question_pair/kor_pair_train.csv").open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            yield row["question1"], row["question2"]


def make(root: Path, path: Path, count: int) -> None:
    """Writes `count` records."""
    rng = random.Random(20261121)
    base = [(q, a) for q, a in texts(root) if q.strip() and a.strip()]
    words = [word for q, a in base for word in (q + " " + a).split()]
    made: list[tuple[str, str]] = []
    with path.open("w", encoding="utf-8") as file:
        for n in range(count):
            kind = rng.random()
            if kind < 0.1 and made:
                q, a = rng.choice(made)
            elif kind < 0.2 and made:
                q, a = rng.choice(made)
                a = a + rng.choice(["!", "~", " ㅎㅎ", ".", "요"])
            else:
                q, a = base[n % len(base)]
                if n >= len(base):
                    q, a = changed(q, words, rng), changed(a, words, rng)
            if len(made) < 50_000:
                made.append((q, a))
            file.write(json.dumps({"instruction": q, "output": a}, ensure_ascii=False) + "\n")


def changed(text: str, words: list[str], rng: random.Random) -> str:
    """A text with some of its words exchanged and one added."""
    parts = text.split()
    for _ in range(1 + len(parts) // 3):
        parts[rng.randrange(len(parts))] = rng.choice(words)
    parts.insert(rng.randrange(len(parts) + 1), rng.choice(words))
    return " ".join(parts)


class Memory:
    """The most memory that this process and its children held at once, sampled (proportional set size)."""

    def __enter__(self) -> Memory:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.5):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)


def stages(path: Path, count: int) -> None:
    """Each stage alone, on one core, over the first `count` records."""
    from koalpaca_tune import korean
    from koalpaca_tune.config.overlap import Contamination
    from koalpaca_tune.config.preparation import Input, Preparation
    from koalpaca_tune.data import inputs, split
    from koalpaca_tune.data.cleaning import privacy
    from koalpaca_tune.data.cleaning.clean import clean
    from koalpaca_tune.data.overlap import minhash, near, text
    from koalpaca_tune.data.quality import signals
    from koalpaca_tune.runs.prepare import protected

    given = Preparation(inputs=[Input(path=str(path))])
    # the analyser loads on first use
    korean.analyse(["안녕하세요."])

    def timed(name: str, run: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - start
        print(f"  {name:34} {count / seconds:12,.0f} records/s  {seconds:8.2f} s", flush=True)
        return result

    source = inputs.open_all(given)[0]
    shaper = source.plan.shaper()
    rows = timed("read", lambda: list(islice(source.opened.rows, count)))
    talks = timed("shape", lambda: [shaper(row) for row in rows])
    talks = timed("clean", lambda: [clean(talk, given.clean).conversation for talk in talks])
    talks = timed("mask", lambda: [privacy.mask(talk, given.mask).conversation for talk in talks])
    size = 512
    groups = [talks[at : at + size] for at in range(0, len(talks), size)]
    timed("quality signals", lambda: [signals.measure(group) for group in groups])
    guarded, _ = protected(Contamination(), None)
    timed("contamination (ko-mini)", lambda: [guarded.hits([text.near_text(t) for t in g]) for g in groups])
    timed("keys", lambda: [(text.exact_key(t), text.normalised_key(t), split.question_key(t)) for t in talks])
    signed = timed(
        "MinHash signatures", lambda: np.concatenate([minhash.sign([text.near_text(t) for t in g]) for g in groups])
    )
    timed(
        "near clusters", lambda: near.clusters(signed, 0.8, lambda some: [text.near_text(talks[n]) for n in some])
    )


def whole(path: Path, count: int, workers: int) -> None:
    """The command's own function, all stages, all files written."""
    from koalpaca_tune.config.preparation import Input, Preparation
    from koalpaca_tune.runs.prepare import prepare

    out = path.parent / "prepared"
    marks: dict[str, float] = {}

    def progress(stage: str, _: int) -> None:
        marks[stage] = time.perf_counter()
        marks.setdefault(f"{stage} first", marks[stage])

    with Memory() as memory:
        start = time.perf_counter()
        made = prepare(Preparation(inputs=[Input(path=str(path))]), out, workers=workers, progress=progress)
        seconds = time.perf_counter() - start
    print(f"  whole: {count / seconds:,.0f} records/s, {seconds:.0f} s, {memory.peak / 2**30:.2f} GiB at most")
    print(f"    rows one by one, {workers} processes: {marks['read'] - start:.0f} s")
    print(f"    choose: {marks['write first'] - marks['compare']:.0f} s")
    print(f"    write and report: {start + seconds - marks['write first']:.0f} s")
    print(f"    {made.rejected}, train {made.train:,}, valid {made.valid:,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stage-records", type=int, default=50_000)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    versions = {name: metadata.version(name) for name in ("kiwipiepy", "numpy", "pyarrow")}
    print(time.strftime("%Y-%m-%d"), f"{psutil.cpu_count()} cores", versions)
    try:
        path = folder / "million.jsonl"
        make(given.root, path, given.records)
        print(f"{given.records:,} records, {path.stat().st_size / 2**20:,.0f} MiB")
        if given.stage_records:
            print(f"each stage alone, one core, {given.stage_records:,} records:")
            stages(path, given.stage_records)
        whole(path, given.records, given.workers)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
