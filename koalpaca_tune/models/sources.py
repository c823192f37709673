"""Where a base comes from: the package, a folder, or the Hub; and what identifies it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from koalpaca_tune import resources
from koalpaca_tune.errors import KoalpacaError

EMBEDDED = "embedded"


def locate(path: str) -> str:
    """The name that transformers loads: the embedded base's folder, a local folder, or a Hub name.

    Raises:
        KoalpacaError: something that looks like a folder but is none (base-missing).
    """
    if path == EMBEDDED:
        return str(resources.EMBEDDED)
    folder = Path(path)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise KoalpacaError("base-missing", "there is no config.json in the folder.", where=path)
        return str(folder)
    if path.startswith((".", "/", "~")) or path.count("/") != 1 or folder.suffix in (".safetensors", ".bin"):
        raise KoalpacaError(
            "base-missing",
            "there is no such model folder.",
            where=path,
            fix="Give a folder with config.json, a Hub name such as EleutherAI/polyglot-ko-1.3b, or 'embedded'.",
        )
    return path


def is_local(path: str) -> bool:
    """Whether the base is a folder of this machine (the embedded base is not: everyone has it)."""
    return path != EMBEDDED and Path(path).is_dir()


def fingerprint(path: str, revision: str | None, config: Any) -> str:
    """16 hex digits that identify a base: weights of a folder by content, a Hub model by name and commit."""
    located = locate(path)
    digest = hashlib.sha256()
    folder = Path(located)
    if folder.is_dir():
        config_text = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # the writer's version says nothing about the model
        digest.update(json.dumps(config_text, sort_keys=True).encode())
        for file in sorted(folder.glob("*.safetensors")):
            digest.update(file.name.encode())
            _sample(file, digest)
    else:
        commit = getattr(config, "_commit_hash", None) or revision or ""
        digest.update(f"{path}@{commit}".encode())
    return digest.hexdigest()[:16]


def _sample(file: Path, digest: Any) -> None:
    """Whole file up to 64 MiB; of larger ones the header, the size and a mebibyte in every 64."""
    size = file.stat().st_size
    stride = 1 << 26
    digest.update(str(size).encode())
    with file.open("rb") as stream:
        if size <= stride:
            digest.update(stream.read())
            return
        for at in range(0, size, stride):
            stream.seek(at)
            digest.update(stream.read(1 << 20))


def hub_error(error: Exception, path: str) -> KoalpacaError:
    """A failed download or load as one clear line, token-free."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    token = os.environ.get("HF_TOKEN")
    if token:
        text = text.replace(token, "***")
    return KoalpacaError(
        "base-load",
        f"the model cannot be loaded: {text[:300].rstrip('.')}.",
        where=path,
        fix="Check the name, the network and, for a gated model, `hf auth login`.",
    )
