"""Precision and recall of the quality signals, on real clean records and on damaged copies of them.

python bench/detect_quality.py ../shared/data [--show]

Each damage is put into 300 real records (seeded); each detector sees them and 2,000 clean ones. `--show` prints the
words of every false alarm: some are real errors of the clean text, which no figure here counts in our favour.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import zstandard
from score import Score

from koalpaca_tune import korean
from koalpaca_tune.config.quality import Quality
from koalpaca_tune.data.quality import limits, particles, signals, speech, truncation
from koalpaca_tune.data.quality.signals import Signals
from koalpaca_tune.korean import final_consonant
from koalpaca_tune.records import Conversation, Turn

SEED, DAMAGED, BATCH = 11, 300, 500


class Real(NamedTuple):
    """A question and a real answer to it."""

    question: str
    answer: str
    source: str


def _table(path: Path, quoting: int = csv.QUOTE_NONE, delimiter: str = "\t") -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, delimiter=delimiter, quoting=quoting)


def _wiki(shared: Path, count: int) -> Iterator[Real]:
    with (
        zstandard.open(shared / "kowiki/kowiki.jsonl.zst", "rb") as packed,
        io.TextIOWrapper(packed, encoding="utf-8") as file,
    ):
        articles = (json.loads(line) for line in islice(file, 13, None, 40))
        paragraphs = (
            Real(f"'{article['title']}'에 대해 설명해 주세요.", text, "kowiki")
            for article in articles
            for text in article["text"].split("\n")[1:]
            # headings and fragments of formulas are no answers
            if 80 <= len(text) <= 1200 and text.endswith(".") and "formula_" not in text
        )
        yield from islice(paragraphs, count)


def clean_records(shared: Path) -> list[Real]:
    """Real text that people wrote and edited, as answers; not what the thresholds were chosen on."""
    rng = random.Random(SEED)
    chat = [Real(row["Q"], row["A"], "chatbot") for row in _table(shared / "chatbot_data/ChatbotData.csv", 0, ",")]
    boolq = [
        Real(f"{row['Question']} 이것이 맞는지 알려 주세요.", row["Text"], "boolq")
        for row in _table(shared / "kobest/BoolQ/test.tsv")
    ]
    hella = [
        Real(f"{row['context']} 그다음은 어떻게 됩니까?", row[f"choice{1 + int(row['label'])}"], "hellaswag")
        for row in _table(shared / "kobest/HellaSwag/test.tsv")
        if row["label"] in "0123"
    ]
    with gzip.open(shared / "precedents/train.jsonl.gz", "rt", encoding="utf-8") as file:
        cases = [Real("판결의 요지를 적으세요.", json.loads(line)["summary"], "precedents") for line in file]
    wiki = list(_wiki(shared, 3000))
    return [
        *rng.sample(chat, 800),
        *rng.sample(boolq, 300),
        *rng.sample(hella, 300),
        *rng.sample(cases, 200),
        *rng.sample(wiki, 400),
    ]


def reviews(shared: Path) -> list[Real]:
    """NSMC: informal, often misspelt; its false alarms are read apart."""
    rng = random.Random(SEED)
    rows = [row["document"] for row in _table(shared / "nsmc/dev.tsv") if len(row["document"]) >= 15]
    return [Real("이 영화를 어떻게 보셨어요?", text, "nsmc") for text in rng.sample(rows, 2000)]


def conversation(real: Real) -> Conversation:
    return Conversation((Turn("user", real.question), Turn("assistant", real.answer)), source=real.source)


def measure(conversations: Sequence[Conversation]) -> list[Signals]:
    measured: list[Signals] = []
    for start in range(0, len(conversations), BATCH):
        measured += signals.measure(conversations[start : start + BATCH])
    return measured


Damage = Callable[[Real, random.Random], Real | None]
"""Puts one damage into a record; None when it has no place in this one."""

_PAIRS = {"은": "는", "이": "가", "을": "를", "과": "와", "으로": "로"}
_SWAP = {**_PAIRS, **{without: with_final for with_final, without in _PAIRS.items()}}


def particle(real: Real, rng: random.Random, only: str = "") -> Real | None:
    """Exchanges one particle after a noun for the other of its pair."""
    places = []
    before = None
    for morpheme in korean.analyse([real.answer])[0].morphemes:
        end = morpheme.start + morpheme.len
        if (
            before is not None
            and before.tag.startswith("NN")
            and before.start + before.len == morpheme.start
            and morpheme.tag in ("JKS", "JKO", "JX", "JC", "JKB")
            and morpheme.form in _SWAP
            and real.answer[morpheme.start : end] == morpheme.form
            and "가" <= real.answer[morpheme.start - 1] <= "힣"
            and not (morpheme.form == "로" and final_consonant(real.answer[morpheme.start - 1]) not in (0, 8))
            and not real.answer[end : end + 1].isalpha()
            and (not only or morpheme.form in only.split("/"))
        ):
            places.append((morpheme.start, end, _SWAP[morpheme.form]))
        before = morpheme
    if not places:
        return None
    start, end, wrong = rng.choice(places)
    return real._replace(answer=real.answer[:start] + wrong + real.answer[end:])


def _only(pair: str) -> Damage:
    return lambda real, rng: particle(real, rng, pair)


_POLITE = (
    "그래서 저도 자주 갑니다.",
    "정말 그렇지요?",
    "한번 해 보세요.",
    "꼭 확인하시기 바랍니다.",
    "도움이 되었으면 좋겠어요.",
    "더 궁금한 점이 있으신가요?",
)
_PLAIN = (
    "그건 나도 잘 몰라.",
    "한번 해 봐.",
    "그러니까 걱정하지 마.",
    "꼭 확인해 둬라.",
    "그게 제일 중요하다.",
    "너도 같이 갈래?",
    "이제 그만하자.",
)


def mixed_speech(real: Real, rng: random.Random) -> Real | None:
    """Adds a sentence of the other kind; the level is Kiwi's alone."""
    polite = korean.speech_consistent(real.answer)
    levels = {level for level in korean.speech_levels(real.answer) if level is not None}
    if polite is not True or not levels or len(real.answer) < 8:
        return None
    other = _PLAIN if levels <= korean.POLITE else _POLITE
    end = "" if real.answer.rstrip().endswith((".", "!", "?")) else "."
    return real._replace(answer=f"{real.answer.rstrip()}{end} {rng.choice(other)}")


