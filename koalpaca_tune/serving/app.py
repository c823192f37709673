"""The OpenAI-compatible server: chat completions, completions, models, health, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from koalpaca_tune.serving import fields, replies
from koalpaca_tune.serving.jobs import Done, Failed, Full, Heard, Piece, Stopping
from koalpaca_tune.serving.limits import Limits
from koalpaca_tune.serving.metrics import CONTENT_TYPE
from koalpaca_tune.serving.parts import Parts
from koalpaca_tune.serving.refusal import NEVER_AGAIN, Refusal, after
from koalpaca_tune.serving.replies import Reply
from koalpaca_tune.serving.served import Ready

PING_S = 15.0
"""Seconds of silence in a stream after which a comment is sent: proxies cut what is quiet."""
PING = b": waiting\n\n"
GONE = None
"""In a request's mail: its client has gone."""


def app(parts: Parts) -> FastAPI:
    """The application."""
    # no pages of FastAPI's own: they load scripts from elsewhere
    made = FastAPI(title="koalpaca", docs_url=None, redoc_url=None, openapi_url=None)
    made.add_middleware(_Entrance, parts=parts)
    made.add_exception_handler(Refusal, _refused)
    made.add_exception_handler(HTTPException, _no_such)

    @made.get("/health")
    async def health() -> Response:
        own = parts.scheduler
        state = "broken" if own.broken else "stopping" if own.stopping else "ok"
        body = {"status": state, "live": own.live, "waiting": own.waiting, "slots": own.slots}
        return JSONResponse(body, 200 if state == "ok" else 503)

    @made.get("/metrics")
    async def metrics() -> Response:
        return Response(parts.metrics.page(), headers={"Content-Type": CONTENT_TYPE})

    @made.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": replies.models(parts.served)})

    @made.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        found = parts.served.model(name).name
        return JSONResponse(next(one for one in replies.models(parts.served) if one["id"] == found))

    @made.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await _answer(parts, request, fields.Chat, parts.served.chat)

    @made.post("/v1/completions")
    async def completion(request: Request) -> Response:
        return await _answer(parts, request, fields.Completion, parts.served.completion)

    return made


class _Entrance:
    """Looks at names and keys before anything of a request is read, and counts replies."""

    def __init__(self, inner: ASGIApp, *, parts: Parts) -> None:
        self._inner, self._parts = inner, parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        path: str = scope["path"]
        known = path if path in _PATHS else "/v1/models" if path.startswith("/v1/models/") else "other"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._parts.metrics.replies.labels(known, message["status"]).inc()
            await send(message)

        request = Request(scope)
        try:
            self._parts.doors.check_name(request.headers.get("host", ""))
            if path != "/health":
                self._parts.doors.check_key(request.headers.get("authorization", ""))
        except Refusal as refusal:
            await (await _refused(request, refusal))(scope, receive, counted)
            return
        await self._inner(scope, receive, counted)


_PATHS = frozenset({"/health", "/metrics", "/v1/models", "/v1/chat/completions", "/v1/completions"})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse(error.body(), error.status, error.headers)


async def _no_such(request: Request, error: Exception) -> Response:
    """A path or a method that is not there."""
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path[:100]}: {HTTPStatus(error.status_code).phrase}."
    refusal = Refusal(error.status_code, "not_found", what, headers=error.headers)
    return JSONResponse(refusal.body(), refusal.status, refusal.headers)


