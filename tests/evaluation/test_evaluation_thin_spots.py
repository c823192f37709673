"""What a user meets at the edges of an evaluation, and is told in one line."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from bigram import Bigram, render
from bigram_runs import HELDOUT, run
from chat_server import Server, closes, says, serving, status
from click.testing import CliRunner
from folders import picked, task, write

from koalpaca_tune import jsonl
from koalpaca_tune.cli.main import cli
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation import fit, jobs
from koalpaca_tune.evaluation.run import Result, evaluate
from koalpaca_tune.judging import judges
from koalpaca_tune.judging.endpoint import Client, Endpoint
from koalpaca_tune.judging.judge import Judge
from koalpaca_tune.records import Piece, Rendered
from koalpaca_tune.suites import tasks
from koalpaca_tune.suites.selection import Asked, select


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def koalpaca(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


# --- items.jsonl edited by hand -----------------------------------------------------------------------------


def edited(folder: Path, task_name: str, change: Callable[[dict[str, Any]], object]) -> int:
    """Changes the first line of a task; returns its number."""
    path = folder / "items.jsonl"
    lines = [line for _, line in jsonl.read(path)]
    number = next(n for n, line in enumerate(lines) if line["task"] == task_name)
    change(lines[number])
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return number + 1


CHOICE, NLL, WRITTEN = "ko-mini-sentiment", "heldout-nll", "heldout-generation"


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (CHOICE, lambda line: line.pop("logprobs"), "'logprobs' is missing"),
        (CHOICE, lambda line: line.update(logprobs=[-1.0]), "2 choices and 1 'logprobs'"),
        (CHOICE, lambda line: line.update(logprobs=[-1.0, float("nan")]), "'logprobs' is [-1.0, nan]"),
        (CHOICE, lambda line: line.update(logprobs="높음"), "'logprobs' is '높음'"),
        (CHOICE, lambda line: line.update(answer=2), "the answer is choice 3 of 2"),
        (CHOICE, lambda line: line.pop("tokens"), "'tokens' is missing"),
        (NLL, lambda line: line.pop("nats"), "'nats' is missing"),
        (NLL, lambda line: line.update(characters=0), "'characters' is 0"),
        (WRITTEN, lambda line: line.pop("text"), "'text' is missing"),
        (WRITTEN, lambda line: line.pop("speech_consistency"), "'speech_consistency' is missing"),
        (WRITTEN, lambda line: line.update(measures=None), "'measures' is None"),
    ],
)
def test_a_line_edited_by_hand_is_one_line_to_compare_and_to_go_on(
    before: Result, after: Result, before_model: Bigram, name: str, change: Any, said: str
) -> None:
    number = edited(before.folder, name, change)
    code, output = koalpaca("compare", before.folder, after.folder, "--out", before.folder.parent / "out")
    assert code == 2
    first, *rest = output.splitlines()
    assert first.startswith("error [eval-shape]: ")
    assert f"items.jsonl:{number}: " in first
    assert said in first
    assert len(rest) == 1, "the page that explains it, and nothing else"
    before_model.scored = 0
    with pytest.raises(KoalpacaError, match=f"items.jsonl:{number}: ") as caught:
        run(before.folder, before_model)
    assert caught.value.problems[0].code == "eval-shape"
    assert before_model.scored == 0, "found before the model is asked"


def test_a_written_answers_line_needs_its_tested_score(tmp_path: Path) -> None:
    lines = [{"id": "a", "prompt": "가", "text": "나", "golds": [], "tokens": 1, "stopped": True}]
    one = write(tmp_path / "a", task("쓰기", "answer", [{**lines[0], "scores": {"chrf": 0.5}}]))
    two = write(tmp_path / "b", task("쓰기", "answer", [{**lines[0], "scores": {"chrf": 0.5}}]), adapter="x")
    edited(two, "쓰기", lambda line: line["scores"].clear())
    code, output = koalpaca("compare", one, two, "--out", tmp_path / "out")
    assert code == 2
    assert "its scores lack 'chrf'" in output


def test_choices_that_differ_between_the_sides_are_refused(tmp_path: Path) -> None:
    lines = [picked(f"i{n}", 0, 0) for n in range(3)]
    one = write(tmp_path / "a", task("고르기", "choice", lines))
    two = write(tmp_path / "b", task("고르기", "choice", lines), adapter="x")
    edited(two, "고르기", lambda line: line.update(answer=1))
    code, output = koalpaca("compare", one, two, "--out", tmp_path / "out")
    assert code == 2
    assert "item 'i0' of '고르기' has not the same choices and answer" in output


# --- --out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["file", "file/inside", "folder"])
def test_an_out_that_is_a_file_is_found_before_anything_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("본디 있던 것", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "base").write_text("", encoding="utf-8")
    # a base that is not there would be the next thing to be found
    code, output = koalpaca("eval", tmp_path / "no-such-base", "--suite", "ko-smoke", "--out", tmp_path / name)
    assert (code, output.count("error [")) == (2, 1)
    assert "error [out-folder]" in output
    assert (tmp_path / "file").read_text(encoding="utf-8") == "본디 있던 것"


def test_a_report_is_not_written_over_a_file(before: Result, after: Result, tmp_path: Path) -> None:
    (tmp_path / "report").write_text("", encoding="utf-8")
    code, output = koalpaca("compare", before.folder, after.folder, "--out", tmp_path / "report")
    assert code == 2
    assert "error [out-folder]" in output


# --- what is left out, and what is cut -----------------------------------------------------------------------


def test_held_out_rows_that_repeat_are_counted_in_the_result(tmp_path: Path, before_model: Bigram) -> None:
    result = run(tmp_path / "out", before_model, heldout=[*HELDOUT, *HELDOUT[:3]])
    assert [task.get("duplicates") for task in result.tasks[-2:]] == [3, 3]
    assert result.tasks[-2]["items"] == len(HELDOUT)
    once = run(tmp_path / "once", before_model)
    assert "duplicates" not in once.tasks[-2]
    assert once.tasks[-2]["hash"] == result.tasks[-2]["hash"]


class LongLabel:
    """A token for each character, a token in front of every text, and 고양이 as one token of nine bytes."""

    def __init__(self, room: int) -> None:
        self.room: int | None = room

    def tokens(self, texts: Sequence[Rendered]) -> list[int]:
        return [1 + len(one.text.replace("고양이", "g")) for one in texts]

    def cut(self, text: Rendered, tokens: int) -> Rendered:
        raise NotImplementedError


def asked(*answers: str) -> jobs.Job:
    texts = [Rendered((Piece("가" * 20, "content"), Piece(one, "content", learn=True)), "x:1") for one in answers]
    return jobs.Job(
        "x", "x", "x", "choice", 1, "", ("1",), len(texts), lambda _: [], lambda _: {}, {}, lambda _: texts
    )


def test_the_choice_of_most_tokens_is_not_that_of_most_bytes() -> None:
    work = asked("고양이고양이고양이", "abcdefgh")
    assert fit.sizes([work], LongLabel(99))[0].longest == 29
    fit.check([work], LongLabel(29))
    with pytest.raises(KoalpacaError, match="the longest has 29 tokens, the base reads 28"):
        fit.check([work], LongLabel(28))


def test_the_token_in_front_counts() -> None:
    # as many bytes as there is room for, and a token in front
    work = asked("b" * 8)
    ascii_only = jobs.Job(
        "x", "x", "x", "choice", 1, "", ("1",), 1, lambda _: [], lambda _: {}, {},
        lambda _: [Rendered((Piece("a" * 30, "content"),), "x:1")],
    )  # fmt: skip
    with pytest.raises(KoalpacaError, match="31 tokens"):
        fit.check([ascii_only], LongLabel(30))
    fit.check([ascii_only], LongLabel(31))
    fit.check([work], LongLabel(29))


# --- the Hub -------------------------------------------------------------------------------------------------


def test_a_hub_out_of_reach_is_said_once_with_the_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names = ("kobest-wic", "ko-mini-particle", "kobest-copa", "klue-nli")
    suite, _ = select(Asked(tasks=names), "ko-mini")
    with pytest.raises(KoalpacaError) as caught:
        jobs.load(suite, None)
    (problem,) = caught.value.problems
    assert problem.code == "task-data"
    assert "3 tasks (kobest-wic, kobest-copa, klue-nli)" in problem.what
    assert "kobest/WiC/test.tsv, kobest/COPA/test.tsv" in problem.fix


# --- the judge -----------------------------------------------------------------------------------------------


def dead_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_dead_judge_is_found_at_once_and_before_anything_is_loaded(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{dead_port()}/v1"
    words = ("eval", tmp_path / "no-such-base", "--suite", "ko-judged", "--out", tmp_path / "out")
    code, output = koalpaca(*words, "--judge-url", url, "--judge-model", "judge-1")
    assert (code, output.count("error [")) == (2, 1)
    assert f"error [judge-unreachable]: {url}" in output


def test_where_nobody_listens_one_question_is_enough() -> None:
    with serving(closes) as server, Client(Endpoint(server.url, "judge-1", pause=0.0)) as client:
        with pytest.raises(KoalpacaError, match="no connection"):
            client.check()
        assert len(server.asked) == 1


def test_a_busy_judge_is_waited_for_and_that_is_said() -> None:
    told: list[tuple[str, str]] = []
    with (
        serving(status(503), status(503), says("네.")) as server,
        Client(Endpoint(server.url, "judge-1", pause=0.0), lambda *said: told.append(said)) as client,
    ):
        client.check()
        assert len(server.asked) == 3
    ((korean, english),) = told
    assert server.url in korean
    assert "다시 묻습니다" in korean
    assert "HTTP 503" in korean
    assert "up to 5 times" in english


def test_a_judge_that_goes_away_again_is_told_of_again() -> None:
    told: list[str] = []
    acts = (closes, says("점수: 1"), status(429), says("점수: 1"), closes, status(429), says("점수: 1"))
    with (
        serving(*acts) as server,
        Client(Endpoint(server.url, "judge-1", pause=0.0), lambda korean, _: told.append(korean)) as client,
    ):
        for _ in range(3):
            assert client.ask([{"role": "user", "content": "?"}]).error is None
        assert len(server.asked) == len(acts)
    # twice gone; busy is said once
    assert [("HTTP 429" in one, "no connection" in one) for one in told] == [
        (False, True),
        (True, False),
        (False, True),
    ]


def test_the_same_judge_at_another_address_is_the_same_judge(tmp_path: Path, before_model: Bigram) -> None:
    suite, _ = select(Asked(tasks=("logickor",), limit=2), "ko-mini")
    results = []
    for name in ("a", "b"):
        with serving(says("점수: 4")) as server, Client(Endpoint(server.url, "judge-1")) as client:
            results.append(judged(suite, before_model, tmp_path / name, server, client))
    one, two = (result.tasks[0] for result in results)
    assert one["judge_url"] != two["judge_url"]
    assert (one["hash"], one["judge"]) == (two["hash"], two["judge"])
    assert one["scale"] == [0, 10]
    code, output = koalpaca("compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")
    assert code == 0, output


def judged(suite: tasks.Suite, model: Bigram, folder: Path, server: Server, client: Client) -> Result:
    judge = Judge(judges.load("logickor"), client)
    root = folder.parent / "data"
    (root / "logickor").mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).parent / "data" / "logickor.jsonl", root / "logickor" / "questions.jsonl")
    return evaluate(
        suite,
        model,
        render,
        folder,
        identity={"base": "tiny", "adapter": folder.name},
        data_root=root,
        judge=lambda name: judge,
    )
