"""What a repository holds, as the Hub lists it, and whether that is what lies here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from koalpaca_tune.hub.bundle import Piece


@dataclass(frozen=True)
class Entry:
    """A file in the repository.

    Attributes:
        size: bytes.
        git: SHA-1 of the git blob; of a large file, that of its pointer.
        sha256: of the content; None for a file that is kept in git itself.
    """

    size: int
    git: str
    sha256: str | None

    def holds(self, piece: Piece) -> bool:
        """Whether it is this piece, byte for byte."""
        if self.size != piece.size:
            return False
        if self.sha256 is not None:
            return self.sha256 == digest(piece, hashlib.sha256())
        return self.git == digest(piece, hashlib.sha1(b"blob %d\0" % piece.size, usedforsecurity=False))


@dataclass(frozen=True)
class State:
    """A branch as it is.

    Attributes:
        head: its newest commit.
        files: path -> what lies there.
    """

    head: str
    files: Mapping[str, Entry]

    def missing(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Those that are not there as they are here."""
        return [piece for piece in pieces if not (e := self.files.get(piece.name)) or not e.holds(piece)]


def digest(piece: Piece, made: Any) -> str:
    """Hex digest of a piece, continued on a hash object."""
    if piece.content is not None:
        made.update(piece.content)
    else:
        assert piece.path is not None
        with piece.path.open("rb") as file:
            while block := file.read(1 << 22):
                made.update(block)
    return str(made.hexdigest())
