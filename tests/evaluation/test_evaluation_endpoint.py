"""The client against a server that answers, refuses, stalls and hangs up."""

from __future__ import annotations

import json
import socket

import pytest
from chat_server import Act, breaks_off, closes, drips, hangs, says, serving, status

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.judging.endpoint import Client, Endpoint, Reply

KEY = 'sk-비밀이-아닌-"ascii"-key'.replace("비밀이-아닌-", "test-")
ASKED = [{"role": "user", "content": "안녕하세요?"}]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("JUDGE_KEY", KEY)


def ask(*acts: Act, **options: object) -> tuple[Reply, int]:
    """The reply, and how many requests the server saw."""
    with serving(*acts) as server:
        given = {"attempts": 3, "pause": 0.0, "timeout": 10.0} | options
        with Client(Endpoint(server.url, "judge-1", **given)) as client:  # type: ignore[arg-type]
            return client.ask(ASKED), len(server.asked)


def test_what_is_sent() -> None:
    with serving(says("네.")) as server:
        with Client(Endpoint(server.url + "/", "judge-1", key_env="JUDGE_KEY")) as client:
            reply = client.ask(ASKED)
        assert server.paths == ["/v1/chat/completions"]
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
        assert server.asked == [{"model": "judge-1", "messages": ASKED, "temperature": 0.0}]
    assert (reply.text, reply.error, reply.finish, reply.status, reply.attempts) == ("네.", None, "stop", 200, 1)
    assert reply.sent == server.asked[0]
    assert reply.received["model"] == "judge-1"


def test_without_a_key_there_is_no_header_and_options_may_be_left_out() -> None:
    with serving(says("네.")) as server:
        with Client(Endpoint(server.url, "judge-1", temperature=None, max_tokens=64)) as client:
            client.ask(ASKED)
        assert "Authorization" not in server.headers[0]
        assert server.asked == [{"model": "judge-1", "messages": ASKED, "max_tokens": 64}]


@pytest.mark.parametrize(
    "first", [status(429), status(500), status(503, "<html>"), closes, breaks_off, status(200, "not JSON")]
)
def test_what_passes_is_asked_again(first: Act) -> None:
    reply, requests = ask(first, first, says("네."))
    assert (reply.text, reply.error, reply.attempts, requests) == ("네.", None, 3, 3)


def test_the_server_may_say_when_to_come_again() -> None:
    # our own pause would be a minute
    reply, _ = ask(status(429, None, Retry_After="0"), says("네."), pause=1000.0)
    assert reply.text == "네."


@pytest.mark.parametrize(
    ("act", "error", "code"),
    [
        (status(500, {"error": {"message": "too  many\ncooks"}}), "HTTP 500 (too many cooks).", 500),
        (status(429, {"error": "slow down"}), "HTTP 429 (slow down).", 429),
        (status(200, "<html>busy</html>"), "the answer is not of the chat completions form.", 200),
        (status(200, {"choices": []}), "the answer is not of the chat completions form.", 200),
        (status(200, ["choices"]), "the answer is not of the chat completions form.", 200),
        (
            status(200, {"error": {"message": "no provider"}}),
            "the answer is not of the chat completions form (no provider).",
            200,
        ),
    ],
)
def test_what_does_not_pass_is_given_up(act: Act, error: str, code: int) -> None:
    reply, requests = ask(act)
    assert (reply.text, reply.error, reply.status) == (None, error, code)
    assert reply.attempts == requests == 3


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (status(400, {"error": {"message": "temperature does not fit"}}), "HTTP 400 (temperature does not fit)."),
        (status(401), "HTTP 401."),
        (status(404, "Not Found"), "HTTP 404."),
        (says(""), "the answer is empty (finish: stop)."),
        (says(None, "content_filter"), "the answer is empty (finish: content_filter)."),
    ],
)
def test_a_refusal_is_final(act: Act, error: str) -> None:
    reply, requests = ask(act)
    assert (reply.text, reply.error, requests) == (None, error, 1)


