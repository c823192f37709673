"""Headless Chromium by its remote debugging protocol over a pipe: no driver, no port."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Chromium:
    """One page.

    Attributes:
        asked: addresses that the page asked for.
        refused: addresses that it could not get, or was kept from.
    """

    def __init__(self, program: str, profile: Path, width: int = 1200, height: int = 1000) -> None:
        to_child, self._out = os.pipe()
        self._in, from_child = os.pipe()

        def descriptors() -> None:
            # the protocol is spoken over 3 and 4, whatever numbers the pipes have
            first, second = os.dup(to_child), os.dup(from_child)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self._process = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--remote-debugging-pipe",
                f"--user-data-dir={profile}",
                f"--window-size={width},{height}",
                "about:blank",
            ],
            close_fds=False,
            preexec_fn=descriptors,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        self._number, self._rest = 0, b""
        self.asked: list[str] = []
        self.refused: list[str] = []
        self._urls: dict[str, str] = {}
        pages = self("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in pages if one["type"] == "page")
        self._session: str | None = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._out)
        os.close(self._in)

    _session = None

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        give_up = time.monotonic() + 60
        while True:
            reply = self._read(give_up)
            if reply.get("id") == self._number:
                assert "error" not in reply, reply["error"]
                found: dict[str, Any] = reply["result"]
                return found
            self._heard(reply)

    def _read(self, give_up: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert time.monotonic() < give_up, "Chromium says nothing"
            if select.select([self._in], [], [], 0.5)[0]:
                part = os.read(self._in, 1 << 16)
                assert part, "Chromium ended"
                self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _heard(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self._urls[params["requestId"]] = params["request"]["url"]
                self.asked.append(params["request"]["url"])
            case "Network.loadingFailed" if not params.get("canceled"):
                self.refused.append(self._urls.get(params["requestId"], "?"))

    def go(self, url: str) -> None:
        self("Page.navigate", url=url)

    def js(self, code: str) -> Any:
        found = self("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, code: str, seconds: float = 40) -> Any:
        """The value of an expression, once it is true."""
        give_up = time.monotonic() + seconds
        while not (found := self.js(code)):
            assert time.monotonic() < give_up, code
            time.sleep(0.05)
        return found

    def click(self, selector: str) -> None:
        find = f"const e = document.querySelector({json.dumps(selector)}); if (!e || e.disabled) return null;"
        show = "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
        centre = f"(() => {{ {find} {show} return r.width ? [r.x + r.width / 2, r.y + r.height / 2] : null; }})()"
        box, before = self.until(centre), None
        while box != before:
            # what is being unfolded moves
            time.sleep(0.1)
            box, before = self.until(centre), box
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Inserts text where the cursor is, as an input method does."""
        self("Input.insertText", text=text)

    def shot(self, path: Path) -> None:
        found = self("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))
