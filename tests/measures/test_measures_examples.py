"""Precision and recall on the labelled examples; bench/measures.py prints them.

The floors are below what was measured: a change that loses two or three verdicts of a part fails here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from koalpaca_tune.measures.registry import ANSWER, LOWER_IS_BETTER, YES_NO

FILES = sorted((Path(__file__).parent / "examples").glob("*.jsonl"))


def rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_every_verdict_without_a_reference_has_examples() -> None:
    assert {path.stem for path in FILES} == YES_NO & ANSWER.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_examples_are_enough_and_balanced(path: Path) -> None:
    found = rows(path)
    assert len({(row["question"], row["answer"]) for row in found}) == len(found) >= 60
    for part, least in (("tune", 40), ("kept", 24)):
        defects = [row["defect"] for row in found if row["part"] == part]
        assert len(defects) >= least
        assert abs(2 * sum(defects) - len(defects)) <= 1


@pytest.mark.parametrize("part", ["tune", "kept"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_precision_and_recall(path: Path, part: str) -> None:
    name = path.stem
    bad = 1.0 if name in LOWER_IS_BETTER else 0.0
    said = [
        (row["defect"], ANSWER[name](row["answer"], row["question"]) == bad)
        for row in rows(path)
        if row["part"] == part
    ]
    hits, false = said.count((True, True)), said.count((False, True))
    assert hits / (hits + false) >= 0.9
    assert hits / sum(defect for defect, _ in said) >= 0.8