@pytest.mark.parametrize("act", [hangs, drips])
def test_a_server_that_stalls_is_left(act: Act) -> None:
    reply, requests = ask(act, timeout=0.3, attempts=2)
    assert (reply.error, reply.status, requests) == ("no answer within 0.3 seconds.", None, 2)
    assert reply.received is None


def test_a_closed_connection_is_told_as_one() -> None:
    reply, requests = ask(closes)
    assert str(reply.error).startswith("no connection (")
    assert requests == 3


def test_an_endless_answer_is_cut() -> None:
    reply, requests = ask(status(200, " " * 4_100_000))
    assert (reply.error, requests) == ("the answer is over 4,000,000 bytes.", 1)


def test_a_redirect_does_not_carry_the_key_away() -> None:
    with (
        serving(says("네.")) as other,
        serving(status(307, None, Location=f"{other.url}/chat/completions")) as server,
    ):
        with Client(Endpoint(server.url, "judge-1", key_env="JUDGE_KEY")) as client:
            reply = client.ask(ASKED)
        assert (reply.error, len(server.asked), len(other.asked)) == ("HTTP 307.", 1, 0)


def test_the_key_is_nowhere_but_in_the_header() -> None:
    echo = status(401, {"error": {"message": f"Incorrect API key provided: {KEY}."}, "headers": [f"Bearer {KEY}"]})
    with serving(echo) as server:
        endpoint = Endpoint(server.url, "judge-1", key_env="JUDGE_KEY")
        with Client(endpoint) as client:
            reply = client.ask(ASKED)
            with pytest.raises(KoalpacaError) as caught:
                client.check()
            shown = [repr(client), repr(endpoint), repr(reply), str(caught.value)]
            shown.append(json.dumps(reply.received))
    assert "Incorrect API key provided: [key]" in str(reply.error)
    for text in shown:
        assert KEY not in text
        assert json.dumps(KEY)[1:-1] not in text


@pytest.mark.parametrize("value", [None, "", "  ", "키", "a\x07b"])
def test_a_variable_that_holds_no_key(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("JUDGE_KEY")
    else:
        monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(KoalpacaError) as caught:
        Client(Endpoint("http://127.0.0.1:1/v1", "judge-1", key_env="JUDGE_KEY"))
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("judge-key", "JUDGE_KEY")


@pytest.mark.parametrize(
    "url",
    [
        "api.example.com/v1",
        "ftp://example.com",
        "https://",
        "",
        "https://u:p@example.com/v1",
        "http://h/?k=s",
    ],
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(KoalpacaError) as caught:
        Endpoint(url, "judge-1")
    assert caught.value.problems[0].code == "judge-url"
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", " "), ("timeout", 0.0), ("attempts", 0), ("concurrency", 0), ("temperature", -1.0), ("pause", -1.0)],
)
def test_options_that_cannot_be(name: str, value: object) -> None:
    with pytest.raises(KoalpacaError, match=name) as caught:
        Endpoint(**{"base_url": "http://h", "model": "m", name: value})  # type: ignore[arg-type]
    assert caught.value.problems[0].code == "judge-option"


def test_check_before_the_work() -> None:
    with serving(says("네.")) as server, Client(Endpoint(server.url, "judge-1")) as client:
        client.check()
    with (
        serving(status(404, {"error": {"message": "no model judge-1"}})) as server,
        Client(Endpoint(server.url, "judge-1")) as client,
        pytest.raises(KoalpacaError, match="no model judge-1") as caught,
    ):
        client.check()
    assert caught.value.problems[0].code == "judge-refused"


def test_check_where_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        Client(Endpoint(f"http://127.0.0.1:{port}/v1", "judge-1", attempts=2, pause=0.0)) as client,
        pytest.raises(KoalpacaError) as caught,
    ):
        client.check()
    assert caught.value.problems[0].code == "judge-unreachable"
