"""What the evaluation asks of a model: a score for a given answer, and an answer of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from koalpaca_tune.records import Conversation, Rendered


@dataclass(frozen=True, slots=True)
class Score:
    """How likely a model finds an answer.

    Attributes:
        logprob: natural log-likelihood, summed over the tokens of the learned span.
        tokens: how many tokens that span has.
    """

    logprob: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote, without the prompt and without the token that ended it.

    Attributes:
        text: the answer.
        stopped: whether the model ended it by itself, before the limit.
        tokens: how many tokens it wrote.
    """

    text: str
    stopped: bool
    tokens: int


class LanguageModel(Protocol):
    """A model under evaluation. Batching is its own business; order of results is order of requests."""

    def score(self, requests: Sequence[Rendered]) -> list[Score]:
        """Scores the learned span of each request, encoded as in training (boundaries checked)."""
        ...

    def write(self, prompts: Sequence[Rendered], max_new_tokens: int) -> list[Written]:
        """Continues each prompt greedily until a stop token or the limit."""
        ...


Renderer = Callable[[Conversation], Rendered]
"""The training template. A conversation that ends with a user turn becomes the generation prompt; one that
ends with an assistant turn has its answers marked as learned."""

Progress = Callable[[str, int, int], None]
"""(what, done, total), called as work moves."""
