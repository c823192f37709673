"""The real server with the real client: answers, adapters in one batch, limits, and clients that behave badly."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest

from koalpaca_tune.inference.decoding import Sampling, written
from koalpaca_tune.inference.generation.request import Request
from koalpaca_tune.records import Conversation, Turn
from koalpaca_tune.runs.serve import Opened
from koalpaca_tune.serving.doors import Doors, doors
from koalpaca_tune.serving.limits import Limits

QUESTIONS = ("비 오는 날에는 뭘 하면 좋을까?", "고양이는 왜 울어?", "대한민국의 수도는 어디인가요?")
MODELS = ("embedded", "ko-1.3b", "말투")


def asked(text: str, system: str | None = None) -> list[Any]:
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": text}]


@pytest.fixture(scope="module")
def client(served: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=served.url, api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def alone(new_models: Callable[..., Opened]) -> Callable[..., Any]:
    """(model, question, ...) -> what a session with one slot writes, nobody beside it."""
    opened = new_models(slots=1)

    def write(name: str, question: str, limit: int, sampling: Sampling | None = None) -> Any:
        model = opened.served.models[name]
        encoder = model.encoder
        ids = encoder.prompt(encoder.render(Conversation((Turn("user", question),))))
        stops = tuple(encoder.vocabulary.stop_ids(encoder.template))
        with opened.within():
            opened.writer.add(Request(tuple(ids), limit, stops, sampling, model.adapter))
            found: list[int] = []
            while True:
                tokens = opened.writer.step()
                found += [token.id for token in tokens]
                if any(token.end for token in tokens):
                    return written(encoder.vocabulary, stops, found)

    return write


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == list(MODELS)
    assert client.models.retrieve("말투").id == "말투"
    with pytest.raises(openai.NotFoundError, match=r"Known: embedded, ko-1\.3b, 말투"):
        client.models.retrieve("other")


def test_many_clients_and_three_models_at_once_get_what_one_alone_gets(
    client: openai.OpenAI, alone: Callable[..., Any]
) -> None:
    wanted = {(name, q): alone(name, q, 10) for name in MODELS for q in QUESTIONS[:2]}
    assert len({one.text for one in wanted.values()}) == 6, "answers that differ, or mixing them up would not show"
    patient = client.with_options(max_retries=30)

    def ask(key: tuple[str, str]) -> tuple[str, str, int]:
        reply = patient.chat.completions.create(model=key[0], messages=asked(key[1]), max_tokens=10, temperature=0)
        assert reply.usage is not None
        return reply.choices[0].message.content or "", reply.choices[0].finish_reason, reply.usage.completion_tokens

    keys = list(wanted) * 2
    with ThreadPoolExecutor(len(keys)) as pool:
        replies = list(pool.map(ask, keys))
    for key, reply in zip(keys, replies, strict=True):
        one = wanted[key]
        assert reply == (one.text, "stop" if one.stopped else "length", one.tokens)


def test_a_stream_is_the_same_text_in_pieces(client: openai.OpenAI, alone: Callable[..., Any]) -> None:
    chunks = list(
        client.chat.completions.create(
            model="ko-1.3b",
            messages=asked(QUESTIONS[0]),
            max_tokens=12,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == alone("ko-1.3b", QUESTIONS[0], 12).text
    assert len(pieces) > 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == alone("ko-1.3b", QUESTIONS[0], 12).tokens


def test_a_seed_gives_the_same_answer_whoever_is_beside(client: openai.OpenAI, alone: Callable[..., Any]) -> None:
    wanted = alone("embedded", QUESTIONS[1], 12, Sampling(0.9, 0.8, 5)).text

    def ask(seed: int) -> str:
        reply = client.chat.completions.create(
            model="embedded", messages=asked(QUESTIONS[1]), max_tokens=12, temperature=0.9, top_p=0.8, seed=seed
        )
        return reply.choices[0].message.content or ""

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, [5, 6, 5, 7]))
    assert answers[0] == answers[2] == wanted
    assert len(set(answers)) == 3


def test_a_text_is_continued_up_to_a_stop_text(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "embedded", "prompt": "대한민국의 수도는", "max_tokens": 12, "temperature": 0}
    whole = client.completions.create(**ask).choices[0].text
    assert whole.startswith(" "), "a completion is not stripped"
    stop = whole[6:8]
    cut = client.completions.create(**ask, stop=[stop]).choices[0]
    assert (cut.text, cut.finish_reason) == (whole[: whole.index(stop)], "stop")
    pieces = [chunk.choices[0].text for chunk in client.completions.create(**ask, stop=stop, stream=True)]
    assert "".join(pieces) == cut.text


@pytest.mark.parametrize(
    ("ask", "param"),
    [
        ({"n": 2}, "n"),
        ({"extra_body": {"top_k": 3}}, "top_k"),
        ({"max_tokens": 201}, "max_tokens"),
        ({"messages": asked("긴 질문 " * 200)}, "messages"),
        ({"messages": [{"role": "assistant", "content": "먼저"}]}, "messages"),
        ({"messages": [*asked("하나"), {"role": "assistant", "content": "둘"}]}, "messages"),
        ({"messages": asked(" ")}, "messages[0].content"),
    ],
)
def test_a_request_that_cannot_be_is_refused_by_its_field(client: openai.OpenAI, ask: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{"model": "ko-1.3b", "messages": asked("하나"), **ask})
    assert refused.value.param == param


# clients that behave badly


def raw(port: int, content: bytes, *, wait: float = 10.0) -> bytes:
    """What comes back for some bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as one:
        one.sendall(content)
        found = b""
        while part := one.recv(65536):
            found += part
        return found


