"""Adapters of others, from a small Hub on this machine: checked before they are believed, and then they work."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import Fault, Hub

from koalpaca_tune import jsonl
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import card, facts, pull, push
from koalpaca_tune.hub.pull import Choice
from koalpaca_tune.models import sources

pytestmark = pytest.mark.usefixtures("without_waiting")

BASE = "someone/tiny"
SECRET = "hf_" + "Zq9" * 11


@pytest.fixture(scope="module")
def made(tiny_bases: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What PEFT itself writes of an adapter that does something, as a stranger would publish it."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(tiny_bases["gpt_neox"], dtype=torch.float32)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["query_key_value"], task_type="CAUSAL_LM")
    tuned = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.2)
    tuned.peft_config["default"].base_model_name_or_path = BASE
    folder = tmp_path_factory.mktemp("stranger")
    tuned.save_pretrained(str(folder))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def stranger(hub: Hub, made: dict[str, bytes], tiny_bases: dict[str, str]) -> Hub:
    """Their adapter and its base on a Hub."""
    hub.repository("theirs/adapter", dict(made), private=False)
    config = (Path(tiny_bases["gpt_neox"]) / "config.json").read_bytes()
    hub.repository(BASE, {"config.json": config}, private=False)
    return hub


def change(hub: Hub, name: str, content: bytes | None) -> None:
    files = dict(hub.head("theirs/adapter"))
    files.pop(name, None)
    if content is not None:
        files[name] = content
    hub.repositories["theirs/adapter"].add("main", "change", files)


def pulled(hub: Hub, out: Path, choice: Choice = Choice(template="koalpaca"), **how: Any) -> pull.Pulled:  # noqa: B008 - frozen
    return pull.pull(how.pop("repo", "theirs/adapter"), out, choice, endpoint=hub.address, **how)


def refused(code: str, hub: Hub, out: Path, choice: Choice = Choice(template="koalpaca"), **how: Any) -> str:  # noqa: B008
    with pytest.raises(KoalpacaError) as caught:
        pulled(hub, out, choice, **how)
    assert caught.value.problems[0].code == code
    assert "\n" not in str(caught.value)
    assert not out.exists() or "kept" in {entry.name for entry in out.iterdir()}
    left = [entry for entry in out.parent.iterdir() if entry.name.startswith(".")] if out.parent.is_dir() else []
    assert left == [], "nothing half-done is left"
    return str(caught.value)


def test_a_strangers_adapter_answers_as_it_does_with_peft(
    stranger: Hub, made: dict[str, bytes], tiny_bases: dict[str, str], tmp_path: Path
) -> None:
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    from koalpaca_tune.runs import adapters

    out = tmp_path / "got"
    done = pulled(stranger, out, Choice(base=tiny_bases["gpt_neox"], template="koalpaca"))
    assert (done.plain.r, done.plain.alpha, done.plain.targets) == (4, 8, ("query_key_value",))
    assert not done.ours
    assert {path.name for path in out.iterdir()} == {facts.CONFIG, facts.WEIGHTS, facts.RECORD}
    assert (out / facts.WEIGHTS).read_bytes() == made[facts.WEIGHTS]
    lm = adapters.open_model(adapters.choose(tiny_bases["gpt_neox"], out, None, None))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name, content in made.items():
        (theirs / name).write_bytes(content)
    base = AutoModelForCausalLM.from_pretrained(tiny_bases["gpt_neox"], dtype=torch.float32)
    ids = torch.tensor([[5, 9, 17, 33, 2, 8]])
    with torch.no_grad():
        plain = base(ids).logits.clone()
        wanted = peft.PeftModel.from_pretrained(base, str(theirs)).eval()(ids).logits
        got = lm.model(ids).logits
    assert torch.allclose(got, wanted, atol=1e-6)
    assert not torch.allclose(got, plain, atol=1e-2)


def test_the_base_is_the_named_one_at_its_commit(stranger: Hub, tmp_path: Path) -> None:
    done = pulled(stranger, tmp_path / "got")
    commit = stranger.repositories[BASE].branches["main"]
    assert done.base[:3] == (BASE, commit, sources.fingerprint(BASE, commit, None))
    record = jsonl.read_json(tmp_path / "got" / facts.RECORD)
    assert record["recipe"]["base"]["revision"] == commit
    assert record["pulled"] == {"repo": "theirs/adapter", "commit": done.commit}
    assert record["foreign"]["not_known"] == ["data", "training", "evaluation"]
    assert done.left == (".gitattributes", "README.md")


def test_no_card_is_made_of_what_nobody_knows(stranger: Hub, tmp_path: Path) -> None:
    pulled(stranger, tmp_path / "got")
    with pytest.raises(KoalpacaError) as caught:
        card.write(tmp_path / "got", None, repo=None, license=None, data_licenses=[])
    assert caught.value.problems[0].code == "card-record"


def test_twice_is_once_and_another_folder_is_not_written_over(stranger: Hub, tmp_path: Path) -> None:
    out = tmp_path / "got"
    first = pulled(stranger, out)
    stranger.asked.clear()
    again = pulled(stranger, out)
    assert again.here_before
    assert again.record == first.record
    assert stranger.count("GET", "/theirs/adapter/resolve/") == 0
    (out / facts.WEIGHTS).write_bytes(b"cut")
    with pytest.raises(KoalpacaError, match="is not what the Hub says"):
        pulled(stranger, out)
    other = tmp_path / "mine"
    other.mkdir()
    (other / "kept").write_text("mine")
    refused("pull-out", stranger, other)


def test_a_revision_is_what_is_asked_for(stranger: Hub, tmp_path: Path) -> None:
    found = stranger.repositories["theirs/adapter"]
    found.tags["v1"] = found.branches["main"]
    change(stranger, facts.CONFIG, b"{}")
    assert pulled(stranger, tmp_path / "got", revision="v1").commit == found.tags["v1"]
    assert "no-such" in refused("hub-read", stranger, tmp_path / "other", revision="no-such")


def edited(**changes: Any) -> Callable[[Hub], None]:
    def edit(hub: Hub) -> None:
        config = json.loads(hub.head("theirs/adapter")[facts.CONFIG])
        change(hub, facts.CONFIG, json.dumps(config | changes).encode())

    return edit


def pickled(hub: Hub) -> None:
    change(hub, facts.WEIGHTS, None)
    change(hub, "adapter_model.bin", b"\x80\x04cos\nsystem\n.")


@pytest.mark.parametrize(
    ("spoil", "code", "said"),
    [
        (pickled, "pull-adapter", "only the pickle 'adapter_model.bin'"),
        (lambda hub: change(hub, facts.CONFIG, None), "pull-adapter", "no adapter_config.json"),
        (lambda hub: change(hub, facts.CONFIG, b" " * ((16 << 20) + 1)), "pull-size", "16,777,217 bytes"),
        (lambda hub: change(hub, facts.CONFIG, b"{"), "adapter-load", "JSON"),
        (edited(megatron_core="os"), "adapter-config", "megatron_core"),
        (edited(peft_type="IA3"), "adapter-config", "peft_type"),
        (edited(modules_to_save=["embed_in"]), "adapter-config", "modules_to_save"),
        (edited(r=8), "adapter-load", "where r is 8"),
        (edited(base_model_name_or_path="/home/kim/base"), "pull-base", "--base"),
        (edited(base_model_name_or_path=None), "pull-base", "names no base"),
        (edited(base_model_name_or_path="someone/gone"), "hub-read", "someone/gone: it could not be read: 401"),
    ],
)
def test_what_is_not_a_plain_adapter_stays_there(
    stranger: Hub, tmp_path: Path, spoil: Callable[[Hub], None], code: str, said: str
) -> None:
    spoil(stranger)
    assert said in refused(code, stranger, tmp_path / "got")


def test_a_pickle_is_never_downloaded(stranger: Hub, tmp_path: Path) -> None:
    change(stranger, "adapter_model.bin", b"\x80\x04cos\nsystem\n.")
    pulled(stranger, tmp_path / "got")
    assert stranger.count("GET", ".bin") == stranger.count("HEAD", ".bin") == 0


def test_matrices_of_another_base_are_noticed_before_it_is_loaded(
    stranger: Hub, tiny_bases: dict[str, str], tmp_path: Path
) -> None:
    said = refused("pull-fit", stranger, tmp_path / "got", Choice(base=tiny_bases["llama"], template="koalpaca"))
    assert "query_key_value" in said
    config = json.loads(stranger.head(BASE)["config.json"])
    stranger.repository(BASE, {"config.json": json.dumps(config | {"hidden_size": 4096}).encode()}, private=False)
    assert "width 4096" in refused("pull-fit", stranger, tmp_path / "got")


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"model_type": "gpt2"}, "architecture-unknown"),
        ({"hidden_size": 0}, "base-config"),
        ({"rope_parameters": [1]}, "base-load"),
        ({"head_dim": "x"}, "base-load"),
        ({"padding": "x" * (16 << 20)}, "pull-size"),
    ],
)
def test_a_base_may_lie_too(stranger: Hub, tmp_path: Path, config: dict[str, Any], code: str) -> None:
    there = json.loads(stranger.head(BASE)["config.json"])
    stranger.repository(BASE, {"config.json": json.dumps(there | config).encode()}, private=False)
    refused(code, stranger, tmp_path / "got")


def test_a_template_is_asked_for_where_nobody_tells_it(stranger: Hub, tmp_path: Path) -> None:
    assert "--template: koalpaca" in refused("pull-template", stranger, tmp_path / "got", Choice())
    refused("template-unknown", stranger, tmp_path / "got", Choice(template="koalpca"))


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET", "adapter_model.safetensors", drop=True),
        Fault("GET", "adapter_model.safetensors", times=2, drop=True, after=True),
        Fault("HEAD", "adapter_config.json", status=503),
        Fault("GET", "/tree/", status=500),
    ],
    ids=lambda f: f"{f.path.strip('/')}-{f.status or 'dropped'}",
)
def test_a_failure_on_the_way_is_tried_again(stranger: Hub, tmp_path: Path, fault: Fault) -> None:
    stranger.faults = [fault]
    pulled(stranger, tmp_path / "got")
    assert fault.times == 0
    assert (tmp_path / "got" / facts.WEIGHTS).read_bytes() == stranger.head("theirs/adapter")[facts.WEIGHTS]


def test_a_file_that_changed_on_the_way_is_refused(
    stranger: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from koalpaca_tune.hub.remote import Remote

    fetch = Remote.fetch

    def other(self: Remote, name: str, commit: str, folder: str) -> str:
        path = Path(fetch(self, name, commit, folder))
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        return str(path)

    monkeypatch.setattr(Remote, "fetch", other)
    refused("pull-differs", stranger, tmp_path / "got")


def test_a_disk_without_room_is_said_before_the_download(
    stranger: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "MARGIN", 1 << 60)
    refused("pull-space", stranger, tmp_path / "got")
    assert stranger.count("GET", "/theirs/adapter/resolve/") == 0


@pytest.fixture
def ours(
    hub: Hub, made: dict[str, bytes], record: dict[str, Any], adapter: Path, tiny_bases: dict[str, str]
) -> Hub:
    """An adapter of this toolkit, pushed with `push` itself; its base on the same Hub."""
    config = (Path(tiny_bases["gpt_neox"]) / "config.json").read_bytes()
    commit = hub.repository(BASE, {"config.json": config}, private=False).branches["main"]
    found = sources.fingerprint(BASE, commit, None)
    record["base"].update(path=BASE, revision=commit, fingerprint=found)
    record["recipe"]["base"].update(path=BASE, revision=commit)
    jsonl.write_json(adapter / facts.RECORD, record)
    for name in (facts.CONFIG, facts.WEIGHTS):
        (adapter / name).write_bytes(made[name])
    card.write(adapter, None, repo="me/talk", license=None, data_licenses=[])
    push.send(push.plan(adapter, "me/talk", True), SECRET, endpoint=hub.address)
    return hub


def test_what_we_push_comes_back_with_its_record(ours: Hub, tmp_path: Path) -> None:
    refused("hub-read", ours, tmp_path / "got", Choice(), repo="me/talk")  # private, and no token
    done = pulled(ours, tmp_path / "got", Choice(), repo="me/talk", token=SECRET)
    assert done.ours
    assert done.record["template"]["name"] == "koalpaca"
    assert done.record["result"]["steps"] == 250
    assert "--template has no effect" in refused(
        "pull-template", ours, tmp_path / "other", Choice(template="chatml"), repo="me/talk", token=SECRET
    )


def test_another_base_than_the_record_says_is_refused(
    ours: Hub, tiny_bases: dict[str, str], tmp_path: Path
) -> None:
    refused(
        "adapter-wrong-base", ours, tmp_path / "got", Choice(base=tiny_bases["llama"]), repo="me/talk", token=SECRET
    )


@pytest.mark.parametrize("record", [b"[]", b"{}", b'{"recipe": {"name": 1}}', b"\xff", b'{"a":' * 2000])
def test_a_record_that_is_none_is_not_believed(stranger: Hub, tmp_path: Path, record: bytes) -> None:
    change(stranger, facts.RECORD, record)
    got = pulled(stranger, tmp_path / "got")
    assert not got.ours
    assert got.unread


def test_weights_of_any_shape_are_refused_without_reading_them(stranger: Hub, tmp_path: Path) -> None:
    for header in (b"{}", b"[1]", b'{"a.lora_A.weight": {}}'):
        change(stranger, facts.WEIGHTS, struct.pack("<Q", len(header)) + header)
        refused("adapter-load", stranger, tmp_path / "got")
