"""Small versions of bench/detect_quality.py, on the project's own samples."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from koalpaca_tune import korean
from koalpaca_tune.config.quality import Quality
from koalpaca_tune.data.quality import limits, signals
from koalpaca_tune.data.quality.signals import Signals
from koalpaca_tune.korean import final_consonant
from koalpaca_tune.records import Conversation, Turn

SAMPLES = Path(__file__).resolve().parents[2] / "data/samples"


def pairs() -> list[tuple[str, str]]:
    with (SAMPLES / "chat.csv").open(encoding="utf-8-sig", newline="") as file:
        return [(row["질문"], row["답변"]) for row in csv.DictReader(file)]


def measure(records: list[tuple[str, str]]) -> list[Signals]:
    return signals.measure([Conversation((Turn("user", q), Turn("assistant", a))) for q, a in records])


def test_no_sample_is_dropped_and_few_set_a_signal_off() -> None:
    chat = [Conversation((Turn("user", q), Turn("assistant", a))) for q, a in pairs()]
    with (SAMPLES / "tasks.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    tasks = [
        Conversation((Turn("user", row["instruction"], row.get("input") or None), Turn("assistant", row["output"])))
        for row in rows
    ]
    with (SAMPLES / "dialogues.jsonl").open(encoding="utf-8") as file:
        dialogues = [Conversation.from_dict(json.loads(line), "dialogues") for line in file]
    found = signals.measure([*chat, *tasks, *dialogues])
    assert [limits.beyond(one, Quality()) for one in found] == [None] * len(found)
    damage = ["garbled", "broken-jamo", "kana", "truncated", "particle-errors", "wrong-language", "lost-code"]
    alarms = [(name, one.examples[name]) for one in found for name in damage if name in one.examples]
    assert len(alarms) <= 0.01 * len(found), alarms


def particle(answer: str, rng: random.Random) -> str | None:
    swap = {"은": "는", "는": "은", "이": "가", "가": "이", "을": "를", "를": "을"}
    read = korean.analyse([answer])[0].morphemes
    places = [
        token.start
        for before, token in pairwise(read)
        if before.tag in ("NNG", "NNP") and token.tag in ("JX", "JKS", "JKO") and answer[token.start] in swap
    ]
    if not places:
        return None
    at = rng.choice(places)
    return answer[:at] + swap[answer[at]] + answer[at + 1 :]


def plain_added(answer: str, rng: random.Random) -> str | None:
    return (
        f"{answer} {rng.choice(['그건 나도 잘 몰라.', '너도 한번 해 봐라.'])}"
        if answer.endswith(("요.", "다."))
        else None
    )


def jamo(answer: str, rng: random.Random) -> str | None:
    places = [
        n for n in range(len(answer) - 1) if final_consonant(answer[n]) == 4 and "가" <= answer[n + 1] <= "힣"
    ]
    if not places:
        return None
    at = rng.choice(places)
    return answer[:at] + chr(ord(answer[at]) - 4) + "ㄴ" + answer[at + 1 :]


def chinese(answer: str, rng: random.Random) -> str | None:
    words = answer.split()
    words[rng.randrange(len(words))] = rng.choice(["问题", "经济", "这个"])
    return " ".join(words)


def english(answer: str, rng: random.Random) -> str | None:
    return f"{answer} It is important to note that this is not always the case." if answer else None


DAMAGES: dict[str, tuple[str, Callable[[str, random.Random], str | None], float]] = {
    "particle": ("particle-errors", particle, 0.8),
    "speech": ("mixed-speech", plain_added, 0.9),
    "jamo": ("broken-jamo", jamo, 0.95),
    "chinese": ("foreign-hanja", chinese, 0.9),
    "english": ("english-words", english, 0.95),
    "loop": ("repetition", lambda answer, rng: f"{answer} " * 20, 0.95),
    "bytes": ("garbled", lambda answer, rng: answer.encode().decode("latin-1"), 0.95),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_most_damaged_samples_are_found(name: str) -> None:
    signal, damage, floor = DAMAGES[name]
    rng = random.Random(5)
    made = [(q, text) for q, a in pairs() if (text := damage(a, rng)) is not None][:100]
    assert len(made) >= 50
    least = {"repetition": 0.8, "english-words": 4}.get(signal, 1)
    found = sum(one.values[signal] >= least for one in measure(made))  # type: ignore[operator]
    assert found >= floor * len(made)
