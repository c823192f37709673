"""Examples in front of items: word for word as lm-evaluation-harness, and never from what is scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from bigram import render

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation import requests
from koalpaca_tune.suites import items, tasks

DATA = Path(__file__).parent / "data"
GOLDEN = json.loads((DATA / "lm_eval_golden.json").read_text(encoding="utf-8"))
"""Written by lm-eval 0.4.13 itself: bench/lm_eval_golden.py."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kobest_rows")
    for name, lines in json.loads((DATA / "kobest_rows.json").read_text(encoding="utf-8")).items():
        path = folder / "kobest" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join("\t".join(line) + "\r\n" for line in lines), encoding="utf-8", newline="")
    return folder


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("name", GOLDEN)
def test_what_lm_eval_asks_is_what_is_asked(root: Path, name: str, shots: int) -> None:
    task = tasks.with_shots(tasks.asked_by(tasks.find_task(f"kobest-{name}"), "lm-eval", ""), shots, "")
    ours = [
        [request.text for request in requests.of_choices(task.asked, item, render)]
        for item in items.load(task, root).items
    ]
    theirs = [
        [context + answer for context, answer in one["requests"]] for one in GOLDEN[name] if one["shots"] == shots
    ]
    assert len(ours) == 3
    assert ours == theirs


def test_fixed_examples_are_the_same_for_all_items(root: Path) -> None:
    task = tasks.with_shots(tasks.asked_by(tasks.find_task("kobest-copa"), "fixed", ""), 2, "")
    chosen = items.load(task, root)
    assert len({item.examples for item in chosen.items}) == 1
    assert chosen.examples is not None
    assert len(chosen.examples["ids"]) == 2
    one, two = (requests.of_choices(task.asked, item, render)[0].text for item in chosen.items[:2])
    shown = "".join(f"{each.prompt}{each.answer}\n\n" for each in chosen.items[0].examples)
    assert one.startswith(shown)
    assert two.startswith(shown)


def test_examples_of_a_question_are_earlier_turns_that_are_not_scored(own: Callable[..., tasks.Task]) -> None:
    task = own("question", shots=1)
    (first, *_) = items.load(task, None).items
    request = requests.of_choices(task.asked, first, render)[0]
    assert request.text.count("답변:") == 2
    ((start, end),) = request.spans
    assert request.text[start:end] == " 예"
    assert end == len(request.text)
    assert request.text[:start].count("</s>") == 1


ROWS = [("물은 젖는가?", "예"), ("돌은 나는가?", "아니오"), ("해는 뜨는가?", "예")]
POOL = [("불은 뜨거운가?", "예"), ("눈은 검은가?", "아니오"), ("밤은 어두운가?", "예")]
TASK = """\
kind: choice
name: own
version: 1
title: 내 과제
title_en: Mine
skill: mine
licence: CC0-1.0
source: {items: scored.csv}
shots: {items: pool.csv}
answer: {column: answer, labels: {예: 0, 아니오: 1}}
metrics: [accuracy]
profiles:
  question: {form: question, prompt: "{question}", choices: ["예", "아니오"]}
  completion: {form: completion, prompt: "{question}\\n답:", choices: [" 예", " 아니오"], shots: lm-eval}
"""


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., tasks.Task]:
    """A task of one's own from two CSV files."""

    def make(profile: str, shots: int, pool: list[tuple[str, str]] = POOL) -> tasks.Task:
        for name, rows in (("scored", ROWS), ("pool", pool)):
            text = "".join(f"{question},{answer}\n" for question, answer in [("question", "answer"), *rows])
            (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
        (tmp_path / "own.yaml").write_text(TASK, encoding="utf-8")
        task = tasks.load_task(tmp_path / "own.yaml")
        return tasks.with_shots(tasks.asked_by(task, profile, ""), shots, "")

    return make


def test_an_example_that_is_scored_too_is_left_out_and_counted(own: Callable[..., tasks.Task]) -> None:
    chosen = items.load(own("completion", 2, [*POOL, ROWS[0]]), None)
    assert chosen.examples is not None
    assert (chosen.examples["pool"], chosen.examples["left_out"]) == (3, 1)
    assert all("물은 젖는가" not in one.prompt for item in chosen.items for one in item.examples)


@pytest.mark.parametrize(
    ("pool", "shots", "code"),
    [
        (ROWS, 1, "shots-scored"),
        ([*ROWS[:2], *POOL[:2]], 1, "shots-scored"),
        (POOL, 4, "shots-few"),
    ],
)
def test_a_pool_that_is_scored_or_too_small_is_refused(
    own: Callable[..., tasks.Task], pool: list[tuple[str, str]], shots: int, code: str
) -> None:
    with pytest.raises(KoalpacaError) as caught:
        items.load(own("completion", shots, pool), None)
    assert caught.value.problems[0].code == code


def test_the_examples_of_an_item_do_not_depend_on_which_others_are_asked(own: Callable[..., tasks.Task]) -> None:
    from dataclasses import replace

    task = own("completion", 1)
    whole = items.load(task, None).items
    third = items.load(replace(task, every=2), None).items[1]
    assert third == whole[2]


def test_a_task_without_a_source_of_examples_says_so() -> None:
    with pytest.raises(KoalpacaError) as caught:
        tasks.with_shots(tasks.find_task("belebele-ko"), 5, "--shots")
    assert caught.value.problems[0].code == "task-shots"
