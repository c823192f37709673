"""Where a base comes from: the package, a folder, or the Hub; and what identifies it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from koalpaca_tune import resources
from koalpaca_tune.config.recipe import COMMIT
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
    if _is_folder(path):
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
    return path != EMBEDDED and _is_folder(path)


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except OSError:
        # a name longer than any file's
        return False


def commit(path: str, revision: str | None, config: Any = None) -> str | None:
    """The commit of a Hub model whose config.json was read; None for a folder. The revision where it is not known.

    A transformers config tells it up to some release; from 5.23 on at the latest, only the cache's folders do.
    """
    if Path(locate(path)).is_dir():
        return None
    found = try_to_load_from_cache(path, "config.json", revision=revision)
    cached = Path(found).parent.name if isinstance(found, str) else ""
    return getattr(config, "_commit_hash", None) or (cached if COMMIT.fullmatch(cached) else revision)


def fingerprint(path: str, revision: str | None, config: Any) -> str:
    """16 hex digits that identify a base: weights of a folder by content, a Hub model by name and commit."""
    located = locate(path)
    digest = hashlib.sha256()
    folder = Path(located)
    if folder.is_dir():
        with Reading(path):
            config_text = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # the writer's version says nothing about the model
        digest.update(json.dumps(config_text, sort_keys=True).encode())
        for file in sorted(folder.glob("*.safetensors")):
            digest.update(file.name.encode())
            _sample(file, digest)
    else:
        digest.update(f"{path}@{commit(path, revision, config) or ''}".encode())
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


class Reading:
    """A `with` block in which a library reads files of a model: whatever it says of them is one clear error.

    A config, a tokenizer or an index from elsewhere may hold anything, and transformers and tokenizers raise
    whatever comes first: tokenizers' Rust side a bare `Exception`, or a panic, which is not even that.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, KoalpacaError) and _is_of_the_files(error):
            raise hub_error(error, self._path) from error
        if kind is not None and kind.__name__ == "PanicException":
            raise hub_error(ValueError(str(error)), self._path) from error


_OF_THE_FILES = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    RecursionError,
    SafetensorError,
    StrictDataclassError,
)


def _is_of_the_files(error: Exception) -> bool:
    # a RuntimeError may be a full card, which is told otherwise; torch's own words for a shape are not
    shape = type(error) is RuntimeError and "dimension" in str(error)
    return isinstance(error, _OF_THE_FILES) or type(error) is Exception or shape


_SECRET = re.compile(r"hf_[A-Za-z0-9]{8,}|(?<=://)[^/@\s]+(?=@)|(?i:(?<=bearer )[\w.-]+)")


def without_secrets(text: str) -> str:
    """A text of a library as it may be shown: the Hub token in use, anything like one, passwords in addresses."""
    from huggingface_hub import get_token

    for token in (os.environ.get("HF_TOKEN"), os.environ.get("HUGGING_FACE_HUB_TOKEN"), get_token()):
        if token and len(token) >= 8:
            text = text.replace(token, "***")
    return _SECRET.sub("***", text)


def hub_error(error: Exception, path: str) -> KoalpacaError:
    """A failed download or load as one clear line, token-free."""
    text = " ".join(str(error).split()) or type(error).__name__
    return KoalpacaError(
        "base-load",
        f"the model cannot be loaded: {without_secrets(text)[:300].rstrip('.')}.",
        where=path,
        fix="Check the name, the network and, for a gated model, `hf auth login`.",
    )
