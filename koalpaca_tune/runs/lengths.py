"""The tokenizer of a base as the evaluation needs it: how long texts are, and their ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from koalpaca_tune.config.recipe import Base
from koalpaca_tune.models import base as bases
from koalpaca_tune.models import tokenizer
from koalpaca_tune.records import Piece, Rendered
from koalpaca_tune.tokens.encode import Encoder


@dataclass(frozen=True)
class TokenLengths:
    """Lengths by a base's tokenizer.

    Attributes:
        encoder: template and tokenizer.
        room: most tokens of a text; None where the base's configuration does not say.
    """

    encoder: Encoder
    room: int | None

    def tokens(self, texts: Sequence[Rendered]) -> list[int]:
        """How many tokens each text has."""
        return [len(one.ids) for one in self.encoder.encode(texts)]

    def cut(self, text: Rendered, tokens: int) -> Rendered:
        """The end of a text, of at most so many tokens, cut between two of its own tokens where that can be.

        A cut inside a character, or one after which the rest would be read as other tokens, moves to the right.
        """
        (whole,) = self.encoder.encode([text])
        # a token put in front of every text stays there: it is not part of the text
        front = len(whole.ids) - len(self._ids(text.text))
        ids = whole.ids[front:]
        first = text.spans[0][0] if text.spans else len(text.text)
        for drop in range(len(whole.ids) - tokens, len(ids)):
            gone = self._text(ids[:drop])
            rest = text.text[len(gone) :]
            if text.text.startswith(gone) and len(gone) <= first and self._ids(rest) == list(ids[drop:]):
                return _without(text, len(gone))
        return text

    def _ids(self, text: str) -> list[int]:
        return list(self.encoder.vocabulary.backend.encode(text, add_special_tokens=False).ids)

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.encoder.vocabulary.backend.decode(list(ids), skip_special_tokens=False))


def of(base: Base, template: str) -> TokenLengths:
    """The tokenizer and the room of a base, without its weights.

    Raises:
        KoalpacaError: it cannot be loaded (base-load), or the template does not fit it.
    """
    vocabulary = tokenizer.load(base.path, base.revision)
    config, _ = bases.describe(base)
    room = getattr(config, "max_position_embeddings", None)
    return TokenLengths(Encoder(vocabulary, vocabulary.template(template)), room)


def _without(text: Rendered, characters: int) -> Rendered:
    pieces: list[Piece] = []
    for piece in text.pieces:
        taken = min(characters, len(piece.text))
        characters -= taken
        if piece.text[taken:]:
            pieces.append(replace(piece, text=piece.text[taken:]))
    return Rendered(tuple(pieces), text.origin)
