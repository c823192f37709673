"""Judges: what they are told, how scores are read, errors as errors; against a server on this machine."""

from __future__ import annotations

import json
import math
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from chat_server import Act, Server, closes, hangs, says, serving, status

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.judging import judge, judges
from koalpaca_tune.judging.endpoint import Client, Endpoint
from koalpaca_tune.judging.judge import Dialogue, Judge, Judged

DATA = Path(__file__).parent / "data"
GOOD = "평가: 좋은 답변입니다.\n점수: 8"
TWO = Dialogue("1", ("하나?", "둘?"), ("첫 답입니다.", "다음 답입니다."), ("정답 하나", None))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def run(
    server: Server, *dialogues: Dialogue, name: str = "logickor", repeats: int = 1, **options: Any
) -> list[Judged]:
    given = {"attempts": 2, "pause": 0.0, "timeout": 10.0, "concurrency": 1} | options
    with Client(Endpoint(server.url, "judge-1", **given)) as client:
        return Judge(judges.load(name), client, repeats).judge(dialogues)


def test_two_turns_are_judged_and_all_is_kept() -> None:
    with serving(says(GOOD), says("평가: 모자랍니다.\n**점수:** 5점")) as server:
        (judged,) = run(server, TWO)
        asked = server.asked
    fields = judged.fields()
    assert fields["scores"] == {"score_1": 8.0, "score_2": 5.0, "score": 6.5}
    assert {"error", "spread"}.isdisjoint(fields)
    first, second = fields["judgements"]
    assert [first["sent"], second["sent"]] == asked
    assert first["received"]["choices"][0]["message"]["content"] == GOOD
    assert (first["turn"], first["repeat"], first["given"], first["score"], first["attempts"]) == (
        1,
        1,
        8.0,
        8.0,
        1,
    )
    # as a line of items.jsonl
    assert json.loads(jsonl.dumps(fields)) == fields


def test_what_the_judge_is_shown() -> None:
    with serving(says(GOOD)) as server:
        run(server, TWO)
        (_, one), (_, two) = ([message["content"] for message in body["messages"]] for body in server.asked)
        roles = [[message["role"] for message in body["messages"]] for body in server.asked]
    assert roles == [["system", "user"]] * 2
    assert "하나?\n\n[참고 답안]\n정답 하나\n" in one
    assert "[답변의 시작]\n첫 답입니다.\n[답변의 끝]" in one
    assert "둘?" not in one
    assert "다음 답입니다." not in one
    for part in ("하나?", "첫 답입니다.", "둘?", "다음 답입니다.", "정답 하나"):
        assert part in two
    # no reference, no empty heading
    assert two.count("[참고 답안]") == 1


def test_braces_in_an_answer_stay() -> None:
    with serving(says(GOOD)) as server:
        run(server, Dialogue("1", ("{q}?", "둘?"), ("{answer_1} {{}}", "둘"), ()))
        assert "{answer_1} {{}}" in server.asked[0]["messages"][1]["content"]


def by_answer(acts: dict[str, Act]) -> Any:
    """The act whose key is in the question to the judge."""
    return lambda asked: next(act for key, act in acts.items() if key in asked)


def test_a_failing_judge_is_an_error_row_and_never_a_zero() -> None:
    acts = {
        "둘-끊김": closes,
        "셋-오백": status(500, {"error": {"message": "broken"}}),
        "넷-말만": says("평가: 좋습니다."),
        "다섯-범위": says("점수: 85"),
        "여섯-둘": says("점수: 3\n점수: 9"),
        "일곱-잘림": says("평가: 길게 씁니다", "length"),
        "하나-정상": says("점수: 0"),
    }
    dialogues = [
        Dialogue(name, ("물음", "다음 물음"), (name, name), ())
        for name in ("하나-정상", "둘-끊김", "셋-오백", "넷-말만", "다섯-범위", "여섯-둘", "일곱-잘림")
    ]
    with serving(by=by_answer(acts)) as server:
        found = run(server, *dialogues, concurrency=4)
    lines = [one.fields() for one in found]
    assert lines[0]["scores"] == {"score_1": 0.0, "score_2": 0.0, "score": 0.0}
    assert "error" not in lines[0]
    for line in lines[1:]:
        assert line["scores"] == {"score_1": None, "score_2": None, "score": None}
    said = [line["error"] for line in lines[1:]]
    assert said[0].startswith("turn 1: no connection (")
    assert said[1] == "turn 1: HTTP 500 (broken).; turn 2: HTTP 500 (broken)."
    assert "no score of the agreed form" in said[2]
    assert "score 85 is not in 0 to 10" in said[3]
    assert "2 different scores" in said[4]
    assert said[5].count("cut by the length limit") == 2
    # what it did say is kept
    assert "길게 씁니다" in json.dumps(lines[6]["judgements"], ensure_ascii=False)
    assert judge.summary(lines) == {
        "errors": 6,
        "judgements": 14,
        "failed": 12,
        "spread": None,
        "length_correlation": None,
    }


