"""What a card is about: an adapter, the model that it was merged into, or a model that was trained as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import bundle, facts

Form = Literal["adapter", "merged", "full"]


class Subject(NamedTuple):
    """A folder that gets a model card, and what is known of it.

    Attributes:
        form: what it is.
        folder: where.
        record: of the run that trained it.
        config: adapter_config.json; None: every weight was trained.
        adapter: the adapter's folder; None: there is none.
        run: the run's folder.
        merge: record.json of a merged model, or None.
    """

    form: Form
    folder: Path
    record: Mapping[str, Any]
    config: Mapping[str, Any] | None
    adapter: Path | None
    run: Path
    merge: Mapping[str, Any] | None


def read(folder: Path, adapter: Path | None) -> Subject:
    """Reads what a card is made of.

    Args:
        folder: an adapter, a merged model, or the model of a run without an adapter.
        adapter: of a merged model, the adapter that was merged.

    Raises:
        KoalpacaError: none of these (hub-kind), a file is missing or says too little (adapter-missing,
            card-record), no adapter is given for a merged model, or one for anything else (card-adapter), or
            another adapter than was merged (card-other-adapter).
    """
    kind = bundle.kind_of(folder)
    path = folder / facts.RECORD
    record = jsonl.read_json(path) if kind == "model" and path.is_file() else {}
    merged = kind == "model" and record.get("kind") == "merged"
    if kind not in ("adapter", "model"):
        raise KoalpacaError(
            "hub-kind",
            f"it is a {kind}, which has no model card.",
            where=str(folder),
            fix="Give an adapter, a merged model, or prepared data.",
        )
    if merged != (adapter is not None):
        said = "it is a merged model, whose record does not tell the training" if merged else "it is not merged"
        raise KoalpacaError(
            "card-adapter",
            f"{said}.",
            where=str(folder),
            fix="Give the adapter that was merged: --adapter runs/NAME/adapter."
            if merged
            else "Leave --adapter away.",
        )
    if kind == "model" and not merged:
        facts.check_record(record, str(path))
        return Subject("full", folder, record, None, None, folder.parent, None)
    mine = adapter or folder
    files = facts.read(mine)
    if merged:
        _check_merged(record, files.record, mine)
    form: Form = "merged" if merged else "adapter"
    return Subject(form, folder, files.record, files.config, mine, mine.parent, record or None)


def _check_merged(merge: Mapping[str, Any], record: Mapping[str, Any], adapter: Path) -> None:
    there = merge.get("adapter")
    digest = there.get("sha256") if isinstance(there, dict) else None
    parts = [("base", "fingerprint"), ("template", "name")]
    same = all((merge.get(part) or {}).get(key) == record[part].get(key) for part, key in parts)
    # as koalpaca merge has it: the digest of both files' digests
    files = b"".join(bytes.fromhex(facts.digest(adapter / name)) for name in (facts.CONFIG, facts.WEIGHTS))
    if not same or (digest is not None and digest != hashlib.sha256(files).hexdigest()):
        raise KoalpacaError(
            "card-other-adapter",
            "it is not the adapter that was merged.",
            where=str(adapter),
            fix="Give the adapter that `koalpaca merge` was given.",
        )


def comparison(folder: Path, subject: Subject) -> dict[str, Any]:
    """Reads a comparison and makes sure that it is the one of this subject with its base.

    Raises:
        KoalpacaError: not a comparison (card-comparison), or one of something else (card-other-adapter).
    """
    return facts.comparison(folder, subject.adapter or subject.folder, subject.record)
