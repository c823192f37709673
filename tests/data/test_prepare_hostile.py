"""What careless and hostile use once broke: where OUT lies, what ends a run, what a terminal cannot print."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from koalpaca_tune import jsonl
from koalpaca_tune.cli.main import cli
from koalpaca_tune.config.preparation import Input, Preparation
from koalpaca_tune.data import inputs, work
from koalpaca_tune.data.prepare import OURS, prepare, staging
from koalpaca_tune.data.report import Report
from koalpaca_tune.data.rows import Rejected, Row
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.runs import prepare as runs

Write = Callable[..., Path]

GOOD = "질문,답변\n" + "".join(f"{n}번 질문은 무엇인가요?,{n}번 답입니다.\n" for n in range(40))


def run(paths: list[Path], out: Path, *, overwrite: bool = False, **chosen: Any) -> Report:
    given = [Input(path=str(path)) for path in paths]
    return prepare(Preparation(inputs=given, **chosen), out, overwrite=overwrite)


def rows(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in jsonl.read(path)]


def code(error: pytest.ExceptionInfo[KoalpacaError]) -> str:
    return error.value.problems[0].code


def test_large_groups_of_near_questions_do_not_crowd_into_validation(write: Write, tmp_path: Path) -> None:
    chance = random.Random(0)

    def words(count: int) -> str:
        return "".join(chr(chance.randrange(0xAC00, 0xD7A4)) for _ in range(count))

    lines = []
    for _ in range(120):
        asked = words(40)
        lines += [f"{asked}{end},{words(8)}\n" for end in ("", "요", "네", "죠", "까요", "나요", "지요", "답니다")]
    made = run([write("a.csv", "질문,답변\n" + "".join(lines))], tmp_path / "out", duplicates={"drop": "exact"})
    assert made.groups < 150
    # a tenth is asked for; by the smallest key of each group it was more than half
    assert 0.03 < made.valid / (made.train + made.valid) < 0.2


def test_out_may_be_a_link_to_another_disk(write: Write, tmp_path: Path) -> None:
    there = Path("/dev/shm")
    if not there.is_dir() or there.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one disk only")
    real = there / f"koalpaca-test-{os.getpid()}"
    real.mkdir()
    try:
        (tmp_path / "out").symlink_to(real)
        run([write("a.csv", GOOD)], tmp_path / "out")
        assert sorted(path.name for path in real.iterdir()) == sorted(OURS)
    finally:
        for path in real.iterdir():
            path.unlink()
        real.rmdir()


def test_what_a_killed_run_left_in_out_is_no_result(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with staging(out) as folder:
        left = folder.name
    (out / left).mkdir()
    run([write("a.csv", GOOD)], out)
    assert set(OURS) <= {path.name for path in out.iterdir()}


def test_out_is_not_within_a_folder_that_is_read(write: Write, tmp_path: Path) -> None:
    raw = write("data/train.csv", GOOD)
    for out in (tmp_path / "data", tmp_path / "data" / "prepared"):
        with pytest.raises(KoalpacaError) as caught:
            run([tmp_path / "data"], out, overwrite=True)
        assert code(caught) == "prepare-files"
    assert raw.read_text(encoding="utf-8") == GOOD
    assert run([tmp_path / "data"], tmp_path / "prepared").rows == 40


def test_a_reader_that_fails_midway_is_not_a_full_disk(write: Write) -> None:
    source = inputs.open_all(Preparation(inputs=[Input(path=str(write("a.csv", GOOD)))]))[0]

    def broken() -> Iterator[Row | Rejected]:
        raise OSError(5, "Input/output error")
        yield

    failing = replace(source, opened=replace(source.opened, rows=chain(source.opened.rows, broken())))
    with pytest.raises(
        KoalpacaError, match=r"a\.csv: it cannot be read to its end \(Input/output error\)"
    ) as caught:
        list(inputs.batches([failing]))
    assert code(caught) == "file-missing"


def test_long_rows_make_small_batches(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "BATCH_CHARACTERS", 1000)
    talk = {"messages": [{"role": "user", "content": "가" * 300}, {"role": "assistant", "content": "나"}]}
    path = write("a.jsonl", "\n".join([json.dumps(talk)] * 10))
    sources = inputs.open_all(Preparation(inputs=[Input(path=str(path))]))
    batches = list(inputs.batches(sources))
    assert [len(batch.rows) for batch in batches] == [4, 4, 2]
    assert [batch.start for batch in batches] == [0, 4, 8]
    assert work.BATCH_CHARACTERS > 1000


def test_too_little_names_duplicates_and_caps(write: Write, tmp_path: Path) -> None:
    path = write("a.csv", "질문,답변\n" + "안녕,반가워요\n" * 20)
    with pytest.raises(KoalpacaError, match="there is 1 usable record; 19 more repeat others"):
        run([path], tmp_path / "out")
    capped = Preparation(inputs=[Input(path=str(write("b.csv", GOOD)), cap=1)])
    with pytest.raises(KoalpacaError, match="weights and caps left out 39"):
        prepare(capped, tmp_path / "out")


def test_a_pair_that_cleaning_makes_equal_is_no_pair(write: Write, tmp_path: Path) -> None:
    pairs = [
        {"prompt": f"{n}번 질문", "chosen": "좋은 답", "rejected": "좋은  답 " if n == 3 else "나쁜 답"}
        for n in range(9)
    ]
    made = run([write("a.jsonl", "\n".join(map(json.dumps, pairs)))], tmp_path / "out")
    assert made.rejected == {"row-preference": 1}
    assert rows(tmp_path / "out" / "rejected.jsonl")[0]["row"] == pairs[3]
    kept = rows(tmp_path / "out" / "train.jsonl")
    assert {row["dispreferred"] for row in kept} == {"나쁜 답"}


def test_the_report_does_not_say_where_data_lay(write: Write, tmp_path: Path) -> None:
    run([write("a.csv", GOOD)], tmp_path / "out", data_root=str(tmp_path))
    for path in (tmp_path / "out").iterdir():
        assert str(tmp_path) not in path.read_text(encoding="utf-8")


def test_a_data_root_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KoalpacaError) as caught:
        runs.protected(Preparation().contamination, "/nowhere/at all")
    assert code(caught) == "data-root"


def test_names_that_are_markup_or_cannot_be_printed(write: Write, tmp_path: Path) -> None:
    path = write("[red] [b].csv", GOOD.replace(",", ";"))
    lost = write(
        "b.jsonl", '{"\\ud800": 1, "question": "하나", "answer": "둘"}\n{"question": "셋", "answer": "넷"}'
    )
    given = ["data", "prepare", str(path), str(lost), "--out", str(tmp_path / "out"), "--valid-share", "0.00001"]
    made = CliRunner().invoke(cli, given)
    assert made.exit_code == 0, made.output
    assert "[red] [b].csv" in made.output
    assert "세미콜론으로 나눔" in made.output
    assert "\\ud800" in made.output


def test_a_column_has_one_meaning_on_the_command_line(write: Write, tmp_path: Path) -> None:
    path = write("a.csv", "가,나,다\n1,2,3\n")
    given = ["--column", "question=가", "--column", "question=나", "--column", "answer=다"]
    made = CliRunner().invoke(cli, ["data", "prepare", str(path), "--out", str(tmp_path / "out"), *given])
    assert made.exit_code == 2
    assert "'question' is given twice" in made.output


SLOW = """
import sys
from pathlib import Path
from koalpaca_tune.config.preparation import Input, Preparation
from koalpaca_tune.data.prepare import prepare

