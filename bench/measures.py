"""Measures of Korean text: precision and recall on examples, damage found and alarms on real text, texts a second.

    python bench/measures.py ../shared/data [--markdown] [--show]

Examples are those of tests/measures/examples, written for this: `tune` was looked at while patterns and thresholds
were chosen, `kept` was not. Real text is what people wrote, as answers: chatbot_data, NSMC, kowiki paragraphs,
summaries of judgments; most alarms there are real faults of the text, but all are counted as false. Damage is that
of detect_quality.py, put into 300 real records that the measure does not flag as they are; the pool is part of what
`data.quality` was made on. `--show` prints wrong
verdicts on `tune` and the words of each alarm. About 1 minute.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import detect_quality

from koalpaca_tune import korean
from koalpaca_tune.data.quality import particles as phrases
from koalpaca_tune.data.quality import speech as tails
from koalpaca_tune.measures import exact, morphemes, registry, speech, translation

EXAMPLES = Path(__file__).parents[1] / "tests/measures/examples"
SEED, REAL, TIMED = 7, 1000, 2000
PARTS = ("tune", "kept")


class Pair(NamedTuple):
    """A question and an answer to it."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Verdicts:
    """How one measure did on labelled examples.

    Attributes:
        found, missed: examples with the defect.
        false, clean: examples without it.
    """

    found: int
    missed: int
    false: int
    clean: int

    @property
    def precision(self) -> float:
        return self.found / (self.found + self.false) if self.found + self.false else 0.0

    @property
    def recall(self) -> float:
        return self.found / (self.found + self.missed)


def alarmed(name: str, pair: Pair) -> bool:
    """Whether a measure says that an answer has the defect; undecided is no alarm."""
    value = registry.ANSWER[name](pair.answer, pair.question)
    return value is not None and value == (1.0 if name in registry.LOWER_IS_BETTER else 0.0)


