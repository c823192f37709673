"""The models of a server: the base and its adapters by name, and a request's text as tokens for them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import takewhile

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.inference.decoding import Sampling
from koalpaca_tune.inference.generation.request import Request
from koalpaca_tune.records import Conversation, Piece, Rendered, Turn, check_order
from koalpaca_tune.serving.fields import Asked, Chat, Completion
from koalpaca_tune.serving.memory import composed
from koalpaca_tune.serving.refusal import Refusal
from koalpaca_tune.serving.text import TextStream
from koalpaca_tune.tokens.encode import Encoder

SHORTEST_PREFIX = 8
"""Tokens; a shorter beginning is computed sooner than it is looked for."""


@dataclass(frozen=True)
class Model:
    """A name that requests may ask for.

    Attributes:
        name: in `/v1/models`.
        encoder: its own template; adapters of one base may have been trained with different ones.
        adapter: the writer's name of the adapter; None: the base alone.
    """

    name: str
    encoder: Encoder
    adapter: str | None


@dataclass(frozen=True)
class Ready:
    """A request as the scheduler wants it."""

    model: Model
    request: Request
    stream: TextStream


@dataclass(frozen=True)
class Served:
    """What a server has.

    Attributes:
        models: by name, the base first.
        room: tokens that a prompt and its answer may have together.
        most_new_tokens: that an answer may have; also where a request says nothing.
        since: Unix time of the start.
    """

    models: Mapping[str, Model]
    room: int
    most_new_tokens: int
    since: int = field(default_factory=lambda: int(time.time()))

    def model(self, name: str) -> Model:
        """A model by name.

        Raises:
            Refusal: there is none (404).
        """
        if name not in self.models:
            known = ", ".join(self.models)
            raise Refusal(
                404, "model_not_found", f"there is no model '{name[:100]}'. Known: {known}.", param="model"
            )
        return self.models[name]

    def chat(self, body: Chat) -> Ready:
        """A talk to be answered.

        Raises:
            Refusal: turns out of order or empty, or too long (400); no such model (404).
        """
        model = self.model(body.model)
        conversation = _conversation(body)
        try:
            check_order(conversation)
            ids = model.encoder.prompt(model.encoder.render(conversation))
        except KoalpacaError as error:
            problem = error.problems[0]
            raise Refusal(400, problem.code, f"{problem.what} {problem.fix}".strip(), param="messages") from error
        if conversation.turns[-1].role != "user":
            raise Refusal(400, "row-turns", "the last message has to be the user's.", param="messages")
        system = conversation.turns[0].content if conversation.turns[0].role == "system" else ""
        begins = _beginning(model.encoder, system)
        prefix = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ids, begins, strict=False)))
        return self._ready(body, model, ids, prefix if prefix >= SHORTEST_PREFIX else 0, strip=True)

    def completion(self, body: Completion) -> Ready:
        """A text to be continued.

        Raises:
            Refusal: too long (400); no such model (404).
        """
        model = self.model(body.model)
        ids = model.encoder.prompt(Rendered((Piece(composed(body.prompt), "content"),)))
        return self._ready(body, model, ids, 0, strip=False)

    def _ready(self, body: Asked, model: Model, ids: Sequence[int], prefix: int, *, strip: bool) -> Ready:
        vocabulary = model.encoder.vocabulary
        request = Request(
            ids=tuple(ids),
            limit=self._limit(body, len(ids)),
            stops=tuple(vocabulary.stop_ids(model.encoder.template)),
            sampling=_sampling(body),
            adapter=model.adapter,
            prefix=prefix,
        )
        return Ready(model, request, TextStream(vocabulary.decode, until=body.until, strip=strip))

    def _limit(self, body: Asked, tokens: int) -> int:
        free = self.room - tokens
        asked = body.limit
        if asked is not None and asked > self.most_new_tokens:
            raise Refusal(
                400,
                "too_many_tokens",
                f"max_tokens is {asked}; this server writes at most {self.most_new_tokens}.",
                param="max_tokens",
            )
        if free < (1 if asked is None else asked):
            wanted = "" if asked is None else f" and {asked} new ones"
            raise Refusal(
                400,
                "context_length_exceeded",
                f"the prompt has {tokens} tokens{wanted}; there is room for {self.room} together.",
                param="prompt" if isinstance(body, Completion) else "messages",
            )
        return min(free, self.most_new_tokens) if asked is None else asked


def _conversation(body: Chat) -> Conversation:
    turns = []
    for n, message in enumerate(body.messages):
        role = "system" if message.role == "developer" else message.role
        text = composed(message.text)
        if role == "user" and not text.strip():
            raise Refusal(400, "question-empty", "the question is empty.", param=f"messages[{n}].content")
        if message.context is not None and role != "user":
            raise Refusal(
                400, "invalid_value", "context goes with a user's message.", param=f"messages[{n}].context"
            )
        turns.append(Turn(role, text, composed(message.context) if message.context else None))
    return Conversation(tuple(turns), "messages")


def _sampling(body: Asked) -> Sampling | None:
    if body.temperature == 0:
        return None
    return Sampling(body.temperature, body.top_p, secrets.randbits(62) if body.seed is None else body.seed)


@lru_cache(maxsize=64)
def _beginning(encoder: Encoder, system: str) -> tuple[int, ...]:
    """The ids that every talk with a system text begins with, as far as two of them agree."""
    head = (Turn("system", system),) if system else ()
    one, other = (
        encoder.prompt(encoder.render(Conversation((*head, Turn("user", question))))) for question in ("가", "나")
    )
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return tuple(pair[0] for pair in same)
