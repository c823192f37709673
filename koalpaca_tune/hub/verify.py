"""After an upload: the repository is read as a stranger would read it, and held against what was meant to go."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import facts
from koalpaca_tune.models import adapter_files

if TYPE_CHECKING:
    from koalpaca_tune.hub.push import Plan
    from koalpaca_tune.hub.remote import Remote

LARGEST = 1 << 30
"""Bytes up to which a file is downloaded again; of a larger one the Hub's own SHA-256 is compared."""


class Checked(NamedTuple):
    """How each file was checked.

    Attributes:
        loaded: names of files that were downloaded and compared byte for byte.
        compared: names of files whose digest on the Hub was compared.
    """

    loaded: tuple[str, ...]
    compared: tuple[str, ...]


def check(remote: Remote, commit: str, plan: Plan) -> Checked:
    """Every file of the plan lies at the commit as it is here; what is small enough is downloaded and opened.

    Raises:
        KoalpacaError: a file is missing or is another one (hub-differs).
    """
    wrong = remote.state(commit).missing(plan.pieces)
    if wrong:
        raise _differs(plan, wrong[0].name)
    small = [piece for piece in plan.pieces if piece.size <= LARGEST]
    with tempfile.TemporaryDirectory(prefix="koalpaca-hub-") as aside:
        for piece in small:
            path = Path(remote.fetch(piece.name, commit, aside))
            if not _same(path, piece.path, piece.content):
                raise _differs(plan, piece.name)
            if plan.kind == "model" and path.suffix == ".safetensors":
                # whole models are large: one shard at a time lies here twice
                path.unlink()
        _open(Path(aside), plan)
    names = {piece.name for piece in small}
    return Checked(
        tuple(piece.name for piece in small),
        tuple(piece.name for piece in plan.pieces if piece.name not in names),
    )


def _open(folder: Path, plan: Plan) -> None:
    """What was downloaded is what its kind says, as the commands that use it read it."""
    if plan.kind == "adapter" and (folder / adapter_files.WEIGHTS).is_file():
        facts.read(folder)
        adapter_files.read(folder)
    elif plan.kind == "dataset":
        for name, _ in plan.files:
            if name.endswith(".jsonl"):
                for _ in jsonl.read(folder / name):
                    pass


def _same(path: Path, here: Path | None, content: bytes | None) -> bool:
    if content is not None:
        return path.read_bytes() == content
    assert here is not None
    with path.open("rb") as theirs, here.open("rb") as mine:
        while block := mine.read(1 << 22):
            if theirs.read(1 << 22) != block:
                return False
        return not theirs.read(1)


def _differs(plan: Plan, name: str) -> KoalpacaError:
    return KoalpacaError(
        "hub-differs",
        f"'{name}' on the Hub is not the file that was sent.",
        where=plan.repo,
        fix="Run the command again; if it stays so, do not use the repository and tell the Hub's support.",
    )
