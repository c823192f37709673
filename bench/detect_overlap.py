"""How well near duplicates and leaked evaluation items are found in real Korean text.

    python bench/detect_overlap.py [../shared/data]

Near duplicates: real records (chatbot_data, NSMC, question_pair) with one copy of some of them changed a
little; what must not be found are pairs that people labelled as different, or made to differ in what
matters. Candidates by MinHash are held against all pairs of 10,000 records compared one by one.

Leaks: items of the KoBEST tests, changed a little and put into an instruction; what must not be found are
sets that have nothing to do with KoBEST. Also how much of KoBEST's own training files its tests share.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from score import Score

from koalpaca_tune.data.overlap import grams, minhash, near
from koalpaca_tune.data.overlap.contamination import Protected
from koalpaca_tune.data.overlap.proof import Proof
from koalpaca_tune.data.overlap.text import CONTEXT, TURN, near_text, normalise
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.suites import items, tasks

SHARED = Path(__file__).parents[2] / "shared" / "data"
THRESHOLD, DAMAGED, SEED = 0.8, 300, 42


Change = Callable[[str, random.Random], str | None]
"""A changed copy, or None where there is nothing to change."""


def _typo(text: str, rng: random.Random) -> str | None:
    places = [n for n, char in enumerate(text) if "가" <= char <= "힣"]
    if not places:
        return None
    n = rng.choice(places)
    code = ord(text[n]) - ord("가")
    other = code - code % 28 + rng.randrange(28) if rng.random() < 0.5 else code % 588 + 588 * rng.randrange(19)
    return text[:n] + chr(ord("가") + other) + text[n + 1 :]


def _spacing(text: str, rng: random.Random) -> str | None:
    spaces = [n for n, char in enumerate(text) if char == " "]
    if not spaces:
        return None
    gone = set(rng.sample(spaces, (len(spaces) + 1) // 2))
    return "".join(char for n, char in enumerate(text) if n not in gone)


_OTHER = {"은": "이", "는": "가", "이": "은", "가": "는", "을": "은", "를": "는"}


def _particle(text: str, rng: random.Random) -> str | None:
    found = list(re.finditer(r"(?<=[가-힣])[은는이가을를](?=\s)", text))
    if not found:
        return None
    one = rng.choice(found)
    return text[: one.start()] + rng.choice([_OTHER[one[0]], ""]) + text[one.end() :]


def _one_word(text: str, rng: random.Random) -> str | None:
    words = text.split(" ")
    if len(words) < 5:
        return None
    words[rng.randrange(len(words))] = rng.choice(("정말", "우리", "어제", "친구가", "사람들은", "그래서"))
    return " ".join(words)


def _word_gone(text: str, rng: random.Random) -> str | None:
    words = text.split(" ")
    if len(words) < 5:
        return None
    del words[rng.randrange(len(words))]
    return " ".join(words)


def _ending(text: str, rng: random.Random) -> str | None:
    plain = text.rstrip(".!? ")
    for old, new in (
        ("어요", "습니다"),
        ("해요", "합니다"),
        ("네요", "군요"),
        ("습니다", "어요"),
        ("세요", "십시오"),
    ):
        if plain.endswith(old):
            return plain[: -len(old)] + new
    return None


def _dress(text: str, rng: random.Random) -> str | None:
    return text.rstrip(".") + rng.choice(["!!", "~", " ㅎㅎ", " 😊", "...", "^^"])


CHANGES: dict[str, Change] = {
    "철자 (one syllable)": _typo,
    "띄어쓰기 (spacing)": _spacing,
    "조사 (particle)": _particle,
    "낱말 바꿈 (one word)": _one_word,
    "낱말 빠짐 (word gone)": _word_gone,
    "어미 (ending)": _ending,
    "부호·이모지 (marks)": _dress,
}


def _asked(question: str, answer: str = "", context: str | None = None) -> str:
    turns = [Turn("user", question, context)]
    return near_text(Conversation((*turns, Turn("assistant", answer)) if answer else tuple(turns)))


def _tsv(path: Path) -> list[dict[str, str]]:
    lines = [line.rstrip("\r\n").split("\t") for line in path.read_text(encoding="utf-8-sig").split("\n") if line]
    return [dict(zip(lines[0], line, strict=False)) for line in lines[1:]]


def _chat(root: Path) -> Iterator[str]:
    with (root / "chatbot_data/ChatbotData.csv").open(encoding="utf-8-sig", newline="") as file:
        yield from (_asked(row["Q"], row["A"]) for row in csv.DictReader(file))


def _reviews(root: Path) -> Iterator[str]:
    yield from (_asked(row["document"]) for row in _tsv(root / "nsmc/train.tsv"))


def _questions(root: Path) -> list[tuple[str, str, str]]:
    return [
        (row["question1"], row["question2"], row["is_duplicate"]) for row in _tsv(root / "question_pair/train.txt")
    ]


def real(root: Path, count: int = 10_000) -> list[str]:
    """Different records of at least 8 letters: half talks, half reviews."""
    rng = random.Random(SEED)
    found = []
    for source in (list(_chat(root)), list(_reviews(root))):
        different = {normalise(text): text for text in source if len(normalise(text)) >= 8}
        found += rng.sample(list(different.values()), count // 2)
    rng.shuffle(found)
    return found


def different(root: Path) -> dict[str, list[tuple[str, str]]]:
    """Pairs that must not be called duplicates."""
    boolq = _tsv(root / "kobest/BoolQ/train.tsv")
    flipped = _tsv(root / "kobest/SentiNeg/test.tsv")
    copa = _tsv(root / "kobest/COPA/train.tsv")
    rng = random.Random(SEED)
    numbered = [text for text in (*_chat(root), *_reviews(root)) if re.search(r"\d", text)][:1500]
    sts = [row for row in _tsv(root / "kornlu/KorSTS/sts-train.tsv") if row.get("sentence2")]
    return {
        "labelled different (question_pair)": [(a, b) for a, b, label in _questions(root) if label == "1"],
        "similarity 0 to 2.5 of 5 (KorSTS)": [
            (row["sentence1"], row["sentence2"]) for row in sts if float(row["score"]) <= 2.5
        ],
        "meaning reversed (SentiNeg)": [(row["Text_origin"], row["Text"]) for row in flipped],
        "right and wrong alternative (COPA)": [(row["1"], row["2"]) for row in copa],
        "one passage, two questions (BoolQ)": [
            (_asked(one["Question"], "예", one["Text"]), _asked(other["Question"], "예", one["Text"]))
            for one, other in pairwise(boolq[:1001])
        ],
        "another number": [
            (text, re.sub(r"\d", lambda m: str((int(m[0]) + 3) % 10), text, count=1)) for text in numbered
        ],
        "예 for 아니오": [
            (_asked(row["Question"], "예", row["Text"]), _asked(row["Question"], "아니오", row["Text"]))
            for row in rng.sample(boolq, 500)
        ],
    }


def _grouped(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    signed = np.concatenate([minhash.sign(texts[n : n + 512]) for n in range(0, len(texts), 512)])
    some = lambda indices: [texts[n] for n in indices]  # noqa: E731
    groups = near.clusters(signed, THRESHOLD, some)
    return groups, near.repeats(groups, THRESHOLD, some)


def _together(pairs: Sequence[tuple[str, str]]) -> int:
    """How many of the pairs would be called duplicates, each on its own."""
    found = 0
    for start in range(0, len(pairs), 500):
        part = pairs[start : start + 500]
        texts = [text for pair in part for text in pair]
        groups, _ = _grouped(texts)
        found += sum(int(groups[2 * n] == groups[2 * n + 1]) for n in range(len(part)))
    return found


def near_rows(root: Path) -> list[Score]:
    """Changed copies among real records, against pairs that differ."""
    pool = real(root)
    pairs = [pair for some in different(root).values() for pair in some if normalise(pair[0]) != normalise(pair[1])]
    false = _together(pairs)
    scores = []
    for name, change in CHANGES.items():
        rng = random.Random(SEED)
        of, copies = [], []
        for n in rng.sample(range(len(pool)), len(pool)):
            parts = pool[n].split(TURN)
            at = rng.randrange(len(parts))
            made = change(parts[at], rng)
            # a change that says the opposite, or changes a number, is none that should be found
            if made and made != parts[at] and len(normalise(pool[n])) >= 15 and _harmless(parts[at], made):
                of.append(n)
                copies.append(TURN.join([*parts[:at], made, *parts[at + 1 :]]))
            if len(of) == DAMAGED:
                break
        groups, _ = _grouped([*pool, *copies])
        found = sum(int(groups[len(pool) + k] == groups[n]) for k, n in enumerate(of))
        scores.append(Score(f"near: {name}", len(of), len(pairs), found, false))
    return scores


def _harmless(old: str, new: str) -> bool:
    count = [len(re.findall("안|않|못|없|아니|불", text)) for text in (old, new)]
    return count[0] == count[1] and re.findall(r"\d", old) == re.findall(r"\d", new)


class Bands(NamedTuple):
    """MinHash bands against comparing everything with everything.

    Attributes:
        alike: pairs at or above the threshold, by plain comparison of all pairs.
        proved: of those, pairs that the rules of `proof` let stand.
        together: of those, pairs that were put into one group.
        dropped, unlike: records that would be dropped, and those of them below the threshold to what they repeat.
    """

    alike: int
    proved: int
    together: int
    dropped: int
    unlike: int


def bands(root: Path) -> Bands:
    """On 10,000 real records and a changed copy of 3,000 of them."""
    pool = real(root)
    rng = random.Random(SEED)
    changes = list(CHANGES.values())
    copies = [made for text in pool[:3000] if (made := rng.choice(changes)(text, rng))]
    texts = [*pool, *copies]
    ones, others = _all_pairs([normalise(text) for text in texts])
    proof = Proof(THRESHOLD, lambda indices: [texts[n] for n in indices])
    proved = proof(ones, others)
    groups, stands = _grouped(texts)
    together = groups[ones[proved]] == groups[others[proved]]
    truth = set(zip(ones.tolist(), others.tolist(), strict=True))
    dropped = np.flatnonzero(stands != np.arange(len(texts))).tolist()
    unlike = sum((int(stands[n]), n) not in truth for n in dropped)
    return Bands(len(ones), int(proved.sum()), int(together.sum()), len(dropped), unlike)


def _all_pairs(normal: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    keys, starts = grams.bigrams(normal)
    owners = np.repeat(np.arange(len(normal)), np.diff(np.append(starts, len(keys))))
    _, columns = np.unique(keys, return_inverse=True)
    table = csr_array(
        (np.ones(len(keys), np.int32), (owners, columns)), shape=(len(normal), int(columns.max()) + 1)
    )
    table.sum_duplicates()
    table.data[:] = 1
    sizes = np.asarray(table.sum(axis=1)).ravel()
    ones, others = [], []
    for start in range(0, len(normal), 500):
        shared = (table[start : start + 500] @ table.T).tocoo()
        rows, columns = shared.row + start, shared.col
        alike = (shared.data / (sizes[rows] + sizes[columns] - shared.data) >= THRESHOLD) & (rows < columns)
        ones.append(rows[alike])
        others.append(columns[alike])
    return np.concatenate(ones).astype(np.int64), np.concatenate(others).astype(np.int64)


def material(root: Path) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """The KoBEST tests' items."""
    return {
        name: [(item.id, item.material) for item in items.load(tasks.load_task(path), root).items]
        for name, path in tasks.shipped().items()
        if name.startswith("kobest")
    }


