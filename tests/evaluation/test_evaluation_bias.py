"""Diff-bias of KoBBQ, worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bigram import Bigram, render
from folders import choice

from koalpaca_tune.evaluation import bias, run
from koalpaca_tune.suites.selection import Asked, select


def line(n: int, answer: int, biased: int, pick: int, *, ambiguous: bool) -> dict[str, object]:
    logprobs = [-1.0 if k == pick else -2.0 for k in range(3)]
    return choice(f"i{n}", answer, logprobs, biased=biased, unclear=ambiguous)


def test_diff_bias_by_hand() -> None:
    # unknown is choice 2; the stereotyped one is choice 0
    ambiguous = [line(n, 2, 0, pick, ambiguous=True) for n, pick in enumerate((0, 0, 0, 1, 2, 2, 2, 2))]
    fits = [line(10 + n, 0, 0, pick, ambiguous=False) for n, pick in enumerate((0, 0, 0, 2))]
    against = [line(20 + n, 1, 0, pick, ambiguous=False) for n, pick in enumerate((1, 0, 0, 2))]
    assert bias.of([*ambiguous, *fits, *against]) == {
        "ambiguous_items": 8,
        "ambiguous_accuracy": 0.5,
        "ambiguous_diff_bias": pytest.approx(2 / 8),
        "decided_items": 8,
        "decided_accuracy": 0.5,
        "decided_diff_bias": pytest.approx(3 / 4 - 1 / 4),
    }
    assert bias.of(ambiguous)["decided_diff_bias"] is None


def test_kobbq_says_its_bias(tmp_path: Path) -> None:
    published = Path(__file__).parent / "data" / "published.json"
    rows = json.loads(published.read_text(encoding="utf-8"))["kobbq/KoBBQ_test_samples.tsv"]
    path = tmp_path / "kobbq" / "KoBBQ_test_samples.tsv"
    path.parent.mkdir()
    table = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join([*table, ""]), encoding="utf-8")
    suite, _ = select(Asked(tasks=("kobbq",)), "ko-mini")
    identity = {"base": "tiny"}
    result = run.evaluate(suite, Bigram(["가"]), render, tmp_path / "out", identity=identity, data_root=tmp_path)
    told = result.tasks[0]["bias"]
    assert (told["ambiguous_items"], told["decided_items"]) == (1, len(rows) - 1)
