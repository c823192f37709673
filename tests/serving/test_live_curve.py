"""A run's loss while it writes; votes."""

from __future__ import annotations

import json
from pathlib import Path

from koalpaca_tune.serving import curve, votes


def test_a_run_that_has_logged_nothing_yet(tmp_path: Path) -> None:
    assert curve.svg(tmp_path) is None
    assert curve.told(tmp_path) == curve.NOTHING_YET


def test_lines_that_are_half_written_or_not_numbers_are_passed_over(tmp_path: Path) -> None:
    lines = [
        '{"step": 1, "loss": 2.5}',
        '{"step": 2, "loss": null}',
        "[1]",
        '{"loss": 1}',
        '{"step": 3, "loss": 2.25, "va',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert [row["step"] for row in curve.rows(tmp_path)] == [1, 2]
    assert curve.told(tmp_path) == "단계 (step) 2 · 손실 (loss) 2.5000"
    found = curve.svg(tmp_path)
    assert found is not None
    assert found.startswith("<svg")


def test_votes_are_appended(tmp_path: Path) -> None:
    shown = votes.Shown(
        "질문", "", {"base": "가", "tuned": "나"}, ("tuned", "base"), True, {}, {"base": "embedded"}
    )
    for choice in ("same", "tuned"):
        votes.save(tmp_path / "new" / "votes.jsonl", shown, choice)  # type: ignore[arg-type]
    rows = [
        json.loads(line) for line in (tmp_path / "new" / "votes.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [row["vote"] for row in rows] == ["same", "tuned"]
    assert rows[0]["answers"] == {"base": "가", "tuned": "나"}
    assert rows[0]["base"] == "embedded"
