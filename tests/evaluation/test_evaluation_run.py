"""One evaluation: what it writes, how it goes on after an interruption, what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from bigram import Bigram, Score, render
from bigram_runs import HELDOUT, run

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation import requests
from koalpaca_tune.evaluation.run import Result
from koalpaca_tune.records import Conversation, Rendered, Turn


def test_what_is_written(before: Result, before_model: Bigram) -> None:
    stored = jsonl.read_json(before.folder / "result.json")
    assert stored == json.loads(json.dumps(before.as_dict()))
    assert [task["kind"] for task in stored["tasks"]] == ["choice"] * 6 + ["likelihood", "generation"]
    lines = [line for _, line in jsonl.read(before.folder / "items.jsonl")]
    assert len(lines) == sum(task["items"] for task in stored["tasks"])
    likelihood, generation = stored["tasks"][-2:]
    assert (likelihood["items"], generation["items"]) == (len(HELDOUT), 5)
    assert generation["max_new_tokens"] == 40
    assert stored["tasks"][0]["label_tokens"] == {"긍정": 3, "부정": 3}
    # bits per character by hand: every learned character, the answer's space among them, the end token not
    nats = sum(-before_model.score([requests.answer_only(render(one))])[0].logprob for one in HELDOUT)
    characters = sum(len(one.turns[-1].content) + 1 for one in HELDOUT)
    assert likelihood["metrics"]["bits_per_character"] == pytest.approx(nats / characters / math.log(2))


def test_same_model_same_bytes(tmp_path: Path, before: Result, before_model: Bigram) -> None:
    again = run(tmp_path / "again", before_model)
    for name in ("items.jsonl", "result.json", "identity.json"):
        assert (again.folder / name).read_bytes() == (before.folder / name).read_bytes()


class Interrupted(Bigram):
    """Stops the process, as Ctrl-C would, after some calls."""

    calls = 3

    def score(self, requests: Sequence[Rendered]) -> list[Score]:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return super().score(requests)


def test_an_interrupted_run_goes_on(tmp_path: Path, before: Result, before_model: Bigram) -> None:
    folder = tmp_path / "interrupted"
    first = Interrupted([])
    first.__dict__ |= before_model.__dict__ | {"scored": 0}
    with pytest.raises(KeyboardInterrupt):
        run(folder, first)
    assert not (folder / "result.json").exists()
    done = len((folder / "items.jsonl").read_text(encoding="utf-8").splitlines())
    assert done > 0
    with (folder / "items.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"task": "ko-mini-par')
    asked = before_model.scored
    before_model.scored = 0
    result = run(folder, before_model)
    assert before_model.scored == asked - first.scored
    assert result.tasks == before.tasks
    assert (folder / "items.jsonl").read_bytes() == (before.folder / "items.jsonl").read_bytes()


def test_a_finished_run_asks_nothing(before: Result, before_model: Bigram) -> None:
    before_model.scored = before_model.written = 0
    seen: list[tuple[str, int, int]] = []
    result = run(before.folder, before_model, progress=lambda *now: seen.append(now))
    assert (before_model.scored, before_model.written) == (0, 0)
    assert result == before
    assert all(done == total for _, done, total in seen)


def test_another_setting_measures_again_and_keeps_what_was_measured(before: Result, before_model: Bigram) -> None:
    before_model.written = 0
    run(before.folder, before_model, max_new_tokens=10)
    assert before_model.written == 5
    hashes = {line["hash"] for _, line in jsonl.read(before.folder / "items.jsonl")}
    assert len(hashes) == 9
    # what was asked with the earlier options is still there
    run(before.folder, before_model)
    assert before_model.written == 5


def test_lines_and_results_of_another_shape_are_said_at_their_place(before: Result, before_model: Bigram) -> None:
    path = before.folder / "result.json"
    whole = jsonl.read_json(path)
    for broken, said in [
        ({**whole, "tasks": ["a"]}, "not a list of objects"),
        ({**whole, "tasks": [{}]}, "'name' is missing"),
        ({}, "'suite' is missing"),
    ]:
        jsonl.write_json(path, broken)
        with pytest.raises(KoalpacaError, match=said) as caught:
            Result.read(before.folder)
        assert caught.value.problems[0].code == "eval-shape"
    lines = before.folder / "items.jsonl"
    lines.write_text("{}\n" + lines.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(KoalpacaError, match=r"items\.jsonl:1") as caught:
        run(before.folder, before_model)
    assert caught.value.problems[0].code == "eval-shape"


def test_another_model_is_never_mixed_in(before: Result, after_model: Bigram) -> None:
    with pytest.raises(KoalpacaError, match="adapter differ") as caught:
        run(before.folder, after_model, adapter="abcd")
    assert caught.value.problems[0].code == "eval-identity"
    assert (before.folder / "result.json").exists()
    (before.folder / "identity.json").unlink()
    with pytest.raises(KoalpacaError, match="unknown"):
        run(before.folder, after_model)


def test_another_template_is_never_mixed_in(before: Result, before_model: Bigram) -> None:
    def other(conversation: Conversation) -> Rendered:
        whole = render(conversation)
        return dataclasses.replace(
            whole, pieces=(dataclasses.replace(whole.pieces[0], text="Q: "), *whole.pieces[1:])
        )

    with pytest.raises(KoalpacaError, match="template differ"):
        run(before.folder, before_model, render=other)


def test_without_heldout_there_are_six_tasks(tmp_path: Path, before_model: Bigram) -> None:
    assert len(run(tmp_path / "out", before_model, heldout=()).tasks) == 6


def test_duplicates_are_asked_once(tmp_path: Path, before_model: Bigram) -> None:
    result = run(tmp_path / "out", before_model, heldout=HELDOUT * 2)
    assert result.tasks[-2]["items"] == len(HELDOUT)


def test_a_conversation_without_answer_is_an_error(tmp_path: Path, before_model: Bigram) -> None:
    lonely = Conversation((Turn("user", "안녕"),), "valid.jsonl:7")
    with pytest.raises(KoalpacaError, match=r"valid\.jsonl:7") as caught:
        run(tmp_path / "out", before_model, heldout=[lonely])
    assert caught.value.problems[0].code == "heldout-answer"
    assert not (tmp_path / "out").exists()


def test_a_score_that_is_not_a_number_is_an_error(tmp_path: Path, before_model: Bigram) -> None:
    before_model.k = math.nan
    with pytest.raises(KoalpacaError) as caught:
        run(tmp_path / "out", before_model)
    assert caught.value.problems[0].code == "eval-not-finite"


class Constant(Bigram):
    """Likes 긍정, whatever the question."""

    def score(self, requests: Sequence[Rendered]) -> list[Score]:
        return [Score(0.0 if "긍정" in one.text[one.spans[0][0] :] else -1.0, 1) for one in requests]


def test_collapse_is_flagged(tmp_path: Path) -> None:
    sentiment = run(tmp_path / "out", Constant([]), heldout=()).tasks[0]
    assert sentiment["collapse"].items() >= {"index": 0, "answer": "긍정", "share": 1.0}.items()


def test_several_turns_score_every_answer_and_ask_the_last_question() -> None:
    turns = (Turn("user", "가"), Turn("assistant", "나"), Turn("user", "다"), Turn("assistant", "라마"))
    conversation = Conversation(turns, "x:1")
    scored = requests.answer_only(render(conversation))
    assert [scored.text[start:end] for start, end in scored.spans] == [" 나", " 라마"]
    assert scored.text.endswith(" 라마")
    prompt = render(requests.question_of(conversation))
    assert prompt.text.endswith("답변:")
    assert requests.reference_of(conversation) == "라마"


def test_template_digest_sees_what_a_template_does() -> None:
    def spaceless(conversation: Conversation) -> Rendered:
        whole = render(conversation)
        return Rendered(tuple(dataclasses.replace(piece, text=piece.text.lstrip()) for piece in whole.pieces))

    assert requests.template_digest(render) == requests.template_digest(render)
    assert requests.template_digest(render) != requests.template_digest(spaceless)
