"""The embedded base with two random adapters, opened once; and a real server over them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from koalpaca_tune import jsonl
from koalpaca_tune.config import load as recipes
from koalpaca_tune.config.recipe import Base, Lora, Quantization
from koalpaca_tune.models import adapter, base
from koalpaca_tune.models.base import Loaded
from koalpaca_tune.runs.serve import Opened, open_models
from koalpaca_tune.serving.doors import Doors, doors
from koalpaca_tune.serving.limits import Limits
from koalpaca_tune.serving.listening import Server, bound
from koalpaca_tune.serving.metrics import Metrics
from koalpaca_tune.serving.parts import Parts
from koalpaca_tune.serving.scheduler import Scheduler

FULL = Quantization(load_in_4bit=False)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save_adapter(folder: Path, seed: int, template: str) -> Path:
    """A random adapter of the embedded base, as a run leaves it."""
    loaded = base.load(Base(path="embedded"), FULL)
    lora = Lora(r=4 * seed, alpha=16, dropout=0.05, targets=["query_key_value", "dense_4h_to_h"])
    model = adapter.attach(loaded, lora, "embedded")
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.05)
    adapter.save(model, folder)
    record = {
        "name": folder.name,
        "recipe": recipes.load("demo", ["quantization.load_in_4bit=false", f"template={template}"]).model_dump(),
        "base": {"path": "embedded", "revision": None, "fingerprint": loaded.fingerprint, "model_type": "gpt_neox"},
        "template": {"name": template, "sha256": "0" * 16},
        "tokenizer": {"sha256": "0" * 16},
    }
    jsonl.write_json(folder / "record.json", record)
    return folder


@pytest.fixture(scope="session")
def adapter_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of different ranks and templates, under names with a dot and Hangul."""
    top = tmp_path_factory.mktemp("adapters")
    return {"ko-1.3b": save_adapter(top / "a", 1, "koalpaca"), "말투": save_adapter(top / "b", 2, "kullm-v2")}


@pytest.fixture(scope="session")
def new_models(adapter_folders: dict[str, Path]) -> Callable[..., Opened]:
    """Opens the base with both adapters."""

    def opened(**options: Any) -> Opened:
        return open_models(
            "embedded", adapter_folders, **{"slots": 4, "room": 256, "most_new_tokens": 200, **options}
        )

    return opened


@dataclass
class Running:
    """A server that runs.

    Attributes:
        url: with /v1.
        parts: what it is made of.
        server: uvicorn's.
        thread: where it runs.
    """

    url: str
    port: int
    parts: Parts
    server: Server
    thread: threading.Thread


@contextmanager
def running(opened: Opened, limits: Limits, doors: Doors = Doors(), slots: int = 4) -> Iterator[Running]:  # noqa: B008
    """Serves until the block ends."""
    metrics = Metrics()
    scheduler = Scheduler(
        opened.writer, slots=slots, most_waiting=limits.waiting, metrics=metrics, within=opened.within
    )
    parts = Parts(opened.served, scheduler, metrics, doors, limits)
    socket = bound("127.0.0.1", 0)
    server = Server(parts)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    port = socket.getsockname()[1]
    try:
        yield Running(f"http://127.0.0.1:{port}/v1", port, parts, server, thread)
    finally:
        server.should_exit = True
        thread.join(20)
        scheduler.close()


@pytest.fixture(scope="session")
def serving() -> Callable[..., Any]:
    """`running`."""
    return running


@pytest.fixture(scope="module")
def served(new_models: Callable[..., Opened]) -> Iterator[Running]:
    """A server with short patience: 4 slots, 4 places in the queue, 64 KiB a request."""
    limits = Limits(body=1 << 16, seconds=60, waiting=4, silence=0.4, stopping=5)
    with running(new_models(), limits, doors("127.0.0.1", key_env=None, key_file=None)) as found:
        yield found


@pytest.fixture(scope="session")
def tuned(adapter_folders: dict[str, Path]) -> tuple[Any, Loaded, list[str]]:
    """The embedded base with both adapters on it: PEFT's model, the base, PEFT's names."""
    loaded = base.load(Base(path="embedded"), FULL)
    model: Any = None
    for name, folder in zip(("one", "two"), adapter_folders.values(), strict=True):
        model = adapter.load(loaded, folder, name=name, beside=model)
    return model, loaded, ["one", "two"]
