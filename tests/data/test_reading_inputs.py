from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from koalpaca_tune.config.preparation import Input
from koalpaca_tune.data.reading import hub
from koalpaca_tune.data.reading.opened import Options
from koalpaca_tune.data.reading.readers import open_input
from koalpaca_tune.data.rows import Rejected, Row
from koalpaca_tune.errors import KoalpacaError

Write = Callable[..., Path]

LINE = '{"q": "가", "a": "나"}\n'


def given(path: object, **options: str) -> Input:
    return Input.model_validate({"path": str(path), **options})


def problem_of(spec: Input) -> tuple[str, str]:
    with pytest.raises(KoalpacaError) as caught:
        list(open_input(spec).rows)
    assert "\n" not in str(caught.value)
    return caught.value.problems[0].code, str(caught.value)


def test_files_and_folders(write: Write) -> None:
    write("set/rows.jsonl.gz", gzip.compress(LINE.encode()))
    path = write("가.csv", "질문,답변\n가,나\n", "cp949")
    opened = open_input(given(path, encoding="cp949"))
    assert (opened.name, opened.encoding, len(list(opened.rows))) == ("가.csv", "cp949", 1)
    assert next(open_input(given(path), name="상담/가.csv").rows).origin == "상담/가.csv:2"
    opened = open_input(given(path.parent / "set"))
    assert (opened.compression, opened.revision, next(opened.rows).origin) == ("gzip", None, "set/rows.jsonl.gz:1")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.csv", ["sheet", "config", "split", "revision"]),
        ("a.jsonl.gz", ["sheet", "split"]),
        ("a.parquet", ["encoding", "sheet", "config", "split", "revision"]),
        ("a.xlsx", ["encoding", "config", "split", "revision"]),
        ("folder", ["config", "revision"]),
        ("hf:user/name", ["encoding", "sheet"]),
    ],
)
def test_an_option_that_does_not_apply_is_an_error(write: Write, name: str, options: list[str]) -> None:
    write("folder/a.jsonl", LINE)
    path = (
        name if name.startswith("hf:") else write(name, "x") if name != "folder" else write("x", "").parent / name
    )
    with pytest.raises(KoalpacaError) as caught:
        open_input(given(path, **{option: "utf-8" for option in options}))
    assert [problem.code for problem in caught.value.problems] == ["input-option"] * len(options)
    for problem, option in zip(caught.value.problems, options, strict=True):
        assert problem.what.startswith(f"'{option}' does not apply")
        assert problem.where


def test_options_reach_the_files_of_a_folder(write: Write) -> None:
    folder = write("set/a.csv", "질문,답변\n가,나\n", "utf-16-le").parent
    opened = open_input(given(folder, encoding="utf-16-le"))
    assert [item.values for item in opened.rows if isinstance(item, Row)] == [{"질문": "가", "답변": "나"}]
    assert problem_of(given(folder, sheet="시트"))[0] == "input-option"


