"""What `koalpaca eval` and `koalpaca compare` say of their results on the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bigram import Bigram
from chat_server import says, serving
from click.testing import CliRunner
from folders import picked, task, write

from koalpaca_tune import jsonl
from koalpaca_tune.cli import asked
from koalpaca_tune.cli.main import cli
from koalpaca_tune.comparison import stats, words
from koalpaca_tune.comparison.compare import compare
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation import jobs
from koalpaca_tune.evaluation.run import Result
from koalpaca_tune.judging import judges
from koalpaca_tune.judging.endpoint import Client, Endpoint
from koalpaca_tune.judging.judge import Judge
from koalpaca_tune.suites.selection import Asked, select


def test_scores_stand_by_task_and_what_has_none_is_said(
    before: Result, after: Result, capsys: pytest.CaptureFixture[str]
) -> None:
    for result in (before, after):
        told = result.as_dict()
        first = {**told["tasks"][0], "metrics": {"accuracy": 0.25}}
        failed = {**first, "kind": "answer", "title": "대화", "primary": "score", "judge": {}}
        failed |= {"metrics": {"score": None}, "errors": 5, "cut": 40, "items": 46}
        jsonl.write_json(result.folder / "result.json", {**told, "tasks": [first, failed, *told["tasks"][-2:]]})
    asked.scores([before.folder, after.folder])
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("25.0%") == 2
    assert "대화: 심사 점수 46 – –" in shown
    assert "글자당 비트" in shown
    assert "되풀이" in shown
    assert "5 of 46 items have no score" in shown
    assert "40 of 46 cut by the length limit" in shown


def test_one_folder_is_not_compared_with_itself(before: Result, tmp_path: Path) -> None:
    folder = str(before.folder)
    result = CliRunner().invoke(cli, ["compare", folder, f"{folder}/../before", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "error [compare-same]" in result.output
    assert not (tmp_path / "out").exists()


def test_one_measure_is_not_none_of_one(tmp_path: Path) -> None:
    own = task("own", "choice", [picked(f"i{n}", n % 2, 0) for n in range(4)])
    said = compare(write(tmp_path / "a", own), write(tmp_path / "b", own, adapter="x")).said
    assert "The one measure on skill tasks did not change detectably." in said.english


def test_one_item_has_no_interval_but_of_right_and_wrong() -> None:
    one, two = np.array([0.2]), np.array([0.2, 0.4])
    assert words.spread(stats.means(one, one + 0.3, 0), "share") == words.NO_INTERVAL
    assert words.spread(stats.means(two, two[::-1], 0), "share").startswith("[−")
    assert words.spread(stats.proportions(np.array([True]), np.array([False])), "share").startswith("[")


def test_a_dialogue_of_another_length_is_refused_before_any_answer_is_written(
    tmp_path: Path, before_model: Bigram
) -> None:
    (tmp_path / "talk.yaml").write_text(
        "kind: judged\nname: talk\nversion: 1\ntitle: 대화\ntitle_en: Talk\nskill: talk\nlicence: CC0-1.0\n"
        "source: {items: talk.jsonl}\nturns: 질문들\njudge: logickor\nmax_new_tokens: 8\n",
        encoding="utf-8",
    )
    rows = [{"id": "a", "질문들": ["하나?", "둘?"]}, {"id": "b", "질문들": ["하나?"]}]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "talk.jsonl").write_text(text, encoding="utf-8")
    suite, _ = select(Asked(tasks=(str(tmp_path / "talk.yaml"),)), "ko-mini")
    with (
        serving(says("점수: 7")) as server,
        Client(Endpoint(server.url, "judge-1")) as client,
        pytest.raises(KoalpacaError, match=r"talk\.jsonl:2: it has 1 turns") as caught,
    ):
        jobs.of(
            jobs.load(suite, None),
            [],
            before_model,
            lambda conversation: pytest.fail("nothing is asked"),
            max_new_tokens=8,
            heldout_limit=0,
            judge=lambda name: Judge(judges.load(name), client),
        )
    assert caught.value.problems[0].code == "judge-turns"
    assert before_model.written == 0
