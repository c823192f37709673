"""What OpenAI's clients read: whole answers, and the chunks of a stream."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from koalpaca_tune.serving.served import Served


@dataclass(frozen=True)
class Reply:
    """The frame of one answer.

    Attributes:
        chat: a chat completion, not a completion.
        model: its name.
        prompt_tokens: of the prompt.
    """

    chat: bool
    model: str
    prompt_tokens: int
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, reason: str, tokens: int) -> dict[str, Any]:
        """The answer at once."""
        body = self._frame("chat.completion" if self.chat else "text_completion")
        said: dict[str, Any] = {"text": text}
        if self.chat:
            said = {"message": {"role": "assistant", "content": text, "refusal": None}}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": reason}
        return {**body, "choices": [choice], "usage": self._usage(tokens)}

    def first(self) -> dict[str, Any] | None:
        """The chunk that a stream begins with, if it does."""
        return self._chunk({"role": "assistant", "content": ""}, None) if self.chat else None

    def piece(self, text: str) -> dict[str, Any]:
        """A chunk with text."""
        return self._chunk({"content": text}, None)

    def last(self, reason: str) -> dict[str, Any]:
        """The chunk that says why the answer is over."""
        return self._chunk({}, reason)

    def counts(self, tokens: int) -> dict[str, Any]:
        """The chunk with the counts and nothing else."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self._frame(kind), "choices": [], "usage": self._usage(tokens)}

    def _chunk(self, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        said: dict[str, Any] = {"delta": delta} if self.chat else {"text": delta.get("content", "")}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": reason}
        return {**self._frame(kind), "choices": [choice]}

    def _frame(self, kind: str) -> dict[str, Any]:
        lead = "chatcmpl" if self.chat else "cmpl"
        return {"id": f"{lead}-{self.id}", "object": kind, "created": self.created, "model": self.model}

    def _usage(self, tokens: int) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": self.prompt_tokens + tokens,
        }


def models(served: Served) -> list[dict[str, Any]]:
    """The entries of `/v1/models`."""
    return [
        {"id": name, "object": "model", "created": served.since, "owned_by": "koalpaca-tune"}
        for name in served.models
    ]


def event(body: dict[str, Any] | str) -> bytes:
    """A server-sent event."""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()
