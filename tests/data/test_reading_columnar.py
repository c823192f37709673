from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import feather, ipc, parquet

from koalpaca_tune.data.reading.readers import read
from koalpaca_tune.data.rows import Rejected, Row
from koalpaca_tune.errors import KoalpacaError

Write = Callable[..., Path]

ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"질문 {n}"}], "label": n % 2, "note": None if n % 3 else "메모"}
    for n in range(3000)
]
TABLE = pyarrow.Table.from_pylist(ROWS)


def write_stream(path: Path) -> None:
    with pyarrow.OSFile(str(path), "wb") as sink, ipc.new_stream(sink, TABLE.schema) as stream:
        stream.write_table(TABLE, max_chunksize=700)


@pytest.mark.parametrize("name", ["a.parquet", "a.feather", "a.arrow", "file.arrow"])
def test_columnar_files_give_plain_python(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.parquet":
        parquet.write_table(TABLE, path, row_group_size=700)
    elif name == "a.arrow":
        write_stream(path)
    else:
        feather.write_feather(TABLE, str(path))
    opened = read(path)
    assert opened.format == ("parquet" if name == "a.parquet" else "arrow")
    assert (opened.columns, opened.encoding) == (("messages", "label", "note"), None)
    assert list(opened.rows) == [Row(f"{name}[{n}]", row) for n, row in enumerate(ROWS)]


def test_values_that_only_columnar_files_hold_can_be_rejected(tmp_path: Path) -> None:
    row = {
        "때": datetime.datetime(2024, 1, 5, 13, 20),
        "값": decimal.Decimal("1.50"),
        "그림": {"bytes": b"\0" * 2000, "path": "가.png"},
    }
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
    (found,) = read(tmp_path / "a.parquet").rows
    assert isinstance(found, Row)
    assert found.values == row
    problem = KoalpacaError("row-shape", "x").problems[0]
    assert json.loads(json.dumps(Rejected(found.origin, problem, found.values).as_dict()))["row"] == {
        "때": "2024-01-05 13:20:00",
        "값": "1.50",
        "그림": {"bytes": "(2,000 bytes)", "path": "가.png"},
    }


def test_a_damaged_row_group_costs_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(TABLE, path, row_group_size=1000, compression="zstd")
    content = bytearray(path.read_bytes())
    at = parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content[at : at + 300] = bytes(300)
    path.write_bytes(content)
    *found, last = read(path).rows
    assert [item.values for item in found if isinstance(item, Row)] == ROWS[: len(found)]
    assert len(found) <= 1000
    assert isinstance(last, Rejected)
    assert (last.problem.code, last.origin) == ("row-truncated", f"a.parquet[{len(found)}]")


def test_half_an_arrow_stream_gives_the_rows_before(tmp_path: Path) -> None:
    write_stream(tmp_path / "a.arrow")
    content = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "b.arrow").write_bytes(content[: len(content) // 2])
    *found, last = read(tmp_path / "b.arrow").rows
    assert found
    assert [item.values for item in found if isinstance(item, Row)] == ROWS[: len(found)]
    assert isinstance(last, Rejected)
    assert last.problem.code == "row-truncated"


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
@pytest.mark.parametrize("content", [b"", b"PAR1", "질문,답변\n가,나\n".encode(), b"ARROW1\0\0" + b"x" * 99])
def test_what_is_not_columnar_is_one_clear_line(write: Write, name: str, content: bytes) -> None:
    with pytest.raises(KoalpacaError) as caught:
        list(read(write(name, content)).rows)
    assert [problem.code for problem in caught.value.problems] == ["file-damaged" if content else "file-empty"]
    assert "\n" not in str(caught.value)


def test_files_without_rows(tmp_path: Path) -> None:
    parquet.write_table(TABLE.slice(0, 0), tmp_path / "a.parquet")
    with pytest.raises(KoalpacaError, match="no rows"):
        read(tmp_path / "a.parquet")


def made(count: int) -> datasets.Dataset:
    return datasets.Dataset.from_list([{"질문": f"질문 {n}", "답변": "답"} for n in range(count)])


def test_a_saved_set(tmp_path: Path) -> None:
    made(250).save_to_disk(tmp_path / "상담", num_shards=3)
    opened = read(tmp_path / "상담")
    assert (opened.format, opened.columns, opened.split) == ("arrow", ("질문", "답변"), "train")
    found = list(opened.rows)
    assert found == [Row(f"상담[{n}]", {"질문": f"질문 {n}", "답변": "답"}) for n in range(250)]
    with pytest.raises(KoalpacaError, match="no split 'test'") as caught:
        read(tmp_path / "상담", split="test")
    assert caught.value.problems[0].code == "input-split"


def test_a_saved_set_of_splits(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": made(5), "test": made(3)}).save_to_disk(tmp_path / "set")
    assert [item.origin for item in read(tmp_path / "set").rows] == [f"set/train[{n}]" for n in range(5)]
    opened = read(tmp_path / "set", split="test")
    assert (opened.split, len(list(opened.rows))) == ("test", 3)
    with pytest.raises(KoalpacaError, match="Splits: train, test"):
        read(tmp_path / "set", split="dev")
    datasets.DatasetDict({"a": made(1), "b": made(1)}).save_to_disk(tmp_path / "two")
    with pytest.raises(KoalpacaError, match=r"none of its splits is train.*Splits: a, b"):
        read(tmp_path / "two")


def test_a_saved_set_without_one_of_its_files(tmp_path: Path) -> None:
    made(90).save_to_disk(tmp_path / "set", num_shards=3)
    (tmp_path / "set" / "data-00001-of-00003.arrow").unlink()
    *found, last = read(tmp_path / "set").rows
    assert len(found) == 30
    assert isinstance(last, Rejected)
    assert last.problem.code == "row-truncated"
    assert "data-00001-of-00003.arrow" in last.problem.what


def lines(count: int, text: str = "가") -> str:
    return "".join(json.dumps({"q": f"{text}{n}", "a": "나"}) + "\n" for n in range(count))


def test_a_folder_laid_out_as_on_the_hub(tmp_path: Path, write: Write) -> None:
    (tmp_path / "set" / "data").mkdir(parents=True)
    for n in range(2):
        part = TABLE.slice(10 * n, 10)
        parquet.write_table(part, tmp_path / "set" / "data" / f"train-0000{n}-of-00002.parquet")
    parquet.write_table(TABLE.slice(50, 5), tmp_path / "set" / "data" / "validation-00000-of-00001.parquet")
    write("set/README.md", "설명")
    write("set/.cache/x.parquet", "")
    opened = read(tmp_path / "set")
    assert (opened.name, opened.format, opened.split) == ("set", "parquet", "train")
    found = list(opened.rows)
    assert [item.values for item in found if isinstance(item, Row)] == ROWS[:20]
    assert found[10].origin == "set/data/train-00001-of-00002.parquet[0]"
    assert len(list(read(tmp_path / "set", split="validation").rows)) == 5


@pytest.mark.parametrize(
    ("files", "split", "expected"),
    [
        (["rows.jsonl"], None, ["rows.jsonl"]),
        (["a.jsonl.gz", "b.jsonl.gz"], None, None),
        (["train.jsonl", "test.jsonl", "dataset_infos.json"], None, ["train.jsonl"]),
        (["train/a.jsonl", "train/b.jsonl", "dev/a.jsonl"], None, ["train/a.jsonl", "train/b.jsonl"]),
        (["train/a.jsonl", "dev/a.jsonl"], "validation", ["dev/a.jsonl"]),
        (["sft_train_v2.jsonl", "sft_valid_v2.jsonl"], None, ["sft_train_v2.jsonl"]),
        (["constraint.jsonl", "training1.jsonl"], None, "do not"),
        (["only_test.jsonl"], None, ["only_test.jsonl"]),
        (["test.jsonl", "dev.jsonl"], None, "none of its splits is train"),
        (["train.jsonl", "train.csv"], None, r"several formats \(csv, jsonl\)"),
        (["train.jsonl", "train.csv.bak", "train.txt"], None, ["train.jsonl"]),
        (["README.md"], None, "without data files"),
    ],
)
def test_which_files_of_a_folder_are_read(
    write: Write, tmp_path: Path, files: list[str], split: str | None, expected: list[str] | str | None
) -> None:
    for name in files:
        write(f"set/{name}", lines(2, name) if name.endswith("l") else "x")
    if expected is None:
        with pytest.raises(KoalpacaError, match=r"a\.jsonl\.gz: .*compressed data is damaged"):
            read(tmp_path / "set", split=split)
    elif isinstance(expected, str):
        with pytest.raises(KoalpacaError, match=expected):
            read(tmp_path / "set", split=split)
    else:
        origins = [item.origin for item in read(tmp_path / "set", split=split).rows]
        assert origins == [f"set/{name}:{n}" for name in expected for n in (1, 2)]


def test_a_later_file_that_cannot_be_read_is_said_and_the_next_is_read(write: Write, tmp_path: Path) -> None:
    for name, content in [("1", lines(2)), ("2", b"PAR1xxxx"), ("3", lines(1))]:
        write(f"set/{name}.jsonl", content)
    found = list(read(tmp_path / "set").rows)
    assert [item.origin for item in found] == ["set/1.jsonl:1", "set/1.jsonl:2", "set/2.jsonl", "set/3.jsonl:1"]
    assert isinstance(found[2], Rejected)
    assert found[2].problem.code == "row-file"
    assert "file-binary" in found[2].problem.what
    assert found[2].problem.where == "set/2.jsonl"
