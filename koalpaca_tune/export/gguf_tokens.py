"""A tokenizer as GGUF holds it: tokens, their kinds, and merges with the cut before them, or scores.

Of byte-level BPE, llama.cpp knows the cut of a text into words ("pre-tokenizer") by name only. A name that cuts
otherwise gives other ids and, without a word of warning, a worse model. So the cut is not taken from the
tokenizer's name: each cut that llama.cpp has is tried on Korean text, and one is taken if it gives the tokenizer's
own ids on all of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tokenizers import Regex, Tokenizer, pre_tokenizers

from koalpaca_tune import jsonl, resources
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.export import gguf_pieces
from koalpaca_tune.tokens.vocabulary import Vocabulary

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""GGUF's kinds of tokens."""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_ENDINGS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Cut:
    """A pre-tokenizer of llama.cpp.

    Attributes:
        patterns: applied one after the other, each match a piece of its own.
        whole_words: a piece that is a token stays one, whatever the merges say.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False


CUTS: Mapping[str, Cut] = {
    "gpt-2": Cut((_GPT2,)),
    "starcoder": Cut((r"\p{N}", _GPT2)),
    "llama-bpe": Cut((rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_REST}",), whole_words=True),
    "qwen2": Cut((rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_REST}",)),
}
"""By the name under `tokenizer.ggml.pre`; the patterns are llama.cpp's (src/llama-vocab.cpp)."""

UNUSUAL = (
    "It's 3,000원이고 I'M late, they'll see.",
    "1234567890 12.5% 3:45 ２０２４",
    "줄\n\n\n바꿈\r\n그리고\t탭  두 칸   세 칸 \n 끝 ",
    "ㅋㅋㅋㅋ ㅠㅠ ^^;; 👍🏽 🇰🇷 ♥",
    "漢字와 かな, café naïve",
    "def f(x):\n    return x**2  # 제곱\n",
    "### 질문: 뭐?\n\n### 답변: 응.",
    "https://example.com/a?b=1&c=2",
)
"""What is rare in Korean text, and where cuts differ first."""


@dataclass(frozen=True)
class Tokens:
    """What GGUF needs of a tokenizer.

    Attributes:
        model: gpt2 (byte-level BPE) or llama (SentencePiece's BPE).
        pre: name of the cut.
        tokens, kinds: by id, padded up to the model's rows.
        merges: `left right`, in order; of gpt2.
        scores: by id, of llama.
        tried: texts on which the cut gave the tokenizer's own ids.
        unusual: of `UNUSUAL`, those on which it does not.
        normalizer: what the tokenizer does to a text first and llama.cpp does not, or empty.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    tried: int
    unusual: tuple[str, ...]
    normalizer: str


def read(vocabulary: Vocabulary, rows: int) -> Tokens:
    """Reads a tokenizer.

    Args:
        vocabulary: the model's.
        rows: of its embedding; ids without a token are filled up.

    Raises:
        KoalpacaError: another kind of tokenizer, or one that cuts text as llama.cpp cannot (export-tokenizer).
    """
    described = json.loads(vocabulary.backend.to_str())
    model = described["model"]
    pieces = gguf_pieces.fits(described)
    if model["type"] != "BPE" or not (pieces or _has(described.get("pre_tokenizer"), "ByteLevel")):
        raise _refused(f"it is a {model['type']} tokenizer, not byte-level or SentencePiece's BPE", vocabulary)
    normalizer = described.get("normalizer")
    kind = "" if pieces or not normalizer else normalizer["type"]
    if kind not in ("", "NFC"):
        raise _refused(f"it changes text first ({kind})", vocabulary)
    pre, failing = ("default", _pieced(vocabulary, described)) if pieces else _cut(vocabulary, described)
    known = vocabulary.backend.get_vocab(with_added_tokens=True)
    if max(known.values()) >= rows:
        raise _refused(f"it has ids up to {max(known.values())}, the model has {rows} rows", vocabulary)
    tokens, kinds = [f"[PAD{n}]" for n in range(rows)], [UNUSED] * rows
    for text, number in known.items():
        tokens[number], kinds[number] = text, BYTE if pieces and gguf_pieces.is_byte(text) else NORMAL
    for number, added in vocabulary.backend.get_added_tokens_decoder().items():
        tokens[number], kinds[number] = added.content, CONTROL if added.special else USER_DEFINED
    if pieces and model.get("unk_token") in known:
        kinds[known[model["unk_token"]]] = UNKNOWN
    merges: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    if pieces:
        found = gguf_pieces.scores(model["merges"])
        scores = tuple(found.get(text, 0.0) for text in tokens)
    else:
        merges = tuple(one if isinstance(one, str) else " ".join(one) for one in model["merges"])
    return Tokens(
        model="llama" if pieces else "gpt2",
        pre=pre,
        tokens=tuple(tokens),
        kinds=tuple(kinds),
        merges=merges,
        scores=scores,
        tried=len(texts()),
        unusual=failing,
        normalizer=kind,
    )


@cache
def texts() -> tuple[str, ...]:
    """Korean texts of the package: the sample tasks and dialogues."""
    found = []
    for name in ("tasks.jsonl", "dialogues.jsonl"):
        for _, row in jsonl.read(resources.DATA / "samples" / name):
            found += [value for value in row.values() if isinstance(value, str) and value]
            found += [message["content"] for message in row.get("messages", ())]
    return tuple(dict.fromkeys(found))


def _pieced(vocabulary: Vocabulary, described: Mapping[str, Any]) -> tuple[str, ...]:
    """The unusual texts to which llama.cpp's way of joining pieces gives other ids; on all others it must not."""
    way = gguf_pieces.Pieces(described["model"])
    own = _ids(vocabulary.backend, [*texts(), *UNUSUAL])
    wrong = [text for text, ids in zip([*texts(), *UNUSUAL], own, strict=True) if way.ids(text) != ids]
    real = [text for text in wrong if text not in UNUSUAL]
    if real:
        raise _refused(
            f"llama.cpp joins its pieces otherwise on {len(real)} of {len(texts())} Korean texts, "
            f"such as {real[0][:40]!r}",
            vocabulary,
        )
    return tuple(wrong)


