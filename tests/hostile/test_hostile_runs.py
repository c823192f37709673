"""Files of runs and evaluations from elsewhere: what was found by tries, each as a case of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from breakage import attempt
from targets_runs import PARTS, RECORD, ROWS, RUN, zipped

from koalpaca_tune.comparison import report
from koalpaca_tune.comparison.compare import compare
from koalpaca_tune.data.reading import readers
from koalpaca_tune.data.rows import Row
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.evaluation.store import Store
from koalpaca_tune.runs import diagnose


@pytest.fixture
def run(tmp_path: Path) -> Callable[[list[Any], dict[str, Any]], str]:
    """(rows, record) -> the code with which `koalpaca diagnose` refuses the run, "" where it reads it."""

    def judge(rows: list[Any], record: dict[str, Any]) -> str:
        (tmp_path / "run.yaml").write_text(RUN, encoding="utf-8")
        (tmp_path / "record.json").write_text(json.dumps(record), encoding="utf-8")
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
        outcome = attempt(lambda: diagnose.of(tmp_path))
        assert not outcome.failure
        return outcome.code

    return judge


def test_a_whole_run_is_read(run: Callable[..., str]) -> None:
    assert run([*ROWS], RECORD) == ""


@pytest.mark.parametrize(
    "record",
    [
        {"proof": {"linears_4bit": 8}},
        {"proof": {"linears_4bit": "x", "linears_other": 0, "compute_dtype": "float32"}},
        {"ended": 7},
        {"ended": "loss-not-finite"},
        {"data": {"train": {"counts": {"examples": 10}}}},
        {"data": ["train"]},
        {"engine": "fast"},
        {"versions": ["torch"]},
        {"versions": {"torch": 2.13}},
    ],
    ids=range(9),
)
def test_a_record_of_another_shape_is_one_error(run: Callable[..., str], record: dict[str, Any]) -> None:
    assert run([*ROWS], {**RECORD, **record}) == "diagnose-shape"


@pytest.mark.parametrize(
    "row",
    [
        {"loss": 3.0, "rollback": {}},
        {"step": "12", "rollback": {}},
        {"step": None, "rollback": {}},
        {"step": [12], "rollback": {}},
    ],
    ids=range(4),
)
def test_a_line_of_metrics_of_another_shape_is_one_error(run: Callable[..., str], row: dict[str, Any]) -> None:
    assert run([*ROWS[:12], row, *ROWS[12:]], RECORD) == "diagnose-shape"


def result(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    folder.mkdir()
    told = {
        "name": "pick",
        "title": "고르기",
        "title_en": "Picking",
        "kind": "choice",
        "version": 1,
        "hash": "ab",
        "items": 12,
        "primary": "accuracy",
        "metrics": {"accuracy": 0.5},
    }
    value = {
        "suite": {"name": "test", "version": 1, "title": "시험", "title_en": "Test"},
        "identity": {"base": "embedded", "base_fingerprint": "0" * 16},
        "template": "0" * 16,
        "tasks": [told],
    }
    change(value)
    (folder / "result.json").write_text(json.dumps(value), encoding="utf-8")
    line = {"task": "pick", "hash": "ab", "answer": 0, "choices": ["예", "아니오"], "logprobs": [-1.0, -2.0]}
    line |= {"characters": [1, 3], "tokens": [1, 2], "prompt": "?"}
    lines = (json.dumps({**line, "id": f"{n:02}"}) + "\n" for n in range(12))
    (folder / "items.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(suite=None),
        lambda value: value.update(suite=["test"]),
        lambda value: value["suite"].pop("version"),
        lambda value: value.update(identity=7),
        lambda value: value["tasks"][0].update(metrics=["accuracy"]),
        lambda value: value["tasks"][0].update(metrics=None),
        lambda value: value["tasks"][0].update(items={}),
        lambda value: value["tasks"][0].update(hash=[]),
    ],
    ids=range(8),
)
def test_results_of_another_shape_are_one_error(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    before, after = result(tmp_path / "a", change), result(tmp_path / "b", change)
    with pytest.raises(KoalpacaError) as caught:
        report.write(compare(before, after), tmp_path / "out")
    assert caught.value.problems[0].code in ("eval-shape", "compare-items")


def test_results_as_they_are_written_are_compared(tmp_path: Path) -> None:
    folders = (result(tmp_path / name, lambda value: None) for name in "ab")
    assert report.write(compare(*folders), tmp_path / "out").is_file()


def test_an_identity_that_is_none_is_another_models(tmp_path: Path) -> None:
    (tmp_path / "identity.json").write_text('{"identity": ["base"], "template": "x"}', encoding="utf-8")
    with pytest.raises(KoalpacaError) as caught:
        Store(tmp_path, {"base": "embedded"}, "x")
    assert caught.value.problems[0].code == "eval-identity"


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        # hundreds of GiB of empty cells; an entity of the machine's files; a bomb; text that is not there
        ("xl/worksheets/sheet1.xml", 'r="A4"', 'r="XFD1048576"'),
        ("xl/worksheets/sheet1.xml", "<v>0</v>", "<v>99999999999</v>"),
        ("xl/worksheets/sheet1.xml", "안녕?", "&x;"),
        ("xl/_rels/workbook.xml.rels", "worksheets/sheet1.xml", "../../../../etc/passwd"),
    ],
)
def test_what_a_workbook_asks_for_is_not_given(part: str, old: str, new: str, tmp_path: Path) -> None:
    assert old in PARTS[part]
    declared = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' if "&x;" in new else ""
    parts = {**PARTS, part: declared + PARTS[part].replace(old, new, 1)}
    path = tmp_path / "a.xlsx"
    path.write_bytes(zipped({name: text.encode() for name, text in parts.items()}))
    rows: list[Any] = []
    outcome = attempt(lambda: rows.extend(readers.read(path).rows))
    assert not outcome.failure
    assert outcome.code in ("", "file-workbook", "file-empty")
    assert "root:" not in repr(rows)


def test_the_workbook_of_the_tries_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(zipped({name: text.encode() for name, text in PARTS.items()}))
    rows = [row for row in readers.read(path).rows if isinstance(row, Row)]
    assert [row.values["질문"] for row in rows] == ["안녕?", "뭐 해?", "1/3"]
