"""A small Hub on this machine: the endpoints that `huggingface_hub` speaks to, in memory, with faults on order.

It does what the real one does where it matters here: small files travel inside the commit, large ones through
the LFS batch (in one piece or in parts) and are known by their SHA-256; a commit that names a large file which
never arrived is refused, as is one whose parent is no longer the branch's head. It offers no Xet.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


@dataclass
class Commit:
    oid: str
    title: str
    files: dict[str, bytes]


@dataclass
class Repository:
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, branch: str, title: str, files: dict[str, bytes]) -> Commit:
        oid = hashlib.sha1(f"{branch}{len(self.commits)}{title}".encode()).hexdigest()
        self.commits[oid] = Commit(oid, title, files)
        self.branches[branch] = oid
        return self.commits[oid]

    def find(self, revision: str) -> Commit | None:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(oid)


@dataclass
class Fault:
    """What goes wrong at the next `times` requests that match.

    `status`: answered so, and nothing done; with `late` a commit happens all the same, that many seconds after.
    `drop`: the connection is cut, before anything is done, or (`after`) once it was. `late` alone: seconds that
    the answer takes, once it was done.
    """

    method: str
    path: str
    times: int = 1
    status: int = 0
    drop: bool = False
    after: bool = False
    late: float = 0.0


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.faults: list[Fault] = []
        self.asked: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()
        self.created: list[dict[str, Any]] = []
        self.part_size: int | None = None
        self.writable = True
        self.yaml_error = ""
        self.spoilt: dict[str, bytes] = {}
        """Names of files -> what is stored of them in place of what came."""
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def repository(self, name: str, files: dict[str, bytes] | None = None, *, private: bool = True) -> Repository:
        """Makes one, with a first commit as the real Hub makes it; `datasets/user/name` for a data set."""
        made = self.repositories[name] = Repository(private)
        made.add("main", "initial commit", {".gitattributes": ATTRIBUTES, **(files or {})})
        return made

    def count(self, method: str, path: str) -> int:
        """How often a path that holds `path` was asked."""
        return sum(m == method and path in p for m, p in self.asked)

    def commits(self, name: str = "me/talk") -> list[Commit]:
        """The commits after the first one."""
        return list(self.repositories[name].commits.values())[1:]

    def head(self, name: str = "me/talk", branch: str = "main") -> dict[str, bytes]:
        found = self.repositories[name]
        return found.commits[found.branches[branch]].files


@contextmanager
def served() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(.*))?")
_GIT = re.compile(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


class Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

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

    def _send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        late = self._fault.late if self._fault else 0.0
        if self._fault and self._fault.drop and self._fault.after:
            self.close_connection = True
            return
        time.sleep(late)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _none(self, code: str, status: int = 404) -> None:
        self._json({"error": f"{code} (not found)"}, status, {"X-Error-Code": code, "X-Error-Message": code})

    def _answer(self) -> None:
        body, hub = self._body(), self.server
        self.path = self.path.partition("?")[0]
        with hub.lock:
            hub.asked.append((self.command, self.path))
            self._fault = next(
                (f for f in hub.faults if f.times and f.method == self.command and f.path in self.path), None
            )
            if self._fault:
                self._fault.times -= 1
        if self._fault and self._fault.status:
            if self._fault.late and "/commit/" in self.path:
                found = hub.repositories["me/talk"]
                threading.Timer(self._fault.late, self._made, (found, "main", body)).start()
                self._fault.late = 0.0
            self._json({"error": "out of order"}, self._fault.status)
        elif self._fault and self._fault.drop and not self._fault.after:
            self.close_connection = True
        else:
            self._route(unquote(self.path), body)

    do_GET = do_HEAD = do_PUT = do_POST = _answer  # noqa: N815 - http.server's names

    def _route(self, path: str, body: bytes) -> None:
        hub = self.server
        if path.startswith("/lfs"):
            self._store(path, body)
            return
        hub.tokens.add(self.headers.get("Authorization"))
        if self.command == "POST" and not hub.writable:
            self._json({"error": f"no write access for {self.headers.get('Authorization')}"}, 403)
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            found = [{"message": hub.yaml_error}] if hub.yaml_error else []
            self._json({"errors": found, "warnings": []}, 400 if found else 200)
        elif match := _API.fullmatch(path):
            name = f"datasets/{match[2]}" if match[1] == "datasets" else match[2]
            found = self._open(name)
            if found is not None:
                self._api(found, match[2], match[3] or "", body)
        elif match := _GIT.fullmatch(path):
            self._batch(json.loads(body)["objects"])
        elif match := _FILE.fullmatch(path):
            found = self._open((match[1] or "") + match[2])
            if found is not None:
                self._file(found, match[3], match[4])
        else:
            self._json({"error": "unknown"}, 404)

    def _open(self, name: str) -> Repository | None:
        found = self.server.repositories.get(name)
        if found is None or (found.private and not self.headers.get("Authorization")):
            self._none("RepoNotFound", 404 if self.headers.get("Authorization") else 401)
            return None
        return found

    def _create(self, asked: dict[str, Any]) -> None:
        prefix = "datasets/" if asked.get("type") == "dataset" else ""
        name = f"{prefix}{asked['organization']}/{asked['name']}"
        address = {"url": f"{self.server.address}/{name}", "name": name, "id": "1"}
        self.server.created.append(asked)
        if name in self.server.repositories:
            self._json({"error": "You already created this repo", **address}, 409)
            return
        self.server.repository(name, private=asked.get("visibility") == "private" or asked.get("private") is True)
        self._json(address)

    def _api(self, found: Repository, name: str, rest: str, body: bytes) -> None:
        what, _, revision = rest.partition("/")
        if what in ("", "revision"):
            self._info(found, name, revision or "main")
        elif what == "refs":
            refs = {
                kind: [{"name": n, "ref": f"refs/{part}/{n}", "targetCommit": oid} for n, oid in those.items()]
                for kind, part, those in (("branches", "heads", found.branches), ("tags", "tags", found.tags))
            }
            self._json({**refs, "converts": []})
        elif what in ("branch", "tag"):
            self._name(found, what, revision, json.loads(body or b"{}"))
        elif what == "preupload":
            self._preupload(found, revision, json.loads(body)["files"])
        elif what == "commit":
            self._commit(found, name, revision, body)
        elif what == "tree":
            commit = found.find(revision)
            if commit is None:
                self._none("RevisionNotFound")
            else:
                self._json([self._entry(n, c) for n, c in commit.files.items()])
        else:
            self._json({"error": "unknown"}, 404)

    def _entry(self, name: str, content: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": name, "size": len(content), "oid": git_oid(content)}
        if is_large(name):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return entry

    def _info(self, found: Repository, name: str, revision: str) -> None:
        commit = found.find(revision)
        if commit is None:
            self._none("RevisionNotFound")
            return
        siblings = [{"rfilename": file} for file in commit.files]
        self._json({"id": name, "sha": commit.oid, "private": found.private, "siblings": siblings})

    def _name(self, found: Repository, what: str, at: str, asked: dict[str, Any]) -> None:
        names = found.tags if what == "tag" else found.branches
        name = asked["tag"] if what == "tag" else at
        start = found.find(at if what == "tag" else asked.get("startingPoint", "main"))
        if name in names:
            self._json({"error": "it exists"}, 409)
        elif start is None:
            self._none("RevisionNotFound")
        else:
            names[name] = start.oid
            self._json({})

    def _preupload(self, found: Repository, revision: str, files: list[dict[str, Any]]) -> None:
        there = getattr(found.find(revision), "files", {})
        modes = []
        for file in files:
            name, large = file["path"], is_large(file["path"])
            content = there.get(name)
            oid = None if content is None else hashlib.sha256(content).hexdigest() if large else git_oid(content)
            mode = {"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}
            modes.append(mode)
        self._json({"files": modes, "commitOid": "0" * 40})

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        hub, made = self.server, []
        for one in objects:
            oid, size = one["oid"], one["size"]
            if oid in hub.stored:
                made.append({"oid": oid, "size": size})
                continue
            upload: dict[str, Any] = {"href": f"{hub.address}/lfs/{oid}"}
            if hub.part_size and size > hub.part_size:
                count = -(-size // hub.part_size)
                numbers = {str(n + 1): f"{hub.address}/lfs-part/{oid}/{n + 1}" for n in range(count)}
                upload = {"href": f"{hub.address}/lfs-done/{oid}", "header": {"chunk_size": str(hub.part_size)}}
                upload["header"] |= numbers
            verify = {"href": f"{hub.address}/lfs-verify/{oid}"}
            made.append({"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}})
        self._json({"transfer": "basic", "objects": made})

    def _store(self, path: str, body: bytes) -> None:
        hub, (_, what, oid, *number) = self.server, path.split("/")
        if what == "lfs-part":
            hub.parts.setdefault(oid, {})[int(number[0])] = body
            self._send(b"", headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
            return
        if what == "lfs-done":
            named = [part["partNumber"] for part in json.loads(body)["parts"]]
            body = b"".join(hub.parts[oid][n] for n in named)
        if what == "lfs-verify":
            self._json({}, 200 if oid in hub.stored else 404)
        elif hashlib.sha256(body).hexdigest() != oid:
            self._json({"error": "the content does not match its name"}, 400)
        else:
            hub.stored[oid] = body
            self._json({})

    def _commit(self, found: Repository, name: str, branch: str, body: bytes) -> None:
        said, status = self._made(found, branch, body)
        if status == 200:
            said = {"commitUrl": f"{self.server.address}/{name}/commit/{said['oid']}", "commitOid": said["oid"]}
        elif status == 404:
            self._none("RevisionNotFound")
            return
        self._json(said, status)

    def _made(self, found: Repository, branch: str, body: bytes) -> tuple[dict[str, str], int]:
        header, *operations = [json.loads(line) for line in body.splitlines() if line.strip()]
        with self.server.lock:
            head = found.branches.get(branch)
            if head is None:
                return {}, 404
            if header["value"].get("parentCommit") not in (None, head):
                return {"error": "A commit has happened since. Please refresh and try again."}, 412
            files = dict(found.commits[head].files)
            for operation in operations:
                value = operation["value"]
                if operation["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif operation["key"] == "lfsFile" and value["oid"] in self.server.stored:
                    files[value["path"]] = self.server.stored[value["oid"]]
                elif operation["key"] == "deletedFile":
                    del files[value["path"]]
                else:
                    return {"error": f"the object of {value['path']} was never uploaded"}, 400
            files |= {n: self.server.spoilt[n] for n in files.keys() & self.server.spoilt.keys()}
            return {"oid": found.add(branch, header["value"]["summary"], files).oid}, 200

    def _file(self, found: Repository, revision: str, name: str) -> None:
        commit = found.find(revision)
        if commit is None or name not in commit.files:
            self._none("RevisionNotFound" if commit is None else "EntryNotFound")
            return
        content = commit.files[name]
        digest = hashlib.sha256(content).hexdigest() if is_large(name) else git_oid(content)
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted:
            start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            self._send(content[start : end + 1], 206, headers)
        else:
            self._send(content, 200, headers)