def _cut(vocabulary: Vocabulary, described: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The first cut that gives the same ids on every text, and the unusual texts on which it does not."""
    known, rare = list(texts()), list(UNUSUAL)
    own, own_rare = (_ids(vocabulary.backend, some) for some in (known, rare))
    nearest: tuple[int, str, str] | None = None
    for name, cut in CUTS.items():
        twin = _twin(described, cut)
        wrong = [text for text, a, b in zip(known, own, _ids(twin, known), strict=True) if a != b]
        if not wrong:
            failing = (text for text, a, b in zip(rare, own_rare, _ids(twin, rare), strict=True) if a != b)
            return name, tuple(failing)
        if nearest is None or len(wrong) < nearest[0]:
            nearest = (len(wrong), name, wrong[0])
    assert nearest is not None
    count, name, example = nearest
    raise _refused(
        f"no cut of llama.cpp gives its ids; the nearest, '{name}', differs on {count} of {len(known)} "
        f"Korean texts, such as {example[:40]!r}",
        vocabulary,
    )


def _ids(backend: Tokenizer, some: Sequence[str]) -> list[list[int]]:
    return [one.ids for one in backend.encode_batch(list(some), add_special_tokens=False)]


def _twin(described: Mapping[str, Any], cut: Cut) -> Tokenizer:
    """The tokenizer as llama.cpp would be it, with a cut."""
    model = {**described["model"], "ignore_merges": cut.whole_words}
    changed = {**described, "model": model, "normalizer": None, "post_processor": None}
    twin = Tokenizer.from_str(json.dumps(changed))
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in cut.patterns]
    twin.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return twin


def _has(part: Any, kind: str) -> bool:
    if not isinstance(part, dict):
        return False
    return part.get("type") == kind or any(_has(one, kind) for one in part.get("pretokenizers", ()))


def _refused(what: str, vocabulary: Vocabulary) -> KoalpacaError:
    return KoalpacaError(
        "export-tokenizer",
        f"the tokenizer cannot be written as GGUF: {what}.",
        where=vocabulary.name,
        fix="Serve the model with vLLM instead (koalpaca export vllm).",
    )
