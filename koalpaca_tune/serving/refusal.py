"""Why a request gets no answer, in the form that OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koalpaca_tune.errors import shown


class Refusal(Exception):  # noqa: N818  # a reply like another
    """A reply that is no answer.

    Attributes:
        status: of HTTP.
        code: a word for programs.
        param: the field that is wrong, as a path; None: none is.
        headers: of the reply.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.message = shown(message)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The reply."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


NEVER_AGAIN = {"x-should-retry": "false"}
"""OpenAI's clients would ask again by themselves, and have the same work done twice."""


def after(seconds: int) -> dict[str, str]:
    """The header that says when to come again."""
    return {"Retry-After": str(seconds)}
