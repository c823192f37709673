#!/usr/bin/env python3
"""Lay out what tuning and judging read beside train.jsonl: held-out conversations, and the files of the tasks.

python scripts/before_after/files.py ../shared/data runs/base100m
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import embedded_base  # type: ignore[import-not-found]  # a script, not a package

TASKS = (
    *(f"kobest/{name}/test.tsv" for name in ("BoolQ", "COPA", "WiC", "HellaSwag", "SentiNeg")),
    "nsmc/test.tsv",
    "klue/klue-nli-v1.1_dev.json",
    "klue/klue-sts-v1.1_dev.json",
)
CONVERSATIONS = "chatbot_data"


def held_out_conversations(prepared: Path) -> int:
    """Write heldout.jsonl, the conversations of valid.jsonl without the tasks; return how many."""
    lines = [
        line
        for line in (prepared / "valid.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        if json.loads(line)["source"].startswith(CONVERSATIONS)
    ]
    (prepared / "heldout.jsonl").write_text("".join(lines), encoding="utf-8")
    return len(lines)


def task_files(data: Path, folder: Path) -> None:
    """Copy the files of the tasks, and write the held-out articles as one of them."""
    for name in TASKS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((data / name).read_bytes())
    (folder / "kowiki").mkdir(exist_ok=True)
    with (folder / "kowiki" / "held_out.jsonl").open("w", encoding="utf-8") as lines:
        for article in embedded_base.read_articles(data):
            if embedded_base.is_held_out(article):
                lines.write(json.dumps({"id": article.id, "text": article.text}, ensure_ascii=False) + "\n")


def main() -> None:
    """Write WORK/prepared/heldout.jsonl and WORK/data."""
    data, work = Path(sys.argv[1]), Path(sys.argv[2])
    count = held_out_conversations(work / "prepared")
    shutil.rmtree(work / "data", ignore_errors=True)
    task_files(data, work / "data")
    print(f"{count} held-out conversations; files of the tasks in {work / 'data'}")


if __name__ == "__main__":
    main()
