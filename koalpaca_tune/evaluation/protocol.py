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
    """What a model wrote, without the prompt and without the token that ended it."""

    @property
    def text(self) -> str:
        """The answer."""

    @property
    def stopped(self) -> bool:
        """Whether the model ended it by itself, before the limit."""

    @property
    def tokens(self) -> int:
        """How many tokens it wrote."""


class LanguageModel(Protocol):
    """A model under evaluation. Batching is its own business; order of results is order of requests."""

    def score(self, requests: Sequence[Rendered]) -> Sequence[Score]:
        """Scores the learned span of each request, encoded as in training (boundaries checked)."""

    def write(self, prompts: Sequence[Rendered], max_new_tokens: int) -> Sequence[Written]:
        """Continues each prompt greedily until a stop token or the limit."""


Renderer = Callable[[Conversation], Rendered]
"""The training template. A conversation that ends with a user turn becomes the generation prompt; one that
ends with an assistant turn has its answers marked as learned."""

Progress = Callable[[str, int, int], None]
"""(what, done, total), called as work moves."""
