"""A chat completions endpoint on this machine: answers, and fails in the ways that servers fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Act = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """What was asked, and what is answered.

    Attributes:
        url: base URL, with /v1.
        acts: one for each request in turn; the last goes on. Or `by`, which picks one by the question.
        asked: bodies, in order of arrival.
        headers: of the same requests.
        most: how many requests were under way at once, at most.
    """

    url: str = ""
    acts: list[Act] = field(default_factory=list)
    by: Callable[[str], Act] | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    most: int = 0
    active: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(*acts: Act, by: Callable[[str], Act] | None = None) -> Iterator[Server]:
    """Serves until the block ends."""
    state = Server(acts=list(acts), by=by)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                number = len(state.asked)
                state.asked.append(body)
                state.headers.append(dict(self.headers.items()))
                state.paths.append(self.path)
                state.active += 1
                state.most = max(state.most, state.active)
            # before the answer goes out: the client may ask again at once
            act = (
                state.by(body["messages"][-1]["content"])
                if state.by
                else state.acts[min(number, len(state.acts) - 1)]
            )
            try:
                act(self)
            finally:
                with state.lock:
                    state.active -= 1

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.state = state  # type: ignore[attr-defined]
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def says(text: str | None, finish: str = "stop") -> Act:
    """A proper answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return status(200, {"id": "x", "object": "chat.completion", "model": "judge-1", "choices": [choice]})


def status(code: int, body: object = None, **headers: str) -> Act:
    """A status and a JSON body (raw text as it is)."""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)

    def act(handler: BaseHTTPRequestHandler) -> None:
        content = text.encode()
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return act


def closes(handler: BaseHTTPRequestHandler) -> None:
    """Hangs up without a word."""
    handler.close_connection = True
    handler.connection.close()


def breaks_off(handler: BaseHTTPRequestHandler) -> None:
    """Hangs up in the middle of the answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.close_connection = True


def hangs(handler: BaseHTTPRequestHandler) -> None:
    """Says nothing until the test is over."""
    handler.close_connection = True
    handler.server.state.closing.wait(20)  # type: ignore[attr-defined]


def drips(handler: BaseHTTPRequestHandler) -> None:
    """Sends a space now and then, for ever."""
    handler.close_connection = True
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    try:
        while not handler.server.state.closing.wait(0.02):  # type: ignore[attr-defined]
            handler.wfile.write(b" ")
            handler.wfile.flush()
    except OSError:
        pass
