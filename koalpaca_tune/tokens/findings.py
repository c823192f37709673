"""What can be wrong with special tokens, or worth knowing of them, in words."""

from __future__ import annotations

from dataclasses import dataclass

from koalpaca_tune.tokens.pieces import unknown_token
from koalpaca_tune.tokens.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about special tokens, the template or the round trip that one should know.

    Attributes:
        code: its short name.
        mistake: whether it should be mended; else it is said for information.
        ko, en: one sentence each.
        records: how many records show it; None when it is about the tokenizer itself.
        where: origins of the first few, perhaps with what was found there.
    """

    code: str
    mistake: bool
    ko: str
    en: str
    records: int | None = None
    where: tuple[str, ...] = ()


FINDINGS: dict[str, tuple[bool, str, str]] = {
    "eos-unknown": (
        True,
        "끝 토큰(EOS) {token}: '모르는 글자' 토큰이거나 어휘에 없습니다. 답의 끝을 배울 수 없습니다.",
        "EOS {token} is the unknown token, or no entry at all: the end of an answer cannot be learned.",
    ),
    "eos-not-special": (
        True,
        "끝 토큰(EOS) {token}: 토큰 하나로 읽히지 않습니다(특수 토큰으로 등록되지 않음).",
        "EOS {token} is not read as one token: it is not registered as a special token.",
    ),
    "bos-unknown": (
        True,
        "시작 토큰(BOS) {token}: 어휘에 없습니다.",
        "BOS {token} is not in the vocabulary.",
    ),
    "bos-doubled": (
        True,
        "시작 토큰(BOS)이 두 번 들어갑니다.",
        "BOS stands twice at the beginning.",
    ),
    "answer-endless": (
        True,
        "배우는 답이 끝 토큰으로 끝나지 않아, 학습한 모델이 답을 멈추지 못합니다.",
        "Learned answers do not end in an end token: the tuned model would not stop.",
    ),
    "round-trip": (
        True,
        "토큰으로 바꿨다가 되돌리면 글이 달라집니다.",
        "Decoding the tokens does not give the text back.",
    ),
    "special-in-text": (
        False,
        "글 안에 특수 토큰과 같은 글자가 있습니다. 여기서는 글로 다루지만, 특수 토큰으로 읽는 도구도 있습니다.",
        "Texts spell special tokens. Here they stay text; other tools may take them for the tokens.",
    ),
    "pad-is-eos": (
        False,
        "채움 토큰(PAD)이 따로 없거나 EOS와 같습니다. 여기서는 자리로 가리므로 괜찮습니다.",
        "There is no PAD, or it equals EOS. Fine here: padding is masked by position, never by id.",
    ),
    "bos-none": (
        False,
        "시작 토큰(BOS)이 없습니다. BOS 없이 학습한 모델(polyglot 등)이면 맞습니다.",
        "There is no BOS, as it should be for a base trained without one (polyglot).",
    ),
    "bos-added": (
        False,
        "토크나이저가 BOS를 스스로 붙입니다. 여기서는 한 번만 들어가지만, 두 번 넣는 도구도 있습니다.",
        "It puts BOS in front by itself: once here; where the template writes it too, some tools get two.",
    ),
}
"""Code -> whether it is a mistake, and what is said. A template's problem comes under its own error code."""


def finding(code: str, token: str = "", records: int | None = None, where: tuple[str, ...] = ()) -> Finding:
    """A finding in words.

    Args:
        code: a key of `FINDINGS`.
        token: the special token that it is about, if any.
        records, where: as in `Finding`.
    """
    mistake, ko, en = FINDINGS[code]
    return Finding(code, mistake, ko.format(token=token), en.format(token=token), records, where)


def of_tokenizer(vocabulary: Vocabulary) -> list[Finding]:
    """What is wrong, or worth knowing, of EOS, padding and BOS."""
    backend, bos, eos = vocabulary.backend, vocabulary.bos, vocabulary.eos
    eos_id = backend.token_to_id(eos)
    found = []
    if eos_id is None or eos == unknown_token(backend):
        found.append(finding("eos-unknown", eos))
    elif backend.encode(eos, add_special_tokens=False).ids != [eos_id]:
        found.append(finding("eos-not-special", eos))
    if vocabulary.pad_id == eos_id:
        found.append(finding("pad-is-eos"))
    if bos is None:
        found.append(finding("bos-none"))
    elif backend.token_to_id(bos) is None:
        found.append(finding("bos-unknown", bos))
    elif vocabulary.adds_bos:
        found.append(finding("bos-added"))
    return found