def test_a_path_that_looks_like_a_set_on_the_hub_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = problem_of(given("beomi/KoAlpaca-v1.1a"))
    assert code == "file-missing"
    assert "write hf:beomi/KoAlpaca-v1.1a" in said
    for path in ("data/chat.csv", "data/chat.csv.gz", "/tmp/none/at-all", "./a/b", "a/b/c"):
        code, said = problem_of(given(path))
        assert code == "file-missing"
        assert "hf:" not in said
    assert problem_of(given("source:nsmc"))[0] == "input-source"
    assert problem_of(given("hf:user/name/more"))[0] == "hub-set"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A folder laid out like a set on the Hub, with two configurations."""
    folder = tmp_path / "layout"
    for config, rows in [("chat", 5), ("news", 3)]:
        (folder / config).mkdir(parents=True)
        for split in ("train", "test"):
            made = [{"질문": f"{config} {split} {n}", "답변": ["가", {"나": n}]} for n in range(rows)]
            table = pyarrow.table(
                {key: [row[key][0] if key == "답변" else row[key] for row in made] for key in made[0]}
            )
            parquet.write_table(table, folder / config / f"{split}-00000-of-00001.parquet")
    configs = "".join(
        f"- config_name: {config}\n  data_files:\n"
        f"  - {{split: train, path: {config}/train-*}}\n  - {{split: test, path: {config}/test-*}}\n"
        for config in ("chat", "news")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n", encoding="utf-8")
    return folder


def test_a_set_is_streamed_by_configuration_and_split(layout: Path) -> None:
    opened = hub.stream(str(layout), "user/name", Options(config="news", split="test"), None, "hf:user/name")
    assert (opened.format, opened.split, opened.columns) == ("hub", "test", ("질문", "답변"))
    assert list(opened.rows) == [Row(f"user/name[{n}]", {"질문": f"news test {n}", "답변": "가"}) for n in range(3)]
    opened = hub.stream(str(layout), "user/name", Options(config="chat"), None, "hf:user/name")
    assert (opened.split, len(list(opened.rows))) == ("train", 5)


def test_what_a_set_does_not_have(layout: Path) -> None:
    def problem(**options: str) -> tuple[str, str]:
        with pytest.raises(KoalpacaError) as caught:
            hub.stream(str(layout), "user/name", Options(**options), None, "hf:user/name")
        return caught.value.problems[0].code, str(caught.value)

    assert problem() == (
        "input-config",
        "hf:user/name: it has several configurations: chat, news. Name one with config.",
    )
    assert problem(config="talk")[0] == "input-config"
    code, said = problem(config="chat", split="dev")
    assert code == "input-split"
    assert "Splits: train, test." in said


def test_a_set_of_json_lines_has_its_columns(tmp_path: Path, write: Write) -> None:
    write("set/train.jsonl", LINE * 3)
    opened = hub.stream(str(tmp_path / "set"), "u/n", Options(), None, "hf:u/n")
    assert opened.columns == ("q", "a")
    assert len(list(opened.rows)) == 3


def test_a_set_that_breaks_off_keeps_what_was_read(tmp_path: Path, write: Write) -> None:
    write("set/train-0.jsonl", LINE * 3)
    write("set/train-1.jsonl", '{"q": "열')
    *found, last = hub.stream(str(tmp_path / "set"), "u/n", Options(), None, "hf:u/n").rows
    assert [item.origin for item in found] == ["u/n[0]", "u/n[1]", "u/n[2]"]
    assert isinstance(last, Rejected)
    assert (last.problem.code, last.origin) == ("row-truncated", "u/n[3]")


def test_code_of_a_set_is_never_run(tmp_path: Path, write: Write) -> None:
    ran = tmp_path / "ran"
    write("set/set.py", f"open({str(ran)!r}, 'w')")
    with pytest.raises(KoalpacaError) as caught:
        hub.stream(str(tmp_path / "set"), "u/n", Options(), None, "hf:u/n")
    assert caught.value.problems[0].code == "hub-set"
    assert not ran.exists()


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def endpoint(layout: Path) -> Iterator[tuple[str, list[str]]]:
    """A little Hub that has the set user/name at one commit; what was asked of it is noted."""
    asked: list[str] = []
    files = sorted(path for path in layout.rglob("*") if path.is_file())
    names = {path.relative_to(layout).as_posix(): path for path in files}

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _answer(self, body: bytes, status: int = 200, **headers: str) -> None:
            span = self.headers.get("Range", "") if status == 200 else ""
            if span.startswith("bytes="):
                first, _, last = span[6:].partition("-")
                whole, body = body, body[int(first) : int(last) + 1 if last else None]
                status, headers = 206, headers | {"Content-Range": f"bytes {span[6:]}/{len(whole)}"}
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _json(self, value: Any, status: int = 200, **headers: str) -> None:
            self._answer(json.dumps(value).encode(), status, **{"Content-Type": "application/json"} | headers)

        def do_GET(self) -> None:
            asked.append(self.path)
            path = self.path.partition("?")[0]
            api, file = "/api/datasets/user/name", f"/datasets/user/name/resolve/{COMMIT}/"
            about = {"_id": "1", "id": "user/name", "sha": COMMIT, "private": False, "tags": [], "downloads": 0}
            siblings = [{"rfilename": name} for name in names]
            if path in (api, f"{api}/revision/{COMMIT}", f"{api}/revision/v1"):
                self._json(about | {"siblings": siblings})
            elif path.startswith(f"{api}/revision/"):
                self._json({"error": "no"}, 404, **{"X-Error-Code": "RevisionNotFound"})
            elif path.startswith(f"{api}/tree/{COMMIT}"):
                folder = path.removeprefix(f"{api}/tree/{COMMIT}").strip("/")
                inside = [n for n in names if not folder or n.startswith(f"{folder}/")]
                tree: list[dict[str, Any]] = [
                    {"type": "file", "path": n, "size": names[n].stat().st_size, "oid": f"{i:040}"}
                    for i, n in enumerate(inside)
                ]
                tree += [
                    {"type": "directory", "path": n, "size": 0, "oid": "0" * 40}
                    for n in ("chat", "news")
                    if not folder
                ]
                self._json(tree)
            elif path == f"{api}/paths-info/{COMMIT}":
                size = int(self.headers.get("Content-Length", 0))
                wanted = json.loads(self.rfile.read(size))["paths"]
                self._json(
                    [
                        {"type": "file", "path": n, "size": names[n].stat().st_size, "oid": "0" * 40}
                        for n in wanted
                        if n in names
                    ]
                )
            elif path.startswith(file) and path.removeprefix(file) in names:
                body = names[path.removeprefix(file)].read_bytes()
                self._answer(body, ETag='"1"', **{"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"})
            elif "/resolve/" in path:
                self._json({"error": "no"}, 404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            else:
                self._json({"error": "no"}, 404, **{"X-Error-Code": "RepoNotFound"})

        do_HEAD = do_POST = do_GET  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    thread.join()
    server.server_close()


PROGRAM = """
import json, sys
from koalpaca_tune.config.preparation import Input
from koalpaca_tune.data.reading.readers import open_input
from koalpaca_tune.errors import KoalpacaError
for given in sys.argv[1:]:
    try:
        opened = open_input(Input.model_validate_json(given))
        print(json.dumps([opened.revision, opened.split, [row.values["질문"] for row in opened.rows]]))
    except KoalpacaError as error:
        print(json.dumps([error.problems[0].code, str(error)]))
