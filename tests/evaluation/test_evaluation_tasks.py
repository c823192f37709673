"""Task files, suites, patterns, golden prompts."""

from __future__ import annotations

from pathlib import Path

import pytest
from bigram import render

from koalpaca_tune import patterns, resources
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation import requests
from koalpaca_tune.suites import items, tasks

GOLDEN = {
    "ko-mini-sentiment": [
        "질문: 다음 문장의 감정은 긍정인가요, 부정인가요?\n"
        f"재료가 신선하고 양도 넉넉한데 값까지 저렴해요.\n\n답변:| {label}"
        for label in ("긍정", "부정")
    ],
    "ko-mini-inference": [
        "질문: 전제: 작년 대회에는 열두 팀이 출전했으나 올해는 그 절반만 출전했다.\n"
        "가설: 올해 대회에는 여섯 팀이 출전했다.\n"
        f"전제에 따르면 가설은 참, 거짓, 중립 가운데 무엇인가요?\n\n답변:| {label}"
        for label in ("참", "거짓", "중립")
    ],
    "ko-mini-cause": [
        f"질문: 식당 주인이 손님에게 사과했다. 이 일의 원인은 무엇인가요?\n\n답변:| {choice}"
        for choice in ("국이 주문한 대로 나왔다.", "국에서 머리카락이 나왔다.")
    ],
    "ko-mini-particle": [f"|기온이 떨어지자 물이 얼음{choice} 되었다." for choice in ("이", "을", "에")],
    "ko-mini-speech-level": [
        f"우리 이제 동갑인 거 알았으니까 말 놓자. 나는 너랑 더| {choice}"
        for choice in ("친해지고 싶어.", "친해지고 싶어요.")
    ],
    "ko-mini-reading": [
        "질문: 금띠나비는 어떤 모습으로 겨울을 나는가?\n\n"
        "맥락: 금띠나비는 봄에 알에서 깨어나 여름 내내 애벌레로 지낸다. 가을에 번데기가 되어 그대로 겨울을 나고, "
        f"이듬해 봄이 되면 어른벌레가 되어 날아오른다.\n\n답변:| {choice}"
        for choice in ("알", "어른벌레", "애벌레", "번데기")
    ],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_prompt_of_the_first_item(name: str) -> None:
    task = next(task for task in tasks.load_suite("ko-mini").tasks if task.name == name)
    first = items.load(task, None).items[0]
    shown = []
    for request in requests.of_choices(task.asked, first, render):
        ((start, end),) = request.spans
        assert end == len(request.text)
        shown.append(request.text[:start] + "|" + request.text[start:])
    assert shown == GOLDEN[name]


@pytest.mark.parametrize("name", tasks.suite_names())
def test_every_shipped_suite_and_its_shipped_items_load(name: str) -> None:
    suite = tasks.load_suite(name)
    for task in suite.tasks:
        if task.file.source.items:
            chosen = items.load(task, None)
            assert all(len(set(item.choices)) == len(item.choices) for item in chosen.items)


def test_suites() -> None:
    assert tasks.suite_names() == ["ko-core", "ko-full", "ko-judged", "ko-mini", "ko-nlu", "ko-smoke", "kobest"]
    whole = [len(items.load(task, None).items) for task in tasks.load_suite("ko-mini").tasks]
    quarter = [len(items.load(task, None).items) for task in tasks.load_suite("ko-smoke").tasks]
    assert sum(whole) >= 240
    assert len(whole) == 6
    assert quarter == [(count + 3) // 4 for count in whole]


def test_every_task_file_belongs_to_a_suite() -> None:
    listed = {task.name for name in tasks.suite_names() for task in tasks.load_suite(name).tasks}
    # a text of one's own is not for everybody
    assert listed == set(tasks.task_names()) - {"text"}


def test_a_quarter_is_another_item_set() -> None:
    whole, quarter = (tasks.load_suite(name).tasks[0] for name in ("ko-mini", "ko-smoke"))
    assert items.load(whole, None).digest != items.load(quarter, None).digest
    assert items.load(whole, None).digest == items.load(whole, None).digest


@pytest.mark.parametrize(
    ("pattern", "values", "text"),
    [
        ("{word:이/가} {word:을/를}", {"word": "사과"}, "사과가 사과를"),
        ("{word:이/가}", {"word": "수박"}, "수박이"),
        ("{a}{{b}}", {"a": "{c}"}, "{c}{b}"),
        ("없음", {}, "없음"),
    ],
)
def test_patterns(pattern: str, values: dict[str, str], text: str) -> None:
    assert patterns.fill(pattern, values) == text


@pytest.mark.parametrize(
    "pattern",
    ["{a.b}", "{a[0]}", "{a!r}", "{}", "{0}", "{a:>10}", "{a", "a}", "{a:{b}}", "{__class__.x}", "{a:이}"],
)
def test_patterns_refuse_what_is_not_a_field(pattern: str) -> None:
    with pytest.raises(ValueError, match=r" \| "):
        patterns.fields(pattern)


TASK = """\
kind: choice
name: mine
version: 1
title: 내 과제
title_en: Mine
skill: mine
licence: CC0-1.0
source:
  items: mine.jsonl
options: choices
answer: {column: answer, read: index}
metrics: [accuracy]
profiles:
  own:
    form: completion
    prompt: "{before}"
    choices: "{choice}"
"""
ROW = '{"id": "1", "before": "가", "choices": [" 나", " 다"], "answer": 1}\n'


def load_one(folder: Path, task: str = TASK, rows: str = ROW) -> items.ItemSet:
    (folder / "mine.yaml").write_text(task, encoding="utf-8")
    (folder / "mine.jsonl").write_text(rows, encoding="utf-8")
    (folder / "own.yaml").write_text(
        "name: own\nversion: 1\ntitle: 내 모음\ntitle_en: Own\ntasks: [mine.yaml]\n", encoding="utf-8"
    )
    return items.load(tasks.load_suite(str(folder / "own.yaml")).tasks[0], None)


def test_a_suite_and_task_of_ones_own(tmp_path: Path) -> None:
    (item,) = load_one(tmp_path).items
    assert (item.prompt, item.choices, item.answer) == ("가", (" 나", " 다"), 1)
    assert item.origin == f"{tmp_path / 'mine.jsonl'}:1"


@pytest.mark.parametrize(
    ("old", "new", "code", "at"),
    [
        ("kind: choice", "kind: chioce", "config-value", "mine.yaml:1:7"),
        ("kind: choice\n", "", "config-missing-key", "mine.yaml"),
        ('"{before}"', '"{befor}"', "task-field", "mine.yaml:16:13"),
        ('"{before}"', '"{before.x}"', "config-value", "mine.yaml"),
        ('"{before}"', '{field: befor, then: "a", otherwise: "b"}', "task-field", "mine.yaml:16:13"),
        ('    prompt: "{before}"', '    promt: "{before}"', "config-unknown-key", "mine.yaml:16:5"),
        ("metrics: [accuracy]", "metrics: [accuracyy]", "config-value", "mine.yaml:12"),
        ("metrics: [accuracy]", "metrics: [macro_f1]", "config-value", "mine.yaml"),
        ("metrics: [accuracy]", "metrics: [accuracy, accuracy_pmi]", "config-value", "mine.yaml"),
        ("skill: mine", "skil: mine", "config-unknown-key", "mine.yaml:6:1"),
        ("version: 1", "version: one", "config-type", "mine.yaml:3:10"),
        ("form: completion", "form: question\n    score: whole", "config-value", "mine.yaml"),
        ("read: index", "read: index, at_least: 1.0", "config-value", "mine.yaml:11"),
        ("read: index", "read: place", "config-value", "mine.yaml:11"),
        ("options: choices\n", "", "config-value", "mine.yaml"),
        ("options: choices", "options: choises", "item-shape", "mine.jsonl:1"),
        ("options: choices", "options: choices\nfields: {x: no.where}", "item-columns", "mine.jsonl:1"),
        ("options: choices", "options: choices\nonly: {kind: [a]}", "item-columns", "mine.jsonl:1"),
        ("options: choices", "options: choices\nshots: {items: mine.jsonl}", "config-value", "mine.yaml"),
        ("options: choices", "options: choices\nshots: {split: train}", "config-value", "mine.yaml"),
        ("items: mine.jsonl", "items: mine.jsonl\n  local: a.csv", "config-value", "mine.yaml"),
        ("items: mine.jsonl", "local: '{split}.csv'", "config-value", "mine.yaml"),
        ('choices: "{choice}"', 'choices: ["가"]', "config-value", "mine.yaml"),
        ('choices: "{choice}"', "choices: '나'", "config-value", "mine.yaml"),
        ("items: mine.jsonl", "items: ../mine.jsonl", "config-value", "mine.yaml"),
        ("items: mine.jsonl", "items: none.jsonl", "file-missing", "none.jsonl"),
        ("items: mine.jsonl", "local: a.tsv", "data-root", "--data-root"),
        ("name: mine", "name: other", "task-name", "mine.yaml:2:7"),
    ],
)
def test_task_file_errors_say_where(tmp_path: Path, old: str, new: str, code: str, at: str) -> None:
    assert old in TASK
    with pytest.raises(KoalpacaError) as caught:
        load_one(tmp_path, TASK.replace(old, new))
    assert any(problem.code == code and at in problem.where for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (ROW.replace("1}", "2}"), "item-answer"),
        (ROW.replace(": 1}", ': "나"}'), "item-answer"),
        (ROW.replace(": 1}", ": true}"), "item-answer"),
        (ROW.replace("answer", "gold"), "item-columns"),
        (ROW.replace('" 다"', '" 나"'), "item-shape"),
        (ROW.replace('[" 나", " 다"]', '[" 나"]'), "item-shape"),
        (ROW.replace('"id": "1"', '"id": true'), "item-shape"),
        (ROW.replace('"id": "1"', '"id": ""'), "item-shape"),
        (ROW.replace("choices", "선택지"), "item-shape"),
        (ROW.replace('"가"', '" "'), "item-shape"),
        (ROW.replace("가", r"가\ud800"), "item-encoding"),
        (ROW + ROW, "item-twice"),
        ("{\n", "jsonl-line"),
        ("", "items-none"),
    ],
)
def test_item_errors_say_the_line(tmp_path: Path, row: str, code: str) -> None:
    with pytest.raises(KoalpacaError) as caught:
        load_one(tmp_path, rows=row)
    assert caught.value.problems[0].code == code
    assert "mine.jsonl" in caught.value.problems[0].where


def test_a_field_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KoalpacaError, match=r"no field 'choises' .* Did you mean 'choices'"):
        load_one(tmp_path, TASK.replace("options: choices", "options: choises"))
    with pytest.raises(KoalpacaError, match="no field 'area'"):
        load_one(tmp_path, TASK.replace("options: choices", "options: choices\ncategory: area"))


