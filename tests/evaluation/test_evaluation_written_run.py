"""Written answers from question to line: what decides a score is in the digest; judged conversations, resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from bigram import Bigram, Written, render
from chat_server import Server, says, serving, status

from koalpaca_tune import jsonl
from koalpaca_tune.evaluation import jobs, written
from koalpaca_tune.evaluation.run import Result, evaluate
from koalpaca_tune.judging import judges
from koalpaca_tune.judging.endpoint import Client, Endpoint
from koalpaca_tune.judging.judge import Judge
from koalpaca_tune.records import Rendered
from koalpaca_tune.suites import items, tasks
from koalpaca_tune.suites.tasks import Suite, Task

ANSWER = """
kind: answer
name: own
version: 1
title: 제 과제
title_en: Own task
skill: words
licence: CC0-1.0
source: {items: own.jsonl}
golds: answer
metrics: [METRIC]
profiles:
  plain: {form: question, prompt: "{question}", max_new_tokens: 8}
"""
JUDGED = """
kind: judged
name: own
version: 1
title: 제 대화
title_en: Own talks
skill: conversation
licence: CC0-1.0
source: {items: own.jsonl}
turns: turns
judge: logickor
max_new_tokens: 12
"""


def own(folder: Path, text: str, rows: Sequence[dict[str, Any]]) -> Task:
    folder.mkdir(exist_ok=True)
    (folder / "own.yaml").write_text(text, encoding="utf-8")
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "own.jsonl").write_text("".join(lines), encoding="utf-8")
    return tasks.load_task(folder / "own.yaml")


@pytest.mark.parametrize(
    ("metric", "changes"),
    [("exact", False), ("korquad_f1", False), ("chrf", False), ("exact_korean", True), ("rouge_2", True)],
)
def test_another_kiwi_is_another_measure(
    metric: str, changes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = own(tmp_path, ANSWER.replace("METRIC", metric), [{"id": "a", "question": "수도는?", "answer": "서울"}])
    chosen = items.load(task, None)
    here = written.job(task, chosen, jobs.NoModel(), render).digest
    monkeypatch.setattr(written, "version", lambda name: "0.0.1")
    assert (written.job(task, chosen, jobs.NoModel(), render).digest != here) == changes


class Speaker:
    """Says as much as it may, a character a token; what it was asked is kept."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def score(self, requests: Sequence[Rendered]) -> list[Any]:
        raise AssertionError

    def write(
        self, prompts: Sequence[Rendered], max_new_tokens: int, *, until: Sequence[str] = ()
    ) -> list[Written]:
        self.asked += [(prompt.text, max_new_tokens) for prompt in prompts]
        return [Written("가" * max_new_tokens, False, max_new_tokens) for _ in prompts]


class Characters:
    """One token a character."""

    def __init__(self, room: int) -> None:
        self.room: int | None = room

    def tokens(self, texts: Sequence[Rendered]) -> list[int]:
        return [len(one.text) for one in texts]

    def cut(self, text: Rendered, tokens: int) -> Rendered:
        raise AssertionError


def judged(folder: Path, task: Task, model: Any, server: Server, **options: Any) -> Result:
    with Client(Endpoint(server.url, "judge-1", attempts=1, pause=0.0, timeout=10.0, concurrency=1)) as client:
        return evaluate(
            Suite("own", 1, "own", "own", (task,)),
            model,
            render,
            folder,
            identity={"base": "tiny"},
            judge=lambda name: Judge(judges.load(name), client, 1),
            **options,
        )


def test_judged_answers_end_where_the_context_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    rows = [{"id": f"{n}", "turns": ["하나?", "둘?" + "?" * n]} for n in (0, 3, 40)]
    task, model = own(tmp_path, JUDGED, rows), Speaker()
    with serving(says("점수: 4")) as server:
        found = judged(tmp_path / "out", task, model, server, lengths=Characters(52))
    lines = [line for _, line in jsonl.read(tmp_path / "out" / "items.jsonl")]
    # what is read before a second answer has 40 characters, and one more for each further question mark
    second = [52 - len(text) for text, _ in model.asked if "둘" in text]
    assert second == [12, 9]
    assert [limit for _, limit in model.asked] == [12, 12, 12, *second]
    assert [len(line["turns"][1]["answer"]) for line in lines] == [12, 9, 0]
    assert [line["stopped"] for line in lines] == [False] * 3
    assert found.tasks[0]["empty"] == 1


def test_a_failed_judge_is_asked_again_and_the_model_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    rows = [{"id": f"{n}", "turns": ["하나?", "둘?"]} for n in range(3)]
    task, model = own(tmp_path, JUDGED, rows), Bigram(["하나 둘 셋"])
    # two questions to the judge for each item; the second item's first one fails
    acts = [says("점수: 4"), says("점수: 6"), status(500), says("점수: 8"), says("점수: 2")]
    out = tmp_path / "out"
    with serving(*acts) as server:
        first = judged(out, task, model, server)
    (told,) = first.tasks
    assert (told["errors"], told["undecided"]["score"], told["metrics"]["score"]) == (1, 1, (5 + 2) / 2)
    wrote = model.written
    text = (out / "items.jsonl").read_text(encoding="utf-8")
    # and a crash in the middle of a line
    (out / "items.jsonl").write_text(text + '{"task": "own", "ha', encoding="utf-8")
    with serving(says("점수: 10")) as server:
        # on another port, yet the same judge
        monkeypatch.setattr(Judge, "identity", lambda self: dict(first.tasks[0]["judge"]))
        second = judged(out, task, model, server)
        assert len(server.asked) == 2
    (told,) = second.tasks
    assert (told["errors"], told["undecided"]["score"], told["metrics"]["score"]) == (0, 0, (5 + 10 + 2) / 3)
    assert model.written == wrote
    lines = [line for _, line in jsonl.read(out / "items.jsonl")]
    assert sorted(line["id"] for line in lines) == ["0", "1", "2"]
    assert not any("error" in line for line in lines)
