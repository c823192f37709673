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
from koalpaca_tune.hub.public import base_name, file_name
from koalpaca_tune.models import adapter_files

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
RECORD = "record.json"
UNKNOWN = "알 수 없음"
TRANSLATED = {"machine": "기계 번역", "people": "사람이 번역", "mixed": "일부 번역"}
PRECISIONS = {"nf4": "NF4", "fp4": "FP4"}


class Files(NamedTuple):
    """An adapter folder's two JSON files.

    Attributes:
        record: record.json.
        config: adapter_config.json.
    """

    record: dict[str, Any]
    config: dict[str, Any]


class Fact(NamedTuple):
    """One line of a table of the card."""

    name: str
    value: str


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
            where=str(adapter / RECORD),
            fix="Train again with this version, or restore the file from the run's folder.",
        )
    adapter_files.check(config, str(adapter / CONFIG))
    return Files(record, config)


def comparison(folder: Path, adapter: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Reads a comparison and makes sure that it is the one of this adapter with its base.

    Raises:
        KoalpacaError: not a comparison (card-comparison), or one of something else (card-other-adapter).
    """
    path = folder if folder.is_file() else folder / "comparison.json"
    found = jsonl.read_json(path)
    try:
        before, after = found["before"]["identity"], found["after"]["identity"]
        for row in found["rows"]:
            result(row)
        Said(**found["verdict"])
        _ = found["suite"]["title"], found["suite"]["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise KoalpacaError(
            "card-comparison",
            f"it is not a comparison of ours ({error!r}).",
            where=str(path),
            fix="Give the --out folder of `koalpaca compare`.",
        ) from error
    with (adapter / WEIGHTS).open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    mine = after.get("adapter") and weights.startswith(str(after["adapter"]))
    same_base = before.get("base_fingerprint") == after.get("base_fingerprint") == record["base"]["fingerprint"]
    if not mine or not same_base or before.get("adapter"):
        raise KoalpacaError(
            "card-other-adapter",
            "it does not compare this adapter with its base.",
            where=str(path),
            fix="Run `koalpaca eval BASE --adapter DIR` and `koalpaca compare` for this adapter.",
        )
    return found


def result(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row of comparison.json as the report words it."""
    return words.row(Row(**{**row, "paired": Paired(**row["paired"])}))


def base(record: Mapping[str, Any]) -> list[Fact]:
    """Name, revision and fingerprint of the base."""
    here = record["base"]
    return [
        Fact("이름 (base)", base_name(here["path"])),
        Fact("판 (revision)", here.get("revision") or UNKNOWN),
        Fact("지문 (fingerprint)", here["fingerprint"]),
        Fact("구조 (model type)", here["model_type"]),
    ]


def data(record: Mapping[str, Any], licenses: Sequence[str]) -> list[Fact]:
    """Files by name, what became of their examples, licences."""
    facts = []
    for part, title in (("train", "학습"), ("valid", "검증")):
        one = record["data"].get(part)
        if one is None:
            facts.append(Fact(f"{title} 데이터 ({part})", "없음"))
            continue
        counts = one["counts"]
        facts += [
            Fact(f"{title} 데이터 ({part})", f"{file_name(one['path'])} (sha256 {one['sha256'][:16]})"),
            Fact(
                f"{title} 예제",
                f"{counts['kept']:,}개 (읽은 것 {counts['examples']:,}, 너무 길어 뺀 것 "
                f"{counts['too_long_dropped']:,}, 자른 것 {counts['too_long_cut']:,}, "
                f"배울 것이 없어 뺀 것 {counts['nothing_to_learn']:,})",
            ),
            Fact(f"{title} 토큰", f"{counts['tokens']:,}개, 그중 답변 {counts['learned_tokens']:,}개"),
        ]
    return [*facts, Fact("데이터 라이선스", ", ".join(licenses or licences_of(sources(record))) or UNKNOWN)]


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
        "records": UNKNOWN if records is None else f"{records:,}",
        "flags": ", ".join(flags) or "-",
        "obligations": [said["ko"] for said in entry.get("obligations", [])],
        "made_with": ", ".join(entry.get("made_with") or []),
        "translated": TRANSLATED.get(str(entry.get("translated"))),
    }


def _licence(entry: Mapping[str, Any]) -> str:
    return UNKNOWN if entry["licence"] == "unknown" else str(entry["licence"])


def quantization(proof: Mapping[str, Any]) -> str:
    """How the base was really loaded, as the modules themselves said."""
    if not proof["linears_4bit"]:
        return f"양자화하지 않음 ({', '.join(proof['dtypes'])})"
    kind = PRECISIONS.get(proof["quant_type"], str(proof["quant_type"]))
    double = "이중 양자화" if proof["double_quant"] else "이중 양자화 없음"
    return f"4비트 {kind}, {double}, 연산 {proof['compute_dtype']}; 4비트 모듈 {proof['linears_4bit']:,}개"


def settings(files: Files) -> list[Fact]:
    """LoRA as the adapter's own config has it, quantisation as proved, training as the recipe says."""
    record, config = files
    recipe, training = record["recipe"], record["recipe"]["training"]
    trainable = record.get("trainable") or {}
    modules = ", ".join(f"{name} {count:,}" for name, count in trainable.items())
    length = f"{training['epochs']:g} 에폭" if training["epochs"] is not None else f"{training['max_steps']:,} 단계"
    return [
        Fact("LoRA", f"r {config['r']}, alpha {config['lora_alpha']}, dropout {config['lora_dropout']:g}"),
        Fact("LoRA 대상", ", ".join(sorted(config["target_modules"]))),
        Fact("학습한 파라미터", f"{sum(trainable.values()):,}개 ({modules})" if trainable else UNKNOWN),
        Fact("양자화 (로드한 뒤 확인)", quantization(record["proof"])),
        Fact("길이", length),
        Fact("배치", f"한 단계에 {training['batch_size']}행 (GPU마다)"),
        Fact(
            "학습률", f"{training['learning_rate']:g}, {training['schedule']}, 예열 {training['warmup_steps']} 단계"
        ),
        Fact(
            "최적화",
            f"{training['optimizer']}, weight decay {training['weight_decay']:g}, "
            f"기울기 한도 {training['max_grad_norm']:g}",
        ),
        Fact("가장 긴 예제", f"{recipe['data']['max_length']:,} 토큰, 묶기 {_yes(recipe['data']['packing'])}"),
        Fact("난수 씨앗", str(recipe["seed"])),
    ]


def outcome(record: Mapping[str, Any]) -> list[Fact]:
    """What the training loop measured, and on what."""
    found = record.get("result") or {}
    machine = record.get("machine") or {}

    def shown(key: str, form: str, unit: str = "") -> str:
        value = found.get(key)
        return UNKNOWN if value is None else form.format(value) + unit

    return [
        Fact("단계", shown("steps", "{:,}")),
        Fact("학습 손실 (끝 10%)", shown("loss", "{:.4f}")),
        Fact("검증 손실", shown("valid_loss", "{:.4f}")),
        Fact("시간", shown("seconds", "{:,.0f}", "초")),
        Fact("속도", shown("tokens_per_second", "{:,.0f}", " 토큰/초")),
        Fact("최대 GPU 메모리", shown("peak_memory_gib", "{:.2f}", " GiB")),
        Fact("장치", str(machine.get("device") or UNKNOWN)),
        Fact("버전", ", ".join(f"{k} {v}" for k, v in (record.get("versions") or {}).items()) or UNKNOWN),
    ]


def _yes(value: bool) -> str:
    return "함" if value else "안 함"
