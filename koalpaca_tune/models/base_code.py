"""Python that a base brings along (`auto_map` of its config): run only where the recipe asks by name, and pins it.

A commit of the Hub pins what it holds. A folder can change between two runs, so its Python files are pinned by
content. Code of another repository than the base's would be pinned by neither, and is never run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from koalpaca_tune.config.recipe import Base
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import sources

CLASSES = ("AutoConfig", "AutoModelForCausalLM")
"""What of `auto_map` would be run for a base. A tokenizer's code never is: ids come from its tokenizer.json."""


def digest(folder: Path) -> str:
    """SHA-256 of a folder's Python files, names and contents, at every depth."""
    whole = hashlib.sha256()
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*.py")):
        with path.open("rb") as file:
            whole.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def is_run(base: Base, config: Mapping[str, Any]) -> bool:
    """Whether the base's own code is to be run: it has some, the recipe asks for it, and it is what was pinned.

    Args:
        base: as the recipe has it.
        config: config.json as read, from the Hub through its cache.

    Raises:
        KoalpacaError: it has code and the recipe does not ask for it, or the other way round; or it is not the code
            that was pinned (base-code).
    """
    named = _named(config)
    if not base.trust_remote_code:
        if named:
            raise _refused(
                f"it brings Python code of its own ({', '.join(dict.fromkeys(named.values()))}), which is not run.",
                base,
                f"Take another base, or read the code and ask for it: base.trust_remote_code=true {_pin(base)}",
            )
        return False
    if not named:
        raise _refused(
            "it brings no Python code, so base.trust_remote_code has no effect.",
            base,
            "Remove it, and base.code_sha256.",
        )
    elsewhere = [name for name in named.values() if "--" in name]
    if elsewhere:
        raise _refused(
            f"its code lies in another repository ({elsewhere[0]}), which nothing pins.",
            base,
            "Download base and code into one folder, and mend auto_map.",
        )
    folder = Path(base.path)
    if folder.is_dir():
        _check_folder(base, folder)
    else:
        _check_commit(base)
    return True


def _check_folder(base: Base, folder: Path) -> None:
    if base.code_sha256 is None:
        raise _refused(
            "a folder's code is pinned by its content, not by base.revision.",
            base,
            f"Read it, then set {_pin(base)} in place of base.revision.",
        )
    found = digest(folder)
    if found != base.code_sha256:
        raise _refused(
            f"its Python files are not those that were pinned: their SHA-256 is {found}.",
            base,
            "Put them back, or read what changed and set base.code_sha256 anew.",
        )


def _check_commit(base: Base) -> None:
    if base.revision is None:
        raise _refused(
            "code of the Hub is pinned by its commit, not by base.code_sha256.",
            base,
            f"Read it, then set {_pin(base)} in place of base.code_sha256.",
        )
    commit = sources.commit(base.path, base.revision)
    if commit != base.revision:
        # a branch may be called like a commit
        raise _refused(
            f"base.revision leads to the commit {commit}.", base, "Give that commit, if you have read it."
        )


def _named(config: Mapping[str, Any]) -> dict[str, str]:
    found = config.get("auto_map")
    if not isinstance(found, dict):
        # None, or something that transformers refuses by itself
        return {}
    return {name: " ".join(str(found[name]).split())[:120] for name in CLASSES if found.get(name)}


def _pin(base: Base) -> str:
    folder = Path(base.path)
    if folder.is_dir():
        return f"base.code_sha256={digest(folder)}"
    return f"base.revision={sources.commit(base.path, base.revision) or 'COMMIT (40 digits)'}"


def _refused(what: str, base: Base, fix: str) -> KoalpacaError:
    return KoalpacaError("base-code", what, where=base.path, fix=fix)
