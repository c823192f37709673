"""What is sent, what never is; and the real client against a small Hub on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from koalpaca_tune import jsonl
from koalpaca_tune.config.recipe import Recipe
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import card, push
from koalpaca_tune.hub.public import file_name, is_hub_name, scrub

SECRET = "hf_" + "Zq9" * 11


@pytest.fixture
def ready(adapter: Path) -> Path:
    card.write(adapter, None, repo="me/talk", license=None, data_licenses=[])
    return adapter


def refused(code: str, adapter: Path, repo: str = "me/talk") -> str:
    with pytest.raises(KoalpacaError) as caught:
        push.plan(adapter, repo, True)
    assert caught.value.problems[0].code == code
    return str(caught.value)


def test_plan_lists_four_files_with_the_sizes_that_go(ready: Path) -> None:
    plan = push.plan(ready, "me/talk", True)
    assert [name for name, _ in plan.files] == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "record.json",
    ]
    sizes = dict(plan.files)
    assert sizes["README.md"] == (ready / "README.md").stat().st_size
    # places are taken out of it
    assert 0 < sizes["record.json"] < (ready / "record.json").stat().st_size
    assert plan.private


@pytest.mark.parametrize(
    "repo",
    ["talk", "a/b/c", "me/ta lk", "me/.talk", "me/a--b", "me/talk.git", "", "https://huggingface.co/me/talk"],
)
def test_names_that_are_none(ready: Path, repo: str) -> None:
    assert "user/name" in refused("hub-repo", ready, repo)


@pytest.mark.parametrize("base", ["embedded", "/models/polyglot", "./polyglot", "polyglot", "C:\\models\\polyglot"])
def test_a_base_that_nobody_could_load(ready: Path, record: dict[str, Any], base: str) -> None:
    record["base"]["path"] = base
    jsonl.write_json(ready / "record.json", record)
    assert "koalpaca merge" in refused("hub-local-base", ready)


def test_a_folder_named_like_a_hub_model_is_local(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_hub_name("EleutherAI/polyglot-ko-1.3b")
    (tmp_path / "EleutherAI" / "polyglot-ko-1.3b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    refused("hub-local-base", ready)


def test_no_card_no_push(adapter: Path) -> None:
    assert "koalpaca hub card" in refused("hub-card-missing", adapter)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("adapter_model.bin", "hub-pickle"),
        ("optimizer.pt", "hub-pickle"),
        ("train.jsonl", "hub-extra-file"),
        (".env", "hub-extra-file"),
        ("checkpoints", "hub-extra-file"),
    ],
)
def test_nothing_else_goes(ready: Path, name: str, code: str) -> None:
    (ready / name).write_bytes(b"x")
    assert name in refused(code, ready)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "record.json"])
def test_a_missing_file(ready: Path, name: str) -> None:
    (ready / name).unlink()
    assert name in refused("adapter-missing", ready)


@pytest.mark.parametrize("kept", [0, 5, 40, -1])
def test_a_cut_off_adapter(ready: Path, kept: int) -> None:
    file = ready / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    refused("hub-adapter-damaged", ready)


def test_an_empty_adapter(ready: Path) -> None:
    header = b'{"__metadata__":{"format":"pt"}}'
    (ready / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "without LoRA matrices" in refused("hub-adapter-damaged", ready)


def test_a_token_in_the_card(ready: Path) -> None:
    file = ready / "README.md"
    file.write_text(file.read_text(encoding="utf-8") + f"\n{SECRET}\n", encoding="utf-8")
    assert SECRET not in refused("hub-secret", ready)


def test_no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(KoalpacaError, match="hf auth login"):
        push.token()
    monkeypatch.setattr("huggingface_hub.get_token", lambda: SECRET)
    assert push.token() == SECRET


def test_scrubbed_records_keep_all_but_places(record: dict[str, Any]) -> None:
    clean = scrub(record)
    text = json.dumps(clean, ensure_ascii=False)
    assert "kim" not in text
    assert "prep/" not in text
    assert clean["data"]["train"]["path"] == clean["recipe"]["data"]["train"] == "train.jsonl"
    assert clean["recipe"]["out"] == "talk"
    assert clean["base"] == record["base"]
    assert clean["proof"] == record["proof"]
    # later commands read it back
    assert Recipe.model_validate(clean["recipe"]).base.path == "EleutherAI/polyglot-ko-1.3b"


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/b.csv", "b.csv"), ("C:\\a\\b.csv", "b.csv"), ("~/b", "b"), ("file:///a/b", "b"), ("b.csv", "b.csv")],
)
def test_file_names_of_any_system(path: str, name: str) -> None:
    assert file_name(path) == name
    assert scrub({"anything": [path]}) == {"anything": [name]}


class Hub(ThreadingHTTPServer):
    """The few endpoints of the Hub that a push speaks to; it keeps what it got."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()
        self.created: dict[str, Any] = {}
        self.uploads: dict[str, bytes] = {}
        self.commits: list[list[dict[str, Any]]] = []
        self.private = True
        self.refuse = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    """Answers as the Hub does: small files inside the commit, weights through LFS."""

    server: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _reply(self, value: Any, status: int = 200) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        self.server.asked.append(("GET", self.path))
        self._reply({"id": "me/talk", "private": self.server.private, "siblings": []})

    def do_PUT(self) -> None:
        self.server.asked.append(("PUT", self.path))
        self.server.uploads[self.path.rsplit("/", 1)[-1]] = self._body()
        self._reply({})

    def do_POST(self) -> None:
        hub, body = self.server, self._body()
        hub.asked.append(("POST", self.path))
        hub.tokens.add(self.headers.get("Authorization"))
        if hub.refuse:
            self._reply({"error": f"no write access for {self.headers.get('Authorization')}"}, 403)
        elif self.path == "/api/repos/create":
            hub.created = json.loads(body)
            self._reply({"url": f"{hub.address}/me/talk", "name": "me/talk", "id": "1"})
        elif self.path == "/api/validate-yaml":
            self._reply({"errors": [], "warnings": []})
        elif self.path == "/api/models/me/talk/preupload/main":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [
                {
                    "path": name,
                    "uploadMode": "lfs" if name.endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for name in names
            ]
            self._reply({"files": modes, "commitOid": "0" * 40})
        elif self.path == "/me/talk.git/info/lfs/objects/batch":
            objects = [
                {**one, "actions": {"upload": {"href": f"{hub.address}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._reply({"transfer": "basic", "objects": objects})
        elif self.path == "/api/models/me/talk/commit/main":
            hub.commits.append([json.loads(line) for line in body.splitlines() if line.strip()])
            self._reply({"commitUrl": f"{hub.address}/me/talk/commit/abc", "commitOid": "abc"})
        else:
            self._reply({"error": "unknown"}, 404)


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def sent(adapter: Path, address: str, *, private: bool = True) -> subprocess.CompletedProcess[str]:
    """Pushes in a process of its own: the suite as a whole is offline, and the client reads that at import."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from koalpaca_tune.errors import KoalpacaError\n"
        "from koalpaca_tune.hub import push\n"
        "try:\n"
        f"    plan = push.plan(Path(sys.argv[1]), 'me/talk', {private})\n"
        "    print(push.send(plan, push.token(), endpoint=sys.argv[2]))\n"
        "except KoalpacaError as error:\n"
        "    print(error.problems[0].code, error)\n"
        "    raise SystemExit(2)\n"
    )
    # Xet stores chunks in a service of its own; plain LFS says the same of what is sent
    own = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": SECRET, "HF_ENDPOINT": address}
    proxies = {"http_proxy", "https_proxy", "all_proxy"}
    environment = {name: value for name, value in os.environ.items() if name.lower() not in proxies}
    return subprocess.run(
        [sys.executable, "-c", program, str(adapter), address],
        env={**environment, **own},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_real_client_sends_one_commit(ready: Path, hub: Hub) -> None:
    done = sent(ready, hub.address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == f"{hub.address}/me/talk/commit/abc"
    # its spelling changed between versions of the client
    assert hub.created.get("private") is True or hub.created.get("visibility") == "private"
    assert hub.tokens == {f"Bearer {SECRET}"}
    (commit,) = hub.commits
    got = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"])
        for line in commit
        if line["key"] == "file"
    }
    large = [line["value"] for line in commit if line["key"] == "lfsFile"]
    weights = (ready / "adapter_model.safetensors").read_bytes()
    assert [one["path"] for one in large] == ["adapter_model.safetensors"]
    assert large[0]["oid"] == hashlib.sha256(weights).hexdigest()
    assert hub.uploads == {large[0]["oid"]: weights}
    assert set(got) == {"README.md", "adapter_config.json", "record.json"}
    planned = dict(push.plan(ready, "me/talk", True).files)
    assert {name: len(content) for name, content in got.items()} == {name: planned[name] for name in got}
    everything = b"".join(got.values()) + json.dumps(commit).encode()
    for private in ("kim-cheolsu", "비밀", str(ready.parent), SECRET):
        assert private.encode() not in everything
    # the folder itself stays as it was
    assert "kim-cheolsu" in (ready / "record.json").read_text(encoding="utf-8")


def test_a_public_repository_does_not_get_a_private_adapter(ready: Path, hub: Hub) -> None:
    hub.private = False
    done = sent(ready, hub.address)
    assert done.returncode == 2
    assert done.stdout.startswith("hub-visibility me/talk: the repository exists and is public; private was asked.")
    assert hub.commits == []


def test_a_refusal_is_one_line_without_the_token(ready: Path, hub: Hub) -> None:
    hub.refuse = True
    done = sent(ready, hub.address)
    assert done.returncode == 2
    assert done.stdout.startswith("hub-send me/talk: it could not be sent: ")
    assert "403" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_no_network(ready: Path, hub: Hub) -> None:
    hub.server_close()
    done = sent(ready, "http://127.0.0.1:9")
    assert done.returncode == 2
    assert done.stdout.startswith("hub-send me/talk: it could not be sent: ")
    assert len(done.stdout.splitlines()) == 1


def test_what_was_shown_is_what_is_sent(ready: Path) -> None:
    plan = push.plan(ready, "me/talk", True)
    (ready / "README.md").write_text("changed meanwhile", encoding="utf-8")
    with pytest.raises(KoalpacaError) as caught:
        push.send(plan, SECRET, endpoint="http://127.0.0.1:9")
    assert caught.value.problems[0].code == "hub-changed"