def test_one_turn_without_a_score_leaves_the_other() -> None:
    with serving(says(GOOD), says("점수를 줄 수 없습니다.")) as server:
        (judged,) = run(server, TWO)
    assert judged.scores() == {"score_1": 8.0, "score_2": None, "score": None}
    assert str(judged.error()).startswith("turn 2: ")


def test_429_then_an_answer_is_no_error() -> None:
    with serving(status(429, None, Retry_After="0"), says(GOOD)) as server:
        (judged,) = run(server, TWO)
    assert judged.error() is None
    assert [one["attempts"] for one in judged.fields()["judgements"]] == [2, 1]


def test_a_judge_that_hangs_is_left() -> None:
    with serving(hangs, says(GOOD)) as server:
        (judged,) = run(server, TWO, attempts=1, timeout=0.3)
    assert judged.scores() == {"score_1": None, "score_2": 8.0, "score": None}
    assert judged.error() == "turn 1: no answer within 0.3 seconds."


def test_results_are_in_order_though_asked_at_once() -> None:
    barrier = threading.Barrier(3)

    def act(number: int) -> Act:
        def both(handler: BaseHTTPRequestHandler) -> None:
            # three must be under way, or this breaks
            barrier.wait(10)
            says(f"점수: {number}")(handler)

        return both

    dialogues = [Dialogue(str(n), ("물음", "물음"), (f"답{n}.", f"답{n}."), ()) for n in range(6)]
    with serving(by=by_answer({f"답{n}.": act(n) for n in range(6)})) as server:
        found = run(server, *dialogues, concurrency=3)
        assert server.most == 3
    assert [one.scores()["score"] for one in found] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_repeats_are_averaged_and_their_spread_told() -> None:
    acts = [says(f"점수: {n}") for n in (6, 9, 9)] + [says("점수: 7"), says("모름"), says("점수: 7")]
    with serving(*acts) as server:
        (judged,) = run(server, TWO, repeats=3)
    fields = judged.fields()
    # a repeat without a score is left out, and seen
    assert fields["scores"] == {"score_1": 8.0, "score_2": 7.0, "score": 7.5}
    assert fields["spread"] == {"score_1": 3.0, "score_2": 0.0}
    assert "error" not in fields
    assert [(one["turn"], one["repeat"]) for one in fields["judgements"]] == [
        (t, r) for t in (1, 2) for r in (1, 2, 3)
    ]
    told = judge.summary([fields])
    assert (told["errors"], told["failed"], told["spread"]) == (0, 1, 1.5)


def test_komt_bench_takes_the_root_for_answers_that_are_not_korean() -> None:
    answers = ("Seoul is the capital of Korea (서울).", "서울은 대한민국의 수도입니다.")
    dialogues = [Dialogue(id, ("물음", "물음"), answers, ()) for id in ("81", "138")]
    with serving(says("설명입니다.\n점수: [[9]]")) as server:
        plain, excepted = run(server, *dialogues, name="komt-bench")
    assert plain.scores() == {"score_1": 3.0, "score_2": 9.0, "score": 6.0}
    assert plain.fields()["judgements"][0]["given"] == 9.0
    assert excepted.scores() == {"score_1": 9.0, "score_2": 9.0, "score": 9.0}
    with serving(says("[[10]]")) as server:
        (judged,) = run(server, dialogues[0], name="komt-bench")
    assert judged.scores()["score_1"] == math.sqrt(10)


