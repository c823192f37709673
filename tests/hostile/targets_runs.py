"""What reads runs and evaluations from elsewhere: workbooks, metrics.jsonl, results, comparisons."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from breakage import NASTY, changed
from targets_hub import RECORD as CARD_RECORD
from targets_hub import write
from targets_models import CONFIG, lie, matrices

from koalpaca_tune.comparison import report
from koalpaca_tune.comparison.compare import compare
from koalpaca_tune.data.reading import readers, workbook
from koalpaca_tune.data.rows import Rejected
from koalpaca_tune.evaluation.store import Store
from koalpaca_tune.hub import card as cards
from koalpaca_tune.hub import facts
from koalpaca_tune.runs import diagnose

# workbooks: a zip of XML, broken as bytes and inside

_MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_LINKS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def _links(*targets: tuple[str, str]) -> str:
    inside = "".join(
        f'<Relationship Id="rId{n}" Type="{_LINKS}/{kind}" Target="{target}"/>'
        for n, (kind, target) in enumerate(targets, 1)
    )
    return f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{inside}</Relationships>'


def _cell(at: str, value: str | float) -> str:
    if isinstance(value, str):
        return f'<c r="{at}" t="inlineStr"><is><t>{value}</t></is></c>'
    return f'<c r="{at}" s="1"><v>{value}</v></c>'


_ROWS: tuple[tuple[str | float, ...], ...] = (
    ("질문", "답변", "날"),
    ("안녕?", "반가워요.", 45000.5),
    ("뭐 해?", "책을 읽어요.", 3.0),
    ("1/3", "", 1e300),
)
PARTS: dict[str, str] = {
    "_rels/.rels": _links(("officeDocument", "xl/workbook.xml")),
    "xl/workbook.xml": f'<workbook {_MAIN} xmlns:r="{_LINKS}"><sheets>'
    '<sheet name="상담" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": _links(
        ("worksheet", "worksheets/sheet1.xml"), ("styles", "styles.xml"), ("sharedStrings", "sharedStrings.xml")
    ),
    "xl/styles.xml": f'<styleSheet {_MAIN}><cellXfs><xf numFmtId="0"/><xf numFmtId="22"/></cellXfs></styleSheet>',
    "xl/sharedStrings.xml": f"<sst {_MAIN}><si><t>함께 쓰는 말</t></si></sst>",
    "xl/worksheets/sheet1.xml": f"<worksheet {_MAIN}><sheetData>"
    + "".join(
        f'<row r="{r}">{"".join(_cell("ABC"[c] + str(r), value) for c, value in enumerate(row))}'
        f'<c r="D{r}" t="s"><v>0</v></c></row>'
        for r, row in enumerate(_ROWS, 1)
    )
    + "</sheetData></worksheet>",
}
"""A small workbook, part by part."""
XML_ASKS: tuple[bytes, ...] = (
    b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    b'<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;&x;&x;">]>',
    b"&x;",
    b"&#0;",
    b"&#xD800;",
    b't="e"',
    b't="b"',
    b't="d"',
    b't="s"',
    b"<v>99999999999</v>",
    b"<v>-1</v>",
    b'r="XFD1048576"',
    b'r="A1048577"',
    b'r="AAAAAAAA99999999999999"',
    b'r=""',
    b'<dimension ref="A1:XFD1048576"/>',
    b'Target="../../../etc/passwd"',
    b'Target="/xl/workbook.xml"',
    b'numFmtId="4294967296"',
    b'<mergeCell ref="A1:XFD1048576"/>',
)
"""What the XML of a workbook may ask of its reader."""


def zipped(parts: dict[str, bytes]) -> bytes:
    """The parts as a workbook's zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return packed.getvalue()


def _book(chance: Random, folder: Path) -> Path:
    parts = {name: text.encode() for name, text in PARTS.items()}
    if chance.random() < 0.75:
        for _ in range(chance.randint(1, 2)):
            name = chance.choice(list(parts))
            way = chance.randrange(4)
            if way == 0:
                parts[name] = changed(parts[name], chance, [one.encode() for one in PARTS.values()])
            elif way == 3:
                del parts[name]
                parts[chance.choice(("../../evil", "xl/../x", "/abs", name.upper()))] = b"<a/>"
            else:
                data, ask = parts[name], chance.choice((*XML_ASKS, *NASTY))
                spots = [n for n, byte in enumerate(data) if byte in b' ">'] or [0]
                at = chance.choice(spots)
                # in place of an attribute or of nothing
                end = data.find(b" ", at + 1) if way == 1 else at
                parts[name] = data[:at] + b" " + ask + data[end if end > 0 else at :]
    whole = zipped(parts)
    path = folder / chance.choice(("a.xlsx", "a.xlsm", "a.xls", "a.ods", "a.xlsb"))
    path.write_bytes(changed(whole, chance) if chance.random() < 0.3 else whole)
    return path


