"""A chat model behind an OpenAI-compatible endpoint: one question, one answer or the reason there is none.

The key comes from an environment variable and goes into the request's header only: it is in no object that is
stored, and it is struck out of whatever the server sends back.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx2

from koalpaca_tune.errors import KoalpacaError

Message = dict[str, str]
"""`role` and `content`."""

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses that may pass: asked again. Any other but 200 is final."""

LONGEST_PAUSE = 60.0
"""Seconds; also where the server asks for more."""

LARGEST_REPLY = 4_000_000
"""Bytes; a longer body is no answer of a judge."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask, and how. Nothing in it is secret.

    Attributes:
        base_url: up to the version, `https://api.example.com/v1`; `/chat/completions` is added.
        model: its name there.
        key_env: environment variable that holds the key; None asks without one (a server of one's own).
        timeout: seconds for one whole request.
        attempts: how often one question is asked before it is given up.
        concurrency: how many questions are asked at once.
        temperature: None leaves it out, for models that refuse it.
        max_tokens: longest answer; None leaves it to the server.
        pause: seconds before the second attempt; doubled before each further one.
    """

    base_url: str
    model: str
    key_env: str | None = None
    timeout: float = 120.0
    attempts: int = 5
    concurrency: int = 4
    temperature: float | None = 0.0
    max_tokens: int | None = None
    pause: float = 1.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            KoalpacaError: not an address of a server (judge-url), or a value that cannot be (judge-option).
        """
        try:
            url = httpx2.URL(self.base_url)
        except httpx2.InvalidURL as error:
            raise _bad_url("it is not an address.") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise _bad_url(f"'{url.scheme or 'no scheme'}' is not http or https.")
        if url.userinfo or url.query or url.fragment:
            # not repeated: it may hold the key
            raise _bad_url("it has a user, a password or a query in it; those would be stored.")
        for name, good in (
            ("model", bool(self.model.strip())),
            ("timeout", self.timeout > 0),
            ("attempts", self.attempts >= 1),
            ("concurrency", self.concurrency >= 1),
            ("temperature", self.temperature is None or self.temperature >= 0),
            ("max_tokens", self.max_tokens is None or self.max_tokens >= 1),
            ("pause", self.pause >= 0),
        ):
            if not good:
                raise KoalpacaError(
                    "judge-option", f"it is {getattr(self, name)!r}.", where=f"judge {name}", fix="Give another."
                )

    def body(self, messages: Sequence[Message]) -> dict[str, Any]:
        """What is sent."""
        body: dict[str, Any] = {"model": self.model, "messages": list(messages)}
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        return body


def _bad_url(what: str) -> KoalpacaError:
    return KoalpacaError("judge-url", what, where="judge URL", fix="Example: https://api.openai.com/v1")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one question.

    Attributes:
        sent: the request's body.
        received: the last answer's body: an object if it was JSON, else its text; None if nothing came.
        text: what the model said; None if there is none.
        finish: why the model stopped (`stop`, `length`, ...), as the server says.
        error: why there is no text.
        status: the last HTTP status; None if nothing came.
        attempts: how often it was asked.
    """

    sent: Mapping[str, Any]
    received: Any = None
    text: str | None = None
    finish: str | None = None
    error: str | None = None
    status: int | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class _Try:
    """One attempt; `again` if another may do better, after `wait` seconds if the server says so."""

    received: Any = None
    text: str | None = None
    finish: str | None = None
    error: str | None = None
    status: int | None = None
    again: bool = False
    wait: float | None = None


