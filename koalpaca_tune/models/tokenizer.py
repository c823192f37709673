"""A base's tokenizer as a Vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models.sources import Reading, locate
from koalpaca_tune.tokens.vocabulary import Vocabulary


def load(path: str, revision: str | None = None) -> Vocabulary:
    """Loads the tokenizer of a base, or of a folder with no more than a tokenizer (torch is not needed).

    Raises:
        KoalpacaError: missing (base-load), not a fast tokenizer or without EOS (tokenizer-kind).
    """
    return vocabulary(load_pretrained(path, revision), path)


def load_pretrained(path: str, revision: str | None = None) -> Any:
    """The transformers tokenizer itself, for saving beside a merged model."""
    import transformers

    located = path if _is_bare(path) else locate(path)
    with Reading(path):
        return transformers.AutoTokenizer.from_pretrained(
            located, revision=revision, use_fast=True, trust_remote_code=False
        )


def _is_bare(path: str) -> bool:
    """Whether it is a folder with a tokenizer and no model."""
    folder = Path(path)
    return (folder / "tokenizer.json").is_file() and not (folder / "config.json").is_file()


def vocabulary(tokenizer: Any, name: str) -> Vocabulary:
    """Wraps a transformers tokenizer.

    Raises:
        KoalpacaError: no Rust tokenizer behind it, an empty one, or no EOS (tokenizer-kind), or it breaks on the
            first text (base-load).
    """
    with Reading(name):
        return _vocabulary(tokenizer, name)


def _vocabulary(tokenizer: Any, name: str) -> Vocabulary:
    if not getattr(tokenizer, "is_fast", False):
        raise KoalpacaError("tokenizer-kind", "the tokenizer has no tokenizer.json.", where=name)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    if not backend.encode("가", add_special_tokens=False).ids:
        # transformers makes an empty tokenizer where a GPT-NeoX folder has no tokenizer files
        raise KoalpacaError(
            "tokenizer-kind",
            "the tokenizer gives no ids for a text; are its files missing?",
            where=name,
            fix="The base needs its tokenizer.json.",
        )
    if tokenizer.eos_token is None:
        specials = [token.content for token in backend.get_added_tokens_decoder().values() if token.special]
        raise KoalpacaError(
            "tokenizer-kind",
            "the tokenizer has no EOS token, so no answer could end.",
            where=name,
            fix='Name it in the folder\'s special_tokens_map.json: {"eos_token": ...}. '
            f"Special tokens it has: {', '.join(specials[:8]) or 'none'}.",
        )
    bos = tokenizer.bos_token
    first = backend.encode("가").ids[:1]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def apply(messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return text

    return Vocabulary(
        name=name,
        backend=backend,
        bos=bos,
        eos=tokenizer.eos_token,
        pad_id=int(pad),
        adds_bos=bos is not None and first == [backend.token_to_id(bos)],
        apply=apply if tokenizer.chat_template else None,
    )
