"""Real Korean text for bench/gpu_train.sh: whole court judgments (long) and chat pairs (short).

python bench/gpu_data.py ../shared/data FOLDER
"""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from koalpaca_tune import jsonl
from koalpaca_tune.records import Conversation, Turn

LONG, SHORT = 400, 6000


def _joined(texts: Iterator[str]) -> Iterator[str]:
    """Judgments joined to at least 6,000 characters: more than 2,048 tokens, so that each fills its row."""
    whole = ""
    for text in texts:
        whole += text + "\n\n"
        if len(whole) >= 6000:
            yield whole
            whole = ""


def main(shared: Path, out: Path) -> None:
    """Writes long.jsonl, short.jsonl and tokenizer/."""
    with gzip.open(shared / "precedents/train.jsonl.gz", "rt", encoding="utf-8") as file:
        judgments = list(islice(_joined(json.loads(line)["judgment"] for line in file), LONG))
    long = (Conversation((Turn("user", "판결문을 쓰세요."), Turn("assistant", text))) for text in judgments)
    jsonl.write(out / "long.jsonl", (one.as_dict() for one in long))
    with (shared / "chatbot_data/ChatbotData.csv").open(encoding="utf-8", newline="") as table:
        pairs = [(row["Q"], row["A"]) for row in islice(csv.DictReader(table), SHORT)]
    short = (Conversation((Turn("user", q), Turn("assistant", a))) for q, a in pairs)
    jsonl.write(out / "short.jsonl", (one.as_dict() for one in short))
    shutil.copytree(shared / "polyglot_tokenizer", out / "tokenizer", dirs_exist_ok=True)
    print(f"{len(judgments)} judgments, {len(pairs)} chat pairs in {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
