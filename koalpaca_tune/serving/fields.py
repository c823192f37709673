"""The fields of a request. Each has an effect or is refused by name; none is ignored.

One whose value asks for nothing (`n: 1`, `logprobs: false`, null) is as if it were not there; clients do send such.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from koalpaca_tune.errors import did_you_mean
from koalpaca_tune.serving.refusal import Refusal

STOP_TEXTS = 4
STOP_LENGTH = 256

_NOTHING: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "metadata": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "tool_calls": ([],),
    "annotations": ([],),
    "user": (),
    "verbosity": (),
    "web_search_options": (),
}
"""Fields of OpenAI's that cannot be had here -> values that ask for nothing."""


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: `true` is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {
            name: value
            for name, value in given.items()
            if value is not None and not any(_same(value, idle) for idle in _NOTHING.get(name, ()))
        }


class _Options(_Body):
    include_usage: bool = False
    include_obfuscation: Literal[False] = False


def _listed(value: Any) -> Any:
    """A text alone as a list of one."""
    return [value] if isinstance(value, str) else value


def _parts(value: Any) -> Any:
    """A text alone as a list of one part."""
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


_StopText = Annotated[str, StringConstraints(min_length=1, max_length=STOP_LENGTH)]


class Asked(_Body):
    """What both kinds of request share.

    Attributes:
        model: a name of `/v1/models`.
        temperature: 0 for the likeliest token; OpenAI's default is 1.
        seed: None: another answer each time.
        stop: texts that end the answer.
    """

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Annotated[list[_StopText], BeforeValidator(_listed), Field(max_length=STOP_TEXTS)] = []
    stream: bool = False
    stream_options: _Options | None = None

    @property
    def until(self) -> tuple[str, ...]:
        """The stop texts."""
        return tuple(self.stop)

    @property
    def limit(self) -> int | None:
        """Most new tokens, if said."""
        return self.max_tokens

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class _Part(_Body):
    type: Literal["text"]
    text: str


class Message(_Body):
    """A turn. `context` is ours: material that comes with a question (맥락)."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[_Part], BeforeValidator(_parts)]
    context: str | None = None

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(part.text for part in self.content)


class Chat(Asked):
    """`/v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def limit(self) -> int | None:
        """Most new tokens, if said."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class Completion(Asked):
    """`/v1/completions`: a text to continue, as it is."""

    prompt: Annotated[str, StringConstraints(min_length=1)]


Body = TypeVar("Body", Chat, Completion)


def read(kind: type[Body], content: bytes) -> Body:
    """A request's body.

    Raises:
        Refusal: it is no JSON object, or a field is wrong (400).
    """
    try:
        given = json.loads(content)
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:120]
        raise Refusal(400, "invalid_json", f"the body is not JSON ({why}).") from error
    if not isinstance(given, dict):
        raise Refusal(400, "invalid_json", "the body is not a JSON object.")
    try:
        body = kind.model_validate(given)
    except ValidationError as error:
        # told one at a time: the first in the order of the fields
        raise _wrong(error.errors(include_url=False)[0], list(kind.model_fields)) from error
    _check(body)
    return body


def _check(body: Chat | Completion) -> None:
    if body.stream_options is not None and not body.stream:
        raise Refusal(400, "unsupported_value", "stream_options goes with stream: true.", param="stream_options")
    if isinstance(body, Chat) and None not in (body.max_tokens, body.max_completion_tokens):
        raise Refusal(
            400, "unsupported_value", "give max_tokens or max_completion_tokens, not both.", param="max_tokens"
        )


def _wrong(problem: ErrorDetails, known: list[str]) -> Refusal:
    path, loc = "", problem["loc"]
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part[:60]}" if path else part[:60]
    value = _short(problem["input"])
    if problem["type"] == "extra_forbidden":
        name = str(loc[-1])
        if name in _NOTHING:
            idle = " or ".join(json.dumps(one) for one in _NOTHING[name])
            fix = f"Only {idle} is possible." if idle else "Leave it out."
            return Refusal(
                400, "unsupported_field", f"'{path}' is {value}, which this server cannot do. {fix}", param=path
            )
        fix = did_you_mean(name, known) if len(loc) == 1 else "Leave it out."
        return Refusal(400, "unknown_field", f"there is no field '{path}' (value {value}). {fix}", param=path)
    given = "" if problem["type"] == "missing" else f" (value {value})"
    said = problem["msg"][:1].lower() + problem["msg"][1:]
    return Refusal(400, "invalid_value", f"{path or 'body'}: {said}{given}.", param=path or None)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