INSTRUCTIONS = (
    "다음을 읽고 물음에 답하세요.\n{}",
    "{}\n위 내용이 맞는지 판단해 주세요.",
    "아래 글을 보고 알맞은 답을 고르세요.\n\n{}\n\n정답:",
)


def leak_rows(root: Path) -> list[Score]:
    """Items in instructions, changed a little, against sets of other kinds."""
    protected = Protected.of(material(root))
    clean = _others(root)
    false = sum(map(bool, _hits(protected, clean)))
    rng = random.Random(SEED)
    scores = []
    changes: dict[str, Change] = {"그대로 (verbatim)": lambda text, rng: text, **CHANGES}
    for task, listed in material(root).items():
        known = [(id, texts) for id, texts in listed if max(len(normalise(text)) for text in texts) >= 5]
        for name, change in changes.items():
            made: list[tuple[str, str]] = []
            for id, texts in rng.sample(known, len(known)):
                # every text that is long enough to be changed is
                changed = [change(text, rng) for text in texts]
                if any(new and new != text for new, text in zip(changed, texts, strict=True)) or name.startswith(
                    "그"
                ):
                    body = "\n".join(new or text for new, text in zip(changed, texts, strict=True))
                    made.append((id, _asked(rng.choice(INSTRUCTIONS).format(body), "예")))
                if len(made) == DAMAGED:
                    break
            if len(made) < 100:
                continue
            found = _hits(protected, [text for _, text in made])
            right = sum(
                any(leak.task == task and leak.item == id for leak in leaks)
                for (id, _), leaks in zip(made, found, strict=True)
            )
            scores.append(Score(f"{task}: {name}", len(made), len(clean), right, false))
    return scores


