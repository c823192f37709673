"""Answers to free questions: by one model, or by base and tuned model side by side."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference.decoding import Sampling, Written
from koalpaca_tune.inference.language_model import TorchLanguageModel
from koalpaca_tune.records import Conversation, Rendered, Turn, check_order


class SideBySide(NamedTuple):
    """Two answers to one prompt.

    Attributes:
        prompt: the text both models continued.
        base: by the base alone.
        tuned: by the base with the adapter.
    """

    prompt: str
    base: Written
    tuned: Written


def question(text: str, *, context: str | None = None, system: str | None = None) -> Conversation:
    """One question as a conversation, in NFC: a macOS terminal may hand over decomposed Hangul.

    Raises:
        KoalpacaError: nothing but space (question-empty).
    """
    if not text.strip():
        raise KoalpacaError("question-empty", "the question is empty.", fix="Write a question.")
    turns = [Turn("user", _nfc(text), None if context is None or not context.strip() else _nfc(context))]
    if system is not None and system.strip():
        turns.insert(0, Turn("system", _nfc(system)))
    return Conversation(tuple(turns))


def answers(
    lm: TorchLanguageModel,
    questions: Sequence[Conversation],
    max_new_tokens: int,
    *,
    sampling: Sampling | None = None,
    show: Callable[[str], None] | None = None,
) -> list[Written]:
    """Answers through the training template, in the order given.

    Args:
        lm: model, tokenizer and template.
        questions: conversations that end with a user turn; earlier turns are the history.
        max_new_tokens: longest answer, in tokens.
        sampling: None for the likeliest token each time.
        show: gets the text as it is written, answer after answer.

    Raises:
        KoalpacaError: a conversation that ends with an answer (row-turns), or is too long (context-too-long).
    """
    return lm.write(_prompts(lm, questions), max_new_tokens, sampling=sampling, show=show)


def side_by_side(
    lm: TorchLanguageModel,
    questions: Sequence[Conversation],
    max_new_tokens: int,
    *,
    sampling: Sampling | None = None,
) -> list[SideBySide]:
    """The same prompts by the base (adapter switched off, same weights in memory) and by the tuned model.

    Raises:
        KoalpacaError: no adapter (adapter-not-attached); else as `answers`.
    """
    prompts = _prompts(lm, questions)
    with lm.without_adapter():
        base = lm.write(prompts, max_new_tokens, sampling=sampling)
    tuned = lm.write(prompts, max_new_tokens, sampling=sampling)
    return [
        SideBySide(prompt.text, before, after) for prompt, before, after in zip(prompts, base, tuned, strict=True)
    ]


def _prompts(lm: TorchLanguageModel, questions: Sequence[Conversation]) -> list[Rendered]:
    for one in questions:
        check_order(one)
        if one.turns[-1].role != "user":
            raise KoalpacaError(
                "row-turns", "the conversation ends with an answer: there is nothing to answer.", where=one.origin
            )
    return [lm.encoder.render(one) for one in questions]


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
