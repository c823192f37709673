"""What the house needs to know of a tokenizer, around the Rust tokenizer itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tokenizers import AddedToken, Tokenizer

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.templates import chat
from koalpaca_tune.templates.registry import OWN, find
from koalpaca_tune.templates.template import Markers, Template

_CUT = "\U0010fffe|cut|\U0010fffe"
"""Stands where a special token would: not in any text, since these characters never will be any."""


@dataclass(frozen=True)
class Vocabulary:
    """A fast tokenizer with its special tokens.

    Attributes:
        name: where it came from, for messages.
        backend: the Rust tokenizer, without truncation or padding.
        bos, eos: begin and end tokens as text; `bos` may be None.
        pad_id: id that fills rows. It may equal EOS: padding is masked by position, never by id.
        adds_bos: whether the tokenizer itself puts BOS in front of a text.
        apply: its own chat template as a function, if it has one.
    """

    name: str
    backend: Tokenizer
    bos: str | None
    eos: str
    pad_id: int
    adds_bos: bool = False
    apply: chat.Apply | None = field(default=None, compare=False)

    @cached_property
    def specials(self) -> tuple[str, ...]:
        """Every special token, as text."""
        added = self.backend.get_added_tokens_decoder().values()
        return tuple(token.content for token in added if token.special)

    @cached_property
    def literal(self) -> Tokenizer:
        """The same tokenizer, to which special tokens in a text are plain text; and with one more, to cut by."""
        twin = Tokenizer.from_str(self.backend.to_str())
        twin.encode_special_tokens = True
        twin.add_tokens([AddedToken(_CUT, normalized=False)])
        return twin

    def literal_ids(self, text: str, *, begins: bool) -> list[int]:
        """Ids of a stretch of text in which nothing is special.

        Args:
            begins: whether it stands at the very beginning: some tokenizers put a space before that alone.
        """
        if begins or not text:
            return list(self.literal.encode(text, add_special_tokens=False).ids)
        return list(self.literal.encode(_CUT + text, add_special_tokens=False).ids[1:])

    @property
    def markers(self) -> Markers:
        """BOS and EOS as templates want them."""
        return Markers(self.bos, self.eos)

    def id(self, token: str) -> int:
        """The id of a token that must exist.

        Raises:
            KoalpacaError: the tokenizer has no such token (token-missing).
        """
        found: int | None = self.backend.token_to_id(token)
        if found is None:
            raise KoalpacaError("token-missing", f"it has no token '{token}'.", where=f"tokenizer {self.name}")
        return found

    def template(self, name: str) -> Template:
        """A template by name, checked against this tokenizer; 'tokenizer' is the tokenizer's own.

        Raises:
            KoalpacaError: unknown (template-unknown), its special tokens are missing (template-tokens), or
                the tokenizer has no chat template (template-own).
        """
        if name == OWN:
            if self.apply is None:
                raise KoalpacaError(
                    "template-own",
                    f"the tokenizer of {self.name} has no chat template.",
                    where="template",
                    fix="Choose one by name: koalpaca, kullm-v2, llama3, ...",
                )
            return Template(OWN, chat.tokenizer_own(self.apply, self.specials), source=f"tokenizer of {self.name}")
        template = find(name)
        missing = [token for token in template.needs if token not in self.specials]
        if missing:
            raise KoalpacaError(
                "template-tokens",
                f"template '{name}' needs the special token {missing[0]}, which {self.name} lacks.",
                where="template",
                fix="Choose the template that the base was trained with, or a plain one such as koalpaca.",
            )
        return template

    def stop_ids(self, template: Template) -> list[int]:
        """Every id that ends an answer: EOS, and the template's own end of turn."""
        stops = [self.eos, *template.stops]
        if template.name == OWN:
            stops += [t for t in (chat.TURN_END, chat.IM_END, "[|endofturn|]") if t in self.specials]
        return sorted({self.id(token) for token in stops})

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text, special tokens left out."""
        text: str = self.backend.decode(list(ids), skip_special_tokens=True)
        return text