def book(chance: Random, folder: Path) -> None:
    """A workbook as `koalpaca data` reads it: by another process, with less memory."""
    for row in readers.read(_book(chance, folder)).rows:
        if isinstance(row, Rejected):
            json.dumps(row.as_dict(), ensure_ascii=False).encode("utf-8")


def sheet(chance: Random, folder: Path) -> None:
    """The same in this process, which is not started anew: many more tries."""
    path = _book(chance, folder)
    kept = sys.stdout
    limit = workbook._limit_memory
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        sys.stdout, workbook._limit_memory = nowhere, lambda: None
        try:
            workbook.main(str(path), chance.choice(("", "상담", "없음")))
        except MemoryError:
            # there: the process ends, and that is told
            pass
        finally:
            sys.stdout, workbook._limit_memory = kept, limit


# runs

RUN = """\
name: a
base: {path: embedded}
lora: {r: 4, targets: [query_key_value]}
data: {train: gone.jsonl}
training: {epochs: 2.0, batch_size: 2}
"""
ROWS: tuple[dict[str, Any], ...] = tuple(
    {
        "step": n,
        "epoch": n / 10,
        "learning_rate": 1e-4,
        "loss": 4.0 - n / 20 + (n % 3) / 10,
        "worst_loss": 4.5,
        "grad_norm": 1.5,
        "grad_norm_mean": 1.2,
        "clipped": 0.5,
        "tokens": 800,
        "learned_tokens": 300 + n % 5,
        "seconds": 1.5,
        "data_seconds": 0.1,
        "tokens_per_second": 533.3,
        "mfu": None,
        "adapter_zero": 0.0,
        "memory_gib": None,
        "peak_memory_gib": None,
        "host_memory_gib": 1.0,
        **({"valid_loss": 4.0 - n / 30} if n % 6 == 0 else {}),
        **({"notices": ["loss-drop"]} if n == 9 else {}),
    }
    for n in range(1, 25)
)
ROLLED = {"step": 12, "rollback": {"number": 1, "at": 16, "scale": 0.5, "notices": ["loss-spike"], "evidence": {}}}
RECORD: dict[str, Any] = {
    "name": "a",
    "finished": "2026-11-22T00:00:00+00:00",
    "versions": {"torch": "2.13.0", "bitsandbytes": "0.48.0", "peft": "0.18.0", "transformers": "5.10.0"},
    "engine": {"kind": "fast"},
    "ended": {"code": "loss-not-finite"},
    "proof": {"linears_4bit": 8, "linears_other": 0, "compute_dtype": "float32"},
    "data": {
        "train": {
            "sha256": "0" * 64,
            "counts": {
                "examples": 10,
                "kept": 9,
                "too_long_cut": 0,
                "too_long_dropped": 1,
                "nothing_to_learn": 0,
                "tokens": 900,
                "learned_tokens": 300,
            },
        }
    },
    "rollbacks": [],
}


def trail(chance: Random, folder: Path) -> None:
    """A run folder as `koalpaca diagnose` reads it: metrics.jsonl above all."""
    rows: list[Any] = [dict(row) for row in ROWS]
    if chance.random() < 0.3:
        rows.insert(16, json.loads(json.dumps(ROLLED)))
    record = json.loads(json.dumps(RECORD))
    for _ in range(chance.randint(1, 3)):
        lie(record if chance.random() < 0.3 else rows, chance)
    text = "".join(_dumps(row) + "\n" for row in rows).encode()
    (folder / "metrics.jsonl").write_bytes(changed(text, chance) if chance.random() < 0.4 else text)
    (folder / "record.json").write_text(_dumps(record), encoding="utf-8")
    (folder / "run.yaml").write_text(RUN, encoding="utf-8")
    found, said = diagnose.of(folder)
    json.dumps(found.as_dict(said), ensure_ascii=False).encode("utf-8")


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# evaluations and comparisons

_TASKS: tuple[dict[str, Any], ...] = (
    {
        "name": "pick",
        "title": "고르기",
        "title_en": "Picking",
        "kind": "choice",
        "version": 1,
        "hash": "ab",
        "items": 12,
        "primary": "accuracy",
        "metrics": {"accuracy": 0.5},
    },
    {
        "name": "say",
        "title": "쓰기",
        "title_en": "Writing",
        "kind": "answer",
        "version": 1,
        "hash": "cd",
        "items": 12,
        "primary": "exact",
        "metrics": {"exact": 0.5},
        "yes_no": [],
        "lower_is_better": [],
    },
)


