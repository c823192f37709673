"""record.json: what a run was made of, so that its numbers can be traced and its adapter used rightly."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl, resources
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.tokens.encode import Encoder

NAME = "record.json"
PACKAGES = ("koalpaca-tune", "torch", "transformers", "peft", "bitsandbytes", "accelerate", "tokenizers")


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """The card (or CPU) and its memory."""
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return {
            "device": properties.name,
            "count": torch.cuda.device_count(),
            "memory_gib": round(properties.total_memory / 2**30, 1),
        }
    return {"device": f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)", "count": 0}


def git() -> str | None:
    """The commit of the source tree this runs from, '+' when changed; None outside a checkout."""
    top = resources.PACKAGE.parent
    if not (top / ".git").exists():
        return None
    try:
        commit = _git(top, "rev-parse", "HEAD")
        return commit + ("+" if _git(top, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *words], check=True, capture_output=True, text=True, timeout=10
    ).stdout.strip()


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def template_hash(encoder: Encoder) -> str:
    """Digest of what the template writes for a fixed conversation: changes when the format does."""
    probe = Conversation(
        (
            Turn("system", "시스템"),
            Turn("user", "질문", "맥락"),
            Turn("assistant", "답변"),
            Turn("user", "다시"),
            Turn("assistant", "또"),
        )
    )
    try:
        rendered = encoder.render(probe)
    except KoalpacaError:
        # a tokenizer's own template may refuse a system turn, or several turns
        rendered = encoder.render(Conversation(probe.turns[1:3]))
    return hashlib.sha256(repr((rendered.text, rendered.spans)).encode()).hexdigest()[:16]


def tokenizer_hash(encoder: Encoder) -> str:
    """Digest of the whole tokenizer."""
    return hashlib.sha256(encoder.vocabulary.backend.to_str().encode()).hexdigest()[:16]


def of_adapter(folder: Path) -> tuple[dict[str, Any], Recipe]:
    """The record and recipe that an adapter was made with, or the model of a full fine-tuning.

    Raises:
        KoalpacaError: neither, or not ours (adapter-missing).
    """
    path = folder / NAME
    whole = (folder / "config.json").is_file() and not (folder / "adapter_config.json").exists()
    for name in (NAME,) if whole else (NAME, "adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise KoalpacaError(
                "adapter-missing",
                f"there is no {name} in the folder.",
                where=str(folder),
                fix="Give the 'adapter' folder of a run (runs/NAME/adapter).",
            )
    record = jsonl.read_json(path)
    try:
        recipe = Recipe.model_validate(record["recipe"])
    except (KeyError, ValueError) as error:
        raise KoalpacaError(
            "adapter-missing", f"its {NAME} holds no recipe that can be read.", where=str(path)
        ) from error
    if recipe.full != whole:
        raise KoalpacaError(
            "adapter-missing",
            f"its {NAME} is that of {'an adapter' if whole else 'a whole model'}, and it holds none.",
            where=str(folder),
            fix="Give the 'adapter' (or 'model') folder of a run.",
        )
    return record, recipe


def weights_hash(folder: Path) -> str:
    """16 hex digits of an adapter's weights, or of those of a whole model."""
    files = sorted(folder.glob("*.safetensors"))
    digests = [sha256(file) for file in files]
    return (digests[0] if len(files) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest())[:16]