def test_logickor_leaves_the_language_to_the_judge() -> None:
    with serving(says("점수: 9")) as server:
        (judged,) = run(server, Dialogue("1", ("물음", "물음"), ("In English.", "In English."), ()))
    assert judged.scores()["score"] == 9.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("서울은 수도입니다.", True),
        ("HTTP의 GET method는 resource를 가져오는 request입니다. PUT은 resource를 바꿉니다.", True),
        ("아래 함수를 쓰세요.\n```python\ndef total(numbers):\n    return sum(numbers)\n```", True),
        ("```python\nprint('hello')\n```", True),
        ("$x^2 + 2xy = \\frac{a}{b}$이므로 답은 3입니다.", True),
        ("가격은 $100이고 수요는 만 개이므로 $200만큼 남습니다.", True),
        ("42", True),
        ("", True),
        ("The capital of Korea is Seoul (서울).", False),
        ("首都はソウルです。", False),
        ("Use this function.\n```python\n# 합을 구한다\ndef total(numbers):\n    return sum(numbers)\n```", False),
    ],
)
def test_is_korean(answer: str, expected: bool) -> None:
    assert judge.is_korean(answer) is expected


@pytest.mark.parametrize(
    ("name", "said", "expected"),
    [
        ("logickor", "평가: 좋음\n점수: 8", 8.0),
        ("logickor", "**평가:** 좋음\n\n**점수: 7.5**", 7.5),
        ("logickor", "### 점수 : 10/10", 10.0),
        ("logickor", "- 점수： 9점.", 9.0),
        ("logickor", "점수: 8\n평가: 좋음\n점수: 8", 8.0),
        ("logickor", "점수: 8~9", None),
        ("logickor", "점수: 4/5", None),
        ("logickor", "점수: 여덟", None),
        ("logickor", "점수: -1", None),
        ("logickor", "이 답변의 점수: 8", None),
        ("logickor", "[[8]]", None),
        ("komt-bench", "설명\n점수: [[8]]", 8.0),
        ("komt-bench", "[[ 7.5 ]]", 7.5),
        ("komt-bench", "[8]", None),
        ("komt-bench", "[[0]]", None),
        ("komt-bench", "점수: 8", None),
        ("komt-bench", "[[rating]]", None),
    ],
)
def test_score_in_a_judges_answer(name: str, said: str, expected: float | None) -> None:
    file = judges.load(name).file
    if expected is None:
        with pytest.raises(ValueError, match="score"):
            file.read(said)
    else:
        assert file.read(said) == expected


def test_identity_tells_the_judge_and_nothing_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    with Client(Endpoint("http://127.0.0.1:1/v1", "judge-1", key_env="JUDGE_KEY")) as client:
        identity = Judge(judges.load("logickor"), client, 2).identity()
    assert identity["judge"] == "logickor"
    assert (identity["judge_model"], identity["judge_repeats"]) == ("judge-1", 2)
    assert len(identity["judge_hash"]) == 16
    assert "sk-secret" not in json.dumps(identity)


def test_an_interruption_leaves_the_rest_unasked() -> None:
    class Enough(BaseException):
        pass

    def stop(count: int) -> None:
        raise Enough

    dialogues = [Dialogue(str(n), ("물음", "물음"), ("답", "답"), ()) for n in range(50)]
    with serving(says(GOOD)) as server:
        with Client(Endpoint(server.url, "judge-1", concurrency=2)) as client, pytest.raises(Enough):
            Judge(judges.load("logickor"), client).judge(dialogues, stop)
        assert len(server.asked) < 100


def test_an_interruption_does_not_wait_for_further_attempts() -> None:
    class Enough(BaseException):
        pass

    def stop(count: int) -> None:
        raise Enough

    dialogues = [Dialogue(name, ("물음", "물음"), (name, name), ()) for name in ("좋은 답", "막힌 답")]
    with serving(by=by_answer({"좋은 답": says(GOOD), "막힌 답": status(429)})) as server:
        # our own pause would be a minute
        slow = Endpoint(server.url, "judge-1", concurrency=4, pause=60.0)
        with Client(slow) as client, pytest.raises(Enough):
            Judge(judges.load("logickor"), client).judge(dialogues, stop)


def test_dialogues_of_another_length_are_refused_before_anything_is_asked() -> None:
    short = Dialogue("items.jsonl:3", ("물음",), ("답",), ())
    with serving(says(GOOD)) as server:
        with pytest.raises(KoalpacaError, match="judges dialogues of 2") as caught:
            run(server, TWO, short)
        assert not server.asked
    assert caught.value.problems[0].code == "judge-turns"


def test_repeats_below_one() -> None:
    with (
        Client(Endpoint("http://127.0.0.1:1/v1", "m")) as client,
        pytest.raises(KoalpacaError, match="judge repeats"),
    ):
        Judge(judges.load("logickor"), client, 0)


