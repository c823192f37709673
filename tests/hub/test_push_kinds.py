"""A merged model, prepared data and a comparison go to the Hub by the same road; each with its own files only."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from comparisons import compared
from hub_server import Fault, Hub

from koalpaca_tune import jsonl
from koalpaca_tune.comparison import verdict
from koalpaca_tune.config.preparation import Input
from koalpaca_tune.data import licences
from koalpaca_tune.data.licences import Taken
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import card, data_card, facts, push
from koalpaca_tune.hub.cost import Rates

pytestmark = pytest.mark.usefixtures("without_waiting")

SECRET = "hf_" + "Zq9" * 11
HOME = "/home/kim-cheolsu/비밀"


def sent(folder: Path, hub: Hub, repo: str, **how: Any) -> push.Sent:
    return push.send(push.plan(folder, repo, how.pop("private", True), **how), SECRET, endpoint=hub.address)


def code_of(folder: Path, repo: str = "me/talk") -> str:
    with pytest.raises(KoalpacaError) as caught:
        push.plan(folder, repo, True)
    return caught.value.problems[0].code


@pytest.fixture
def merged(adapter: Path, record: dict[str, Any], tmp_path: Path, weights: Any) -> Path:
    """What `koalpaca merge` leaves, in two shards, beside the adapter that it was made of."""
    folder = tmp_path / "merged"
    folder.mkdir()
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for n, name in enumerate(shards):
        (folder / name).write_bytes(weights({f"layer.{n}.weight": (40, 40)}, bytes([n, 0, 128, 63])))
    names = {f"layer.{n}.weight": name for n, name in enumerate(shards)}
    jsonl.write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": names})
    jsonl.write_json(folder / "config.json", {"model_type": "gpt_neox", "_name_or_path": f"{HOME}/base"})
    jsonl.write_json(folder / "tokenizer_config.json", {"eos_token": "/s", "name_or_path": f"{HOME}/base"})
    (folder / "tokenizer.json").write_text("{}")
    made = {key: record[key] for key in ("name", "base", "template", "tokenizer")}
    change = {"mean": 0.02, "largest": 1.0, "same_argmax": 0.995}
    merge = {"dtype": "bfloat16", "onto": "base", "tokens": 418, "merged": change}
    merge["effect"] = {**change, "mean": 0.8}
    jsonl.write_json(folder / "record.json", {"kind": "merged", **made, "merge": merge})
    return folder


def test_a_merged_model_goes_shard_by_shard(merged: Path, adapter: Path, hub: Hub) -> None:
    card.write(merged, None, repo="me/talk", license="apache-2.0", data_licenses=[], adapter=adapter)
    first, second = ((merged / f"model-0000{n}-of-00002.safetensors").read_bytes() for n in (1, 2))
    hub.part_size = 3000
    hub.faults = [Fault("PUT", f"/lfs-part/{hashlib.sha256(second).hexdigest()}", times=99, status=500)]
    with pytest.raises(KoalpacaError, match="500"):
        sent(merged, hub, "me/talk")
    assert hub.commits() == []
    assert list(hub.stored.values()) == [first]
    # the second try finds one shard there
    hub.faults = []
    hub.asked.clear()
    done = sent(merged, hub, "me/talk", tag="v1")
    assert hub.count("POST", "/lfs-done/") == 1
    assert hub.count("PUT", "/lfs-part/") == 3, "6,5xx bytes in parts of 3,000, of one shard alone"
    head = hub.head()
    assert head["model-00001-of-00002.safetensors"] == first
    assert json.loads(head["config.json"])["_name_or_path"] == "base"
    assert json.loads(head["tokenizer_config.json"]) == {"eos_token": "/s", "name_or_path": "base"}
    assert HOME.encode() not in b"".join(head.values())
    assert hub.repositories["me/talk"].tags == {"v1": done.commit}


def test_the_card_of_a_merged_model(merged: Path, adapter: Path) -> None:
    card.write(merged, None, repo="me/talk", license="apache-2.0", data_licenses=[], adapter=adapter)
    text = (merged / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["library_name"], head["base_model_relation"]) == ("transformers", "finetune")
    assert "기반 모델에 합친 모델입니다" in text
    assert "name = 'me/talk'" in text
    assert "PeftModel" not in text
    assert "| LoRA | r 8, alpha 32, dropout 0.05 |" in text
    assert "| 합치며 달라진 로짓 | 어댑터 효과의 2.50%, 같은 1위 토큰 99.5% (418개 위치) |" in text
    compile(text.split("```python\n")[1].split("```")[0], "card", "exec")


@pytest.mark.parametrize("onto", ["base", "trained"])
def test_a_model_that_is_another_than_the_judged_one_says_so(
    merged: Path, adapter: Path, record: dict[str, Any], tmp_path: Path, onto: str
) -> None:
    """Judged in 4 bits, merged into the full-precision base: the comparison is of another model."""
    made = jsonl.read_json(merged / "record.json")
    made["merge"] |= {"onto": onto, "trained": {"mean": 0.6, "largest": 9.0, "same_argmax": 0.725}}
    jsonl.write_json(merged / "record.json", made)
    comparison = compared(adapter, record, tmp_path / "comparison", "improved")
    card.write(merged, comparison, repo="me/talk", license="apache-2.0", data_licenses=[], adapter=adapter)
    text = (merged / "README.md").read_text(encoding="utf-8")
    said = [
        text.count("여기 있는 모델은 평가한 모델이 아닙니다"),
        text.count("not the one that was judged"),
        text.count("72.5%"),
    ]
    assert said == ([1, 1, 2] if onto == "base" else [0, 0, 0])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda m, a: (m, None), "card-adapter"),
        (lambda m, a: (a, a), "card-adapter"),
    ],
)
def test_a_merged_model_needs_its_adapter(merged: Path, adapter: Path, change: Any, code: str) -> None:
    folder, of = change(merged, adapter)
    with pytest.raises(KoalpacaError) as caught:
        card.write(folder, None, repo=None, license=None, data_licenses=[], adapter=of)
    assert caught.value.problems[0].code == code


def test_another_adapter_than_was_merged(merged: Path, adapter: Path) -> None:
    made = jsonl.read_json(merged / "record.json")
    jsonl.write_json(merged / "record.json", {**made, "adapter": {"sha256": "0" * 64}})
    with pytest.raises(KoalpacaError, match="not the adapter that was merged"):
        card.write(merged, None, repo=None, license=None, data_licenses=[], adapter=adapter)


def test_a_model_trained_as_a_whole_has_a_card_too(merged: Path, record: dict[str, Any]) -> None:
    record["recipe"]["lora"] = None
    record["proof"].update(linears_4bit=0, quant_type=None, double_quant=None)
    jsonl.write_json(merged / "record.json", record)
    card.write(merged, None, repo=None, license=None, data_licenses=[])
    text = (merged / "README.md").read_text(encoding="utf-8")
    assert "| 방법 | 모든 가중치를 학습 (full fine-tuning) |" in text
    assert "- full\n" in text.split("---\n")[1]


def test_the_comparison_of_a_whole_model_is_with_its_own_base(
    merged: Path, record: dict[str, Any], tmp_path: Path
) -> None:
    record["recipe"]["lora"] = None
    jsonl.write_json(merged / "record.json", record)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(merged.glob("*.safetensors"))]
    mine = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
    base = {"base_fingerprint": record["base"]["fingerprint"]}
    content = {
        "verdict": asdict(verdict.say([])),
        "suite": {"name": "ko-mini", "title": "작은 한국어 평가", "version": 1},
        "before": {"identity": {**base, "adapter": None}, "tasks": []},
        "after": {"identity": {**base, "adapter": mine}, "tasks": []},
        "rows": [],
    }
    jsonl.write_json(tmp_path / "compared" / "comparison.json", content)
    card.write(merged, tmp_path / "compared", repo=None, license=None, data_licenses=[])
    assert "기반 모델과 학습한 모델을 같은 문항으로" in (merged / "README.md").read_text(encoding="utf-8")
    content["after"]["identity"]["adapter"] = "f" * 16
    jsonl.write_json(tmp_path / "compared" / "comparison.json", content)
    with pytest.raises(KoalpacaError, match="does not compare this model with its base"):
        card.write(merged, tmp_path / "compared", repo=None, license=None, data_licenses=[])


def test_a_shard_that_is_missing_or_belongs_to_nothing(merged: Path, adapter: Path) -> None:
    card.write(merged, None, repo=None, license=None, data_licenses=[], adapter=adapter)
    shard = merged / "model-00002-of-00002.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert code_of(merged) == "hub-adapter-damaged"
    shard.unlink()
    assert code_of(merged) == "hub-incomplete"
    shard.write_bytes(content)
    (merged / "model.safetensors").write_bytes(content)
    assert code_of(merged) == "hub-incomplete"


def test_old_shards_in_the_repository_go_in_the_same_commit(merged: Path, adapter: Path, hub: Hub) -> None:
    card.write(merged, None, repo="me/talk", license=None, data_licenses=[], adapter=adapter)
    hub.repository("me/talk", {"model.safetensors": b"old", "pytorch_model.bin": b"old"})
    with pytest.raises(KoalpacaError, match=r"'model\.safetensors' and 1 more"):
        sent(merged, hub, "me/talk")
    assert sent(merged, hub, "me/talk", replace=True).deleted == ("model.safetensors", "pytorch_model.bin")
    assert len(hub.commits()) == 1


def entry(name: str, licence: str | None, records: int) -> list[dict[str, Any]]:
    given = Input.model_validate({"path": f"{HOME}/{name}.csv", **({"licence": licence} if licence else {})})
    return licences.entries([Taken(name, given, None, records)])


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    folder = tmp_path / "prepared"
    rows = [
        {
            "id": f"{n:016x}",
            "origin": f"faq.csv:{n + 2}",
            "source": "faq",
            "messages": [
                {"role": "user", "content": f"{n}번 질문 ```"},
                {"role": "assistant", "content": "답변입니다. " * 40},
            ],
        }
        for n in range(6)
    ]
    jsonl.write(folder / "train.jsonl", rows[:5])
    jsonl.write(folder / "valid.jsonl", rows[5:])
    jsonl.write(folder / "rejected.jsonl", [{"origin": "faq.csv:9", "row": {"email": "kim@example.com"}}])
    found = entry("faq", "CC-BY-NC-4.0", 6)
    report = {"records": 7, "rejected": {"quality-empty": 1}, "masked_records": 0, "sources": found}
    jsonl.write_json(folder / "report.json", {**report, "preparation": {"inputs": [{"path": f"{HOME}/faq.csv"}]}})
    return folder


def test_data_goes_to_a_data_set_repository(prepared: Path, hub: Hub) -> None:
    data_card.write(prepared, repo="me/faq", license="cc-by-nc-4.0")
    plan = push.plan(prepared, "me/faq", True)
    assert plan.stays == ("rejected.jsonl",)
    done = sent(prepared, hub, "me/faq")
    assert set(done.loaded) == {"README.md", "report.json", "train.jsonl", "valid.jsonl"}
    head = hub.head("datasets/me/faq")
    assert set(head) == {*done.loaded, ".gitattributes"}
    assert HOME.encode() not in b"".join(head.values())
    assert hub.created[0]["type"] == "dataset"
    assert sent(prepared, hub, "me/faq").sent == ()


def test_the_card_of_data_says_its_terms(prepared: Path) -> None:
    text = data_card.write(prepared, repo="me/faq", license="apache-2.0").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["configs"][0]["data_files"] == [
        {"split": "train", "path": "train.jsonl"},
        {"split": "validation", "path": "valid.jsonl"},
    ]
    assert head["size_categories"] == "n<1K"
    assert "| faq | CC-BY-NC-4.0 | - | 6 | ⚠ 비상업 (non-commercial) |" in text
    assert "상업적으로 쓸 수 없습니다." in text
    assert "The data declares apache-2.0, but faq is not for commercial use" in text
    assert "| Left out: quality-empty | 1 |" in text
    assert text.count("```") == 2, "a fence in the example closes nothing"
    assert HOME not in text


def test_data_without_a_report_of_ours_has_no_card(prepared: Path) -> None:
    jsonl.write_json(prepared / "report.json", {"sources": [{"name": 1}]})
    with pytest.raises(KoalpacaError, match="where the data comes from"):
        data_card.write(prepared, repo=None, license=None)


@pytest.mark.parametrize(("name", "code"), [("notes.txt", "hub-extra-file"), ("train.pt", "hub-pickle")])
def test_what_lies_beside_the_data_by_chance_stops_it(prepared: Path, name: str, code: str) -> None:
    data_card.write(prepared, repo=None, license=None)
    (prepared / name).write_bytes(b"x")
    assert code_of(prepared) == code


def test_a_folder_of_this_machine_in_a_record_stops_it(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data_card.write(prepared, repo=None, license=None)
    monkeypatch.setenv("HOME", HOME)
    with (prepared / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"origin": f"{HOME}/faq.csv:8", "messages": []}, ensure_ascii=False) + "\n")
    assert code_of(prepared) == "hub-leak"


def test_a_token_across_two_blocks_is_found(prepared: Path) -> None:
    data_card.write(prepared, repo=None, license=None)
    padding = "가" * ((1 << 20) // 3 - 20)
    (prepared / "valid.jsonl").write_text(json.dumps({"text": padding + SECRET}, ensure_ascii=False), "utf-8")
    assert code_of(prepared) == "hub-secret"


@pytest.fixture
def report(tmp_path: Path) -> Path:
    folder = tmp_path / "comparison"
    jsonl.write_json(folder / "comparison.json", {"before": {"identity": {"base": f"{HOME}/base"}}})
    (folder / "report.md").write_text("# 비교", encoding="utf-8")
    (folder / "report.html").write_text("<p>비교</p>", encoding="utf-8")
    (folder / "items.jsonl").write_text("{}\n", encoding="utf-8")
    return folder


def test_a_report_lies_beside_the_model_and_changes_nothing_else(report: Path, hub: Hub) -> None:
    hub.repository("me/talk", {"adapter_model.safetensors": b"theirs"}, private=False)
    done = sent(report, hub, "me/talk")
    assert set(done.sent) == {f"evaluation/{name}" for name in ("comparison.json", "report.md", "report.html")}
    assert hub.created == []
    head = hub.head()
    assert head["adapter_model.safetensors"] == b"theirs"
    assert json.loads(head["evaluation/comparison.json"])["before"]["identity"]["base"] == "base"


def test_a_report_needs_the_repository_of_its_model(report: Path, hub: Hub) -> None:
    with pytest.raises(KoalpacaError) as caught:
        sent(report, hub, "me/nothing")
    assert caught.value.problems[0].code == "hub-send"
    assert hub.repositories == {}


def test_a_folder_of_nothing(tmp_path: Path) -> None:
    assert code_of(tmp_path) == "hub-kind"
    jsonl.write_json(tmp_path / "comparison.json", {})
    with pytest.raises(KoalpacaError, match="is a report"):
        card.write(tmp_path, None, repo=None, license=None, data_licenses=[])


def test_costs_are_what_was_recorded_times_what_was_said(adapter: Path, record: dict[str, Any]) -> None:
    # 1,234.5 s at $3.6 an hour, and 720 kJ at 500 g/kWh
    record["result"]["energy"] = {"joules": 720_000.0, "how": "power-limit"}
    jsonl.write_json(adapter / facts.RECORD, record)
    rates = Rates(usd_per_hour=3.6, grams_per_kwh=500)
    card.write(adapter, None, repo=None, license=None, data_licenses=[], rates=rates)
    text = (adapter / "README.md").read_text(encoding="utf-8")
    assert "| 에너지 | 0.200 kWh (전력 한도 × 시간, 쓴 것보다 많음) |" in text
    assert "| Energy | 0.200 kWh (power limit × time: more than was used) |" in text
    assert "| 탄소 | 100 g CO₂eq (500 g/kWh) |" in text
    assert "| 비용 | \\$1.23 (\\$3.6/h) |" in text
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["co2_eq_emissions"]["emissions"] == 100.0
    assert head["co2_eq_emissions"]["source"] == "koalpaca-tune: power limit times time, 500 g/kWh"


@pytest.mark.parametrize("energy", [None, {}, {"joules": -1, "how": "counter"}, {"joules": 9, "how": "guessed"}])
def test_energy_that_nobody_measured_is_not_told(adapter: Path, record: dict[str, Any], energy: Any) -> None:
    record["result"]["energy"] = energy
    jsonl.write_json(adapter / facts.RECORD, record)
    card.write(adapter, None, repo=None, license=None, data_licenses=[])
    assert "| Energy | not measured |" in (adapter / "README.md").read_text(encoding="utf-8")
    with pytest.raises(KoalpacaError, match="did not record its energy"):
        card.write(adapter, None, repo=None, license=None, data_licenses=[], rates=Rates(grams_per_kwh=400))