def _others(root: Path) -> list[str]:
    with gzip.open(root / "precedents/train.jsonl.gz", "rt", encoding="utf-8") as file:
        judgments = [_asked("판결 요지를 쓰세요.", json.loads(line)["judgment"]) for line in file]
    questions = [_asked(text) for a, b, _ in _questions(root) for text in (a, b)]
    return [*_chat(root), *_reviews(root), *questions, *judgments]


def _hits(protected: Protected, texts: Sequence[str]) -> list[tuple[object, ...]]:
    return [leaks for n in range(0, len(texts), 512) for leaks in protected.hits(texts[n : n + 512])]


def own_training(root: Path) -> dict[str, tuple[int, int, Counter[str]]]:
    """KoBEST's training files against its tests: file -> (records, those that hold a test item, by part)."""
    protected = Protected.of(material(root))
    fields = {
        "BoolQ": lambda row: _asked(row["Question"], context=row["Text"]),
        "COPA": lambda row: _asked(row["sentence"]),
        "WiC": lambda row: row["SENTENCE1"] + CONTEXT + row["SENTENCE2"],
        "HellaSwag": lambda row: _asked(row["context"]),
        "SentiNeg": lambda row: _asked(row["Text"]),
    }
    found = {}
    for name, text in fields.items():
        rows = [row for row in _tsv(root / f"kobest/{name}/train.tsv") if len(row) > 2]
        leaks = _hits(protected, [text(row) for row in rows])
        found[name] = len(rows), sum(map(bool, leaks)), Counter(some[0].part for some in leaks if some)
    return found


