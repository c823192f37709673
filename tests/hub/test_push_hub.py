"""The real client against a small Hub on this machine: one commit whatever breaks, and a look at it."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
from hub_server import Fault, Hub

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import card, push

SECRET = "hf_" + "Zq9" * 11


pytestmark = pytest.mark.usefixtures("without_waiting")


@pytest.fixture
def ready(adapter: Path) -> Path:
    card.write(adapter, None, repo="me/talk", license=None, data_licenses=[])
    return adapter


def sent(folder: Path, hub: Hub, *, private: bool = True, **how: Any) -> push.Sent:
    return push.send(push.plan(folder, "me/talk", private, **how), SECRET, endpoint=hub.address)


def refused(code: str, folder: Path, hub: Hub, **how: Any) -> str:
    with pytest.raises(KoalpacaError) as caught:
        sent(folder, hub, **how)
    assert caught.value.problems[0].code == code
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_private_commit_with_the_four_files_read_back(ready: Path, hub: Hub) -> None:
    done = sent(ready, hub)
    (commit,) = hub.commits()
    assert done.commit == commit.oid
    assert hub.created[0].get("private") is True or hub.created[0].get("visibility") == "private"
    assert hub.tokens == {f"Bearer {SECRET}"}
    got = {name: content for name, content in commit.files.items() if name != ".gitattributes"}
    assert set(got) == set(done.sent) == set(done.loaded)
    assert {name: len(content) for name, content in got.items()} == dict(push.plan(ready, "me/talk", True).files)
    assert got["adapter_model.safetensors"] == (ready / "adapter_model.safetensors").read_bytes()
    everything = b"".join(got.values())
    for private in ("kim-cheolsu", "비밀", str(ready.parent), SECRET):
        assert private.encode() not in everything
    # the folder itself stays as it was
    assert "kim-cheolsu" in (ready / "record.json").read_text(encoding="utf-8")
    assert all(hub.count("GET", f"/me/talk/resolve/{commit.oid}/{name}") == 1 for name in got)


def test_a_hub_without_xet_gets_it_by_lfs(ready: Path, hub: Hub) -> None:
    told: list[str] = []
    push.send(push.plan(ready, "me/talk", True), SECRET, endpoint=hub.address, say=told.append)
    assert hub.count("GET", "xet-write-token") == 1
    assert any("LFS" in line and "404" in line for line in told)
    assert [path for method, path in hub.asked if method == "PUT"] == [
        f"/lfs/{hashlib.sha256((ready / 'adapter_model.safetensors').read_bytes()).hexdigest()}"
    ]


def test_the_same_again_makes_no_commit_and_sends_nothing(ready: Path, hub: Hub) -> None:
    first = sent(ready, hub)
    hub.asked.clear()
    again = sent(ready, hub)
    assert again.commit == first.commit
    assert again.sent == ()
    assert len(hub.commits()) == 1
    assert not [path for method, path in hub.asked if method == "PUT" or "/commit/" in path or "preupload" in path]
    assert set(again.loaded) == set(first.loaded)


def test_a_new_card_sends_the_card_alone(ready: Path, hub: Hub) -> None:
    sent(ready, hub)
    card.write(ready, None, repo="me/talk", license="mit", data_licenses=[])
    assert sent(ready, hub).sent == ("README.md",)
    assert len(hub.stored) == 1
    assert [len(commit.files) for commit in hub.commits()] == [5, 5]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT", "/lfs-part/", times=2, status=500),
        Fault("PUT", "/lfs-part/", drop=True),
        Fault("PUT", "/lfs-part/", drop=True, after=True),
        Fault("POST", "/lfs-done/", status=503),
        Fault("POST", "/lfs-verify/", status=500),
        Fault("POST", "preupload", drop=True),
        Fault("POST", "objects/batch", status=502),
        Fault("POST", "/commit/", drop=True),
        Fault("POST", "/commit/", drop=True, after=True),
        Fault("POST", "/commit/", times=2, status=504),
        Fault("POST", "/commit/", late=0.4),
    ],
    ids=lambda f: f"{f.path.strip('/')}-{f.status or ('late' if f.late else 'dropped')}{'-after' * f.after}",
)
def test_a_failure_in_the_middle_is_mended_with_one_commit(ready: Path, hub: Hub, fault: Fault) -> None:
    hub.part_size, hub.faults = 100, [fault]
    done = sent(ready, hub)
    assert fault.times == 0
    (commit,) = hub.commits()
    assert done.commit == commit.oid
    assert commit.files["adapter_model.safetensors"] == (ready / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("late", [0.005, 0.02, 0.1])
def test_a_commit_that_happens_after_its_gateway_gave_up_happens_once(ready: Path, hub: Hub, late: float) -> None:
    hub.faults = [Fault("POST", "/commit/", status=504, late=late)]
    done = sent(ready, hub)
    time.sleep(late + 0.05)
    (commit,) = hub.commits()
    assert done.commit == commit.oid


def test_what_fails_for_good_is_one_line_and_the_next_push_goes_on(ready: Path, hub: Hub) -> None:
    hub.faults = [Fault("POST", "/commit/", times=9, status=503)]
    said = refused("hub-send", ready, hub)
    assert "503" in said
    assert "not sent twice" in said
    assert hub.count("POST", "/commit/") == 4
    assert hub.commits() == []
    hub.faults.clear()
    hub.asked.clear()
    sent(ready, hub)
    assert not [path for method, path in hub.asked if method == "PUT"], "the weights were there already"
    assert len(hub.commits()) == 1


def test_a_part_that_never_arrives_leaves_no_commit(ready: Path, hub: Hub) -> None:
    hub.part_size = 100
    hub.faults = [Fault("PUT", "/lfs-part/", times=99, status=500)]
    assert "500" in refused("hub-send", ready, hub)
    assert hub.commits() == []
    assert hub.stored == {}


def test_somebody_elses_commit_meanwhile_is_not_written_over(
    ready: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(ready, hub)
    card.write(ready, None, repo="me/talk", license="mit", data_licenses=[])
    from koalpaca_tune.hub.remote import Remote

    preload = Remote._preload

    def meanwhile(self: Remote, operations: Any) -> None:
        preload(self, operations)
        there = hub.repositories["me/talk"]
        there.add("main", "theirs", {**hub.head(), "README.md": b"theirs"})

    monkeypatch.setattr(Remote, "_preload", meanwhile)
    assert "somebody else" in refused("hub-moved", ready, hub)
    assert hub.head()["README.md"] == b"theirs"


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "README.md"])
def test_what_the_hub_spoilt_is_noticed(ready: Path, hub: Hub, name: str) -> None:
    whole = (ready / name).read_bytes()
    hub.spoilt[name] = whole[:-1] + b"!"
    assert f"'{name}'" in refused("hub-differs", ready, hub)


def test_what_is_too_large_to_come_back_is_compared_by_digest(
    ready: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koalpaca_tune.hub.verify.LARGEST", 400)
    done = sent(ready, hub)
    assert "adapter_model.safetensors" in done.compared
    assert done.loaded == ("adapter_config.json",)
    assert hub.count("GET", "resolve/") == 1
    hub.spoilt["adapter_model.safetensors"] = b"other"
    card.write(ready, None, repo="me/talk", license="mit", data_licenses=[])
    assert "'adapter_model.safetensors'" in refused("hub-differs", ready, hub)


def test_a_commit_that_cannot_be_read_back_is_said_to_be_made(ready: Path, hub: Hub) -> None:
    hub.faults = [Fault("GET", "/resolve/", times=99, status=403)]
    assert "The commit is made." in refused("hub-read", ready, hub)
    assert len(hub.commits()) == 1
    hub.faults = []
    assert sent(ready, hub).sent == ()


def test_branches_and_tags(ready: Path, hub: Hub) -> None:
    first = sent(ready, hub, tag="v1.0")
    found = hub.repositories["me/talk"]
    assert found.tags == {"v1.0": first.commit}
    assert sent(ready, hub, tag="v1.0").sent == (), "the same once more is no other commit"
    card.write(ready, None, repo="me/talk", license="mit", data_licenses=[])
    before = len(hub.commits())
    assert first.commit[:12] in refused("hub-tag", ready, hub, tag="v1.0")
    assert len(hub.commits()) == before
    trial = sent(ready, hub, branch="trial", tag="v1.1")
    assert found.branches["main"] == first.commit
    assert found.branches["trial"] == found.tags["v1.1"] == trial.commit


@pytest.mark.parametrize("how", [{"tag": "v1 0"}, {"tag": "-v"}, {"branch": "a/b"}, {"branch": ""}])
def test_names_that_are_no_refs(ready: Path, how: dict[str, str]) -> None:
    with pytest.raises(KoalpacaError, match="is no name of a"):
        push.plan(ready, "me/talk", True, **how)


def test_weights_that_would_be_loaded_instead(ready: Path, hub: Hub) -> None:
    hub.repository("me/talk", {"adapter_model.bin": b"old pickle", "notes.txt": b"mine"})
    assert "'adapter_model.bin'" in refused("hub-stale", ready, hub)
    assert hub.commits() == []
    assert sent(ready, hub, replace=True).deleted == ("adapter_model.bin",)
    assert "adapter_model.bin" not in hub.head()
    assert hub.head()["notes.txt"] == b"mine"


@pytest.mark.parametrize("private", [True, False])
def test_a_repository_of_the_other_visibility_is_not_touched(ready: Path, hub: Hub, private: bool) -> None:
    hub.repository("me/talk", private=not private)
    words = {True: "private", False: "public"}
    said = f"the repository exists and is {words[not private]}; {words[private]} was asked."
    assert said in refused("hub-visibility", ready, hub, private=private)
    assert hub.commits() == []


def test_a_refusal_is_one_line_without_the_token(ready: Path, hub: Hub) -> None:
    hub.writable = False
    assert "403" in refused("hub-send", ready, hub)


def test_a_head_that_the_hub_does_not_take_is_told(ready: Path, hub: Hub) -> None:
    hub.yaml_error = '"license" must be one of [apache-2.0, mit]'
    assert hub.yaml_error in refused("hub-send", ready, hub)
    assert hub.commits() == []


def test_no_network(ready: Path, hub: Hub) -> None:
    hub.shutdown()
    hub.server_close()
    assert "it could not be sent" in refused("hub-send", ready, hub)


def test_what_was_shown_is_what_is_sent(ready: Path, hub: Hub) -> None:
    plan = push.plan(ready, "me/talk", True)
    (ready / "README.md").write_text("changed meanwhile", encoding="utf-8")
    with pytest.raises(KoalpacaError) as caught:
        push.send(plan, SECRET, endpoint=hub.address)
    assert caught.value.problems[0].code == "hub-changed"
    assert hub.asked == []
