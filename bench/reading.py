"""Readers on 200,000 rows of real text: rows a second and peak memory for each format.

    python bench/reading.py ../shared/data [--rows 200000] [--giant]

Files are made in a temporary folder from chatbot_data and NSMC, repeated until there are enough rows. Each is
read in a process of its own; wall and CPU time are of the reading alone; the peak memory is that of the process
(with its child, where a workbook is read in one), of which the first line shows what Python and imports take.
`--giant` reads files with one line or field of 1 GB instead, plain and compressed: what is said, how long it
takes, how much memory. About 15 seconds; with --giant 1 minute and 6 GB of disk.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple, TextIO

import zstandard

from koalpaca_tune.data.reading import readers
from koalpaca_tune.data.rows import Rejected
from koalpaca_tune.errors import KoalpacaError

ROWS, GIANT = 200_000, 10**9
Pair = tuple[str, str]


class Result(NamedTuple):
    """How a file was read.

    Attributes:
        rows, rejected: how many.
        wall, cpu: seconds.
        peak: bytes, of the whole process and its child.
        said: codes of rejected rows with their origins, or the error.
    """

    rows: int
    rejected: int
    wall: float
    cpu: float
    peak: int
    said: str


def pairs(root: Path, count: int) -> list[Pair]:
    """Questions and answers, then reviews with their sentiment; again and again."""
    with (root / "chatbot_data/ChatbotData.csv").open(encoding="utf-8-sig", newline="") as file:
        found = [(row["Q"], row["A"]) for row in csv.DictReader(file)]
    with (root / "nsmc/train.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            found.append((row["document"], "긍정" if row["label"] == "1" else "부정"))
    return list(islice(cycle(found), count))


def _table(file: TextIO, rows: list[Pair], delimiter: str) -> None:
    csv.writer(file, delimiter=delimiter).writerows([("질문", "답변"), *rows])


def _lines(rows: list[Pair]) -> Iterator[str]:
    for question, answer in rows:
        yield json.dumps({"질문": question, "답변": answer}, ensure_ascii=False) + "\n"


def make(folder: Path, rows: list[Pair]) -> list[Path]:
    """One file of each format."""
    with (folder / "utf8.csv").open("w", encoding="utf-8", newline="") as file:
        _table(file, rows, ",")
    with (folder / "cp949.csv").open("w", encoding="cp949", errors="ignore", newline="") as file:
        _table(file, rows, ",")
    with (folder / "rows.tsv").open("w", encoding="utf-8", newline="") as file:
        _table(file, rows, "\t")
    (folder / "rows.jsonl").write_text("".join(_lines(rows)), encoding="utf-8")
    (folder / "rows.json").write_text(f"[{','.join(_lines(rows))}]", encoding="utf-8")
    (folder / "rows.csv.gz").write_bytes(gzip.compress((folder / "utf8.csv").read_bytes(), 6))
    (folder / "rows.jsonl.zst").write_bytes(zstandard.compress((folder / "rows.jsonl").read_bytes()))
    _parquet(folder / "rows.parquet", rows)
    _workbook(folder / "rows.xlsx", rows)
    return sorted(folder.iterdir())


def _parquet(path: Path, rows: list[Pair]) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = {"질문": [question for question, _ in rows], "답변": [answer for _, answer in rows]}
    parquet.write_table(pyarrow.table(columns), path)


def _workbook(path: Path, rows: list[Pair]) -> None:
    """The least that Office Open XML asks for, cells as inline strings."""
    import zipfile
    from xml.sax.saxutils import escape

    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    relations = "http://schemas.openxmlformats.org/package/2006/relationships"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    types = "http://schemas.openxmlformats.org/package/2006/content-types"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{types}"><Default Extension="rels" ContentType='
        '"application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kind}.worksheet+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{relations}"><Relationship Id="rId1" Type="{office}/officeDocument"'
        ' Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="1" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{relations}"><Relationship Id="rId1"'
        f' Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
    }

    def cells() -> Iterator[str]:
        for number, row in enumerate([("질문", "답변"), *rows], 1):
            shown = "".join(
                f'<c r="{column}{number}" t="inlineStr"><is><t xml:space="preserve">'
                f"{escape(''.join(filter(str.isprintable, text)))}</t></is></c>"
                for column, text in zip("AB", row, strict=True)
            )
            yield f'<row r="{number}">{shown}</row>'

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as book:
        for name, content in parts.items():
            book.writestr(name, content)
        with book.open("xl/worksheets/sheet1.xml", "w") as sheet:
            sheet.write(f'<worksheet xmlns="{main}"><sheetData>'.encode())
            for row in cells():
                sheet.write(row.encode())
            sheet.write(b"</sheetData></worksheet>")


def make_giant(folder: Path) -> list[Path]:
    """A line, field or string of 1 GB, before a good row and after one."""
    utf8, cp949 = "가나다 ".encode(), "가나다 ".encode("cp949")
    whole: dict[str, tuple[bytes, bytes, bytes]] = {
        "line.jsonl": (b'{"q":"a","a":"b"}\n{"q":"', utf8, b'","a":"b"}\n{"q":"c","a":"d"}\n'),
        "field.csv": ("질문,답변\na,b\n".encode(), utf8, b",x\nc,d\n"),
        "field-cp949.csv": ("질문,답변\na,b\n".encode("cp949"), cp949, b",x\nc,d\n"),
        "open-quote.csv": ('질문,답변\na,b\n"'.encode(), "가나,다\n".encode(), b"\nc,d\n"),
        "string.json": (b'[{"q":"a","a":"b"},{"q":"', utf8, b'","a":"b"},{"q":"c","a":"d"}]'),
        "no-line-end.jsonl": (b"", b"x", b""),
    }
    for name, (head, unit, tail) in whole.items():
        # 90 million rows in 1 GB, each read: a tenth of them shows the same
        _giant(folder / name, head, unit, tail, GIANT // 10 if name == "open-quote.csv" else GIANT)
    for name in ("line.jsonl", "field.csv"):
        with (folder / name).open("rb") as plain, gzip.open(folder / f"{name}.gz", "wb", compresslevel=1) as packed:
            while block := plain.read(1 << 24):
                packed.write(block)
    with (folder / "line.jsonl").open("rb") as plain, (folder / "line.jsonl.zst").open("wb") as packed:
        zstandard.ZstdCompressor().copy_stream(plain, packed)
    return sorted(folder.iterdir())


def _giant(path: Path, head: bytes, unit: bytes, tail: bytes, size: int) -> None:
    block = unit * (10**6 // len(unit))
    with path.open("wb") as file:
        file.write(head)
        for _ in range(size // len(block)):
            file.write(block)
        file.write(tail)


def measure(path: Path) -> Result:
    """Reads a file, row by row, and keeps nothing."""
    rows = rejected = 0
    said: list[str] = []
    wall, cpu = time.perf_counter(), _cpu()
    try:
        for row in readers.read(path).rows:
            rows += 1
            if isinstance(row, Rejected):
                rejected += 1
                said.append(f"{row.origin} {row.problem.code}")
    except KoalpacaError as error:
        said.append(error.problems[0].code)
    wall, cpu = time.perf_counter() - wall, _cpu() - cpu
    return Result(rows, rejected, wall, cpu, _peak(), ", ".join(said[:3]))


def _peak() -> int:
    # not getrusage: on Linux ru_maxrss begins at the parent's size
    status = Path("/proc/self/status").read_text(encoding="ascii")
    own = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    return (own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024


def _cpu() -> float:
    """Seconds of this process and of its children: workbooks are read in one."""
    return sum(os.times()[:4])


def _nothing(_: Path) -> Result:
    return Result(0, 0, 0.0, 0.0, _peak(), "")


def _alone(job: Callable[[Path], Result], path: Path) -> Result:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(job, (path,))


def main(root: Path, count: int, giant: bool) -> None:
    """Prints the figures."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("pyarrow", "zstandard", "python-calamine"))
    print(f"# {time.strftime('%Y-%m-%d')} python bench/reading.py{' --giant' * giant}")
    print(f"{platform.machine()}, Python {platform.python_version()}, {versions}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make_giant(folder) if giant else make(folder, pairs(root, count))
        print(f"{'nothing read':18} {'':53} {_alone(_nothing, folder).peak / 2**20:7.0f} MiB", flush=True)
        for path in paths:
            found = _alone(measure, path)
            # a giant file's rows a second say nothing
            rates = f"{found.rows / found.wall:10,.0f} {found.rows / found.cpu:10,.0f} rows/s" if not giant else ""
            print(
                f"{path.name:18} {path.stat().st_size / 2**20:7.1f} MiB {found.rows:8,} rows"
                f" {found.wall:6.2f} s {found.cpu:6.2f} s CPU {found.peak / 2**20:7.0f} MiB  {rates} {found.said}",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--giant", action="store_true")
    given = parser.parse_args()
    main(given.root, given.rows, given.giant)
