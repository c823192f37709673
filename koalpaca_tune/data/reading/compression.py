"""gzip and zstd around a text file, unpacked as it is read: never to disk, never whole into memory."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SUFFIXES = {".gz": "gzip", ".zst": "zstd"}
"""Last suffix of a compressed file -> how it is compressed."""

_GZIP_CHUNK = 1 << 17
_ZSTD_CHUNK = 1 << 11
"""Compressed bytes at a time. zstd packs 128 KiB of one byte into 4, so 2 KiB unpack to 64 MiB at most."""


class Unpacked(io.RawIOBase):
    """The unpacked bytes of a compressed file. They end where it is damaged, and `damage` then says how."""

    def __init__(self, file: BinaryIO, compression: str) -> None:
        """Takes the file over; it is closed with this one."""
        super().__init__()
        self.damage: str | None = None
        self._file = file
        self._chunks = _UNPACK[compression](file)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fills the buffer as far as one chunk goes; 0 at the end or at the damage."""
        if not self._rest:
            self._rest = memoryview(self._next())
        into = memoryview(buffer).cast("B")
        size = min(len(into), len(self._rest))
        into[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        """Closes the file beneath."""
        self._file.close()
        super().close()

    def _next(self) -> bytes:
        if self.damage is not None:
            return b""
        try:
            return next(self._chunks, b"")
        except EOFError:
            self.damage = "its compressed data ends before its end"
        except (zlib.error, gzip.BadGzipFile, _DamageError) as error:
            self.damage = f"its compressed data is damaged ({error})"
        return b""


class _DamageError(Exception):
    pass


def damage(file: BinaryIO) -> str | None:
    """Why a file opened by `unpack` ended before its end; None when it did not, or is not compressed."""
    raw = getattr(file, "raw", None)
    return raw.damage if isinstance(raw, Unpacked) else None


def unpack(file: BinaryIO, compression: str) -> BinaryIO:
    """A compressed file as the bytes in it. It cannot be rewound."""
    return io.BufferedReader(Unpacked(file, compression), 1 << 17)


def _gzip(file: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as unpacked:
        # read1, since read loses what it gathered when it meets the damage
        while data := unpacked.read1(_GZIP_CHUNK):
            yield data


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    import zstandard

    decompressor = zstandard.ZstdDecompressor()
    frame = decompressor.decompressobj()
    rest = b""
    inside = False
    while data := rest or file.read(_ZSTD_CHUNK):
        try:
            unpacked = frame.decompress(data)
        except zstandard.ZstdError as error:
            raise _DamageError(str(error)) from error
        if unpacked:
            yield unpacked
        inside, rest = True, b""
        if frame.eof:
            # a file may hold several frames, one after the other
            inside, rest = False, frame.unused_data
            frame = decompressor.decompressobj()
    if inside:
        raise EOFError


_UNPACK: dict[str, Callable[[BinaryIO], Iterator[bytes]]] = {"gzip": _gzip, "zstd": _zstd}
