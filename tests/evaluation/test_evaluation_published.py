"""Every published set that is not here, end to end on rows written for this test, with its columns as published.

tests/evaluation/data/published.json: path under --data-root -> rows (or a whole file, of SQuAD's JSON and of text).
A path with {config} is written once for each configuration of its task.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bigram import Bigram, render
from chat_server import says, serving, status

from koalpaca_tune.comparison.compare import compare
from koalpaca_tune.data.reading import hub
from koalpaca_tune.evaluation import requests, run
from koalpaca_tune.judging.endpoint import Client, Endpoint
from koalpaca_tune.judging.judge import Judge
from koalpaca_tune.judging.judges import load as load_judge
from koalpaca_tune.runs import evaluate
from koalpaca_tune.suites import items, tasks
from koalpaca_tune.suites.tasks import Suite, Task

DATA = Path(__file__).parent / "data"
IDENTITY = {"base": "tiny", "base_fingerprint": "1", "adapter": None}
PROSE = ["정답: A", "정답： B", "한국의 산은 높다. 답: 7", "점수: 7"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    for name, content in json.loads((DATA / "published.json").read_text(encoding="utf-8")).items():
        for config in _configs(name):
            path = folder / name.replace("{config}", config)
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, json.loads(json.dumps(content, ensure_ascii=False).replace("{config}", config)))
    for name, path in (
        ("logickor", "logickor/questions.jsonl"),
        ("komt-bench", "komt-bench/question_ko.jsonl"),
    ):
        (folder / path).parent.mkdir()
        (folder / path).write_bytes((DATA / f"{name}.jsonl").read_bytes())
    _parquet(DATA / "ifeval-ko.jsonl", folder / "ifeval-ko/train.parquet")
    return folder


def _configs(name: str) -> list[str]:
    if "{config}" not in name:
        return [""]
    return tasks.find_task(name.split("/")[0]).file.source.configs


def _write(path: Path, content: Any) -> None:
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif isinstance(content, dict):
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    elif path.suffix == ".tsv":
        lines = [list(content[0]), *(list(map(str, row.values())) for row in content)]
        path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), encoding="utf-8")


def _parquet(source: Path, path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir()
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def short(task: Task) -> Task:
    """The same task, answered in a few tokens."""
    named = {name: profile for name, profile in tasks.profiles(task.file).items() if task.file.kind != "choice"}
    update: dict[str, Any] = {
        "profiles": {name: profile.model_copy(update={"max_new_tokens": 24}) for name, profile in named.items()}
    }
    if task.file.kind == "judged":
        update = {"max_new_tokens": 24}
    return replace(task, file=task.file.model_copy(update=update)) if named or task.file.kind == "judged" else task


ABSENT = ("kobest-", "ko-mini-", "klue-nli", "klue-sts", "nsmc", "kornli", "korsts")
NAMES = [name for name in tasks.task_names() if not name.startswith(ABSENT)]


@pytest.fixture
def judge() -> Iterator[Judge]:
    with serving(says("점수: 7\n[[7]]")) as server, Client(Endpoint(server.url, "judge")) as client:
        yield lambda name: Judge(load_judge(name), client)  # type: ignore[misc]


def test_all_of_them_are_scored_compared_and_resumed(root: Path, tmp_path: Path, judge: Any) -> None:
    suite = Suite("all", 1, "모두", "All", tuple(short(tasks.find_task(name)) for name in NAMES))
    results = []
    for name, model in (("base", Bigram(PROSE)), ("adapter", Bigram([*PROSE, "정답: C", "답: 지리산"]))):
        identity = IDENTITY | {"adapter": None if name == "base" else "abcd"}
        given: dict[str, Any] = {"identity": identity, "data_root": root, "judge": judge}
        results.append(run.evaluate(suite, model, render, tmp_path / name, **given))
        model.scored = model.written = 0
        assert run.evaluate(suite, model, render, tmp_path / name, **given) == results[-1]
        assert (model.scored, model.written) == (0, 0)
    told = {task["name"]: task for task in results[0].tasks}
    assert list(told) == NAMES
    for name, task in told.items():
        assert task["items"] > 0
        assert str(task["revision"]).startswith("sha256:")
        assert task["primary"] in task["metrics"], name
    assert len(told["kmmlu"]["categories"]) == 45
    assert told["kmmlu"]["items"] == 90
    assert told["klue-mrc"]["items"] == 1
    assert told["logickor"]["metrics"]["score"] == 7.0
    assert told["text"]["metrics"]["perplexity"] > 1
    compared = compare(tmp_path / "base", tmp_path / "adapter")
    assert {row.task for row in compared.rows} == set(NAMES)


@pytest.mark.parametrize(
    ("name", "profile", "choices", "answers"),
    [
        ("klue-ynat", "fixed", 7, [0, 5, 6]),
        ("paws-x-ko", "fixed", 2, [0, 1]),
        ("haerae-standard-nomenclature", "lm-eval", 5, [4]),
        ("kmmlu-hard", "lm-eval", 4, [1] * 45),
        ("csatqa", "lm-eval", 5, [2] * 6),
        ("kormedmcqa", "fixed", 5, [2] * 4),
        ("belebele-ko", "fixed", 4, [1]),
        ("global-mmlu-ko", "fixed", 4, [1, 2]),
        ("kobbq", "kobbq", 3, [2, 0]),
    ],
)
def test_right_answers_are_read_as_published(
    root: Path, name: str, profile: str, choices: int, answers: list[int]
) -> None:
    found = items.load(tasks.asked_by(tasks.find_task(name), profile, ""), root).items
    assert [item.answer for item in found] == answers
    assert {len(item.choices) for item in found} == {choices}


PROMPTS = {
    ("kmmlu", "lm-eval"): (
        "물이 끓는 온도는 섭씨 몇 도인가?\nA. 50도\nB. 100도\nC. 150도\nD. 200도\n정답：",
        [" A", " B", " C", " D"],
    ),
    ("click", "lm-eval"): (
        "주어진 질문을 천천히 읽고, 적절한 정답을 A, B, C, D 중에 골라 알파벳 하나로 답하시오.\n\n"
        "질문: 설날에 먹는 음식은?\n"
        "보기:\nA:떡국, B: 송편, C: 팥죽, D: 오곡밥\n정답:",
        [" A", " B", " C", " D"],
    ),
    ("csatqa", "lm-eval"): (
        "다음을 읽고 정답으로 알맞은 것을 고르시요.\n### Context: 가을은 짧다.\n"
        "### Question: 윗글에서 말하는 계절은?\n### Options:\n"
        "(1) 봄\n(2) 여름\n(3) 가을\n(4) 겨울\n(5) 모두\n### Answer: 주어진 문제의 정답은",
        [" (1)", " (2)", " (3)", " (4)", " (5)"],
    ),
    ("belebele-ko", "lm-eval"): (
        "P: 박물관은 월요일마다 문을 닫는다.\nQ: 박물관이 쉬는 요일은?\n"
        "A: 일요일\nB: 월요일\nC: 화요일\nD: 수요일\nAnswer:",
        [" A", " B", " C", " D"],
    ),
    ("paws-x-ko", "lm-eval"): (
        "그는 서울에서 태어나 부산에서 자랐다., 맞죠?",
        [" 아니요, 그는 부산에서 태어나 서울에서 자랐다.", " 예, 그는 부산에서 태어나 서울에서 자랐다."],
    ),
}


@pytest.mark.parametrize("key", PROMPTS)
def test_prompts_as_lm_eval_writes_them(root: Path, key: tuple[str, str]) -> None:
    first = items.load(tasks.asked_by(tasks.find_task(key[0]), key[1], ""), root).items[0]
    assert (first.prompt, list(first.choices)) == PROMPTS[key]


def test_the_fifth_option_is_printed(root: Path) -> None:
    fixed, published = (
        items.load(tasks.asked_by(tasks.find_task("click"), profile, ""), root).items[1]
        for profile in ("fixed", "lm-eval")
    )
    assert "E: 가을" in fixed.prompt
    assert "A, B, C, D, E 중에" in fixed.prompt
    assert "가을\n정답" not in published.prompt
    assert fixed.choices == published.choices == (" A", " B", " C", " D", " E")
    assert fixed.answer == published.answer == 4


def test_examples_of_a_written_answer_hold_their_answer(root: Path) -> None:
    task = tasks.with_shots(tasks.find_task("korquad-v1"), 1, "")
    first = items.load(task, root).items[0]
    text = requests.to_answer(task.asked, first, render).text
    assert text.startswith("제목: 두루미\n\n본문: 반달가슴곰은 지리산에 산다.")
    assert text.count("\n\n답: ") == 1
    assert text.endswith("질문: 두루미는 겨울에 어디로 오는가?\n\n답:")


def test_a_judge_that_failed_is_asked_again_and_the_model_is_not(root: Path, tmp_path: Path) -> None:
    suite = Suite("judged", 1, "채점", "Judged", (short(tasks.find_task("logickor")),))
    model = Bigram(PROSE)
    found = []
    for act in (status(500), says("점수: 4")):
        with serving(act) as server, Client(Endpoint(server.url, "judge", attempts=1)) as client:
            judge = Judge(load_judge("logickor"), client)
            found.append(_judged(suite, model, root, tmp_path, judge))
    first, second = (result.tasks[0] for result in found)
    assert (first["metrics"]["score"], first["errors"]) == (None, first["items"])
    assert (second["metrics"]["score"], second["errors"]) == (4.0, 0)
    assert model.written == 2 * first["items"], "two turns each, once"
    lines = (tmp_path / "judged" / "items.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == first["items"]


def _judged(suite: Suite, model: Bigram, root: Path, folder: Path, judge: Judge) -> run.Result:
    given: dict[str, Any] = {"identity": IDENTITY, "data_root": root, "judge": lambda name: judge}
    return run.evaluate(suite, model, render, folder / "judged", **given)


def test_a_set_of_the_hub_is_read_by_configuration_and_its_commit_is_kept(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder laid out as a repository on the Hub is: what `datasets` loads from either is the same."""
    task = tasks.with_shots(tasks.asked_by(tasks.find_task("kormedmcqa"), "fixed", ""), 2, "")
    card = ["---", "configs:"]
    for config in task.file.source.configs:
        card += [f"- config_name: {config}", "  data_files:"]
        for split in ("test", "fewshot"):
            content = (root / f"kormedmcqa/{config}-{split}.csv").read_bytes()
            (tmp_path / f"{config}-{split}.csv").write_bytes(content)
            card += [f"  - split: {split}", f"    path: {config}-{split}.csv"]
    (tmp_path / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")

    def read(repository: str, name: str, options: Any) -> Any:
        return hub.stream(str(tmp_path), name, replace(options, revision=None), "c0ffee", repository)

    monkeypatch.setattr(hub, "read", read)
    there, here = items.load(task, None), items.load(task, root)
    assert (there.revision, there.origin) == ("c0ffee", "hf:sean0042/KorMedMCQA")
    assert [item.prompt for item in there.items] == [item.prompt for item in here.items]
    assert {item.category for item in there.items} == {"doctor", "nurse", "pharm", "dentist"}
    assert [item.examples for item in there.items] == [item.examples for item in here.items]
    assert there.digest == here.digest, "the same items are the same, wherever they come from"


def test_how_often_an_answer_is_judged_is_part_of_what_is_compared() -> None:
    endpoint = Endpoint("http://127.0.0.1:9/v1", "judge")
    once, thrice = (evaluate._unasked(endpoint, repeats)("komt-bench").identity() for repeats in (1, 3))
    assert once != thrice
    assert thrice["judge_repeats"] == 3
