from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from koalpaca_tune.data.reading.readers import read
from koalpaca_tune.data.rows import Rejected, Row
from koalpaca_tune.errors import KoalpacaError

Write = Callable[..., Path]

PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
KINDS = {".gz": "gzip", ".zst": "zstd"}


def varied(count: int) -> list[dict[str, str]]:
    """Rows that do not shrink to nothing: half of the packed bytes hold about half of the rows."""
    return [
        {"질문": f"{n * 7919 % 10007}번은 {n * 48271 % 999983}?", "답변": f"{n * 69621 % 99991} 입니다."}
        for n in range(count)
    ]


def as_text(suffix: str, rows: list[dict[str, str]]) -> str:
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if suffix == ".json":
        return json.dumps(rows, ensure_ascii=False)
    delimiter = "\t" if suffix == ".tsv" else ","
    return "".join(f"{delimiter.join(row)}\n" for row in [["질문", "답변"], *map(dict.values, rows)])


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp949", "utf-16"])
def test_compressed_files_are_read_like_plain_ones(write: Write, suffix: str, packed: str, encoding: str) -> None:
    rows = varied(3000)
    content = as_text(suffix, rows).encode(encoding)
    plain = read(write(f"a{suffix}", content))
    opened = read(write(f"a{suffix}{packed}", PACK[packed](content)))
    assert (opened.compression, plain.compression) == (KINDS[packed], None)
    assert (opened.format, opened.encoding) == (plain.format, encoding) == (suffix[1:], plain.encoding)
    found, expected = list(opened.rows), list(plain.rows)
    assert [item.values for item in found if isinstance(item, Row)] == rows
    assert [item.origin for item in found] == [
        item.origin.replace(f"a{suffix}", f"a{suffix}{packed}") for item in expected
    ]


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl"])
def test_half_an_archive_gives_the_rows_before_the_damage(write: Write, suffix: str, packed: str) -> None:
    rows = varied(20_000)
    content = as_text(suffix, rows).encode()
    whole = PACK[packed](content)
    *found, last = read(write(f"a{suffix}{packed}", whole[: len(whole) // 2])).rows
    assert 1000 < len(found) < 20_000
    assert [item.values for item in found if isinstance(item, Row)] == rows[: len(found)]
    assert isinstance(last, Rejected)
    assert last.problem.code == "row-truncated"
    assert f"{len(found):,} rows were read" in last.problem.what
    assert last.problem.where == last.origin
    if suffix != ".json":
        assert last.origin == f"a{suffix}{packed}:{len(found) + (1 if suffix == '.jsonl' else 2)}"
        # what was read of the next row is kept, and never passes for a row
        assert as_text(suffix, rows[len(found) : len(found) + 1]).splitlines()[-1].startswith(last.row)


def test_a_row_cut_at_a_line_end_within_quotes_is_no_row(write: Write) -> None:
    text = '질문,답변\n가,나\n다,"첫 줄\n둘째 줄\n'
    packer = zstandard.ZstdCompressor().compressobj()
    half = packer.compress(text.encode()) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    found = list(read(write("a.csv.zst", half)).rows)
    assert [item.problem.code if isinstance(item, Rejected) else "ok" for item in found] == [
        "ok",
        "row-quotes",
        "row-truncated",
    ]


@pytest.mark.parametrize("packed", PACK)
def test_a_changed_byte_is_noticed(write: Write, packed: str) -> None:
    rows = varied(20_000)
    packer = zstandard.ZstdCompressor(write_checksum=True).compress if packed == ".zst" else gzip.compress
    content = bytearray(packer(as_text(".jsonl", rows).encode()))
    content[len(content) // 2] ^= 0xFF
    *_, last = read(write(f"a.jsonl{packed}", bytes(content))).rows
    assert isinstance(last, Rejected)
    assert last.problem.code == "row-truncated"


def test_archives_of_several_parts(write: Write) -> None:
    one, two = '{"q": "a", "a": "b"}\n', '{"q": "c", "a": "d"}\n'
    for packed, pack in PACK.items():
        opened = read(write(f"a.jsonl{packed}", pack(one.encode()) + pack(two.encode())))
        assert [item.values for item in opened.rows if isinstance(item, Row)] == [json.loads(one), json.loads(two)]


BAD = {
    "no.csv.gz": (b"a,b\n1,2\n", "file-damaged"),
    "no.csv.zst": (b"a,b\n1,2\n", "file-damaged"),
    "short.jsonl.gz": (gzip.compress(b'{"q": "a"}\n')[:8], "file-damaged"),
    "none.jsonl.gz": (b"", "file-empty"),
    "none.jsonl.zst": (b"", "file-empty"),
    "empty.jsonl.gz": (gzip.compress(b""), "file-empty"),
    "cut.jsonl.gz": (gzip.compress(b'{"q": "a", "a": "b"}')[:-9], "file-damaged"),
    "cut.csv.gz": (gzip.compress("질문,답변\n".encode())[:-9], "file-damaged"),
    "nul.csv.gz": (gzip.compress(b"a,b\n1,\0\n"), "file-binary"),
    "book.csv.gz": (gzip.compress(b"PK\x03\x04xxxx"), "file-binary"),
    "book.xlsx.gz": (gzip.compress(b"PK\x03\x04"), "file-suffix"),
    "what.gz": (gzip.compress(b"a,b\n"), "file-suffix"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_archive_is_one_clear_line(write: Write, name: str) -> None:
    content, code = BAD[name]
    path = write(name, content)
    with pytest.raises(KoalpacaError) as caught:
        list(read(path).rows)
    assert [problem.code for problem in caught.value.problems] == [code]
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_small_archive_that_unpacks_to_one_long_line_is_skipped_over(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koalpaca_tune.data.reading.encodings.MAX_ROW", 100_000)
    text = '{"q": "a", "a": "b"}\n{"q": "' + "가" * 3_000_000 + '"}\n{"q": "c", "a": "d"}\n'
    for packed, pack in PACK.items():
        path = write(f"a.jsonl{packed}", pack(text.encode()))
        assert path.stat().st_size < 20_000
        found = list(read(path).rows)
        assert [item.origin.rpartition(":")[2] for item in found] == ["1", "2", "3"]
        assert [item.problem.code for item in found if isinstance(item, Rejected)] == ["row-size"]
