"""What an adapter's record says, and what a merged model's says of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Base
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference.merging.report import MergeReport
from koalpaca_tune.models import adapter_files, sources

RECORD = "record.json"


def read(adapter: Path) -> dict[str, Any]:
    """An adapter's record.

    Raises:
        KoalpacaError: the folder has none (adapter-missing).
    """
    if not (adapter / RECORD).is_file():
        raise KoalpacaError(
            "adapter-missing",
            f"there is no {RECORD} in the folder.",
            where=str(adapter),
            fix="Give the 'adapter' folder of a run (runs/NAME/adapter).",
        )
    return jsonl.read_json(adapter / RECORD)


def digest(adapter: Path) -> str:
    """SHA-256 over an adapter's two files."""
    whole = hashlib.sha256()
    for name in (adapter_files.CONFIG, adapter_files.WEIGHTS):
        with (adapter / name).open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def merged(record: dict[str, Any], base: Base, report: MergeReport, key: dict[str, Any]) -> dict[str, Any]:
    """What later commands and readers need; folders of this machine are left out."""
    path = Path(base.path).name if sources.is_local(base.path) else base.path
    return {
        "kind": "merged",
        "name": record["name"],
        "base": {**record["base"], "path": path},
        "template": record["template"],
        "tokenizer": record["tokenizer"],
        "adapter": {"sha256": key["adapter"]},
        "merge": report.as_dict(),
    }
