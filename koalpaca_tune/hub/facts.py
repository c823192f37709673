"""What a card says, read from the files of a run and of a comparison. Nothing is said that they do not say."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from koalpaca_tune import jsonl
from koalpaca_tune.comparison import words
from koalpaca_tune.comparison.compare import Row
from koalpaca_tune.comparison.stats import Paired
from koalpaca_tune.comparison.verdict import Said
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import scope
from koalpaca_tune.hub.public import base_name, file_name
from koalpaca_tune.models import adapter_files

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
RECORD = "record.json"
UNKNOWN = "알 수 없음"
NOT_KNOWN = "not known"
TRANSLATED = {
    "machine": ("기계 번역", "by machine"),
    "people": ("사람이 번역", "by people"),
    "mixed": ("일부 번역", "in part"),
}


class Files(NamedTuple):
    """An adapter folder's two JSON files.

    Attributes:
        record: record.json.
        config: adapter_config.json.
    """

    record: dict[str, Any]
    config: dict[str, Any]


class Fact(NamedTuple):
    """One line of a table of the card, in Korean and in English (empty: the same in both)."""

    name: str
    value: str
    name_en: str = ""
    value_en: str = ""


def read(adapter: Path) -> Files:
    """Reads and checks an adapter folder.

    Raises:
        KoalpacaError: a file is missing (adapter-missing), the record lacks a part (card-record), or the config
            says more than plain LoRA (adapter-config).
    """
    for name in (CONFIG, WEIGHTS, RECORD):
        if not (adapter / name).is_file():
            raise KoalpacaError(
                "adapter-missing",
                f"there is no {name} in the folder.",
                where=str(adapter),
                fix="Give the 'adapter' folder of a run (runs/NAME/adapter).",
            )
    record, config = jsonl.read_json(adapter / RECORD), jsonl.read_json(adapter / CONFIG)
    check_record(record, str(adapter / RECORD))
    adapter_files.check(config, str(adapter / CONFIG))
    return Files(record, config)


def check_record(record: Mapping[str, Any], where: str) -> None:
    """The record holds the parts that a card is made of.

    Raises:
        KoalpacaError: one is missing (card-record).
    """
    needed = {"name": str, "recipe": dict, "base": dict, "proof": dict, "template": dict, "data": dict}
    wrong = [name for name, kind in needed.items() if not isinstance(record.get(name), kind)]
    wrong += [
        f"{part}.{key}"
        for part, key in (("base", "path"), ("base", "fingerprint"), ("base", "model_type"), ("template", "name"))
        if part not in wrong and not isinstance(record[part].get(key), str)
    ]
    if wrong:
        raise KoalpacaError(
            "card-record",
            f"'{wrong[0]}' is missing, so the card could not say it.",
            where=where,
            fix="Train again with this version, or restore the file from the run's folder.",
        )


def read_comparison(folder: Path) -> dict[str, Any]:
    """Reads comparison.json and makes sure that it holds what a card says of it.

    Raises:
        KoalpacaError: not a comparison (card-comparison).
    """
    path = folder if folder.is_file() else folder / "comparison.json"
    found = jsonl.read_json(path)
    try:
        for side in ("before", "after"):
            found[side]["identity"].get("adapter")
        for row in found["rows"]:
            result(row)
        Said(**found["verdict"])
        _ = found["suite"]["title"], found["suite"]["version"], scope.said(found)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise KoalpacaError(
            "card-comparison",
            f"it is not a comparison of ours ({error!r}).",
            where=str(path),
            fix="Give the --out folder of `koalpaca compare`.",
        ) from error
    return found


def comparison(folder: Path, tuned: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Reads a comparison and makes sure that it is the one of this adapter, or whole model, with its base.

    Raises:
        KoalpacaError: not a comparison (card-comparison), or one of something else (card-other-adapter).
    """
    found = read_comparison(folder)
    before, after = found["before"]["identity"], found["after"]["identity"]
    mine = after.get("adapter") and weights_digest(tuned).startswith(str(after["adapter"]))
    same_base = before.get("base_fingerprint") == after.get("base_fingerprint") == record["base"]["fingerprint"]
    if not mine or not same_base or before.get("adapter"):
        raise KoalpacaError(
            "card-other-adapter",
            f"it does not compare this {'adapter' if (tuned / CONFIG).is_file() else 'model'} with its base.",
            where=str(folder),
            fix="Run `koalpaca eval BASE --adapter DIR` and `koalpaca compare` for it.",
        )
    return found


