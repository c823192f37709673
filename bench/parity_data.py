"""Real Korean conversations for bench/parity.py, short and long mixed, small enough to travel to a GPU machine.

    python bench/parity_data.py ../shared/data [carry/parity]        (10 s)

From Wikipedia the articles that the embedded base was not trained on (sha256(id) divisible by 100), told in one to
three turns; court rulings (question at issue -> holding); chat pairs. Writes train.jsonl, with no conversation
twice and enough for 200 steps of 8 packed rows of 512 tokens, and valid.jsonl (every 20th). Conversations of more
than 512 tokens of the embedded tokenizer are left out, not cut.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import zstandard

from koalpaca_tune import jsonl
from koalpaca_tune.models import tokenizer
from koalpaca_tune.records import Conversation, Encoded, Turn
from koalpaca_tune.tokens.encode import Encoder
from koalpaca_tune.tokens.pack import pack

LENGTH, ROWS = 512, 200 * 8
VALID_EVERY = 20
CHATS, RULINGS = 3000, 1800
PARAGRAPH = 60
"""Characters below which a paragraph is a heading, or joined to the next."""
PIECE = 380
"""Characters of an answer about an article, at least, where it has as many."""
ASKED = ("‘{title}’에 대해 설명해 주세요.", "더 알려 주세요.", "이어서 말해 주세요.")


def articles(path: Path) -> Iterator[Conversation]:
    """Held-out Wikipedia articles, a few paragraphs to a turn."""
    with zstandard.open(path, "rb") as file:
        for line in io.TextIOWrapper(file, encoding="utf-8"):
            row = json.loads(line)
            if int(hashlib.sha256(row["id"].encode()).hexdigest(), 16) % 100:
                continue
            pieces = list(_pieces(row["text"].split("\n")[1:]))
            at = 0
            while at < len(pieces):
                # one to three turns, by the article and the place in it
                count = 1 + (int(row["id"]) + at) % 3
                turns: list[Turn] = []
                for n, piece in enumerate(pieces[at : at + count]):
                    asked = ASKED[0] if not n else ASKED[1 + (at + n) % 2]
                    turns += [Turn("user", asked.format(title=row["title"])), Turn("assistant", piece)]
                yield Conversation(tuple(turns), f"kowiki:{row['id']}#{at}", "kowiki")
                at += count


def _pieces(paragraphs: Iterable[str]) -> Iterator[str]:
    # every other answer is a single paragraph
    piece, short = "", True
    for paragraph in paragraphs:
        if len(paragraph) < PARAGRAPH:
            continue
        piece = f"{piece}\n{paragraph}" if piece else paragraph
        if short or len(piece) >= PIECE:
            yield piece
            piece, short = "", not short
    if piece:
        yield piece


def rulings(path: Path) -> Iterator[Conversation]:
    """The question at issue and what the court held."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if row["question"].strip() and row["summary"].strip():
                turns = (Turn("user", row["question"].strip()), Turn("assistant", row["summary"].strip()))
                yield Conversation(turns, f"precedents:{row['id']}", "precedents")


def chats(path: Path) -> Iterator[Conversation]:
    """Chat pairs of a sentence each."""
    with path.open(encoding="utf-8", newline="") as file:
        for n, row in enumerate(csv.DictReader(file), 1):
            yield Conversation((Turn("user", row["Q"]), Turn("assistant", row["A"])), f"chatbot:{n}", "chatbot")


def fitting(encoder: Encoder, conversations: Iterable[Conversation]) -> Iterator[tuple[Conversation, Encoded]]:
    """Those of at most 512 tokens, each text once."""
    seen: set[str] = set()
    drawn = list(conversations)
    for one, encoded in zip(drawn, encoder.conversations(drawn), strict=True):
        if len(encoded.ids) <= LENGTH and one.id not in seen:
            seen.add(one.id)
            yield one, encoded


def main() -> None:
    """Writes both files; prints what is in them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="../shared/data")
    parser.add_argument("out", type=Path, nargs="?", default=Path("carry/parity"))
    given = parser.parse_args()
    vocabulary = tokenizer.load("embedded")
    encoder = Encoder(vocabulary, vocabulary.template("koalpaca"))
    drawn = [
        *fitting(encoder, articles(given.shared / "kowiki/kowiki.jsonl.zst")),
        *islice(fitting(encoder, rulings(given.shared / "precedents/train.jsonl.gz")), RULINGS),
        *islice(fitting(encoder, chats(given.shared / "chatbot_data/ChatbotData.csv")), CHATS),
    ]
    # by hash: the order of the file says nothing
    drawn.sort(key=lambda pair: pair[0].id)
    parts = {
        "valid": drawn[::VALID_EVERY],
        "train": [pair for n, pair in enumerate(drawn) if n % VALID_EVERY],
    }
    for name, pairs in parts.items():
        path = given.out / f"{name}.jsonl"
        jsonl.write(path, (one.as_dict() for one, _ in pairs))
        lengths = sorted(len(encoded.ids) for _, encoded in pairs)
        rows = len(pack(lengths, LENGTH))
        learned = sum(encoded.learned for _, encoded in pairs)
        print(
            f"{path}: {len(pairs):,} conversations, {sum(lengths):,} tokens ({learned:,} learned), "
            f"{lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}; {rows:,} packed rows; "
            f"{path.stat().st_size / 2**20:.2f} MiB"
        )
        if name == "train" and rows < ROWS:
            print(f"too few: 200 steps need {ROWS:,} rows")


if __name__ == "__main__":
    main()
