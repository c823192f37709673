"""A report that may be shown where its data may not."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from folders import answer, choice, task, write

from koalpaca_tune.cli.main import cli
from koalpaca_tune.comparison import report
from koalpaca_tune.comparison.compare import compare

SECRETS = ("비밀스러운 질문", "남모르는 답")


def test_a_report_without_texts_names_items_and_counts_them_and_says_nothing_of_theirs(tmp_path: Path) -> None:
    for side, name in enumerate(("a", "b")):
        choices = [
            choice(f"c{k:02d}", 0, [1.0, 0.0] if (k + side) % 3 else [0.0, 1.0], prompt=f"{SECRETS[0]} {k}")
            for k in range(20)
        ]
        answers = [answer(f"w{k:02d}", {"chrf": (k * 7 + side * 3) % 10 / 10}, text=SECRETS[1]) for k in range(20)]
        tasks = [
            task("고르기", "choice", choices, metrics={"accuracy": 0.5}),
            task("쓰기", "answer", answers, metrics={"chrf": 0.5}),
        ]
        write(tmp_path / name, *tasks, adapter=name)
    comparison = compare(tmp_path / "a", tmp_path / "b")
    out = tmp_path / "out"

    def said() -> str:
        return "".join(path.read_text(encoding="utf-8") for path in out.iterdir())

    report.write(comparison, out)
    assert all(secret in said() for secret in SECRETS)
    rows = json.loads((out / "comparison.json").read_text(encoding="utf-8"))["rows"]
    sides = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert CliRunner().invoke(cli, ["compare", *sides, "--out", str(out), "--without-texts"]).exit_code == 0
    assert not any(secret in said() for secret in SECRETS)
    assert sorted(path.name for path in out.iterdir()) == ["comparison.json", "report.html", "report.md"]
    silent = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert silent["rows"] == rows
    (flip,) = [one for one in silent["flips"] if one["task"] == "고르기"]
    assert [item["id"] for item in flip["lost"]] == [f"c{k:02d}" for k in range(2, 20, 3)]
