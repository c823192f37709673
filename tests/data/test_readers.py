from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from koalpaca_tune.data.reading import encodings, readers
from koalpaca_tune.data.reading.readers import read
from koalpaca_tune.data.rows import Rejected, Row
from koalpaca_tune.errors import KoalpacaError

Write = Callable[..., Path]

CSV = "질문,답변\n안녕하세요,네 안녕하세요\n뭐 해?,똠방각하 펲시콜라\n"
ROWS = [
    Row("chat.csv:2", {"질문": "안녕하세요", "답변": "네 안녕하세요"}),
    Row("chat.csv:3", {"질문": "뭐 해?", "답변": "똠방각하 펲시콜라"}),
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16"])
def test_encodings_are_found_out_and_said(write: Write, encoding: str) -> None:
    opened = read(write("chat.csv", CSV, encoding))
    assert opened.encoding == encoding
    assert opened.delimiter == "comma"
    assert opened.columns == ("질문", "답변")
    assert list(opened.rows) == ROWS


def test_euc_kr_is_read_as_cp949(write: Write) -> None:
    opened = read(write("chat.csv", "질문,답변\n안녕,네\n", "euc-kr"))
    assert opened.encoding == "cp949"
    assert [item.origin for item in opened.rows] == ["chat.csv:2"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16"])
def test_json_and_jsonl_in_every_encoding(write: Write, encoding: str) -> None:
    rows = [{"질문": "안녕", "답변": "네"}, {"질문": "뭐 해?", "답변": "펲시"}]
    listed = read(write("a.json", json.dumps(rows, ensure_ascii=False), encoding))
    lined = read(write("b.jsonl", "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding))
    assert (listed.encoding, lined.encoding) == (encoding, encoding)
    assert [(item.origin, item.values) for item in listed.rows if isinstance(item, Row)] == [
        ("a.json[0]", rows[0]),
        ("a.json[1]", rows[1]),
    ]
    assert [(item.origin, item.values) for item in lined.rows if isinstance(item, Row)] == [
        ("b.jsonl:1", rows[0]),
        ("b.jsonl:3", rows[1]),
    ]


def test_an_asked_encoding_is_checked(write: Write) -> None:
    path = write("chat.csv", CSV, "cp949")
    assert read(path, encoding="EUC_KR").encoding == "cp949"
    with pytest.raises(KoalpacaError, match="lines are not utf-8"):
        read(path, encoding="utf-8")
    with pytest.raises(KoalpacaError, match="Did you mean 'cp949'"):
        read(path, encoding="cp94")
    with pytest.raises(KoalpacaError, match="mark of utf-16"):
        read(write("u.csv", CSV, "utf-16"), encoding="cp949")


def test_utf16_without_a_mark_can_be_asked_for(write: Write) -> None:
    path = write("chat.csv", CSV, "utf-16-le")
    with pytest.raises(KoalpacaError, match="is NUL"):
        read(path)
    assert list(read(path, encoding="utf-16-le").rows) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8", "cp949"])
def test_a_few_undecodable_bytes_cost_their_row_only(write: Write, encoding: str) -> None:
    content = CSV.encode(encoding) + "잘 자,".encode(encoding) + b"\xff\n" + "좋아,네\n".encode(encoding)
    opened = read(write("chat.csv", content))
    assert opened.encoding == encoding
    items = list(opened.rows)
    assert [item.origin for item in items] == [f"chat.csv:{n}" for n in (2, 3, 4, 5)]
    assert isinstance(items[2], Row)
    assert items[2].values["답변"] == "\udcff"


def test_delimiters(write: Write) -> None:
    for name, text, delimiter in [
        ("a.csv", "질문,답변\n가,나\n", "comma"),
        ("b.csv", "질문;답변\n가;나\n", "semicolon"),
        ("c.csv", "질문\t답변\n가\t나\n", "tab"),
        ("d.tsv", "질문\t답변\n가\t나\n", "tab"),
        ("e.csv", '"질문",답변,"a;b;c;d"\n가,나,다\n', "comma"),
        ("g.csv", "질문|답변\n가|나\n", "pipe"),
        ("f.csv", "질문;답변;비고(a, b, c, d, e)\n가;나;다\n", "semicolon"),
    ]:
        opened = read(write(name, text))
        assert opened.delimiter == delimiter, name
        (row,) = opened.rows
        assert isinstance(row, Row)
        assert (row.values["질문"], row.values["답변"]) == ("가", "나")


def test_rows_are_numbered_by_the_line_where_they_start(write: Write) -> None:
    text = '질문,답변\r\n"두\r\n줄","세\n\n줄"\r\n\r\n하나,둘\r\n"a ""b"" c",d'
    items = list(read(write("m.csv", text)).rows)
    assert [(item.origin, dict(item.values)) for item in items if isinstance(item, Row)] == [
        ("m.csv:2", {"질문": "두\r\n줄", "답변": "세\n\n줄"}),
        ("m.csv:7", {"질문": "하나", "답변": "둘"}),
        ("m.csv:8", {"질문": 'a "b" c', "답변": "d"}),
    ]


def test_mixed_line_ends(write: Write) -> None:
    items = list(read(write("m.csv", '질문,답변\r\n가,나\n다,라\r마,"바\r사"\n\r\n아,자')).rows)
    assert [(item.origin, dict(item.values)) for item in items if isinstance(item, Row)] == [
        ("m.csv:2", {"질문": "가", "답변": "나"}),
        ("m.csv:3", {"질문": "다", "답변": "라"}),
        ("m.csv:4", {"질문": "마", "답변": "바\r사"}),
        ("m.csv:7", {"질문": "아", "답변": "자"}),
    ]


@pytest.mark.parametrize("block", [1, 2, 3, 5, 17])
@pytest.mark.parametrize("encoding", ["utf-8", "cp949", "utf-16"])
def test_where_the_pieces_of_a_file_end_does_not_matter(
    write: Write, monkeypatch: pytest.MonkeyPatch, block: int, encoding: str
) -> None:
    text = '질문,답변\r\n"두\r\n줄",나\r다,라\n\r\n"한글 ""따옴표""",마\r\n'
    table, lines = write("m.csv", text, encoding), write("m.jsonl", '{"q": "가\\r"}\r\n\n{"q": 1}', encoding)
    expected = [list(read(path).rows) for path in (table, lines)]
    assert [len(rows) for rows in expected] == [3, 2]
    monkeypatch.setattr(encodings, "_BLOCK", block)
    assert [list(read(path).rows) for path in (table, lines)] == expected


@pytest.mark.parametrize(
    ("name", "end"),
    [("long.csv", "\n"), ("long.csv", "\r\n"), ("long.csv", "\r"), ("long.jsonl", "\n"), ("long.jsonl", "\r\n")],
)
def test_rows_after_a_long_line_keep_their_numbers(
    write: Write, monkeypatch: pytest.MonkeyPatch, name: str, end: str
) -> None:
    monkeypatch.setattr(encodings, "MAX_ROW", 60)
    row = "{0},나" if name == "long.csv" else '{{"질문": "{0}"}}'
    texts = [row.format(text) for text in ("가", "다" * 500, "마", "바" * 61, "사")]
    head = ["질문,답변"] if name == "long.csv" else []
    for block in (1, 7, 64, 4096):
        monkeypatch.setattr(encodings, "_BLOCK", block)
        found = codes(write(name, end.join([*head, *texts])))
        assert [code for _, code in found] == ["ok", "row-size", "ok", "row-size", "ok"]
        assert [int(number) for number, _ in found] == list(range(1 + len(head), 6 + len(head)))


def test_old_mac_line_ends(write: Write) -> None:
    assert [item.origin for item in read(write("m.csv", "질문,답변\r가,나\r다,라\r")).rows] == [
        "m.csv:2",
        "m.csv:3",
    ]


def test_columns_without_a_name_are_left_out(write: Write) -> None:
    opened = read(write("p.csv", ",질문,답변,\n0,가,나,\n"))
    assert opened.columns == ("질문", "답변")
    assert list(opened.rows) == [Row("p.csv:2", {"질문": "가", "답변": "나"})]


def codes(path: Path) -> list[tuple[str, str]]:
    return [
        (item.origin.partition(":")[2], item.problem.code if isinstance(item, Rejected) else "ok")
        for item in read(path).rows
    ]


def test_broken_rows_are_set_aside_and_the_rest_is_read(write: Write) -> None:
    text = '질문,답변\n하나\n가,나\n다,라,마\n"바"사,아\n,,\n자,차\n'
    path = write("b.csv", text)
    assert codes(path) == [
        ("2", "row-fields"),
        ("3", "ok"),
        ("4", "row-fields"),
        ("5", "row-quotes"),
        ("6", "row-empty"),
        ("7", "ok"),
    ]
    rejected = [item for item in read(path).rows if isinstance(item, Rejected)]
    assert rejected[0].row == ["하나"]
    assert rejected[2].row == '"바"사,아\n'


def test_a_stray_quote_does_not_swallow_the_file(write: Write) -> None:
    good = "".join(f"질문 {n},답 {n}\n" for n in range(200))
    path = write("s.csv", f'질문,답변\n"열린 따옴표,답\n{good}')
    found = codes(path)
    assert found[0] == ("2", "row-quotes")
    assert found[1:] == [(str(n + 3), "ok") for n in range(200)]


def test_a_file_cut_off_inside_quotes_makes_no_row_of_the_rest(write: Write) -> None:
    path = write("c.csv", '질문,답변\n가,나\n다,"첫 줄\n둘째, 줄\n셋째')
    assert codes(path) == [("2", "ok"), ("3", "row-quotes")]
    (rejected,) = [item for item in read(path).rows if isinstance(item, Rejected)]
    assert rejected.row == '다,"첫 줄\n둘째, 줄\n셋째'


def test_quotes_are_text_in_tab_separated_lines_that_are_whole(write: Write) -> None:
    text = 'id\t질문\t답변\n1\t"재밌다"고 하던데\t1\n2\t"열림\t0\n3\t좋다\t1\n4\t"한\n두"\t0\n5\t"\t0\n'
    items = [item for item in read(write("n.tsv", text)).rows if isinstance(item, Row)]
    assert [(item.origin, item.values["질문"]) for item in items] == [
        ("n.tsv:2", '"재밌다"고 하던데'),
        ("n.tsv:3", '"열림'),
        ("n.tsv:4", "좋다"),
        ("n.tsv:5", "한\n두"),
        ("n.tsv:7", '"'),
    ]


def test_jsonl_rejects_line_by_line(write: Write) -> None:
    lines = ['{"q": "a", "a": "b"}', "{깨짐", "[1, 2]", '"글"', '{"q": ' + "9" * 5000 + "}", "[" * 100_000]
    path = write("j.jsonl", "\n".join(lines))
    assert codes(path) == [
        ("1", "ok"),
        ("2", "row-json"),
        ("3", "row-type"),
        ("4", "row-type"),
        ("5", "row-json"),
        ("6", "row-json"),
    ]


def test_json_rows_of_other_types_are_rejected(write: Write) -> None:
    items = list(read(write("j.json", '{"data": [{"q": "a", "a": "b"}, 3, null]}')).rows)
    assert [item.origin for item in items] == ["j.json[0]", "j.json[1]", "j.json[2]"]
    assert [item.problem.code for item in items if isinstance(item, Rejected)] == ["row-type", "row-type"]


def test_json_lines_under_the_name_json(write: Write) -> None:
    opened = read(write("hub.json", '{"q": "a", "a": "b"}\n{"q": "c", "a": "d"}\n'))
    assert opened.format == "jsonl"
    assert [item.origin for item in opened.rows] == ["hub.json:1", "hub.json:2"]


@pytest.mark.parametrize("name", ["long.csv", "long.jsonl"])
def test_a_line_beyond_the_limit_costs_its_row_only(
    write: Write, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(encodings, "MAX_ROW", 2000)
    if name.endswith("csv"):
        path = write(name, f"질문,답변\n가,나\n{'다' * 9999},라\n마,바\n")
        expected = [("2", "ok"), ("3", "row-size"), ("4", "ok")]
    else:
        lines = [json.dumps({"q": text, "a": "b"}) for text in ("가", "다" * 9999, "마")]
        path = write(name, "\n".join(lines))
        expected = [("1", "ok"), ("2", "row-size"), ("3", "ok")]
    assert codes(path) == expected


def test_large_fields_are_read(write: Write) -> None:
    text = "가나다 " * 100_000
    (row,) = read(write("l.csv", f'질문,답변\n"{text}",나\n')).rows
    assert isinstance(row, Row)
    assert row.values["질문"] == text


BAD_FILES = {
    "empty.csv": (b"", "file-empty"),
    "mark.csv": (b"\xef\xbb\xbf\r\n", "file-empty"),
    "mark16.csv": (b"\xff\xfe", "file-empty"),
    "header.csv": ("질문,답변\n".encode(), "file-empty"),
    "none.json": (b"[]", "file-empty"),
    "nul.csv": ("질문,답변\n가,\0\n".encode(), "file-binary"),
    "binary.csv": (bytes(range(1, 256)) * 9, "file-encoding"),
    "book.csv": (b"PK\x03\x04" + b"x" * 100, "file-binary"),
    "packed.jsonl": (b"\x1f\x8b\x08" + b"x" * 100, "file-binary"),
    "book.xlsx": (b"PK\x03\x04", "file-workbook"),
    "nosuffix": (b"a,b", "file-suffix"),
    "twice.csv": (b"Q,q,A\n1,2,3\n", "table-header"),
    "quote.csv": ('"질문,답변\n가,나\n'.encode(), "table-header"),
    "half.json": ('[{"질문": "안'.encode(), "json-rows"),
    "object.json": (b'{"Q": {"0": "a"}}', "json-rows"),
    "number.json": (b"3", "json-rows"),
    "digits.json": (b"[" + b"9" * 5000 + b"]", "json-rows"),
    "deep.json": (b"[" * 100_000, "json-rows"),
    "words.jsonl": ("글\n글\n".encode(), "json-rows"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_clear_line(write: Write, name: str) -> None:
    content, code = BAD_FILES[name]
    path = write(name, content)
    with pytest.raises(KoalpacaError) as caught:
        list(read(path).rows)
    (problem,) = caught.value.problems
    assert problem.code == code
    assert problem.where.startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(KoalpacaError) as caught:
        read(tmp_path / "no.csv")
    assert caught.value.problems[0].code == "file-missing"
    with pytest.raises(KoalpacaError) as caught:
        read(tmp_path)
    assert caught.value.problems[0].code == "file-folder"
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(KoalpacaError, match="not a regular file"):
        read(tmp_path / "pipe.csv")


def test_every_suffix_has_a_format() -> None:
    # a web page is known by its content
    assert {*readers.SUFFIXES.values(), "html"} == set(readers.FORMATS)