if __name__ == "__main__":
    given = Preparation(inputs=[Input(path=sys.argv[1])])
    prepare(given, Path(sys.argv[2]), workers=2, progress=lambda stage, count: print(stage, flush=True))
"""


def begun(write: Write, tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A run with two workers, in the middle of reading; its children."""
    path = write(
        "a.csv", "질문,답변\n" + "".join(f"{n}번 질문은 무엇인가요?,{n}번 답이에요.\n" for n in range(60_000))
    )
    command = [sys.executable, str(write("slow.py", SLOW)), str(path), str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    assert process.stdout.readline() == "read\n"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return process, [int(child) for child in children]


def gone(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_workers_end_with_a_run_that_is_killed(write: Write, tmp_path: Path) -> None:
    process, children = begun(write, tmp_path)
    process.kill()
    process.communicate()
    assert len(children) >= 2
    for _ in range(200):
        if all(map(gone, children)):
            break
        time.sleep(0.05)
    assert all(map(gone, children))
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_a_worker_that_is_killed_is_an_error_that_says_so(write: Write, tmp_path: Path) -> None:
    process, children = begun(write, tmp_path)
    for child in children:
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(child, signal.SIGKILL)
            break
    said, _ = process.communicate()
    assert "KoalpacaError: --workers: a worker process was ended from outside" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "slow.py"]