def examples(name: str, part: str) -> list[tuple[Pair, bool]]:
    """The labelled examples of a measure; True for the defect."""
    with (EXAMPLES / f"{name}.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [(Pair(row["question"], row["answer"]), row["defect"]) for row in rows if row["part"] == part]


def validated() -> list[str]:
    """The measures that have labelled examples, in the registry's order."""
    return [name for name in registry.ANSWER if (EXAMPLES / f"{name}.jsonl").exists()]


def verdicts(name: str, part: str) -> Verdicts:
    """Counts of right and wrong verdicts."""
    said = [(defect, alarmed(name, pair)) for pair, defect in examples(name, part)]
    return Verdicts(
        said.count((True, True)), said.count((True, False)), said.count((False, True)), said.count((False, False))
    )


def real(shared: Path, count: int) -> dict[str, list[Pair]]:
    """Text that people wrote, by origin."""
    rng = random.Random(SEED)
    with (shared / "chatbot_data/ChatbotData.csv").open(encoding="utf-8", newline="") as file:
        chat = [Pair(row["Q"], row["A"]) for row in csv.DictReader(file)]
    with (shared / "nsmc/dev.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        reviews = [Pair("이 영화를 어떻게 보셨어요?", row["document"]) for row in rows if row["document"]]
    with gzip.open(shared / "precedents/train.jsonl.gz", "rt", encoding="utf-8") as file:
        cases = [Pair("판결의 요지를 적으세요.", json.loads(line)["summary"]) for line in islice(file, count)]
    wiki = [Pair(one.question, one.answer) for one in detect_quality._wiki(shared, 3 * count)]
    return {
        "chatbot_data": rng.sample(chat, count),
        "NSMC": rng.sample(reviews, count),
        "kowiki": rng.sample(wiki, count),
        "precedents": cases,
    }


# reviews, articles and judgments are no answers to a question that someone asked politely
_ONLY_ANSWERS = {"speech_match": ("chatbot_data",)}


def alarms(name: str, pool: str, pairs: Sequence[Pair]) -> float | None:
    """Share of real texts that a measure flags; None where the text is no answer to the question."""
    if pool not in _ONLY_ANSWERS.get(name, (pool,)):
        return None
    return sum(alarmed(name, pair) for pair in pairs) / len(pairs)


DAMAGES: tuple[tuple[str, str, detect_quality.Damage], ...] = (
    ("loop", "되풀이 (last words again and again)", detect_quality.loop),
    (
        "script_mix",
        "일본어 (a Japanese word)",
        detect_quality._instead_of_a_word(detect_quality._KANA),
    ),
    (
        "script_mix",
        "다른 문자 (another script)",
        detect_quality._instead_of_a_word(detect_quality._OTHERS),
    ),
    ("script_mix", "영어 문장 (an English sentence)", detect_quality.english_left),
    (
        "hanja_leak",
        "한자 (a word in Hanja)",
        detect_quality._instead_of_a_word(detect_quality._HANJA),
    ),
    (
        "hanja_leak",
        "중국어 (a Chinese word)",
        detect_quality._instead_of_a_word(detect_quality._CHINESE),
    ),
    ("broken_syllable", "떨어진 받침 (사라ㅁ들)", detect_quality.broken_jamo),
    ("broken_syllable", "없는 음절 (no word's syllable)", detect_quality.rare_syllable),
    ("broken_syllable", "잘못 읽은 인코딩 (mojibake)", detect_quality.mojibake),
    ("broken_syllable", "U+FFFD (a lost character)", detect_quality.lost_characters),
    ("speech_consistency", "다른 말투 (the other level)", detect_quality.mixed_speech),
    ("particle_error", "조사 하나 (one particle)", detect_quality.particle),
    ("language_mismatch", "영어 답변 (in English)", detect_quality.wrong_language),
)
DAMAGED = 300


def found(name: str, damage: detect_quality.Damage, pool: Sequence[detect_quality.Real]) -> tuple[int, int]:
    """(damaged, found): of up to 300 records that were not flagged, how many are once damaged."""
    rng = random.Random(SEED)
    whole = (real for real in rng.sample(pool, len(pool)) if not alarmed(name, Pair(real.question, real.answer)))
    made = islice((one for real in whole if (one := damage(real, rng)) is not None), DAMAGED)
    said = [alarmed(name, Pair(one.question, one.answer)) for one in made]
    return len(said), sum(said)


def translated(shared: Path) -> dict[str, list[Pair]]:
    """Sentences five by five: XNLI translated from English (KorNLI), and premises written in Korean (KLUE-NLI)."""
    with (shared / "kornlu/KorNLI/xnli.test.ko.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        english = list(dict.fromkeys(row["sentence1"] for row in rows))
    with (shared / "klue/klue-nli-v1.1_dev.json").open(encoding="utf-8") as file:
        korean_ones = list(dict.fromkeys(row["premise"] for row in json.load(file)))
    return {
        name: [Pair("", " ".join(some[at : at + 5])) for at in range(0, len(some) - 4, 5)]
        for name, some in (("KorNLI, translated", english), ("KLUE-NLI, Korean", korean_ones))
    }


def means(name: str, pairs: Sequence[Pair]) -> float:
    """Mean of a measure over the texts that decide it."""
    values = [value for pair in pairs if (value := registry.ANSWER[name](pair.answer, pair.question)) is not None]
    return sum(values) / len(values) if values else float("nan")


def _forget() -> None:
    for read in (morphemes.of, exact.forms, speech.spoken, phrases.read, tails.read):
        read.cache_clear()


def speeds(pairs: Sequence[Pair]) -> Iterator[tuple[str, float]]:
    """(what, texts a second of one core), each from cold caches."""
    korean.analyse(["첫 문장을 읽기 전에 모형을 올린다."])
    works: list[tuple[str, Callable[[], object]]] = [
        (name, lambda name=name: [registry.ANSWER[name](one.answer, one.question) for one in pairs])  # type: ignore[misc]
        for name in registry.ANSWER
    ]
    works.append(
        (
            "all of an answer",
            lambda: [measure(one.answer, one.question) for one in pairs for measure in registry.ANSWER.values()],
        )
    )
    golds = [[one.answer] for one in [*pairs[1:], pairs[0]]]
    some = list(zip((one.answer for one in pairs), golds, strict=True))
    works += [
        (name, lambda name=name: [registry.REFERENCE[name](*one) for one in some])  # type: ignore[misc]
        for name in registry.REFERENCE
    ]
    works.append(
        ("all with a reference", lambda: [score(*one) for one in some for score in registry.REFERENCE.values()])
    )
    for what, work in works:
        _forget()
        started = time.process_time()
        work()
        yield what, len(pairs) / (time.process_time() - started)


def tables(shared: Path) -> Iterator[tuple[str, Sequence[str], list[Sequence[str]]]]:
    """(caption, columns, rows) of each table."""
    names = validated()
    rows: list[Sequence[str]] = []
    for name in names:
        cells = [f"{registry.TITLES[name][0]} `{name}`"]
        for part in PARTS:
            got = verdicts(name, part)
            cells += [
                f"{got.found + got.missed}+{got.false + got.clean}",
                f"{got.precision:.1%}",
                f"{got.recall:.1%}",
            ]
        rows.append(cells)
    yield (
        "라벨 예문: 결함 있는 것 + 없는 것, 정밀도, 재현율 (labelled examples: with + without the defect)",
        ("measure", *(f"{part}: {what}" for part in PARTS for what in ("n", "precision", "recall"))),
        rows,
    )
    pool = detect_quality.clean_records(shared)
    rows = []
    for name, what, damage in DAMAGES:
        count, hits = found(name, damage, pool)
        rows.append([f"`{name}` {what}", f"{count}", f"{hits}", f"{hits / count:.1%}"])
    yield (
        "일부러 망가뜨린 실제 글 (real text damaged on purpose)",
        ("measure and damage", "damaged", "found", "recall"),
        rows,
    )
    pools = real(shared, REAL)
    rows = []
    for name in names:
        shares = [alarms(name, pool, pairs) for pool, pairs in pools.items()]
        rows.append([f"`{name}`", *("-" if share is None else f"{share:.2%}" for share in shares)])
    yield (
        f"사람이 쓴 글에서 울린 비율 (alarms on what people wrote, {REAL:,} texts each)",
        ("measure", *pools),
        rows,
    )
    tone = translated(shared)
    weights = [
        [sum(translation.marks(one.answer).values()) * 150 / max(150, len(one.answer)) for one in pairs]
        for pairs in tone.values()
    ]
    yield (
        "번역투: 영어에서 옮긴 문장과 한국어로 쓴 문장 다섯씩 (translation tone, five sentences at a time)",
        ("", *tone),
        [
            ["texts", *(f"{len(pairs)}" for pairs in tone.values())],
            ["flagged", *(f"{alarms('translation_tone', '', pairs):.1%}" for pairs in tone.values())],
            ["weight of the marks in 150 characters", *(f"{sum(some) / len(some):.2f}" for some in weights)],
        ],
    )
    looped = [pair for part in PARTS for pair, defect in examples("loop", part) if defect]
    others = [pair for part in PARTS for pair, defect in examples("loop", part) if not defect]
    groups = {"loop examples": looped, "their opposites": others, **pools}
    rows = [
        [f"`{name}`", *(f"{means(name, pairs):.3f}" for pairs in groups.values())]
        for name in ("repetition", "distinct_1", "distinct_2")
    ]
    yield "평균값 (means)", ("measure", *groups), rows
    short, long = real(shared, TIMED)["chatbot_data"], pools["kowiki"]
    characters = [f"{sum(len(one.answer) for one in pairs) / len(pairs):.0f}" for pairs in (short, long)]
    yield (
        "초당 글 수, 코어 하나, 빈 캐시 (texts a second of one core, caches cold;"
        f" {characters[0]} and {characters[1]} characters on average)",
        ("measure", "chatbot_data", "kowiki"),
        [
            [f"`{what}`", f"{rate:,.0f}", f"{slow:,.0f}"]
            for (what, rate), (_, slow) in zip(speeds(short), speeds(long), strict=True)
        ],
    )


def show(shared: Path) -> None:
    """Prints every wrong verdict, and the words of every alarm on real text."""
    for name in validated():
        for pair, defect in examples(name, "tune"):
            if alarmed(name, pair) != defect:
                print(f"{name} {'missed' if defect else 'false'}: {pair}")
        for pool, pairs in real(shared, REAL).items():
            for pair in pairs:
                if pool in _ONLY_ANSWERS.get(name, (pool,)) and alarmed(name, pair):
                    words = registry.EVIDENCE[name](*reversed(pair)) if name in registry.EVIDENCE else ""
                    print(f"{name} {pool}: {words} | {pair.question[:40]} | {pair.answer[:160]!r}")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    if given.show:
        show(given.root)
        return
    print(
        f"`python bench/measures.py ../shared/data{' --markdown' if given.markdown else ''}`"
        f" ({time.strftime('%Y-%m-%d')}, {platform.machine()}, Python {platform.python_version()},"
        f" kiwipiepy {metadata.version('kiwipiepy')})"
    )
    for caption, columns, rows in tables(given.root):
        print(f"\n{caption}\n")
        if given.markdown:
            print(f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 1)}", sep="\n")
            print("\n".join(f"| {' | '.join(row)} |" for row in rows))
        else:
            for row in (columns, *rows):
                print(f"  {row[0]:52}" + "".join(f"{cell:>18}" for cell in row[1:]))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