def _line(task: str, n: int, after: bool) -> dict[str, Any]:
    if task == "pick":
        more: dict[str, Any] = {
            "answer": n % 2,
            "logprobs": [-1.0, -2.0 + after],
            "choices": [" 예", " 아니오"],
            "characters": [1, 3],
            "tokens": [1, 2],
        }
    else:
        more = {
            "text": "답",
            "golds": ["정답"],
            "tokens": 3,
            "stopped": True,
            "scores": {"exact": float((n + after) % 2)},
        }
    return {"task": task, "hash": {"pick": "ab", "say": "cd"}[task], "id": f"{n:02}", "prompt": f"문항 {n}"} | more


def _evaluation(folder: Path, after: bool, weights: str | None, chance: Random | None) -> Path:
    folder.mkdir()
    result: Any = {
        "suite": {"name": "test", "version": 1, "title": "시험", "title_en": "Test"},
        "identity": {"base": "embedded", "base_fingerprint": "0" * 16, "adapter": weights if after else None},
        "template": "0" * 16,
        "tasks": [dict(task) for task in _TASKS],
    }
    lines: list[Any] = [_line(task, n, after) for task in ("pick", "say") for n in range(12)]
    if chance is not None:
        for _ in range(chance.randint(1, 2)):
            lie(chance.choice((result, lines)), chance)
    text = "".join(_dumps(line) + "\n" for line in lines).encode()
    if chance is not None and chance.random() < 0.2:
        text = changed(text, chance)
    (folder / "result.json").write_text(_dumps(result), encoding="utf-8")
    (folder / "items.jsonl").write_bytes(text)
    return folder


def results(chance: Random, folder: Path) -> None:
    """Two evaluations, as `koalpaca compare` reads them and writes a page of them."""
    # one of them lies, or both in the same way
    seed, which = chance.randrange(1 << 30), chance.randrange(3)
    before = _evaluation(folder / "before", False, None, Random(seed) if which != 1 else None)
    after = _evaluation(folder / "after", True, "a" * 16, Random(seed) if which != 0 else None)
    found = compare(before, after)
    if chance.random() < 0.3:
        # with its plots, it takes most of the time
        report.write(found, folder / "out")


def stored(chance: Random, folder: Path) -> None:
    """The folder of an evaluation that is gone on with."""
    identity = {"base": "embedded", "base_fingerprint": "0" * 16}
    lines: list[Any] = [_line(task, n, False) for task in ("pick", "say") for n in range(6)]
    mark: Any = {"identity": dict(identity), "template": "0" * 16}
    lie(chance.choice((lines, mark)), chance)
    text = "".join(_dumps(line) + "\n" for line in lines).encode()
    (folder / "items.jsonl").write_bytes(changed(text, chance) if chance.random() < 0.6 else text)
    marked = _dumps(mark).encode()
    (folder / "identity.json").write_bytes(changed(marked, chance) if chance.random() < 0.2 else marked)
    store = Store(folder, identity, "0" * 16)
    store.done("pick", "ab")
    with store.writing():
        store.add([_line("say", 99, False)])
    store.tidy()


@cache
def _comparison() -> str:
    """comparison.json of two evaluations and the adapter of `matrices`."""
    weights = hashlib.sha256(matrices()).hexdigest()[:16]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        both = (_evaluation(folder / one, one == "after", weights, None) for one in ("before", "after"))
        page = report.write(compare(*both), folder / "out")
        return page.with_name("comparison.json").read_text(encoding="utf-8")


def compared(chance: Random, folder: Path) -> None:
    """comparison.json, as the model card reads it."""
    adapter = folder / "adapter"
    adapter.mkdir()
    write(adapter, json.loads(json.dumps(CARD_RECORD)), dict(CONFIG))
    value = json.loads(_comparison())
    for _ in range(chance.randint(1, 2)):
        lie(value, chance)
    text = _dumps(value).encode()
    (folder / "comparison.json").write_bytes(changed(text, chance) if chance.random() < 0.2 else text)
    facts.comparison(folder, adapter, facts.read(adapter).record)
    if chance.random() < 0.8:
        return
    # with its pictures, it takes most of the time
    cards.write(adapter, folder, repo=None, license=None, data_licenses=[])


TARGETS: dict[str, Callable[[Random, Path], None]] = {
    "book": book,
    "sheet": sheet,
    "trail": trail,
    "results": results,
    "stored": stored,
    "compared": compared,
}
"""What is broken -> one try."""
