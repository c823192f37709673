"""Fields of a request: an effect, or a refusal that names the field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from koalpaca_tune.serving import fields
from koalpaca_tune.serving.refusal import Refusal

ASKED = {"model": "m", "messages": [{"role": "user", "content": "하나"}]}


def chat(**more: Any) -> fields.Chat:
    return fields.read(fields.Chat, json.dumps({**ASKED, **more}).encode())


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported_field"),
        ({"n": True}, "n", "unsupported_field"),
        ({"logprobs": True}, "logprobs", "unsupported_field"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "unsupported_field"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_field"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_field"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_field"),
        ({"user": "kim"}, "user", "unsupported_field"),
        ({"top_k": 3}, "top_k", "unknown_field"),
        ({"temperture": 1}, "temperture", "unknown_field"),
        ({"temperature": -1}, "temperature", "invalid_value"),
        ({"temperature": "0.5"}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"seed": -1}, "seed", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_value"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "unsupported_value"),
        ({"stop": ""}, "stop[0]", "invalid_value"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "unsupported_value"),
        ({"model": 3}, "model", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "하나"}, "messages", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "user", "content": "x", "name": "kim"}]}, "messages[0].name", "unknown_field"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
            "invalid_value",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(more: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(Refusal) as refusal:
        chat(**more)
    assert (refusal.value.status, refusal.value.param, refusal.value.code) == (400, param, code)
    assert param.split("[")[0] in refusal.value.message


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"model": NaN}'])
def test_what_is_no_request_is_refused(content: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        fields.read(fields.Chat, content)
    assert refusal.value.status == 400


def test_values_that_ask_for_nothing_are_as_if_they_were_not_there() -> None:
    idle = {"n": 1, "logprobs": False, "tools": [], "frequency_penalty": 0.0, "presence_penalty": 0, "user": None}
    echoed = {"role": "assistant", "content": "둘", "refusal": None, "tool_calls": None, "annotations": []}
    assert chat(**idle) == chat()
    assert chat(messages=[*ASKED["messages"], echoed]).messages[1].text == "둘"


def test_what_takes_effect() -> None:
    body = chat(
        stop="끝", max_completion_tokens=7, stream=True, stream_options={"include_usage": True}, temperature=0
    )
    assert (body.until, body.limit, body.include_usage, body.temperature) == (("끝",), 7, True, 0)
    parts = [{"type": "text", "text": "하나"}, {"type": "text", "text": " 둘"}]
    assert chat(messages=[{"role": "user", "content": parts}]).messages[0].text == "하나 둘"
    assert (
        fields.read(fields.Completion, b'{"model": "m", "prompt": "x", "echo": false, "best_of": 1}').prompt == "x"
    )
