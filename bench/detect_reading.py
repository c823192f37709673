"""How well the encoding of a file is found out, on files of real records.

    python bench/detect_reading.py ../shared/data

Each file has 1, 2 to 20, or 200 rows of real questions and answers, as CSV, TSV or JSONL, seeded. A damaged
file is one that is not plain UTF-8; found: the encoding was named rightly; false: a UTF-8 file for which that
encoding was named; restored: every text came back to the letter. Small files are the hard ones: in a few bytes
cp949 could be UTF-8 by chance; so the columns have English names, and the texts alone must tell. Macs write
syllables as letters (NFD) into UTF-8; there, found is that cleaning says so, and restored is after cleaning.
"""

from __future__ import annotations

import csv
import io
import json
import random
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from score import Score

from koalpaca_tune.data.cleaning.clean import clean
from koalpaca_tune.data.reading import readers
from koalpaca_tune.data.rows import Row
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn

SHARED = Path(__file__).parents[2] / "shared" / "data"
SEED, DAMAGED, CLEAN = 20261121, 300, 1000
SIZES: dict[str, tuple[int, int]] = {"1 row": (1, 1), "2 to 20 rows": (2, 20), "200 rows": (200, 200)}
ENCODINGS = ("cp949", "utf-8-sig", "utf-16")
Pair = tuple[str, str]


def pairs(root: Path) -> list[Pair]:
    """Real questions and answers, and reviews side by side; no line breaks, which TSV has no place for."""
    with (root / "chatbot_data/ChatbotData.csv").open(encoding="utf-8-sig", newline="") as file:
        found = [(row["Q"], row["A"]) for row in csv.DictReader(file)]
    with (root / "nsmc/train.tsv").open(encoding="utf-8", newline="") as file:
        reviews = [row["document"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    found += zip(reviews[::2], reviews[1::2], strict=False)
    return [pair for pair in found if all(text.strip() and text.isprintable() and '"' not in text for text in pair)]


def files(root: Path, count: int, size: tuple[int, int], fits: Callable[[str], bool]) -> Iterator[list[Pair]]:
    """The rows of `count` files, of texts that the encoding can write."""
    rng = random.Random(SEED)
    pool = [pair for pair in pairs(root) if fits("".join(pair))]
    for _ in range(count):
        yield rng.sample(pool, rng.randint(*size))


def written(rows: list[Pair], suffix: str) -> str:
    """The text of a file."""
    if suffix == ".jsonl":
        return "".join(json.dumps({"question": q, "answer": a}, ensure_ascii=False) + "\n" for q, a in rows)
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t" if suffix == ".tsv" else ",")
    writer.writerows([("question", "answer"), *rows])
    return text.getvalue()


class Read(NamedTuple):
    """How a file was read: None and nothing when it was refused."""

    encoding: str | None
    rows: list[Pair]


def read(folder: Path, text: str, encoding: str, suffix: str) -> Read:
    """Writes a file, and reads it."""
    path = folder / f"file{suffix}"
    path.write_bytes(text.encode(encoding))
    try:
        opened = readers.read(path)
        rows = [row.values for row in opened.rows if isinstance(row, Row)]
    except KoalpacaError:
        return Read(None, [])
    return Read(opened.encoding, [(str(row.get("question")), str(row.get("answer"))) for row in rows])


def _writable(encoding: str) -> Callable[[str], bool]:
    def fits(text: str) -> bool:
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            return False
        # cp949 has no way to say that a tilde or a wave dash was meant: only what comes back can be asked for
        return text.encode(encoding).decode(encoding) == text

    return fits


def rows(root: Path = SHARED) -> list[Score]:
    """All scores."""
    scores = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size, rows_of_file in SIZES.items():
            named = [
                read(folder, written(some, suffix), "utf-8", suffix).encoding
                for some, suffix in _with_suffix(files(root, CLEAN, rows_of_file, str.isprintable))
            ]
            for encoding in ENCODINGS:
                found = repaired = 0
                for some, suffix in _with_suffix(files(root, DAMAGED, rows_of_file, _writable(encoding))):
                    got = read(folder, written(some, suffix), encoding, suffix)
                    found += got.encoding is not None and got.encoding.startswith(encoding)
                    repaired += got.rows == some
                false = sum(one is not None and one.startswith(encoding) for one in named)
                scores.append(Score(f"{encoding} file, {size}", DAMAGED, CLEAN, found, false, repaired))
            scores.append(_decomposed(root, folder, size, rows_of_file))
    return scores


def _decomposed(root: Path, folder: Path, size: str, rows_of_file: tuple[int, int]) -> Score:
    found = repaired = false = 0
    for some, suffix in _with_suffix(files(root, DAMAGED, rows_of_file, _composed)):
        got = read(folder, unicodedata.normalize("NFD", written(some, suffix)), "utf-8", suffix)
        made = [_cleaned(pair) for pair in got.rows]
        found += got.encoding == "utf-8" and any(changed for _, changed in made)
        repaired += [pair for pair, _ in made] == [pair for pair, _ in map(_cleaned, some)]
    for some, suffix in _with_suffix(files(root, CLEAN, rows_of_file, _composed)):
        false += any(
            changed for _, changed in map(_cleaned, read(folder, written(some, suffix), "utf-8", suffix).rows)
        )
    return Score(f"NFD file, {size}", DAMAGED, CLEAN, found, false, repaired)


def _composed(text: str) -> bool:
    return unicodedata.is_normalized("NFC", text) and any("가" <= char <= "힣" for char in text)


def _cleaned(pair: Pair) -> tuple[Pair, bool]:
    """The pair after cleaning, and whether its letters had to be composed."""
    try:
        done = clean(Conversation((Turn("user", pair[0]), Turn("assistant", pair[1]))))
    except KoalpacaError:
        return pair, False
    question, answer = (turn.content for turn in done.conversation.turns)
    return (question, answer), "nfc" in done.changes


def _with_suffix(many: Iterator[list[Pair]]) -> Iterator[tuple[list[Pair], str]]:
    for n, some in enumerate(many):
        yield some, (".csv", ".tsv", ".jsonl")[n % 3]


def main(root: Path) -> None:
    """Prints the table."""
    print(f"{'':26}{'files':>8}{'UTF-8':>8}{'found':>8}{'false':>8}{'restored':>10}")
    for score in rows(root):
        print(
            f"{score.name:26}{score.damaged:8}{score.clean:8}{score.found:8}{score.false:8}{score.repaired or 0:10}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED)
