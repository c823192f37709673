"""What a model is shown of a long talk: as many of its last exchanges as its context has room for."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.models import forward
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.tokens.encode import Encoder


class Shown(NamedTuple):
    """What goes to the model.

    Attributes:
        conversation: the system turn, the exchanges that fit, the question.
        left_out: exchanges at the start that did not fit.
        tokens: of the prompt.
    """

    conversation: Conversation
    left_out: int
    tokens: int


@dataclass
class Memory:
    """A talk so far.

    Attributes:
        encoder: template and tokenizer.
        room: tokens of the base's context.
        system: the system text, or None.
        exchanges: questions with their answers, in order.
    """

    encoder: Encoder
    room: int
    system: str | None = None
    exchanges: list[tuple[str, str]] = field(default_factory=list)

    def ask(self, question: str, max_new_tokens: int) -> Shown:
        """A question with what fits before it; an exchange is shown whole or not at all.

        Raises:
            KoalpacaError: not even the question alone leaves room for the answer (context-too-long).
        """
        for skip in range(len(self.exchanges) + 1):
            conversation = self._conversation(self.exchanges[skip:], question)
            tokens = len(self.encoder.prompt(self.encoder.render(conversation)))
            if tokens + max_new_tokens <= self.room:
                return Shown(conversation, skip, tokens)
        raise KoalpacaError(
            "context-too-long",
            f"the question is {tokens} tokens long, with {max_new_tokens} new tokens; "
            f"the base has room for {self.room}.",
            fix="Shorten the question or the system text, or lower max_new_tokens.",
        )

    def keep(self, question: str, answer: str) -> None:
        """Remembers an exchange; one without an answer is none."""
        if answer.strip():
            self.exchanges.append((question, answer.strip()))

    def reset(self) -> None:
        """Forgets the exchanges; the system text stays."""
        self.exchanges.clear()

    def _conversation(self, exchanges: Sequence[tuple[str, str]], question: str) -> Conversation:
        turns = [Turn("system", self.system)] if self.system else []
        for asked, answered in exchanges:
            turns += [Turn("user", asked), Turn("assistant", answered)]
        return Conversation((*turns, Turn("user", question)))


def composed(text: str) -> str:
    """Text in NFC: decomposed Hangul has other token ids than what the model learned."""
    return unicodedata.normalize("NFC", text)


def room_of(model: Any) -> int:
    """Tokens of a model's context; one that names no limit has as many as there are."""
    room = getattr(forward.causal(model).config, "max_position_embeddings", None)
    return sys.maxsize if room is None else int(room)
