"""What reads rows: every format of data files, folders of them, and the files of tasks."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

from breakage import NASTY, changed

from koalpaca_tune.data import load as data_load
from koalpaca_tune.data.reading import readers
from koalpaca_tune.data.rows import Rejected, Row
from koalpaca_tune.data.shaping import shapes
from koalpaca_tune.suites import rows as task_rows

ROWS = [{"질문": f"{n}번 질문은 무엇인가요?", "답변": f"{n}번 답입니다.", "수": n} for n in range(12)]
_CSV = "질문,답변,수\n" + "".join(f'"{row["질문"]}","{row["답변"]}",{row["수"]}\n' for row in ROWS)
_JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
_TALKS = "".join(
    json.dumps(
        {
            "id": str(n),
            "origin": f"a.csv:{n}",
            "source": "a",
            "messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "예."}],
        },
        ensure_ascii=False,
    )
    + "\n"
    for n in range(6)
)
_SQUAD = json.dumps(
    {
        "data": [
            {
                "title": "제목",
                "paragraphs": [
                    {
                        "context": "서울은 수도다.",
                        "qas": [
                            {"id": "1", "question": "수도는?", "answers": [{"text": "서울", "answer_start": 0}]}
                        ],
                    }
                ],
            }
        ]
    },
    ensure_ascii=False,
)
_HTML = "<html><meta charset='utf-8'><table>" + "".join(
    f"<tr><td>{row['질문']}</td><td>{row['답변']}</td></tr>" for row in ROWS
)


def _parquet() -> bytes:
    import pyarrow
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


def _arrow(file: bool) -> bytes:
    import pyarrow
    from pyarrow import ipc

    table = pyarrow.Table.from_pylist(ROWS)
    sink = io.BytesIO()
    with (ipc.new_file if file else ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(data)


def _utf16() -> bytes:
    return _CSV.replace(",", "\t").encode("utf-16")


SEEDS: dict[str, Callable[[], bytes]] = {
    "a.csv": lambda: _CSV.encode(),
    "b.csv": lambda: _CSV.encode("cp949"),
    "c.tsv": _utf16,
    "d.jsonl": lambda: _JSONL.encode(),
    "e.json": lambda: json.dumps(ROWS, ensure_ascii=False).encode(),
    "f.json": lambda: json.dumps({"version": 1, "data": ROWS}).encode(),
    "g.parquet": _parquet,
    "h.arrow": lambda: _arrow(True),
    "i.arrow": lambda: _arrow(False),
    "j.csv.gz": lambda: gzip.compress(_CSV.encode()),
    "k.jsonl.zst": lambda: _zstd(_JSONL.encode()),
    "l.xls": lambda: _HTML.encode(),
    "train.jsonl": lambda: _TALKS.encode(),
}
"""File name -> a whole file of that format."""


@cache
def seed(name: str) -> bytes:
    """A whole file."""
    return SEEDS[name]()


def _read(path: Path) -> None:
    for row in readers.read(path).rows:
        if isinstance(row, Rejected):
            # what rejected.jsonl will hold
            json.dumps(row.as_dict(), ensure_ascii=False).encode("utf-8")


def _file(name: str) -> Callable[[Random, Path], None]:
    def target(chance: Random, folder: Path) -> None:
        path = folder / name
        path.write_bytes(changed(seed(name), chance, [_CSV.encode(), _JSONL.encode()]))
        _read(path)

    return target


def load(chance: Random, folder: Path) -> None:
    """What `koalpaca train` reads: conversations, of a prepared file or of any other."""
    name = chance.choice(("train.jsonl", "d.jsonl", "a.csv", "e.json"))
    path = folder / name
    path.write_bytes(changed(seed(name), chance, [_TALKS.encode()]))
    for conversation in data_load.conversations(path, lambda rejected: None):
        json.dumps(conversation.as_dict(), ensure_ascii=False).encode("utf-8")


def values(chance: Random, folder: Path) -> None:
    """A row whose values are of every kind: no shape may stumble over a type."""
    names = (
        "instruction",
        "input",
        "output",
        "messages",
        "conversations",
        "context",
        "question",
        "answers",
        "title",
    )
    row = Row("a.jsonl:1", {chance.choice(names): _value(chance) for _ in range(chance.randint(1, 6))})
    shapes.SHAPES[chance.choice(list(shapes.SHAPES))](row)


def _value(chance: Random, depth: int = 0) -> object:
    plain = ("", "가", None, True, -1, 10**30, 1e308, float("nan"), "<|endoftext|>", "\ud800", "\0", "user")
    if depth > 3 or chance.random() < 0.5:
        return chance.choice(plain)
    if chance.random() < 0.5:
        return [_value(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    names = ("role", "content", "from", "value", "text", "answer_start")
    return {chance.choice(names): _value(chance, depth + 1) for _ in range(chance.randint(0, 3))}


def saved(chance: Random, folder: Path) -> None:
    """A folder that `datasets` saved, with a state that lies."""
    (folder / "data.arrow").write_bytes(seed("i.arrow"))
    (folder / "train").mkdir()
    (folder / "train" / "data.arrow").write_bytes(seed("i.arrow"))
    names = ("data.arrow", "../data.arrow", "/etc/passwd", "", "\0", "가" * 300, 7, None, {})
    state = {"_data_files": [{"filename": chance.choice(names)}], "_split": chance.choice(("train", "../x", 3))}
    for at in (folder, folder / "train"):
        (at / "state.json").write_bytes(_maybe(json.dumps(state).encode(), chance))
    if chance.random() < 0.5:
        splits = [chance.choice(("train", "..", "../..", "/etc", "\0", "a/b", 3, None))]
        (folder / "dataset_dict.json").write_bytes(_maybe(json.dumps({"splits": splits}).encode(), chance))
    _read(folder)


def _maybe(data: bytes, chance: Random) -> bytes:
    return changed(data, chance) if chance.random() < 0.4 else data


def items(chance: Random, folder: Path) -> None:
    """The files of tasks, by each of their readers."""
    name, data = chance.choice((("a.tsv", _CSV.replace(",", "\t")), ("b.json", _SQUAD), ("c.jsonl", _JSONL)))
    path = folder / name
    path.write_bytes(changed(data.encode(), chance, [one for one in NASTY]))
    reader = {
        "a.tsv": ("tsv", "tsv-plain", "auto", "text"),
        "b.json": ("squad", "auto"),
        "c.jsonl": ("auto", "text"),
    }
    task_rows.READERS[chance.choice(reader[name])](path)


TARGETS = {
    **{name: _file(name) for name in SEEDS},
    "load": load,
    "values": values,
    "saved": saved,
    "items": items,
}
"""What is broken -> one try."""