def test_a_korean_column_is_a_field(tmp_path: Path) -> None:
    korean = TASK.replace("options: choices", "options: 보기\ncategory: 분야")
    (item,) = load_one(tmp_path, korean, ROW.replace('"choices"', '"분야": "말", "보기"')).items
    assert (item.choices, item.category) == ((" 나", " 다"), "말")


def test_suites_and_tasks_that_are_taken_for_each_other_are_said_in_one_line(tmp_path: Path) -> None:
    load_one(tmp_path)
    for call, name, said in [
        (tasks.load_suite, str(tmp_path / "mine.yaml"), "a task, not a suite. Name it with --task"),
        (tasks.find_task, str(tmp_path / "own.yaml"), "a suite, not a task. Name it with --suite"),
        (tasks.load_suite, "nsmc", "It is a task: name it with --task"),
        (tasks.find_task, "ko-mini", "It is a suite: name it with --suite"),
        (tasks.find_task, "none.yaml", "there is no task 'none.yaml'. Check the path"),
        (tasks.find_task, "quiz.csv", "a file of your own ends in .yaml"),
    ]:
        with pytest.raises(KoalpacaError, match=said) as caught:
            call(name)
        assert len(caught.value.problems) == 1


def test_without_a_kind_no_other_key_is_blamed(tmp_path: Path) -> None:
    with pytest.raises(KoalpacaError) as caught:
        load_one(tmp_path, TASK.replace("kind: choice\n", ""))
    assert [problem.code for problem in caught.value.problems] == ["config-missing-key"]


def test_unknown_names_are_suggested() -> None:
    with pytest.raises(KoalpacaError, match="Did you mean 'ko-mini'"):
        tasks.load_suite("ko-min")


def test_a_changed_task_file_or_item_changes_the_digest(tmp_path: Path) -> None:
    first = load_one(tmp_path).digest
    assert load_one(tmp_path, TASK.replace("내 과제", "다른 과제")).digest != first
    assert load_one(tmp_path, rows=ROW.replace("가", "거")).digest != first
    assert load_one(tmp_path).digest == first


def test_no_machine_paths_in_shipped_files() -> None:
    for path in resources.EVAL.rglob("*.yaml"):
        assert "/work" not in path.read_text(encoding="utf-8")


def test_a_field_may_be_named_in_korean() -> None:
    assert patterns.fill("{문제:이/가} 있다", {"문제": "수박"}) == "수박이 있다"
    with pytest.raises(ValueError, match="not a field"):
        patterns.fields("{1번}")