@dataclass
class Client:
    """Asks an endpoint. A context manager; threads may share it.

    Attributes:
        endpoint: whom, and how.
        told: is told in a sentence (Korean, English) when a question has to wait: once for each HTTP status, and
            once for each time that no connection could be had.
    """

    endpoint: Endpoint
    told: Callable[[str, str], None] = lambda korean, english: None
    _http: httpx2.Client = field(init=False, repr=False)
    _key: str = field(init=False, repr=False, default="")
    _troubles: set[int | None] = field(init=False, repr=False, default_factory=set)
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)
    _stopped: threading.Event = field(init=False, repr=False, default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Reads the key.

        Raises:
            KoalpacaError: the environment variable is not set (judge-key).
        """
        end = self.endpoint
        headers = {"Content-Type": "application/json"}
        if end.key_env is not None:
            self._key = os.environ.get(end.key_env, "").strip()
            if not self._key.isascii() or not self._key.isprintable() or not self._key:
                raise KoalpacaError(
                    "judge-key",
                    "the environment variable holds no key.",
                    where=end.key_env,
                    fix=f"Set it before the command: read -rs {end.key_env}; export {end.key_env}",
                )
            headers["Authorization"] = f"Bearer {self._key}"
        # redirects are not followed: the key would go elsewhere
        self._http = httpx2.Client(headers=headers, timeout=end.timeout, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def stop(self) -> None:
        """Has every thread that asks give up after the request under way; for an interrupted run."""
        self._stopped.set()

    def check(self) -> None:
        """Asks for a word, before anything is loaded and a tuned model is made to write for an hour.

        Where nobody listens it is not asked again: a server that is not there does not come by waiting.

        Raises:
            KoalpacaError: the server refuses (judge-refused), or cannot be reached (judge-unreachable).
        """
        messages = [{"role": "user", "content": "‘네’라고만 답하세요."}]
        reply = self.ask(messages, patient=False)
        if reply.status in AGAIN:
            # it is there and busy, or reads its weights
            reply = self.ask(messages)
        if reply.error is None:
            return
        where = f"{self.endpoint.base_url} ({self.endpoint.model})"
        if reply.status is None or reply.status in AGAIN:
            raise KoalpacaError(
                "judge-unreachable", reply.error, where=where, fix="Check the address and that the server runs."
            )
        raise KoalpacaError(
            "judge-refused", reply.error, where=where, fix="Check the address, the model's name and the key."
        )

    def ask(self, messages: Sequence[Message], *, patient: bool = True) -> Reply:
        """Asks until there is an answer, a refusal, or no attempt left; once unless patient.

        Raises nothing of the network's.
        """
        end = self.endpoint
        sent = end.body(messages)
        most = end.attempts if patient else 1
        for attempt in range(1, most + 1):
            tried = self._once(sent)
            if not tried.again or attempt == most or self._stopped.is_set():
                break
            pause = end.pause * 2 ** (attempt - 1) if tried.wait is None else tried.wait
            self._tell(tried)
            self._stopped.wait(min(pause, LONGEST_PAUSE))
        if tried.error is None:
            with self._lock:
                # one that hung up, and came back, may hang up for good; one that is busy is so again and again
                self._troubles.discard(None)
        return Reply(sent, tried.received, tried.text, tried.finish, tried.error, tried.status, attempt)

    def _tell(self, tried: _Try) -> None:
        with self._lock:
            if tried.status in self._troubles:
                return
            self._troubles.add(tried.status)
        end = self.endpoint
        self.told(
            f"채점 모델({end.base_url})의 답이 없어 기다렸다가 다시 묻습니다. 질문마다 {end.attempts}번까지: "
            f"{tried.error}",
            f"the judge gives no answer; waiting and asking again, up to {end.attempts} times a question",
        )

    def _once(self, sent: Mapping[str, Any]) -> _Try:
        url = self.endpoint.base_url.rstrip("/") + "/chat/completions"
        content = json.dumps(sent, ensure_ascii=False).encode()
        # httpx's timeout is for each read: a server that sends a byte now and then would never end
        until = time.monotonic() + self.endpoint.timeout
        try:
            with self._http.stream("POST", url, content=content) as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if time.monotonic() > until:
                        raise httpx2.ReadTimeout("the whole request took too long")
                    if len(body) > LARGEST_REPLY:
                        return _Try(
                            error=f"the answer is over {LARGEST_REPLY:,} bytes.", status=response.status_code
                        )
        except httpx2.TimeoutException:
            return _Try(error=f"no answer within {self.endpoint.timeout:g} seconds.", again=True)
        except httpx2.HTTPError as error:
            return _Try(error=self._struck(f"no connection ({type(error).__name__}: {error})."), again=True)
        said = self._struck(body.decode("utf-8", errors="replace"))
        return _read(response.status_code, response.headers.get("retry-after"), said)

    def _struck(self, text: str) -> str:
        """A text without the key, which some servers repeat when they refuse it."""
        if not self._key:
            return text
        escaped = json.dumps(self._key)[1:-1]
        return text.replace(self._key, "[key]").replace(escaped, "[key]")


def _read(status: int, retry_after: str | None, said: str) -> _Try:
    try:
        received: Any = json.loads(said)
    except (ValueError, RecursionError):
        received = said[:2000]
    if status != 200:
        wait = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
        error = f"HTTP {status}{_why(received)}."
        return _Try(received, error=error, status=status, again=status in AGAIN, wait=wait)
    try:
        choice = received["choices"][0]
        text, finish = choice["message"]["content"], choice.get("finish_reason")
    except (TypeError, KeyError, IndexError, AttributeError):
        # a gateway's error page with status 200, or an answer cut off: another attempt may do better
        error = f"the answer is not of the chat completions form{_why(received)}."
        return _Try(received, error=error, status=status, again=True)
    finish = finish if isinstance(finish, str) else None
    if not isinstance(text, str) or not text.strip():
        return _Try(received, finish=finish, error=f"the answer is empty (finish: {finish}).", status=status)
    return _Try(received, text, finish, status=status)


def _why(received: Any) -> str:
    """The server's own message, on one line, if it gives one where OpenAI does."""
    inner = received.get("error") if isinstance(received, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else inner
    return f" ({' '.join(message.split())[:200]})" if isinstance(message, str) and message.strip() else ""
