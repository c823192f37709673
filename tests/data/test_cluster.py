"""One preparation, three ways: in this process, in several, and as tasks of datatrove. The bytes are the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datatrove.executor import LocalPipelineExecutor

from koalpaca_tune import resources
from koalpaca_tune.config.preparation import Input, Preparation
from koalpaca_tune.data import cluster, pool
from koalpaca_tune.data.overlap.contamination import Protected
from koalpaca_tune.data.prepare import prepare
from koalpaca_tune.errors import KoalpacaError

QUESTIONS = (
    "오늘 날씨가 어때?",
    "점심에 무엇을 먹을까?",
    "책을 추천해 줘",
    "서울까지 얼마나 걸려?",
    "왜 하늘은 파래?",
)


@pytest.fixture
def preparation(tmp_path: Path) -> Preparation:
    lines = [
        json.dumps({"instruction": f"{question} {n % 20}번", "output": f"{n % 30}번째 답이에요. <br>"})
        for n in range(60)
        for question in QUESTIONS
    ]
    path = tmp_path / "talk.jsonl"
    path.write_text("\n".join([*lines, "{깨진 줄"]), encoding="utf-8")
    samples = [resources.DATA / "samples" / name for name in ("chat.csv", "tasks.jsonl")]
    return Preparation(inputs=[Input(path=str(file)) for file in (path, *samples)])


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SMALL", 2)


PROTECTED = Protected.of(
    {"task": [("1", ["오늘 날씨가 어때? 7번"]), ("2", ["하늘은 왜 파란가요, 그 까닭을 알려 주세요"])]}
)


def everything(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


@pytest.mark.usefixtures("small_batches")
def test_several_processes_write_what_one_writes(preparation: Preparation, tmp_path: Path) -> None:
    alone = prepare(preparation, tmp_path / "alone", protected=PROTECTED)
    together = prepare(preparation, tmp_path / "together", protected=PROTECTED, workers=2)
    assert alone == together
    assert alone.leaks
    assert alone.duplicates
    assert everything(tmp_path / "alone") == everything(tmp_path / "together")


def test_datatrove_tasks_write_what_one_process_writes(preparation: Preparation, tmp_path: Path) -> None:
    parts = tmp_path / "work"
    step = cluster.FirstPass(preparation, PROTECTED, parts)
    LocalPipelineExecutor(pipeline=[step], tasks=3, workers=2, logging_dir=str(tmp_path / "logs")).run()
    cluster.gather(preparation, parts, tmp_path / "gathered", tasks=3, protected=PROTECTED)
    prepare(preparation, tmp_path / "alone", protected=PROTECTED)
    assert everything(tmp_path / "alone") == everything(tmp_path / "gathered")


def test_a_task_that_is_not_done_is_said(preparation: Preparation, tmp_path: Path) -> None:
    cluster.share(preparation, None, tmp_path / "work", 0, 2)
    with pytest.raises(KoalpacaError) as caught:
        cluster.gather(preparation, tmp_path / "work", tmp_path / "out", tasks=2)
    assert caught.value.problems[0].code == "cluster-part"
    assert not (tmp_path / "out").exists()


def test_a_part_that_is_whole_is_not_made_again(preparation: Preparation, tmp_path: Path) -> None:
    cluster.share(preparation, None, tmp_path / "work", 0, 1)
    files = sorted((tmp_path / "work").rglob("*.*"))
    before = [file.stat().st_mtime_ns for file in files]
    cluster.share(preparation, None, tmp_path / "work", 0, 1)
    assert [file.stat().st_mtime_ns for file in files] == before


def test_a_broken_row_stops_the_run_when_asked_to(preparation: Preparation, tmp_path: Path) -> None:
    strict = preparation.model_copy(update={"on_error": "stop"})
    with pytest.raises(KoalpacaError) as caught:
        prepare(strict, tmp_path / "out")
    assert (caught.value.problems[0].code, caught.value.problems[0].where) == ("row-json", "talk.jsonl:301")
    with pytest.raises(KoalpacaError):
        cluster.share(strict, None, tmp_path / "work", 0, 1)
    assert not (tmp_path / "out").exists()