def post(body: bytes, **headers: str) -> bytes:
    fields = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": str(len(body))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in fields.items()]
    head = "\r\n".join(["POST /v1/chat/completions HTTP/1.1", *lines, "Connection: close", "", ""])
    return head.encode() + body


def status(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1])


def error(reply: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(reply.split(b"\r\n\r\n", 1)[1])["error"]
    return found


def test_malformed_requests_are_refused_and_nothing_breaks(served: Any, client: openai.OpenAI) -> None:
    port = served.port
    assert status(raw(port, b"\x16\x03\x01\x02\x00garbage\r\n\r\n")) == 400
    assert error(raw(port, post(b'{"model": ')))["code"] == "invalid_json"
    assert error(raw(port, post(b"{}")))["param"] == "model"
    assert status(raw(port, post(b"{}", Content_Type="text/plain"))) == 415
    assert status(raw(port, post(b"{}", Host="evil.example:80"))) == 421
    assert status(raw(port, b"GET /docs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")) == 404
    assert status(raw(port, b"GET /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")) == 405
    assert client.models.retrieve("embedded").id == "embedded"


def test_a_request_that_is_too_large_is_not_read(served: Any) -> None:
    reply = raw(served.port, post(b"", Content_Length=str(1 << 30)))
    assert (status(reply), error(reply)["code"]) == (413, "body_too_large")
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    head = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    assert status(raw(served.port, head + chunk * 5)) == 413, "nor one that does not say how large it is"


def test_slow_clients_are_cut_off(served: Any) -> None:
    assert raw(served.port, b"") == b"", "one that says nothing"
    assert raw(served.port, b"POST /v1/chat/comp") == b"", "one that stops in the middle of the head"
    reply = raw(served.port, post(b"{", Content_Length="50"))
    assert (status(reply), error(reply)["code"]) == (408, "body_too_slow")


def until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_slot(served: Any, stream: bool) -> None:
    scheduler = served.parts.scheduler
    until(lambda: scheduler.live == 0)
    body = {"model": "embedded", "messages": asked("하나"), "max_tokens": 200, "temperature": 0, "stream": stream}
    page = served.parts.metrics.page
    before = page().decode().count('end="cancelled"')
    with socket.create_connection(("127.0.0.1", served.port)) as one:
        one.sendall(post(json.dumps(body).encode()))
        until(lambda: scheduler.live == 1)
    until(lambda: scheduler.live == 0)
    assert page().decode().count('end="cancelled"') >= before
    assert 'koalpaca_answers_total{end="cancelled",model="embedded"}' in page().decode()


def test_a_full_queue_is_429_and_says_when_to_come_again(served: Any, client: openai.OpenAI) -> None:
    def ask(_: int) -> openai.RateLimitError | None:
        try:
            client.chat.completions.create(model="embedded", messages=asked("하나"), max_tokens=40, temperature=0)
        except openai.RateLimitError as refused:
            return refused
        return None

    with ThreadPoolExecutor(14) as pool:
        found = list(pool.map(ask, range(14)))
    refused = [one for one in found if one is not None]
    assert 1 <= len(refused) <= 6, "four slots and four places"
    assert {one.code for one in refused} == {"queue_full"}
    assert all(1 <= int(one.response.headers["retry-after"]) <= 60 for one in refused)


def test_health_and_metrics(served: Any) -> None:
    top = served.url.removesuffix("/v1")
    assert httpx2.get(f"{top}/health").json()["status"] == "ok"
    page = httpx2.get(f"{top}/metrics").text
    assert 'koalpaca_replies_total{path="/v1/chat/completions",status="429"}' in page
    assert "koalpaca_first_token_seconds_bucket" in page
    assert QUESTIONS[0] not in page


def test_keys_and_the_end(new_models: Callable[..., Opened], serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "correct-horse")
    own: Doors = doors("0.0.0.0", key_env="SOME_KEY", key_file=None)
    with serving(new_models(), Limits(seconds=1e-3, stopping=5), own) as running:
        with pytest.raises(openai.AuthenticationError) as refused:
            openai.OpenAI(base_url=running.url, api_key="wrong-key", max_retries=0).models.list()
        assert "correct-horse" not in str(refused.value)
        client = openai.OpenAI(base_url=running.url, api_key="correct-horse", max_retries=0)
        with pytest.raises(openai.APIStatusError) as late:
            client.chat.completions.create(model="embedded", messages=asked("하나"), max_tokens=100)
        assert late.value.status_code in (408, 429)
        assert httpx2.get(running.url.removesuffix("/v1") + "/health").status_code == 200, "health needs no key"


def test_answers_under_way_end_when_the_server_is_stopped(new_models: Callable[..., Opened], serving: Any) -> None:
    with serving(new_models(), Limits(seconds=60, stopping=20)) as running:
        client = openai.OpenAI(base_url=running.url, api_key="none", max_retries=0)
        chunks = iter(
            client.chat.completions.create(
                model="embedded", messages=asked("하나"), max_tokens=30, temperature=0, stream=True
            )
        )
        next(chunks)
        # as the signal's handler does; a signal itself goes to the main thread
        running.server.handle_exit(signal.SIGTERM, None)
        last = [chunk.choices[0].finish_reason for chunk in chunks][-1]
        assert last == "length"
        running.thread.join(20)
        assert not running.thread.is_alive()
        with pytest.raises(openai.APIConnectionError):
            client.models.list()
    assert threading.active_count() < 50
