"""What the evaluation asks of a model: a score for a given answer, and an answer of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from koalpaca_tune.records import Conversation, Rendered


class Score(Protocol):
    """How likely a model finds an answer."""

    @property
    def logprob(self) -> float:
        """Natural log-likelihood, summed over the tokens of the learned span."""

    @property
    def tokens(self) -> int:
        """How many tokens that span has."""


class Written(Protocol):
    """What a model wrote, without the prompt and without what ended it."""

    @property
    def text(self) -> str:
        """The answer."""

    @property
    def stopped(self) -> bool:
        """Whether the answer ended before the limit: by the model's end token, or at a text of `until`."""

    @property
    def tokens(self) -> int:
        """How many tokens it wrote."""


class LanguageModel(Protocol):
    """A model under evaluation. Batching is its own business; order of results is order of requests."""

    def score(self, requests: Sequence[Rendered]) -> Sequence[Score]:
        """Scores the learned span of each request, encoded as in training (boundaries checked)."""

    def write(
        self, prompts: Sequence[Rendered], max_new_tokens: int, *, until: Sequence[str] = ()
    ) -> Sequence[Written]:
        """Continues each prompt greedily until a stop token, a text of `until` (left out) or the limit."""


class Lengths(Protocol):
    """A tokenizer, as far as the evaluation needs it: to plan, and to find what does not fit."""

    @property
    def room(self) -> int | None:
        """Most tokens of a text that the base reads; None where it does not say."""

    def tokens(self, texts: Sequence[Rendered]) -> Sequence[int]:
        """How many tokens each text has."""

    def cut(self, text: Rendered, tokens: int) -> Rendered:
        """The end of a text, of at most so many tokens; its learned span is whole."""


Renderer = Callable[[Conversation], Rendered]
"""The training template. A conversation that ends with a user turn becomes the generation prompt; one that
ends with an assistant turn has its answers marked as learned."""

Progress = Callable[[str, int, int], None]
"""(what, done, total), called as work moves."""
