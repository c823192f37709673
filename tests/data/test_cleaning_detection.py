"""The benchmark of bench/detect_cleaning.py, small, on the texts that we ship."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from koalpaca_tune.config.cleaning import KINDS
from koalpaca_tune.resources import DATA


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    # as a script finds its neighbours
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "bench")
        yield importlib.import_module("detect_cleaning")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    folder = DATA / "samples"
    with (folder / "chat.csv").open(encoding="utf-8-sig", newline="") as file:
        made = [text for row in csv.reader(file) for text in row]
    for name in ("tasks.jsonl", "dialogues.jsonl"):
        for line in (folder / name).read_text("utf-8").splitlines():
            row = json.loads(line)
            made += [turn["content"] for turn in row.get("messages", [])]
            made += [row[key] for key in ("instruction", "input", "output") if row.get(key)]
    return sorted(set(made))


def test_every_damage_is_found_and_nothing_else(bench: ModuleType, texts: list[str]) -> None:
    scores = bench.rows(texts, damaged=60)
    assert {score.name for score in scores} == {*bench.STEP_DAMAGES, *KINDS}
    for score in scores:
        assert score.clean > 1000, score
        assert score.false == 0, score
        assert score.damaged == 60, score
        assert score.recall >= 0.95, score
        if score.repaired is not None:
            assert score.repaired >= 0.95 * score.damaged, score
