"""How much hostile input was tried, and what did not end in one clear error.

    python bench/hostile.py [--tries 2000] [--only NAME ...] [--seconds 60]

Every reader gets input that is broken anew in each try (seeded: the same tries every time), in a process of its
own, so that a crash of a library (Arrow read where a file told it to) is a failure that is counted, not the end.
Counted as failures: any exception but `KoalpacaError`, a crash, a message of several lines or over 2,000
characters, a file written beside the run's folder, a try over ten seconds.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "hostile"))

MODULES = ("targets_text", "targets_files", "targets_models", "targets_hub", "targets_runs")
SLOWEST_S = 10.0
MOST_CRASHES = 5


def targets() -> dict[str, Any]:
    """Every target by name."""
    import importlib

    return {name: one for module in MODULES for name, one in importlib.import_module(module).TARGETS.items()}


def run(name: str, start: int, tries: int, seconds: float, log: str) -> None:
    """Tries one target; each line of the log is a seed with what happened, and the seed alone before it."""
    from breakage import attempt

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for the life of this process
    target = targets()[name]
    until = time.monotonic() + seconds
    with Path(log).open("a", encoding="utf-8") as file:
        for seed in range(start, tries):
            if time.monotonic() > until:
                return
            file.write(f"{seed}\n")
            file.flush()
            with tempfile.TemporaryDirectory() as above:
                folder = Path(above) / "run"
                folder.mkdir()
                began = time.monotonic()
                outcome = attempt(lambda: target(Random(seed), folder))  # noqa: B023 - called at once
                failure = outcome.failure
                if not failure and len(list(Path(above).iterdir())) != 1:
                    failure = "wrote beside its folder"
                if not failure and time.monotonic() - began > SLOWEST_S:
                    failure = f"took {time.monotonic() - began:.0f} s"
            file.write(json.dumps([seed, failure, outcome.code]) + "\n")


def tried(name: str, tries: int, seconds: float) -> tuple[Counter[str], dict[str, int]]:
    """What happened how often ('', a code, or FAILED), and each failure with its first seed."""
    counts: Counter[str] = Counter()
    failures: dict[str, int] = {}
    # all is imported here once, and nothing run
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        start, crashes = 0, 0
        while start < tries and crashes < MOST_CRASHES:
            log.write_text("", encoding="utf-8")
            process = context.Process(target=run, args=(name, start, tries, seconds, str(log)))
            process.start()
            process.join(seconds + 120)
            if process.is_alive():
                process.kill()
                process.join()
            lines = log.read_text(encoding="utf-8").splitlines()
            for line in lines:
                if line.startswith("["):
                    seed, failure, code = json.loads(line)
                    counts["FAILED" if failure else code] += 1
                    if failure:
                        failures.setdefault(failure[:100], seed)
            if not lines or process.exitcode == 0:
                break
            # the last seed was begun and never ended
            seed = int(json.loads(lines[-1])[0]) if lines[-1].startswith("[") else int(lines[-1])
            counts["FAILED"] += 1
            failures.setdefault(f"the process ended with {process.exitcode}", seed)
            start, crashes = seed + 1, crashes + 1
    return counts, failures


def main() -> int:
    """Prints the table; 1 when anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=60.0, help="most seconds for one reader")
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    total: Counter[str] = Counter()
    print(f"{'reader':<14}{'tried':>8}{'taken':>8}{'refused':>9}{'failed':>8}  refused with")
    # imported here, so that the processes of the tries have it, and a mistake in it is no empty row
    known = targets()
    for name in given.only or known:
        counts, failures = tried(name, given.tries, given.seconds)
        taken, failed, all_of_them = counts[""], counts["FAILED"], sum(counts.values())
        refused = {code: count for code, count in counts.most_common() if code not in ("", "FAILED")}
        told = ", ".join(f"{code} {count}" for code, count in list(refused.items())[:4])
        print(f"{name:<14}{all_of_them:>8,}{taken:>8,}{sum(refused.values()):>9,}{failed:>8,}  {told}", flush=True)
        for failure, seed in failures.items():
            print(f"    seed {seed}: {failure}", flush=True)
        total += Counter(tried=all_of_them, taken=taken, refused=sum(refused.values()), failed=failed)
    print(f"{'all':<14}{total['tried']:>8,}{total['taken']:>8,}{total['refused']:>9,}{total['failed']:>8,}")
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
