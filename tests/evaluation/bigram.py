"""A real, small language model for tests: add-k character bigrams, fitted on a few sentences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from koalpaca_tune.records import Conversation, Piece, Rendered

END = "</s>"


class Score(NamedTuple):
    logprob: float
    tokens: int


class Written(NamedTuple):
    text: str
    stopped: bool
    tokens: int


def render(conversation: Conversation) -> Rendered:
    """A plain template like KoAlpaca's, with its end token."""
    pieces: list[Piece] = []
    for turn in conversation.turns:
        if turn.role == "assistant":
            pieces += [Piece(" " + turn.content, "content", True), Piece(END, "special", True)]
        else:
            context = f"\n\n맥락: {turn.context}" if turn.context else ""
            pieces += [Piece("질문: ", "frame"), Piece(turn.content + context, "content")]
            pieces.append(Piece("\n\n답변:", "frame"))
    return Rendered(tuple(pieces), conversation.origin)


class Bigram:
    """P(next | character) with add-k smoothing over the characters seen; END is one symbol."""

    def __init__(self, texts: Sequence[str], k: float = 0.1) -> None:
        self.k = k
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.singles: Counter[str] = Counter()
        for text in texts:
            symbols = ["\n", *text, END]
            self.pairs.update(pairwise(symbols))
            self.singles.update(symbols[:-1])
        self.vocabulary = sorted({b for _, b in self.pairs} | set(self.singles))
        self.scored = 0
        self.written = 0

    def logprob(self, before: str, symbol: str) -> float:
        size = len(self.vocabulary) + 1
        return math.log((self.pairs[before, symbol] + self.k) / (self.singles[before] + self.k * size))

    def score(self, requests: Sequence[Rendered]) -> list[Score]:
        self.scored += len(requests)
        return [self._score(request) for request in requests]

    def _score(self, request: Rendered) -> Score:
        symbols: list[tuple[str, bool]] = []
        for piece in request.pieces:
            parts = [piece.text] if piece.kind == "special" else list(piece.text)
            symbols += [(part, piece.learn) for part in parts]
        total, tokens, before = 0.0, 0, "\n"
        for symbol, learn in symbols:
            if learn:
                total += self.logprob(before, symbol)
                tokens += 1
            before = symbol
        return Score(total, tokens)

    def write(
        self, prompts: Sequence[Rendered], max_new_tokens: int, *, until: Sequence[str] = ()
    ) -> list[Written]:
        self.written += len(prompts)
        return [self._write(prompt, max_new_tokens, until) for prompt in prompts]

    def _write(self, prompt: Rendered, limit: int, until: Sequence[str]) -> Written:
        assert not prompt.spans
        text, before = "", prompt.text[-1]
        for count in range(limit):
            symbol = max(self.vocabulary, key=lambda one: (self.logprob(before, one), one))
            if symbol == END:
                return Written(text, True, count)
            text, before = text + symbol, symbol
            if found := [text.index(end) for end in until if end in text]:
                return Written(text[: min(found)], True, count + 1)
        return Written(text, False, limit)
