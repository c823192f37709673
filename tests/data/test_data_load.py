from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from koalpaca_tune.config.preparation import Input, Preparation
from koalpaca_tune.data.load import conversations
from koalpaca_tune.data.prepare import prepare
from koalpaca_tune.data.report import Report
from koalpaca_tune.data.rows import Rejected
from koalpaca_tune.errors import KoalpacaError

Write = Callable[..., Path]


def run(files: Sequence[Path], out: Path, *, valid_share: float) -> Report:
    inputs = [Input(path=str(path)) for path in files]
    return prepare(Preparation(inputs=inputs, valid_share=valid_share), out)


CSV = "질문,답변\n하나?, 하나.\n둘?,둘.\n셋?,셋.\n"


def test_prepared_files_keep_origin_and_source(write: Write, tmp_path: Path) -> None:
    run([write("chat.csv", CSV)], tmp_path / "out", valid_share=0.4)
    made = [*conversations(tmp_path / "out" / "train.jsonl"), *conversations(tmp_path / "out" / "valid.jsonl")]
    assert sorted(made, key=lambda record: record.origin) == [
        record for record in sorted(made, key=lambda record: record.origin)
    ]
    assert sorted(record.origin for record in made) == ["chat.csv:2", "chat.csv:3", "chat.csv:4"]
    assert {record.source for record in made} == {"chat"}


def test_other_files_are_read_and_cleaned(write: Write) -> None:
    path = write("chat.csv", CSV, "cp949")
    made = list(conversations(path))
    assert [record.turns[1].content for record in made] == ["하나.", "둘.", "셋."]
    assert made[0].origin == f"{path}:2"
    assert made[0].source == "chat"


def test_a_broken_row_is_an_error_unless_someone_takes_it(write: Write) -> None:
    path = write("chat.csv", CSV + "넷?,\n다섯?\n")
    with pytest.raises(KoalpacaError, match="koalpaca data prepare") as caught:
        list(conversations(path))
    assert caught.value.problems[0].code == "row-empty"
    assert caught.value.problems[0].where == f"{path}:5"
    taken: list[Rejected] = []
    assert len(list(conversations(path, taken.append))) == 3
    assert [row.problem.code for row in taken] == ["row-empty", "row-fields"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("{깨짐", "row-json"),
        ('{"id": "x"}', "row-shape"),
        ('{"messages": [{"role": "user", "content": "가"}, {"role": "user", "content": "나"}]}', "row-turns"),
        ('{"messages": [{"role": "user", "content": "가"}, {"role": "assistant", "content": ""}]}', "row-empty"),
    ],
)
def test_a_broken_row_in_a_prepared_file_is_an_error_at_its_line(
    write: Write, tmp_path: Path, line: str, code: str
) -> None:
    run([write("chat.csv", CSV)], tmp_path / "out", valid_share=0.4)
    train = (tmp_path / "out" / "train.jsonl").read_text("utf-8")
    count = train.count("\n")
    path = write("edited.jsonl", train + line)
    with pytest.raises(KoalpacaError, match="Prepare the data again") as caught:
        list(conversations(path, lambda row: None))
    assert caught.value.problems[0].code == code
    assert caught.value.problems[0].where == f"{path}:{count + 1}"


def test_nothing_left_is_an_error(write: Write) -> None:
    path = write("chat.jsonl", json.dumps({"q": "가", "a": ""}))
    with pytest.raises(KoalpacaError) as caught:
        list(conversations(path, lambda row: None))
    assert caught.value.problems[0].code == "data-nothing-left"
    assert caught.value.problems[0].where == str(path)
