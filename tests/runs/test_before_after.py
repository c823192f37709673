"""From a trained adapter to the comparison, through the recipe's own defaults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koalpaca_tune import jsonl
from koalpaca_tune.comparison.compare import compare
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.runs import adapters, evaluate, record
from koalpaca_tune.suites.selection import Asked

Make = Callable[..., Any]
Go = Callable[..., dict[str, Any]]


def code(action: Callable[[], object]) -> str:
    """The code of the error that an action ends in."""
    with pytest.raises(KoalpacaError) as caught:
        action()
    return caught.value.problems[0].code


@pytest.fixture
def adapter(on_files: Make, carry_out: Go, tmp_path: Path) -> Path:
    """An adapter of two steps, whose recipe names a suite, an answer length and a number of answers."""
    carry_out(on_files(evaluation={"suite": "ko-smoke", "max_new_tokens": 5, "heldout_limit": 2}))
    return tmp_path / "run" / "adapter"


def judge(base: str, adapter: Path | None, out: Path, **options: Any) -> list[Path]:
    """What `koalpaca eval` does, without the printing."""
    given = {"heldout": None, "data_root": None} | options
    prepared = evaluate.prepare(
        adapters.choose(base, adapter, None, None), Asked(given.pop("suite", None)), **given
    )
    return evaluate.evaluate(prepared, out, progress=lambda *_: None)


def test_the_recipes_evaluation_keys_take_effect(adapter: Path, tiny_bases: dict[str, str], tmp_path: Path) -> None:
    base, tuned = judge(tiny_bases["gpt_neox"], adapter, tmp_path / "judged")
    assert (base.name, tuned.name) == ("base", "adapter")
    for folder in (base, tuned):
        result = jsonl.read_json(folder / "result.json")
        assert result["suite"]["name"] == "ko-smoke"
        lines = [line for _, line in jsonl.read(folder / "items.jsonl")]
        written = [line for line in lines if line["task"] == "heldout-generation"]
        assert len(written) == 2
        assert all(line["tokens"] <= 5 for line in written)
        assert sum(line["task"] == "heldout-nll" for line in lines) == 3, "every held-out conversation is scored"
    one, two = (jsonl.read_json(folder / "result.json")["identity"] for folder in (base, tuned))
    assert (one["adapter"], one["base_fingerprint"]) == (None, two["base_fingerprint"])
    assert two["adapter"] is not None
    bits = next(row for row in compare(base, tuned).rows if row.measure == "bits_per_character")
    assert bits.paired.difference != 0, "adapter off and on must not be the same model"


def test_the_base_alone_equals_the_base_with_its_adapter_off(
    adapter: Path, tiny_bases: dict[str, str], tmp_path: Path
) -> None:
    judged = tmp_path / "judged"
    heldout = tmp_path / "valid.jsonl"
    choices = adapters.choose(tiny_bases["gpt_neox"], None, None, True)
    prepared = evaluate.prepare(choices, Asked("ko-smoke"), heldout=heldout, data_root=None)
    (alone,) = evaluate.evaluate(prepared, tmp_path / "alone", progress=lambda *_: None)
    off, _ = judge(tiny_bases["gpt_neox"], adapter, judged)

    def scores(folder: Path) -> list[Any]:
        lines = (line for _, line in jsonl.read(folder / "items.jsonl"))
        return [line.get("logprobs", line.get("nats")) for line in lines if line["task"] != "heldout-generation"]

    assert scores(alone) == scores(off)


def test_an_adapter_decides_how_it_is_judged(adapter: Path, tiny_bases: dict[str, str], tmp_path: Path) -> None:
    base = tiny_bases["gpt_neox"]
    assert code(lambda: adapters.choose(base, adapter, "kullm-v2", None)) == "adapter-differs"
    assert code(lambda: adapters.choose(base, adapter, None, False)) == "adapter-differs"
    chosen = adapters.choose(base, adapter, "koalpaca", True)
    assert (chosen.template, chosen.quantization.load_in_4bit) == ("koalpaca", True)
    record = jsonl.read_json(adapter / "record.json")
    jsonl.write_json(adapter / "record.json", {**record, "base": {**record["base"], "fingerprint": "0" * 16}})
    assert code(lambda: adapters.open_model(chosen)) == "adapter-wrong-base"
    (tmp_path / "valid.jsonl").unlink()
    assert code(lambda: judge(base, adapter, tmp_path / "judged")) == "heldout-missing"
    assert not (tmp_path / "judged").exists()


def test_a_merged_model_brings_its_template(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"kind": "merged", "template": {"name": "kullm-v2"}}', encoding="utf-8")
    assert adapters.choose(str(tmp_path), None, None, None).template == "kullm-v2"
    assert adapters.choose(str(tmp_path), None, "koalpaca", None).template == "koalpaca"
    assert adapters.choose("embedded", None, None, None).template == "koalpaca"


def test_items_that_were_trained_on_are_counted(adapter: Path, tiny_bases: dict[str, str], tmp_path: Path) -> None:
    base = tiny_bases["gpt_neox"]
    clean = evaluate.prepare(
        adapters.choose(base, adapter, None, None), Asked("ko-smoke"), heldout=None, data_root=None
    )
    assert {told["contaminated"] for told in clean.facts().values()} == {0}
    assert clean.notes == ()
    entry = jsonl.read_json(adapter / "record.json")
    train = Path(entry["data"]["train"]["path"])
    leaked = (
        {"role": "user", "content": "질문: 재료가 신선하고 양도 넉넉한데 값까지 저렴해요."},
        {"role": "assistant", "content": "긍정"},
    )
    rows = [row for _, row in jsonl.read(train)]
    jsonl.write(train, [*rows, {**rows[0], "messages": list(leaked)}])
    unknown = evaluate.prepare(
        adapters.choose(base, adapter, None, None), Asked("ko-smoke"), heldout=None, data_root=None
    )
    assert {told["contaminated"] for told in unknown.facts().values()} == {None}
    assert len(unknown.notes) == 1
    entry["data"]["train"]["sha256"] = record.sha256(train)
    jsonl.write_json(adapter / "record.json", entry)
    found = evaluate.prepare(
        adapters.choose(base, adapter, None, None), Asked("ko-smoke"), heldout=None, data_root=None
    )
    assert found.facts()["ko-mini-sentiment"]["contaminated"] == 1


def test_the_training_file_is_looked_for_from_the_run_folder_too(
    adapter: Path, tiny_bases: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter made with relative names, judged from another folder."""
    entry = jsonl.read_json(adapter / "record.json")
    entry["data"]["train"]["path"] = "prepared/train.jsonl"
    entry["recipe"]["out"] = "runs/small"
    jsonl.write_json(adapter / "record.json", entry)
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run = home / "runs" / "small"
    run.mkdir(parents=True)
    (tmp_path / "run" / "adapter").rename(run / "adapter")
    monkeypatch.chdir(elsewhere)

    def prepared() -> evaluate.Prepared:
        chosen = adapters.choose(tiny_bases["gpt_neox"], run / "adapter", None, None)
        return evaluate.prepare(chosen, Asked("ko-smoke"), heldout=tmp_path / "valid.jsonl", data_root=None)

    def counted(one: evaluate.Prepared) -> set[object]:
        return {told["contaminated"] for told in one.facts().values()}

    lost = prepared()
    assert counted(lost) == {None}
    ((korean, english),) = lost.notes
    for place in ("prepared/train.jsonl", home / "prepared" / "train.jsonl", run / "train.jsonl"):
        assert str(place) in korean
        assert str(place) in english
    for place in (home / "prepared" / "train.jsonl", run / "prepared" / "train.jsonl", run / "train.jsonl"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((tmp_path / "train.jsonl").read_bytes())
        found = prepared()
        assert (counted(found), found.notes) == ({0}, ())
        place.write_text("바뀐 것", encoding="utf-8")
        changed = prepared()
        assert counted(changed) == {None}
        assert f"{place})" in changed.notes[0][0]
        assert "바뀌어" in changed.notes[0][0]
        place.unlink()


def test_what_is_added_and_what_is_asked_once_is_told(
    adapter: Path, tiny_bases: dict[str, str], tmp_path: Path
) -> None:
    rows = [row for _, row in jsonl.read(tmp_path / "valid.jsonl")]
    jsonl.write(tmp_path / "valid.jsonl", [*rows, rows[0], rows[0]])
    prepared = evaluate.prepare(
        adapters.choose(tiny_bases["gpt_neox"], adapter, None, None),
        Asked("ko-smoke", ("kobest-wic",), limit=3),
        heldout=tmp_path / "valid.jsonl",
        data_root=kobest(tmp_path),
    )
    assert prepared.facts()["kobest-wic"]["added"] is True
    assert "added" not in prepared.facts()["ko-mini-reading"]
    ((korean, english),) = prepared.notes
    assert f"{len(rows) + 2}행 가운데 2행" in korean
    assert f"2 of the {len(rows) + 2} held-out rows" in english


def kobest(folder: Path) -> Path:
    """A data root with four questions of WiC."""
    path = folder / "data" / "kobest" / "WiC" / "test.tsv"
    path.parent.mkdir(parents=True)
    head = "ID\tTarget\tSENTENCE1\tSENTENCE2\tANSWER"
    rows = [f"{n}\t배\t배를 {n}번 먹었다.\t배를 {n}번 탔다.\tFALSE" for n in range(1, 5)]
    path.write_text("\n".join([head, *rows, ""]), encoding="utf-8")
    return folder / "data"