def weights_digest(folder: Path) -> str:
    """What an evaluation knows tuned weights by: the digest of the file, or that of all shards' digests."""
    digests = [digest(path) for path in sorted(folder.glob("*.safetensors"))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def result(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row of comparison.json as the report words it."""
    return words.row(Row(**{**row, "paired": Paired(**row["paired"])}))


def base(record: Mapping[str, Any]) -> list[Fact]:
    """Name, revision and fingerprint of the base."""
    here = record["base"]
    return [
        Fact("이름 (base)", base_name(here["path"]), "Name"),
        Fact("판 (revision)", here.get("revision") or UNKNOWN, "Revision", here.get("revision") or NOT_KNOWN),
        Fact("지문 (fingerprint)", here["fingerprint"], "Fingerprint"),
        Fact("구조 (model type)", here["model_type"], "Model type"),
        *_code(record),
    ]


def licence(name: str, name_en: str, found: str) -> Fact:
    """A licence, or that it is not known."""
    known = found != "unknown"
    return Fact(name, found if known else UNKNOWN, name_en, found if known else NOT_KNOWN)


def has_code(record: Mapping[str, Any]) -> bool:
    """Whether the base was computed by Python code of its own."""
    return record["recipe"].get("base", {}).get("trust_remote_code") is True


def _code(record: Mapping[str, Any]) -> list[Fact]:
    if not has_code(record):
        return []
    asked = record["recipe"]["base"]
    pin = f"sha256 {asked['code_sha256']}" if asked.get("code_sha256") else f"revision {asked.get('revision')}"
    return [
        Fact(
            "⚠ 기반 모델의 코드 (code)",
            f"기반 모델이 가져온 파이썬 코드로 학습했습니다 ({pin})",
            "⚠ Code of the base",
            f"trained with Python code that the base brings ({pin})",
        )
    ]


def data(record: Mapping[str, Any], licenses: Sequence[str]) -> list[Fact]:
    """Files by name, what became of their examples, licences."""
    facts = []
    for part, title, title_en in (("train", "학습", "Training"), ("valid", "검증", "Validation")):
        one = record["data"].get(part)
        if one is None:
            facts.append(Fact(f"{title} 데이터 ({part})", "없음", f"{title_en} data", "none"))
            continue
        counts = one["counts"]
        facts += [
            Fact(
                f"{title} 데이터 ({part})",
                f"{file_name(one['path'])} (sha256 {one['sha256'][:16]})",
                f"{title_en} data",
            ),
            Fact(
                f"{title} 예제",
                f"{counts['kept']:,}개 (읽은 것 {counts['examples']:,}, 너무 길어 뺀 것 "
                f"{counts['too_long_dropped']:,}, 자른 것 {counts['too_long_cut']:,}, "
                f"배울 것이 없어 뺀 것 {counts['nothing_to_learn']:,})",
                f"{title_en} examples",
                f"{counts['kept']:,} (of {counts['examples']:,} read; left out as too long "
                f"{counts['too_long_dropped']:,}, cut {counts['too_long_cut']:,}, nothing to learn "
                f"{counts['nothing_to_learn']:,})",
            ),
            Fact(
                f"{title} 토큰",
                f"{counts['tokens']:,}개, 그중 답변 {counts['learned_tokens']:,}개",
                f"{title_en} tokens",
                f"{counts['tokens']:,}, of which answers {counts['learned_tokens']:,}",
            ),
        ]
    named = licenses or licences_of(sources(record))
    return [
        *facts,
        Fact("데이터 라이선스", ", ".join(named) or UNKNOWN, "Data licences", in_english(named)),
    ]


def in_english(names: Sequence[str]) -> str:
    """Licences for English readers."""
    return ", ".join(NOT_KNOWN if name == UNKNOWN else name for name in names) or NOT_KNOWN


def sources(record: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """What the run recorded of its data's sources; None: an older run, which recorded nothing."""
    found = record["data"].get("sources")
    return found if isinstance(found, list) and all(isinstance(entry, dict) for entry in found) else None


def licences_of(found: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """The licences of some sources, each once, in order."""
    return list(dict.fromkeys(_licence(entry) for entry in found or []))


def source(entry: Mapping[str, Any]) -> dict[str, Any]:
    """One source as the card words it: a row of the table, and what it asks."""
    flags = []
    if entry.get("noncommercial") is True:
        flags.append("⚠ 비상업 (non-commercial)")
    elif "unknown" in (entry["licence"], entry.get("noncommercial", "unknown")):
        flags.append("⚠ 확인되지 않음 (not verified)")
    if entry.get("sharealike") is True:
        flags.append("동일조건 (share-alike)")
    if entry.get("noderivatives") is True:
        flags.append("⚠ 변경 금지 (no derivatives)")
    records, url = entry.get("records"), str(entry.get("url") or "")
    return {
        "title": entry.get("title") or entry["name"],
        "url": url if url.startswith(("https://", "http://", "hf:")) else None,
        "licence": _licence(entry),
        "revision": entry.get("revision") or ("고정되지 않음 (not pinned)" if url else "-"),
        "licence_en": in_english([_licence(entry)]),
        "records": UNKNOWN if records is None else f"{records:,}",
        "records_en": NOT_KNOWN if records is None else f"{records:,}",
        "flags": ", ".join(flags) or "-",
        "obligations": [said["ko"] for said in entry.get("obligations", [])],
        "obligations_en": [said["en"] for said in entry.get("obligations", [])],
        "made_with": ", ".join(entry.get("made_with") or []),
        "translated": TRANSLATED.get(str(entry.get("translated")), (None, None))[0],
        "translated_en": TRANSLATED.get(str(entry.get("translated")), (None, None))[1],
    }


def _licence(entry: Mapping[str, Any]) -> str:
    return UNKNOWN if entry["licence"] == "unknown" else str(entry["licence"])