def _instead_of_a_word(words: Sequence[str]) -> Damage:
    def damage(real: Real, rng: random.Random) -> Real | None:
        places = list(
            re.finditer(
                r"(?<![\w(\[\"'“‘])[가-힣]{2,}(?![\w)\]\"'”’])",
                re.sub(r"\([^()]*\)", lambda m: "#" * len(m[0]), real.answer),
            )
        )
        if not places:
            return None
        at = rng.choice(places)
        return real._replace(answer=real.answer[: at.start()] + rng.choice(words) + real.answer[at.end() :])

    return damage


def broken_jamo(real: Real, rng: random.Random) -> Real | None:
    """The last syllable before another falls apart: 사람들 as 사라ㅁ들."""
    places = [
        n
        for n, (one, two) in enumerate(zip(real.answer, real.answer[1:], strict=False))
        if final_consonant(one) in _FINALS and "가" <= two <= "힣"
    ]
    if not places:
        return None
    at = rng.choice(places)
    final = final_consonant(real.answer[at])
    apart = chr(ord(real.answer[at]) - final) + _FINALS[final]
    return real._replace(answer=real.answer[:at] + apart + real.answer[at + 1 :])


_FINALS = {1: "ㄱ", 4: "ㄴ", 7: "ㄷ", 8: "ㄹ", 16: "ㅁ", 17: "ㅂ", 19: "ㅅ", 21: "ㅇ"}


def rare_syllable(real: Real, rng: random.Random) -> Real | None:
    """A wrong bit: a syllable becomes one outside KS X 1001."""
    places = [n for n, char in enumerate(real.answer) if "가" <= char <= "힣"]
    if not places:
        return None
    at = rng.choice(places)
    return real._replace(answer=real.answer[:at] + rng.choice(_RARE) + real.answer[at + 1 :])


_RARE = [chr(code) for code in range(ord("가"), ord("힣") + 1) if chr(code) not in korean.COMMON_SYLLABLES]


def loop(real: Real, rng: random.Random) -> Real | None:
    """The model's favourite: the last sentence, or the last words, again and again."""
    tail = re.split(r"(?<=[.!?])\s+", real.answer)[-1][-40:]
    return real._replace(answer=real.answer + (" " + tail) * rng.randint(8, 30)) if len(tail) >= 4 else None