async def _answer(parts: Parts, request: Request, kind: type[Any], ready: Callable[[Any], Ready]) -> Response:
    """One request from its body to its answer."""
    clock = asyncio.get_running_loop().time
    begun, limits = clock(), parts.limits
    body = fields.read(kind, await _body(request, limits))
    # the tokenizer works outside Python: others go on meanwhile
    asked = await run_in_threadpool(ready, body)
    reply = Reply(kind is fields.Chat, asked.model.name, len(asked.request.ids))
    mail = _Mail(parts, request)
    mail.send_off(asked, begun + limits.seconds - clock())
    if not body.stream:
        return await _whole(mail, reply)
    stream = _stream(mail, reply, usage=body.include_usage)
    # a proxy that gathers would make it one piece
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _body(request: Request, limits: Limits) -> bytes:
    """The body, as long as it comes in time and is not too large.

    Raises:
        Refusal: another type (415), too large (413), or too slow (408).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # a form of any web page could ask otherwise
        raise Refusal(415, "invalid_type", f"Content-Type is '{kind[:60]}', not application/json.")
    too_large = Refusal(
        413,
        "body_too_large",
        f"the request is over {limits.body:,} bytes.",
        headers={"Connection": "close", **NEVER_AGAIN},
    )
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > limits.body:
        raise too_large
    content = bytearray()
    try:
        async with asyncio.timeout(limits.silence):
            async for chunk in request.stream():
                content += chunk
                if len(content) > limits.body:
                    raise too_large
    except TimeoutError:
        raise Refusal(
            408,
            "body_too_slow",
            f"the request was not there after {limits.silence:g} seconds.",
            headers={"Connection": "close"},
        ) from None
    return bytes(content)


class _Mail:
    """What one request hears, in the event loop; going away counts as hearing."""

    def __init__(self, parts: Parts, request: Request) -> None:
        self._parts, self._request = parts, request
        self._box: asyncio.Queue[Heard | None] = asyncio.Queue()

    def send_off(self, asked: Ready, seconds: float) -> None:
        """Queues the request.

        Raises:
            Refusal: the queue is full (429), or the server stops (503).
        """
        loop = asyncio.get_running_loop()

        def hear(heard: Heard) -> None:
            try:
                loop.call_soon_threadsafe(self._box.put_nowait, heard)
            except RuntimeError:
                return  # the loop is closed: nobody is there any more

        scheduler = self._parts.scheduler
        try:
            self._job = scheduler.submit(asked.request, asked.stream, hear, model=asked.model.name, seconds=seconds)
        except Full as full:
            raise Refusal(
                429,
                "queue_full",
                f"{scheduler.live} answers are being written and {scheduler.waiting} requests wait already.",
                headers=after(full.seconds),
            ) from full
        except Stopping as error:
            raise _stopping() from error

    async def read(self) -> AsyncIterator[Heard | bytes]:
        """What comes, and a ping where nothing has for long; ends after the end, or when the client goes.

        Whatever ends it, the job is over then.
        """
        watch = asyncio.create_task(self._watch())
        try:
            while True:
                try:
                    heard = await asyncio.wait_for(self._box.get(), PING_S)
                except TimeoutError:
                    yield PING
                    continue
                if heard is GONE:
                    return
                yield heard
                if not isinstance(heard, Piece):
                    return
        finally:
            watch.cancel()
            self._parts.scheduler.cancel(self._job)

    async def _watch(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self._box.put_nowait(GONE)

    def refusal(self, failed: Failed) -> Refusal:
        """Why there is no answer."""
        seconds = self._parts.limits.seconds
        match failed.why:
            case "late":
                what = f"the answer was not complete after {seconds:g} seconds. Ask for fewer tokens."
                return Refusal(408, "too_slow", what, headers=NEVER_AGAIN)
            case "never-began":
                what = f"no slot became free within {seconds:g} seconds."
                return Refusal(429, "queue_slow", what, headers=after(max(1, round(seconds / 4))))
            case "stopping":
                return _stopping()
            case "broken":
                return Refusal(
                    500, "broken", "the model has stopped working; the server ends.", headers=NEVER_AGAIN
                )


def _stopping() -> Refusal:
    return Refusal(503, "stopping", "the server is being stopped.", headers={**after(10), "Connection": "close"})


async def _whole(mail: _Mail, reply: Reply) -> Response:
    text = ""
    async for heard in mail.read():
        match heard:
            case Piece():
                text += heard.text
            case Done():
                return JSONResponse(reply.whole(text, heard.reason, heard.tokens))
            case Failed():
                raise mail.refusal(heard)
    # nobody reads it: the client has gone
    return Response(status_code=499)


async def _stream(mail: _Mail, reply: Reply, *, usage: bool) -> AsyncIterator[bytes]:
    first = reply.first()
    if first is not None:
        yield replies.event(first)
    async for heard in mail.read():
        match heard:
            case bytes():
                yield heard
            case Piece():
                yield replies.event(reply.piece(heard.text))
            case Done():
                yield replies.event(reply.last(heard.reason))
                if usage:
                    yield replies.event(reply.counts(heard.tokens))
                yield replies.event("[DONE]")
            case Failed():
                # the status is out already
                yield replies.event(mail.refusal(heard).body())