def test_the_second_question_is_asked_after_the_models_own_answer() -> None:
    first, second = judge.asked(["하나?", "둘?"], []), judge.asked(["하나?", "둘?"], ["답."])
    assert [(turn.role, turn.content) for turn in first.turns] == [("user", "하나?")]
    assert [(turn.role, turn.content) for turn in second.turns] == [
        ("user", "하나?"),
        ("assistant", "답."),
        ("user", "둘?"),
    ]


def test_length_correlation() -> None:
    def line(*pairs: tuple[int, float | None]) -> dict[str, Any]:
        return {
            "turns": [{"question": "물음", "answer": "가" * length} for length, _ in pairs],
            "scores": {f"score_{n}": score for n, (_, score) in enumerate(pairs, 1)},
            "judgements": [],
        }

    longer_is_better = [line((1, 2.0), (5, 3.0)), line((9, 8.0), (20, None))]
    assert judge.summary(longer_is_better)["length_correlation"] == pytest.approx(1.0)
    # ranks 1 2 3 4 and 4 2 3 1: Spearman's is 1 - 6 * 18 / (4 * 15)
    mixed = [line((1, 9.0), (2, 4.0)), line((3, 5.0), (4, 1.0))]
    assert judge.summary(mixed)["length_correlation"] == pytest.approx(1 - 6 * 18 / 60)
    assert judge.summary([line((1, 5.0), (2, 5.0)), line((3, 5.0), (4, 5.0))])["length_correlation"] is None


def test_the_shipped_judges() -> None:
    assert judges.names() == ["komt-bench", "logickor"]
    for name in judges.names():
        file = judges.load(name).file
        assert len(file.turns) == 2
        # the published rules
        assert file.highest == 10
    assert judges.load("komt-bench").file.not_korean_except == ["138", "140"]


OWN = """\
name: own
version: 1
title: 우리 채점
title_en: Our judge
score: labelled
lowest: 1
highest: 5
not_korean: as it is
reference: "참고: {reference}"
turns:
  - system: 채점하세요.
    user: "{question_1} / {answer_1} / {reference_1}"
"""


def test_a_judge_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN, encoding="utf-8")
    file = judges.load(str(path)).file
    shown = file.messages(0, ["1+1?"], ["2"], ["둘"])
    assert shown == [
        {"role": "system", "content": "채점하세요."},
        {"role": "user", "content": "1+1? / 2 / 참고: 둘"},
    ]
    assert file.read("점수: 5/5") == 5.0
    with pytest.raises(ValueError, match="not in 1 to 5"):
        file.read("점수: 8")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lowest: 1", "lowest: 5", "lowest is not below highest"),
        ("{reference}", "{referenz}", "must name {reference}"),
        ("{answer_1} /", "", "does not show {answer_1}"),
        ("{question_1} /", "{question_2} /", "turn 1 has no '{question_2}'"),
        ("score: labelled", "score: last number", "is not one of the choices"),
        ("version: 1", "version: 1\nmodel: gpt", "unknown key 'model'"),
        ("name: own", "name: other", "is not the file's name"),
        ("lowest: 1\n", "", "'lowest' is missing"),
    ],
)
def test_mistakes_in_a_judge_file(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "own.yaml"
    assert old in OWN
    path.write_text(OWN.replace(old, new), encoding="utf-8")
    with pytest.raises(KoalpacaError, match=r"own\.yaml:\d+") as caught:
        judges.load(str(path))
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["logicor", "nowhere.yaml"])
def test_no_such_judge(name: str) -> None:
    with pytest.raises(KoalpacaError) as caught:
        judges.load(name)
    assert caught.value.problems[0].code == "judge-missing"


def test_the_test_dialogues_are_of_the_published_columns() -> None:
    logickor = [row for _, row in jsonl.read(DATA / "logickor.jsonl")]
    assert {key for row in logickor for key in row} == {"id", "category", "questions", "references"}
    assert {row["category"] for row in logickor} == {
        *(
            "추론(Reasoning)",
            "수학(Math)",
            "글쓰기(Writing)",
            "코딩(Coding)",
            "이해(Understanding)",
            "문법(Grammar)",
        )
    }
    assert all(len(row["questions"]) == 2 for row in logickor)
    komt = [row for _, row in jsonl.read(DATA / "komt-bench.jsonl")]
    assert {key for row in komt for key in row} == {"question_id", "category", "turns", "reference"}
    assert all(len(row["turns"]) == 2 for row in komt)
