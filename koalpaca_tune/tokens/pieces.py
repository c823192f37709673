"""The entries of a vocabulary as bytes: which are not whole characters, which cut a Hangul syllable.

A text's cut syllables follow from how often each entry occurs, so nothing has to be looked up in the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Pieces:
    """What each entry is, as bool [entries].

    Attributes:
        partial: not whole characters by itself: a piece of a byte-level BPE that cuts one, or one byte
            (`<0xEA>`) of a SentencePiece model with byte fallback. Never a special token.
        opens: ends inside a Hangul syllable that begins in it. Every cut syllable has one such piece.
        unknown: stands for what the vocabulary does not know.
    """

    partial: NDArray[np.bool_]
    opens: NDArray[np.bool_]
    unknown: NDArray[np.bool_]


def pieces(backend: Tokenizer) -> Pieces:
    """Looks at every entry of a tokenizer."""
    made: dict[str, Any] = json.loads(backend.to_str())
    byte_level = "ByteLevel" in {*_kinds(made["pre_tokenizer"]), *_kinds(made["decoder"])}
    fallback = bool(made["model"].get("byte_fallback"))
    added = {token["content"] for token in made["added_tokens"]}
    vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    size = max(vocabulary.values()) + 1
    partial, opens, unknown = (np.zeros(size, np.bool_) for _ in range(3))
    for piece, token in vocabulary.items():
        if piece in added:
            continue
        octets = _octets(piece, byte_level, fallback)
        partial[token] = not _whole(octets)
        opens[token] = partial[token] and _opens_syllable(octets)
    name = unknown_token(backend)
    if name in vocabulary:
        unknown[vocabulary[name]] = True
    return Pieces(partial, opens, unknown)


def unknown_token(backend: Tokenizer) -> str | None:
    """The entry that the model itself puts for what it does not know; None where that cannot happen."""
    model = json.loads(backend.to_str())["model"]
    if model.get("unk_id") is not None:
        return str(backend.id_to_token(model["unk_id"]))
    name = model.get("unk_token")
    return None if name is None else str(name)


def _kinds(part: Any) -> Iterable[str]:
    """Types of a pre-tokeniser or decoder, through sequences."""
    if isinstance(part, dict):
        yield part["type"]
        for inner in part.get("pretokenizers") or part.get("decoders") or ():
            yield from _kinds(inner)


def _byte_letters() -> dict[str, int]:
    """GPT-2's spelling of bytes as printable letters (Radford et al. 2019): letter -> byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_LETTERS = _byte_letters()
_OCTET = re.compile("<0x([0-9A-F]{2})>")


def _octets(piece: str, byte_level: bool, fallback: bool) -> bytes:
    if byte_level:
        return bytes(_LETTERS[letter] for letter in piece if letter in _LETTERS)
    if fallback and (found := _OCTET.fullmatch(piece)):
        return bytes([int(found[1], 16)])
    return piece.encode("utf-8", "surrogatepass")


def _whole(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _opens_syllable(octets: bytes) -> bool:
    """Whether bytes end in the first one or two of a Hangul syllable (EA B0 80 to ED 9E A3).

    EA alone is taken for Hangul; Yi and a few more scripts begin with it as well.
    """
    if octets and 0xEA <= octets[-1] <= 0xED:
        return True
    if len(octets) < 2 or not 0x80 <= octets[-1] < 0xC0:
        return False
    lead, after = octets[-2:]
    return lead in (0xEB, 0xEC) or (lead == 0xEA and after >= 0xB0) or (lead == 0xED and after <= 0x9E)