"""


def asked_of_the_hub(tmp_path: Path, endpoint: str, *given: dict[str, str], **more: str) -> list[Any]:
    """What `open_input` gives in a process of its own, since the endpoint is read on import."""
    variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", **more}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(json.dumps, given)],
        env=kept | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_set_on_a_hub_is_read_at_the_commit_that_is_recorded(
    tmp_path: Path, endpoint: tuple[str, list[str]]
) -> None:
    url, asked = endpoint
    set = {"path": "hf:user/name", "config": "chat"}
    newest, pinned, none, missing = asked_of_the_hub(
        tmp_path,
        url,
        set,
        {**set, "split": "test", "revision": "v1"},
        {**set, "revision": "v9"},
        {"path": "hf:user/other"},
    )
    assert newest == [COMMIT, "train", [f"chat train {n}" for n in range(5)]]
    assert pinned == [COMMIT, "test", [f"chat test {n}" for n in range(5)]]
    assert none == ["hub-set", "hf:user/name: it has no revision 'v9'."]
    assert missing[0] == "hub-set"
    assert "no such set" in missing[1]
    files = [path for path in asked if "/resolve/" in path and path.endswith(".parquet")]
    assert files
    assert all(COMMIT in path for path in files)


def test_without_a_network_there_is_one_clear_line(tmp_path: Path) -> None:
    set = {"path": "hf:user/name"}
    ((code, said),) = asked_of_the_hub(tmp_path, "http://127.0.0.1:9", set)
    assert code == "hub-set"
    assert "\n" not in said
    assert "Is the network up?" in said
    ((code, said),) = asked_of_the_hub(tmp_path, "http://127.0.0.1:9", set, HF_HUB_OFFLINE="1")
    assert code == "hub-set"
    assert "HF_HUB_OFFLINE is set" in said
