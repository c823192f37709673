"""Rendered text to ids and labels, with the token-prefix rule checked on every example.

The whole text is tokenised once. For a learned span [a, b) the ids of text[:a] must be a prefix of the
ids of the whole text, and so must those of text[:b]: then the tokens between are exactly the answer, at
training as at generation. Character offsets cannot show this (byte-level BPE trims them), so ids decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.records import NOT_LEARNED, Conversation, Encoded, Rendered
from koalpaca_tune.templates.template import Template
from koalpaca_tune.tokens.vocabulary import Vocabulary

CHUNK = 512


class Encoder:
    """A template with a tokenizer: conversations to ids and labels."""

    def __init__(self, vocabulary: Vocabulary, template: Template) -> None:
        self.vocabulary = vocabulary
        self.template = template

    def render(self, conversation: Conversation) -> Rendered:
        """The conversation through the template."""
        return self.template.render(conversation, self.vocabulary.markers)

    def conversations(self, conversations: Iterable[Conversation]) -> Iterator[Encoded]:
        """Renders and encodes, in order."""
        return self.encode(self.render(conversation) for conversation in conversations)

    def encode(self, rendered: Iterable[Rendered]) -> Iterator[Encoded]:
        """Encodes in batches (the tokenizer works on them in parallel), in order.

        Raises:
            KoalpacaError: a learned span does not begin or end between tokens (mask-boundary).
        """
        todo = iter(rendered)
        while chunk := list(islice(todo, CHUNK)):
            asked = [(one, one.text, _cuts(one)) for one in chunk]
            # choices of one question share its prompt: each text once
            texts = list(dict.fromkeys(part for _, text, cuts in asked for part in _parts(text, cuts)))
            ids = dict(zip(texts, self._ids(texts), strict=True))
            for one, text, cuts in asked:
                whole, *before = (ids[part] for part in _parts(text, cuts))
                prefixes = dict(zip(cuts, before, strict=True))
                if self._spells_special(one):
                    whole = self._by_piece(one, len(one.text))
                    prefixes = {end: self._by_piece(one, end) for end in prefixes}
                yield self._label(one, whole, prefixes)

    def prompt(self, rendered: Rendered) -> list[int]:
        """Ids of a text to be continued."""
        return list(next(self.encode([rendered])).ids)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self.vocabulary.backend.encode_batch(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _label(self, one: Rendered, whole: list[int], prefixes: dict[int, list[int]]) -> Encoded:
        labels = [NOT_LEARNED] * len(whole)
        length = len(one.text)
        for start, end in one.spans:
            bounds = []
            for at in (start, end):
                prefix = whole if at == length else prefixes[at] if at else []
                if whole[: len(prefix)] != prefix:
                    raise self._boundary(one, at)
                bounds.append(len(prefix))
            labels[bounds[0] : bounds[1]] = whole[bounds[0] : bounds[1]]
        bos = self.vocabulary.bos
        # a user's text may spell BOS: only the template's own counts
        own = next(((piece.kind, piece.text) for piece in one.pieces if piece.text), None)
        if self.vocabulary.adds_bos and bos and own != ("special", bos):
            whole, labels = [self.vocabulary.id(bos), *whole], [NOT_LEARNED, *labels]
        elif labels:
            labels[0] = NOT_LEARNED
        return Encoded(tuple(whole), tuple(labels), one.origin)

    def _boundary(self, one: Rendered, at: int) -> KoalpacaError:
        around = one.text[max(0, at - 8) : at] + "|" + one.text[at : at + 8]
        return KoalpacaError(
            "mask-boundary",
            f"template '{self.template.name}' does not fit the tokenizer of {self.vocabulary.name}: "
            f"a token spans the place where learning begins or ends ({around!r}).",
            where=one.origin,
            fix="Choose the base's own template, or a plain one such as koalpaca.",
        )

    @cached_property
    def _special_pattern(self) -> re.Pattern[str] | None:
        specials = self.vocabulary.specials
        return re.compile("|".join(re.escape(token) for token in specials)) if specials else None

    def _spells_special(self, one: Rendered) -> bool:
        pattern = self._special_pattern
        return pattern is not None and any(
            piece.kind != "special" and pattern.search(piece.text) for piece in one.pieces
        )

    def _by_piece(self, one: Rendered, end: int) -> list[int]:
        """Ids of text[:end] where only the template's own special tokens are special.

        A user may write `<|endoftext|>`; it must stay text. Special tokens cut the text for every
        tokenizer, so encoding the stretches between them apart gives the same ids otherwise.
        """
        ids: list[int] = []
        stretch, at = "", 0
        for piece in one.pieces:
            text = piece.text[: max(0, end - at)]
            at += len(piece.text)
            if piece.kind == "special" and text == piece.text:
                ids += self.vocabulary.literal_ids(stretch, begins=not ids)
                ids.append(self.vocabulary.id(text))
                stretch = ""
            else:
                stretch += text
        return ids + self.vocabulary.literal_ids(stretch, begins=not ids)


def _parts(text: str, cuts: Sequence[int]) -> list[str]:
    """A text and its beginnings up to each cut."""
    return [text, *(text[:end] for end in cuts)]


def _cuts(one: Rendered) -> list[int]:
    """Places inside the text whose prefix must be tokenised, in order, each once."""
    length = len(one.text)
    return sorted({at for span in one.spans for at in span if 0 < at < length})
