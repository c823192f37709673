"""The card of prepared data: what it holds, where it came from and on what terms, what was left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from koalpaca_tune import html, jsonl
from koalpaca_tune.data import licences
from koalpaca_tune.data.terms import Said
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import facts
from koalpaca_tune.hub.facts import Fact
from koalpaca_tune.hub.public import check_repo, markdown

NAME = "README.md"
PAGE = "data_card.md.j2"
REPORT = "report.json"
PARTS = ("train.jsonl", "valid.jsonl")
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_SHOWN = 160
"""Characters of a turn of the example."""


def write(folder: Path, *, repo: str | None, license: str | None) -> Path:
    """Writes README.md into the folder of prepared data.

    Args:
        folder: --out of `koalpaca data prepare`.
        repo: user/name on the Hub, if it is known already.
        license: licence of the data as a whole, as the Hub spells it; None: the card says that it is not known.

    Raises:
        KoalpacaError: the report is missing or is none (file-missing, card-record), no repository name (hub-repo).
    """
    if repo is not None:
        check_repo(repo)
    counts = {name: sum(1 for _ in jsonl.lines(folder / name)) for name in PARTS if (folder / name).is_file()}
    found = sources(folder)
    report = jsonl.read_json(folder / REPORT)
    total = sum(counts.values())
    page = html.render(
        PAGE,
        head=head(license, counts, found),
        md=markdown,
        name=repo or folder.resolve().name,
        parts=[{"name": name, "records": f"{records:,}"} for name, records in counts.items()],
        example=_example(folder / PARTS[0]),
        license=license or facts.UNKNOWN,
        license_en=license or facts.NOT_KNOWN,
        sources=[facts.source(entry) for entry in found],
        conflicts=conflicts(license, found),
        made=_made(report, total),
        masked=bool(report.get("masked_records")),
    )
    path = folder / NAME
    jsonl.replace(path, [page])
    return path


def conflicts(license: str | None, found: Sequence[Mapping[str, Any]]) -> list[Said]:
    """Where the licence of the data does not fit those of its sources, in words for data."""
    said = licences.conflicts(license, found)
    pairs = (("어댑터의", "데이터의"), ("The adapter", "The data"))
    return [Said(ko=s.ko.replace(*pairs[0]), en=s.en.replace(*pairs[1])) for s in said]


def head(license: str | None, counts: Mapping[str, int], found: Sequence[Mapping[str, Any]]) -> str:
    """The YAML that the Hub reads, without its fences."""
    from huggingface_hub import DatasetCardData

    total = sum(counts.values())
    names = {"train.jsonl": "train", "valid.jsonl": "validation"}
    sets = [str(entry.get("url") or "").removeprefix("hf:") for entry in found]
    card = DatasetCardData(
        language="ko",
        license=None if license is None else " ".join(license.lower().split()),
        task_categories=["text-generation"],
        size_categories=next((name for most, name in _SIZES if total < most), "n>10M"),
        source_datasets=[name for name in sets if name.count("/") == 1] or None,
        tags=["koalpaca-tune", "korean", "conversational"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": names[name], "path": name} for name in counts],
            }
        ],
    )
    written: str = card.to_yaml()
    return written.strip()


def _example(path: Path) -> str:
    """The first line, its texts cut short; it cannot close the fence around it."""
    row = next((row for _, row in jsonl.read(path)), {})
    short = {
        **row,
        "messages": [
            {**turn, "content": _cut(str(turn.get("content", "")))}
            for turn in row.get("messages", [])
            if isinstance(turn, dict)
        ],
    }
    return json.dumps(short, ensure_ascii=False, indent=2).replace("```", "` ` `")


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _made(report: Mapping[str, Any], total: int) -> list[Fact]:
    """Counts of the preparation."""
    rows = [
        Fact("읽은 기록", _count(report.get("records")), "Records read"),
        Fact("남은 기록", f"{total:,}", "Records kept"),
        Fact("개인 정보를 가린 기록", _count(report.get("masked_records")), "Records with personal data masked"),
    ]
    rejected = report.get("rejected")
    if isinstance(rejected, dict):
        for code, count in rejected.items():
            rows.append(Fact(f"뺀 까닭: {code}", _count(count), f"Left out: {code}"))
    return rows


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else facts.UNKNOWN


def sources(folder: Path) -> list[dict[str, Any]]:
    """The sources of prepared data, as its report says.

    Raises:
        KoalpacaError: it is not what `koalpaca data prepare` writes (card-record).
    """
    found = jsonl.read_json(folder / REPORT).get("sources")
    needed = {"name": str, "licence": str, "obligations": list}
    whole = isinstance(found, list) and all(
        isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in needed.items())
        for entry in found
    )
    if not isinstance(found, list) or not whole:
        raise KoalpacaError(
            "card-record",
            "'sources' is missing, so the card could not say where the data comes from.",
            where=str(folder / REPORT),
            fix="Prepare the data again with this version (koalpaca data prepare).",
        )
    return found
