"""What fuzzing found in the readers, each by itself."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pyarrow
import pytest
from pyarrow import ipc

from koalpaca_tune.config import document, load
from koalpaca_tune.data import load as data_load
from koalpaca_tune.data.reading import readers
from koalpaca_tune.data.rows import Row
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.suites import rows as task_rows


def code(error: pytest.ExceptionInfo[KoalpacaError]) -> str:
    return error.value.problems[0].code


def arrow(end: int = 6) -> bytes:
    """Two columns of `가` and `나`, 3 bytes each; `end`: where the file says that the last text ends."""
    sink = io.BytesIO()
    table = pyarrow.table({"질문": ["가", "나"], "답변": ["가", "나"]})
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    ends, lie = (b"\0\0\0\0\3\0\0\0" + n.to_bytes(4, "little") for n in (6, end))
    assert sink.getvalue().count(ends) == 2
    return sink.getvalue().replace(ends, lie)


def test_an_arrow_file_whose_offsets_lie_is_damaged_and_nothing_is_read_beyond_it(tmp_path: Path) -> None:
    # Arrow itself reads where the offsets say: a crash, or other memory of the process in the training data
    path = tmp_path / "a.arrow"
    path.write_bytes(arrow())
    assert [row.values["질문"] for row in readers.read(path).rows if isinstance(row, Row)] == ["가", "나"]
    path.write_bytes(arrow(1 << 30))
    with pytest.raises(KoalpacaError, match="out of bounds") as caught:
        readers.read(path)
    assert code(caught) == "file-damaged"


@pytest.mark.parametrize("name", ["../data.arrow", "/etc/passwd", "..", "a\0b", "가" * 300, "", 7, None])
def test_a_saved_set_names_only_files_in_its_folder(name: object, tmp_path: Path) -> None:
    (tmp_path / "data.arrow").write_bytes(arrow())
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}), encoding="utf-8")
    with pytest.raises(KoalpacaError) as caught:
        readers.read(folder)
    assert code(caught) == "file-folder"
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": [name]}), encoding="utf-8")
    with pytest.raises(KoalpacaError) as caught:
        readers.read(folder)
    assert code(caught) == "file-folder"


def test_what_a_prepared_row_says_of_its_origin_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    row = {"id": "1", "origin": "\ud800.csv:1", "source": "\udcff", "messages": []}
    row["messages"] = [{"role": "user", "content": "질문"}, {"role": "assistant", "content": "답"}]
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    (made,) = data_load.conversations(path)
    assert (made.origin, made.source) == ("\\ud800.csv:1", "\\xff")


def test_a_quoted_cell_with_a_lone_carriage_return_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b'a\tb\n"x"\rz\t1\n')
    with pytest.raises(KoalpacaError) as caught:
        task_rows.READERS["tsv"](path)
    assert code(caught) == "item-cells"
    assert caught.value.problems[0].where == f"{path}:2"


def test_seventy_thousand_keys_are_one_error() -> None:
    with pytest.raises(KoalpacaError) as caught:
        document.parse("".join(f"k{n}: 1\n" for n in range(70_000)), "r.yaml")
    assert [problem.code for problem in caught.value.problems] == ["yaml-size"]


def test_a_file_of_gigabytes_is_not_read_to_be_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    with path.open("wb") as file:
        # a hole: it takes no room, and would take 8 GiB of memory
        file.truncate(8 << 30)
    with pytest.raises(KoalpacaError) as caught:
        load.read(path)
    assert code(caught) == "yaml-size"


def test_a_pipe_in_place_of_a_recipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r.yaml")
    with pytest.raises(KoalpacaError) as caught:
        load.read(tmp_path / "r.yaml")
    assert code(caught) == "file-missing"


@pytest.mark.parametrize("value", ['"a\\0b"', '"\\e[2J"', '"\\ud800"', '"\\x9b31m"'])
def test_a_value_with_a_control_character_is_refused_at_its_place(value: str) -> None:
    (problem,) = document.parse(f"out: {value}\n", "r.yaml").problems.values()
    assert problem.code == "yaml-value"
    assert problem.where == "r.yaml:1:6: out"
    (problem,) = document.parse(f"{value}: 1\n", "r.yaml").problems.values()
    assert (problem.what, problem.where) == ("a key must be a plain word.", "r.yaml:1:1")