def truncate(real: Real, rng: random.Random) -> Real | None:
    """Stops at a random character, not at the end of a sentence (as a limit on new tokens does)."""
    if len(real.answer) < 40:
        return None
    at = rng.randint(len(real.answer) // 2, len(real.answer) - 4)
    cut = real.answer[:at].rstrip()
    return None if re.search(r"(?:[.!?…]|다|요)[\"'”’)]*$", cut) else real._replace(answer=cut)


_ENGLISH = (
    "The capital of France is located on the banks of the river.",
    "You can use this method to improve your results.",
    "It is important to note that the data may be incomplete.",
    "There are many reasons why people choose to live in cities.",
    "Please make sure that you have read the instructions.",
    "This is one of the most popular dishes in the country.",
    "She was born in a small town and grew up with her sisters.",
    "In conclusion, regular exercise is good for your health.",
)


def english_left(real: Real, rng: random.Random) -> Real | None:
    """One sentence stays untranslated."""
    if not re.search(r"[.!?](?=\s|$)", real.answer) or len(real.answer) < 10:
        return None
    sentences = re.split(r"(?<=[.!?])\s+", real.answer)
    sentences.insert(rng.randint(0, len(sentences)), rng.choice(_ENGLISH))
    return real._replace(answer=" ".join(sentences))


def wrong_language(real: Real, rng: random.Random) -> Real | None:
    return real._replace(answer=" ".join(rng.sample(_ENGLISH, rng.randint(1, 3))))


def literal(real: Real, rng: random.Random) -> Real | None:
    """Doubles a passive, or puts the phrases of translated answers before it."""
    for passive, doubled in (
        ("되었다", "되어졌다"),
        ("된다", "되어진다"),
        ("보인다", "보여진다"),
        ("됩니다", "되어집니다"),
    ):
        if passive in real.answer:
            return real._replace(answer=real.answer.replace(passive, doubled, 1))
    opening = rng.choice(
        ("물론입니다! 여기 답이 있습니다: ", "당신의 질문에 답하자면, ", "그것은 가장 좋은 방법 중 하나입니다. ")
    )
    return real._replace(answer=opening + real.answer)


def echo(real: Real, rng: random.Random) -> Real | None:
    letters = re.sub(r"\W", "", real.question)
    return (
        real._replace(answer=real.question.rstrip("?") + rng.choice(("", ".", "?"))) if len(letters) >= 6 else None
    )


def mojibake(real: Real, rng: random.Random) -> Real | None:
    codec, wrong = rng.choice((("utf-8", "latin-1"), ("cp949", "latin-1")))
    if len(real.answer) < 8:
        return None
    return real._replace(answer=real.answer.encode(codec, "ignore").decode(wrong))


def lost_characters(real: Real, rng: random.Random) -> Real | None:
    at = rng.randrange(len(real.answer))
    return real._replace(answer=real.answer[:at] + "\ufffd" + real.answer[at + 1 :])


def placeholder(real: Real, rng: random.Random) -> Real | None:
    return real._replace(
        answer=rng.choice(("출력: {}", "{}\n\n### 응답:", "<noinput>\n{}", "답변: {}")).format(real.answer)
    )


def dots(real: Real, rng: random.Random) -> Real | None:
    return real._replace(answer=rng.choice(("...", "-", "…", "..", "—", "- - -")))


Detect = Callable[[Signals], bool]


def _set(name: str, least: float = 1) -> Detect:
    return lambda found: (found.values[name] or 0) >= least  # type: ignore[operator]


_CHINESE = ("问题", "经济发展", "因此", "解决", "但是", "非常", "需要", "可以", "这个", "我们")
_HANJA = ("經濟", "問題", "發展", "歷史", "文化", "重要", "影響", "社會", "結果", "必要")
_KANA = ("です", "について", "システム", "これ", "という", "ありがとう")
_OTHERS = ("это", "который", "المدينة", "ของ", "также", "समय")

DAMAGES: tuple[tuple[str, Damage, str, Detect], ...] = (
    ("particle-errors: 은/는", _only("은/는"), "particle-errors", _set("particle-errors")),
    ("particle-errors: 이/가", _only("이/가"), "particle-errors", _set("particle-errors")),
    ("particle-errors: 을/를", _only("을/를"), "particle-errors", _set("particle-errors")),
    ("particle-errors: 과/와", _only("과/와"), "particle-errors", _set("particle-errors")),
    ("particle-errors: 으로/로", _only("으로/로"), "particle-errors", _set("particle-errors")),
    ("particle-errors: any", particle, "particle-errors", _set("particle-errors")),
    ("mixed-speech", mixed_speech, "mixed-speech", _set("mixed-speech")),
    ("hanja", _instead_of_a_word(_HANJA), "hanja", _set("hanja")),
    ("foreign-hanja: Chinese", _instead_of_a_word(_CHINESE), "hanja", _set("hanja")),
    ("kana", _instead_of_a_word(_KANA), "kana", _set("kana")),
    ("other-scripts", _instead_of_a_word(_OTHERS), "other-scripts", _set("other-scripts")),
    ("broken-jamo", broken_jamo, "broken-jamo", _set("broken-jamo")),
    ("rare-syllables", rare_syllable, "rare-syllables", _set("rare-syllables")),
    ("garbled: mojibake", mojibake, "garbled", _set("garbled")),
    ("garbled: lost", lost_characters, "garbled", _set("garbled")),
    ("repetition >= 0.6: loop", loop, "repetition", _set("repetition", 0.6)),
    ("repeated-sentences >= 0.3: loop", loop, "repeated-sentences", _set("repeated-sentences", 0.3)),
    ("truncated", truncate, "truncated", _set("truncated")),
    ("english-words >= 4", english_left, "english-words", _set("english-words", 4)),
    ("wrong-language", wrong_language, "wrong-language", _set("wrong-language")),
    ("literal-phrases", literal, "literal-phrases", _set("literal-phrases")),
    ("placeholders", placeholder, "placeholders", _set("placeholders")),
    ("echo = 1", echo, "echo", _set("echo", 1.0)),
    ("empty", dots, "empty", _set("empty")),
)


def _damaged(damage: Damage, pool: Sequence[Real], count: int) -> list[Conversation]:
    rng = random.Random(SEED)
    order = rng.sample(range(len(pool)), len(pool))
    made = (damage(pool[n], rng) for n in order)
    return [conversation(real) for real in islice((real for real in made if real is not None), count)]


def rows(clean: Sequence[Real], count: int = DAMAGED) -> list[Score]:
    """The score of each detector: its damage put into `count` of the clean records, and false alarms on all."""
    measured = measure([conversation(real) for real in clean])
    scores = []
    for name, damage, _, detect in DAMAGES:
        damaged = _damaged(damage, clean, count)
        found = sum(detect(one) for one in measure(damaged))
        scores.append(Score(name, len(damaged), len(clean), found, sum(detect(one) for one in measured)))
    return scores


_REWRITE = "다음 글의 맞춤법을 고쳐 쓰세요."
_CODE = "```python\nfor n in range(3):\n    print(n)\n```"


def input_rows(clean: Sequence[Real], samples: Path, count: int = DAMAGED) -> list[Score]:
    """What must come through from the input: numbers and code in a rewriting, the input itself."""
    rng = random.Random(SEED)
    numbered = [real.answer for real in clean if re.search(r"\d{2,}", real.answer)]
    tasks = [
        Conversation((Turn("user", _REWRITE, text), Turn("assistant", text.replace(", ", " "))))
        for text in numbered
    ]
    lost = [
        Conversation((Turn("user", _REWRITE, text), Turn("assistant", _without_number(text, rng))))
        for text in numbered[:count]
    ]
    coded = [
        Conversation((Turn("user", _REWRITE, f"{text}\n{_CODE}"), Turn("assistant", text)))
        for text in numbered[:count]
    ]
    kept = [
        Conversation((Turn("user", _REWRITE, f"{text}\n{_CODE}"), Turn("assistant", f"{text}\n{_CODE}")))
        for text in numbered
    ]
    with samples.open(encoding="utf-8") as file:
        given = [json.loads(line) for line in file]
    given = [row for row in given if row.get("input")]
    whole = [
        Conversation((Turn("user", row["instruction"], row["input"]), Turn("assistant", row["output"])))
        for row in given
    ]
    missing = [
        Conversation((Turn("user", row["instruction"]), Turn("assistant", row["output"])))
        for row in given
        if re.search("다음|아래|주어진|위 ", row["instruction"])
    ]
    questions = [conversation(real) for real in clean] + whole
    return [
        _score("lost-numbers", lost, tasks, _set("lost-numbers", 0.01)),
        _score("new-numbers: changed", lost, tasks, _set("new-numbers", 0.01)),
        _score("lost-code", coded, kept, _set("lost-code")),
        _score("missing-input", missing, questions, _set("missing-input")),
    ]


def _without_number(text: str, rng: random.Random) -> str:
    """One number changed."""
    found = rng.choice(
        list(re.finditer(r"(?<![\d,.])\d{2,}(?![\d,.])", text)) or list(re.finditer(r"\d{2,}", text))
    )
    return text[: found.start()] + str(int(found[0]) + rng.randint(3, 9)) + text[found.end() :]


def _score(name: str, damaged: Sequence[Conversation], clean: Sequence[Conversation], detect: Detect) -> Score:
    found, false = (sum(detect(one) for one in measure(records)) for records in (damaged, clean))
    return Score(name, len(damaged), len(clean), found, false)


def show(scores: Sequence[Score]) -> None:
    print(f"{'detector':32}  damaged  found  recall  clean  false    rate  precision")
    for score in scores:
        rate = score.false / score.clean
        print(
            f"{score.name:32} {score.damaged:8,} {score.found:6,} {score.recall:7.1%}"
            f" {score.clean:6,} {score.false:6,} {rate:7.2%} {score.precision:10.1%}"
        )


def show_false(clean: Sequence[Real], chosen: Sequence[str]) -> None:
    """The words of each alarm on clean text, by signal."""
    measured = measure([conversation(real) for real in clean])
    for name in chosen:
        words = [one.examples[name] for one in measured if name in one.examples]
        print(f"  {name}: {len(words)}")
        for word in words[:40]:
            print(f"      {word}")


def agreement(shared: Path) -> None:
    """The cheap speech level against Kiwi's, on sentences of chat and reviews."""
    texts = [row["A"] for row in _table(shared / "chatbot_data/ChatbotData.csv", 0, ",")][:4000]
    texts += [row["document"] for row in _table(shared / "nsmc/test.tsv")][:4000]
    endings = [ending for text in texts for ending in speech.endings(text)]
    readings = korean.analyse([f"{ending.tail}." for ending in endings])
    sure = [(e, korean.level_of(r.morphemes)) for e, r in zip(endings, readings, strict=True) if not e.asked]
    same = sum(ending.level == level for ending, level in sure)
    polite = sum((e.level in korean.POLITE) == (level in korean.POLITE) for e, level in sure if level is not None)
    decided = sum(level is not None for _, level in sure)
    print(
        f"\nspeech level: {len(endings):,} sentences that may have one; {len(sure) / len(endings):.1%} decided"
        f" without Kiwi, {same / len(sure):.2%} of them as Kiwi; 존댓말 or 반말 alike in {polite / decided:.2%}"
    )


def speed(shared: Path) -> None:
    """Records a second on one core, and Kiwi's part of the time."""
    chat = [Real(row["Q"], row["A"], "") for row in _table(shared / "chatbot_data/ChatbotData.csv", 0, ",")]
    short = [Real("이 영화를 어떻게 보셨어요?", row["document"], "") for row in _table(shared / "nsmc/train.tsv")][
        :12000
    ]
    records = [conversation(real) for real in chat + short if real.answer]
    random.Random(SEED).shuffle(records)
    korean.analyse(["첫 문장을 읽기 전에 모형을 올린다."])
    readers = (speech.read, truncation.read, particles.read)
    for read in readers:
        read.cache_clear()
    started = time.process_time()
    measure(records)
    taken = time.process_time() - started
    asked = sum(read.cache_info().misses for read in readers)
    started = time.process_time()
    measure(records)
    again = time.process_time() - started
    print(
        f"speed: {len(records):,} short records, {len(records) / taken:,.0f} a second of one core; Kiwi reads"
        f" {asked / len(records):.2f} phrases a record; the same again, hardly asking Kiwi: "
        f"{len(records) / again:,.0f}"
    )


def main(shared: Path, *, wordy: bool) -> None:
    clean, informal = clean_records(shared), reviews(shared)
    print("clean text: chatbot_data, KoBEST, precedents, kowiki")
    show([*rows(clean), *input_rows(clean, Path("data/samples/tasks.jsonl"))])
    print("\nNSMC (informal: many alarms are real errors)")
    show(rows(informal))
    for name, pool in (("clean", clean), ("NSMC", informal)):
        measured = measure([conversation(real) for real in pool])
        dropped = Counter(problem.code for one in measured if (problem := limits.beyond(one, Quality())))
        print(f"\ndropped by default of {len(pool):,} {name} records: {dict(dropped) or 'none'}")
    agreement(shared)
    speed(shared)
    if wordy:
        for name, pool in (("clean", clean), ("NSMC", informal)):
            print(f"\nalarms on {name} text")
            show_false(pool, list(dict.fromkeys(signal for _, _, signal, _ in DAMAGES)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), wordy="--show" in sys.argv)
