"""The page in a real browser: ask, see both answers, vote; the loss of a run; nothing from elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from koalpaca_tune import jsonl

# before it is imported anywhere
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
pytest.importorskip("gradio", reason="the extra web is not installed")

import uvicorn
from chromium_pipe import Chromium

from koalpaca_tune.runs import adapters
from koalpaca_tune.serving.doors import doors
from koalpaca_tune.serving.listening import bound
from koalpaca_tune.serving.page import Shop, web_app

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("web")


@pytest.fixture(scope="module")
def url(folder: Path, adapter_folders: dict[str, Path]) -> Iterator[str]:
    chosen = adapters.choose("embedded", adapter_folders["ko-1.3b"], None, None)
    models = {"base": "embedded", "adapter": "ko-1.3b", "template": "koalpaca"}
    jsonl.write(folder / "metrics.jsonl", [{"step": 5, "loss": 4.5}, {"step": 10, "loss": 4.25}])
    shop = Shop(adapters.open_model(chosen), models, folder / "votes" / "votes.jsonl", folder, 12)
    app = web_app(shop, doors("127.0.0.1", key_env=None, key_file=None))
    socket = bound("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{socket.getsockname()[1]}/"
    server.should_exit = True
    thread.join(20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with Chromium(CHROMIUM, tmp_path_factory.mktemp("profile")) as found:
        yield found


def text_of(place: str) -> str:
    return f"document.querySelector('#{place} textarea').value"


def labels(browser: Chromium) -> list[Any]:
    return [browser.js(f"document.querySelector('#{place} label span').innerText") for place in ("left", "right")]


def test_a_person_asks_votes_and_watches_a_run(browser: Chromium, url: str, folder: Path) -> None:
    browser.go(url)
    browser.click("#question textarea")
    browser.type("비 오는 날에는 뭘 하면 좋을까?")
    browser.click("#ask")
    left = browser.until(text_of("left"))
    right = browser.until(text_of("right"))
    assert left != right
    assert labels(browser) == ["기반 모델 (base)", "튜닝 모델 (tuned)"]
    browser.click("#vote-right")
    browser.until("document.querySelector('#said').innerText.includes('저장했습니다')")
    row = json.loads((folder / "votes" / "votes.jsonl").read_text(encoding="utf-8"))
    assert (row["vote"], row["question"], row["order"]) == (
        "tuned",
        "비 오는 날에는 뭘 하면 좋을까?",
        ["base", "tuned"],
    )
    assert row["answers"] == {"base": left, "tuned": right}

    browser.js("[...document.querySelectorAll('button[role=tab]')].find(e => e.innerText.includes('loss')).click()")
    browser.until("document.querySelector('#step').innerText.includes('4.2500')")
    browser.until("!!document.querySelector('#loss svg')")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 15, "loss": 3.125}\n{"step": 20, "lo')
    browser.until("document.querySelector('#step').innerText.includes('3.1250')")

    own = urlsplit(url).netloc
    elsewhere = [
        one for one in browser.asked if urlsplit(one).scheme.startswith("http") and urlsplit(one).netloc != own
    ]
    assert elsewhere == [], "the page asks for nothing from elsewhere"


def test_names_can_be_hidden_until_the_vote(browser: Chromium, url: str, folder: Path) -> None:
    browser.go(url)
    browser.click("#question textarea")
    browser.type("고양이는 왜 울어?")
    browser.js("[...document.querySelectorAll('button')].find(e => e.innerText.includes('설정')).click()")
    browser.click("#blind input")
    browser.click("#ask")
    browser.until(text_of("left"))
    assert labels(browser) == ["답 가 (A)", "답 나 (B)"]
    left = browser.js(text_of("left"))
    browser.click("#vote-left")
    browser.until("document.querySelector('#said').innerText.includes('저장했습니다')")
    row = json.loads((folder / "votes" / "votes.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert row["answers"][row["vote"]] == left, "the vote goes to what stood on the left, whoever that was"
    assert row["blind"] is True
    names = {"base": "기반 모델 (base)", "tuned": "튜닝 모델 (tuned)"}
    assert labels(browser) == [names[side] for side in row["order"]]


def test_an_empty_question_is_told_and_nothing_breaks(browser: Chromium, url: str) -> None:
    browser.go(url)
    browser.click("#ask")
    browser.until("document.body.innerText.includes('the question is empty')")