def rows(root: Path = SHARED) -> list[Score]:
    """All scores."""
    return [*near_rows(root), *leak_rows(root)]


def main(root: Path) -> None:
    """Prints everything."""
    print(f"{'':44} {'damaged':>8} {'clean':>7} {'found':>6} {'false':>6}  recall  precision")
    for score in rows(root):
        recall, alarm = score.found / score.damaged, score.false / score.clean
        precision = recall / (recall + alarm) if recall + alarm else 1.0
        print(
            f"{score.name:44} {score.damaged:8} {score.clean:7} {score.found:6} {score.false:6}"
            f"  {recall:6.1%}  {precision:6.1%}"
        )
    print("\nnear: pairs that differ, and are called duplicates")
    for name, pairs in different(root).items():
        pairs = [pair for pair in pairs if normalise(pair[0]) != normalise(pair[1])]
        print(f"  {name:44} {_together(pairs):5} of {len(pairs)}")
    same = [(a, b) for a, b, label in _questions(root) if label == "0" and normalise(a) != normalise(b)]
    print(f"  {'(labelled the same, question_pair)':44} {_together(same):5} of {len(same)}")
    print("\nnear: bands against all pairs of 13,000 records:", bands(root))
    print("\nKoBEST training files that hold items of its tests")
    for name, (records, found, parts) in own_training(root).items():
        print(f"  {name:10} {found:4} of {records}  {dict(parts)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=SHARED)
    main(parser.parse_args().root)
