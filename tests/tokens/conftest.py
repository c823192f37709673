"""Tokenizers of four kinds: the embedded one, the Llama twin's, and two trained here on a few sentences."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from koalpaca_tune.models import tokenizer
from koalpaca_tune.templates import chat
from koalpaca_tune.tokens.vocabulary import Vocabulary

SENTENCES = (
    "대한민국의 수도는 서울이다. 서울은 한강을 끼고 있다.",
    "### 질문: 물은 몇 도에서 끓나요?\n\n### 답변: 섭씨 백 도에서 끓습니다.",
    "### 질문: 수도는 어디인가요?\n\n### 답변: 서울입니다. 인구는 구백만 명쯤입니다.",
    "첫 줄\n\n\n\n넷째 줄\n\n\n\n끝\n\n",
    "짧게 답하세요. 사과 셋에서 하나를 먹으면 둘이 남습니다.",
    "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요.",
)
CHAT_TOKENS = (chat.BEGIN, chat.HEADER, chat.HEADER_END, chat.TURN_END, chat.IM_START, chat.IM_END)


def gpt2_like() -> Vocabulary:
    """Byte-level BPE with GPT-2's pre-tokeniser: a space joins the word after it, blank lines join each other."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>", *CHAT_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return Vocabulary("gpt2-like", backend, None, "<|endoftext|>", 0)


def sentencepiece_like(prepend: str) -> Vocabulary:
    """Llama-2's kind: `▁` for a space, one put in front of the text (where, depends on `prepend`)."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    special = ["<unk>", "<s>", "</s>"]
    octets = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=[*special, *octets], show_progress=False)
    backend.train_from_iterator(SENTENCES, trainer)
    # the trainer makes them special tokens; they are only entries
    whole = json.loads(backend.to_str())
    whole["added_tokens"] = [token for token in whole["added_tokens"] if token["content"] in special]
    backend = Tokenizer.from_str(json.dumps(whole))
    # trained with words apart, used with the text in one piece, as sentencepiece does
    if prepend == "legacy":
        backend.pre_tokenizer = None
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=False)
    return Vocabulary(f"sentencepiece-like, {prepend}", backend, "<s>", "</s>", 2, adds_bos=False)


def with_chat_tokens(words: Any, name: str) -> Vocabulary:
    """A tokenizer to which the special tokens of every template were added."""
    known = set(words.get_vocab())
    words.add_tokens([AddedToken(token, special=True) for token in CHAT_TOKENS if token not in known])
    return tokenizer.vocabulary(words, name)


@pytest.fixture(scope="session")
def vocabularies(new_llama_words: Callable[[], Any]) -> dict[str, Vocabulary]:
    return {
        "embedded": with_chat_tokens(tokenizer.load_pretrained("embedded"), "embedded"),
        "llama": with_chat_tokens(new_llama_words(), "llama twin"),
        "gpt2": gpt2_like(),
        **{f"sp-{prepend}": sentencepiece_like(prepend) for prepend in ("legacy", "first", "always", "never")},
    }
