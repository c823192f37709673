from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from koalpaca_tune.data.reading import encodings
from koalpaca_tune.data.reading.readers import read
from koalpaca_tune.data.rows import Rejected, Row
from koalpaca_tune.errors import KoalpacaError

Write = Callable[..., Path]


def values(path: Path) -> list[Any]:
    return [item.values if isinstance(item, Row) else item.row for item in read(path).rows]


@pytest.mark.parametrize("piece", [1, 2, 7, 64])
@pytest.mark.parametrize("indent", [None, 2])
def test_where_the_pieces_of_a_file_end_does_not_matter(
    write: Write, monkeypatch: pytest.MonkeyPatch, piece: int, indent: int | None
) -> None:
    monkeypatch.setattr(encodings, "_BLOCK", piece)
    rows = [{"질문": '"인용" \\ \n[{]}', "답변": n, "속": [{"가": [-1.5e3, None, True]}]} for n in range(12)]
    text = json.dumps([*rows, 12345, "글", [], rows[0]], ensure_ascii=False, indent=indent)
    assert values(write("a.json", text)) == [*rows, 12345, "글", [], rows[0]]
    about = {"version": {"data": [1]}, "data": rows, "끝": [1, {"data": [2]}]}
    assert values(write("b.json", json.dumps(about, ensure_ascii=False, indent=indent))) == rows


def test_articles_of_squad_stay_one_row_each(write: Write) -> None:
    article = {"title": "가", "paragraphs": [{"context": "나", "qas": [{"question": "다", "answers": []}]}]}
    opened = read(write("squad.json", json.dumps({"version": "1", "data": [article, article]})))
    assert opened.columns == ("title", "paragraphs")
    assert [item.origin for item in opened.rows] == ["squad.json[0]", "squad.json[1]"]


@pytest.mark.parametrize(
    ("end", "what"),
    [
        ("", "Expecting"),
        (',{"q": "열', "Unterminated string"),
        (',{"q" 3}]', "':' delimiter"),
        ("]]", "something follows"),
        (' {"q": 1}]', "']' was expected"),
        (",]", "Expecting value"),
    ],
)
def test_a_list_that_breaks_off_gives_the_rows_before(write: Write, end: str, what: str) -> None:
    rows = [{"q": f"질문 {n}", "a": "답"} for n in range(500)]
    text = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    if not end:
        text += ","
    *found, last = read(write("a.json", f"[{text}{end}")).rows
    assert [item.values for item in found if isinstance(item, Row)] == rows
    assert isinstance(last, Rejected)
    assert last.problem.code == "row-truncated"
    assert what in last.problem.what
    assert "500 rows were read" in last.problem.what
    assert last.origin.startswith("a.json:500:")


def test_a_list_in_an_object_that_does_not_end_is_noticed(write: Write) -> None:
    (row, last) = read(write("a.json", '{"data": [{"q": "a", "a": "b"}]')).rows
    assert isinstance(row, Row)
    assert isinstance(last, Rejected)
    assert last.problem.code == "row-truncated"


def test_only_as_much_as_asked_for_is_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    read_so_far = 0
    texts = encodings.texts

    def counted(path: Path, encoding: str) -> Iterator[str]:
        nonlocal read_so_far
        for piece in texts(path, encoding):
            read_so_far += len(piece)
            yield piece

    monkeypatch.setattr(encodings, "_BLOCK", 4096)
    monkeypatch.setattr(encodings, "texts", counted)
    path = write("a.json", json.dumps([{"q": "질" * 100, "a": n} for n in range(5000)]))
    rows = read(path).rows
    assert isinstance(next(rows), Row)
    assert 0 < read_so_far < path.stat().st_size / 10


def test_a_value_beyond_the_limit_ends_the_list(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "MAX_ROW", 5000)
    monkeypatch.setattr(encodings, "_BLOCK", 512)
    row = {"q": "a", "a": "b"}
    found = list(read(write("a.json", json.dumps([row, {"q": "가" * 9000, "a": ""}, row]))).rows)
    assert [type(item) for item in found] == [Row, Rejected]
    with pytest.raises(KoalpacaError, match="longer than 5,000 characters"):
        read(write("b.json", json.dumps([{"q": "가" * 9000, "a": ""}])))


def test_random_lists_survive_random_pieces(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(7)

    def some(depth: int) -> Any:
        kinds = [
            random.randint(-(10**6), 10**6),
            random.random(),
            "".join(random.choices('가"\\\n[]{},:🙂', k=9)),
            None,
        ]
        if depth:
            kinds += [[some(depth - 1) for _ in range(3)], {f"키{n}": some(depth - 1) for n in range(3)}]
        return random.choice(kinds)

    for n in range(60):
        monkeypatch.setattr(encodings, "_BLOCK", random.randint(1, 40))
        rows = [{"q": some(3), "a": some(2)} for _ in range(random.randint(1, 9))]
        text = json.dumps(rows, ensure_ascii=random.random() < 0.5, indent=random.choice([None, 1]))
        assert values(write(f"{n}.json", text)) == rows
