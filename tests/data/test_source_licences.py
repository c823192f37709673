"""A licence is read from its name, travels with the data, and what does not fit is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from koalpaca_tune import jsonl
from koalpaca_tune.config.preparation import Input
from koalpaca_tune.data import licences, sources
from koalpaca_tune.data.licences import Taken
from koalpaca_tune.data.terms import terms


def taken(path: str, records: int | None = 10, source: str | None = None, **options: Any) -> Taken:
    given = Input.model_validate({"path": path, **options})
    return Taken(given.name or source or "mine", given, source, records)


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("CC-BY-SA-4.0", (False, True, False)),
        ("cc-by-nc-4.0", (True, False, False)),
        ("CC-BY-NC-SA-3.0", (True, True, False)),
        ("CC BY-ND 2.0 KR", (False, False, True)),
        ("mit", (False, False, False)),
        ("CC0-1.0", (False, False, False)),
        ("unknown", ("unknown", "unknown", "unknown")),
        ("other", ("unknown", "unknown", "unknown")),
        ("CC-BY-XX", ("unknown", "unknown", "unknown")),
        (None, ("unknown", "unknown", "unknown")),
    ],
)
def test_terms_follow_from_a_known_name_only(licence: str | None, expected: tuple[Any, ...]) -> None:
    found = terms(licence)
    assert (found.noncommercial, found.sharealike, found.noderivatives) == expected
    assert bool(found.obligations) == (licence != "CC0-1.0")


def test_entries_say_what_is_known_of_each_source() -> None:
    made = licences.entries(
        [
            taken("/data/nsmc/train.tsv", 5, "nsmc"),
            taken("hf:kyujinpy/KOR-OpenOrca-Platypus", 7, name="platypus", revision="a" * 40),
            taken("/home/me/상담.csv", 3),
            taken("/home/me/공개.csv", 2, name="open", licence="CC-BY-4.0"),
        ]
    )
    assert [(entry["name"], entry["licence"], entry["noncommercial"], entry["records"]) for entry in made] == [
        ("nsmc", "CC0-1.0", False, 5),
        ("platypus", "CC-BY-NC-4.0", True, 7),
        ("mine", "unknown", "unknown", 3),
        ("open", "CC-BY-4.0", False, 2),
    ]
    assert [entry["revision"] for entry in made] == [None, "a" * 40, None, None]
    assert made[1]["set"] == "kor-openorca-platypus"
    assert [entry["stated_by"] for entry in made] == ["data/sources", "data/sources", None, "preparation"]
    assert made[2]["url"] is None, "a path of this machine goes nowhere"


def test_parts_of_one_set_are_one_entry() -> None:
    made = licences.entries([taken("/d/a.tsv", 5, "kobest"), taken("/d/b.tsv", 6, "kobest"), taken("/x", 1)])
    assert [(entry["name"], entry["records"]) for entry in made] == [("kobest", 11), ("mine", 1)]


def test_a_licence_that_the_user_states_does_not_borrow_other_terms() -> None:
    (entry,) = licences.entries([taken("/d/a.json", 1, "koalpaca-v1.0", licence="Apache-2.0")])
    assert (entry["licence"], entry["noncommercial"]) == ("Apache-2.0", False)
    assert entry["stated_by"] == "preparation"


def prepared(folder: Path, names: list[str], entries: list[dict[str, Any]] | None) -> Path:
    folder.mkdir()
    train = folder / "train.jsonl"
    messages = [{"role": "user", "content": "물음"}, {"role": "assistant", "content": "답"}]
    jsonl.write(train, [{"id": "x", "origin": "o", "source": name, "messages": messages} for name in names])
    if entries is not None:
        jsonl.write_json(folder / "report.json", {"rows": 3, "sources": entries})
    return train


def test_a_run_learns_its_sources_from_the_report_and_the_records(tmp_path: Path) -> None:
    stored = licences.entries([taken("/d/a.tsv", 90, "nsmc"), taken("/d/b.tsv", 9, "kobest")])
    found = licences.of_training(prepared(tmp_path / "a", ["nsmc", "nsmc", "딴것"], stored))
    assert [(entry["name"], entry["licence"], entry["records"]) for entry in found] == [
        ("nsmc", "CC0-1.0", 2),
        ("딴것", "unknown", 1),
    ]


@pytest.mark.parametrize("entries", [None, [], [{"name": "nsmc"}]])
def test_without_a_report_nothing_is_known(tmp_path: Path, entries: list[dict[str, Any]] | None) -> None:
    found = licences.of_training(prepared(tmp_path / "a", ["nsmc"], entries))
    assert [entry["licence"] for entry in found] == ["unknown"]


def test_a_file_that_is_no_jsonl_is_its_own_source(tmp_path: Path) -> None:
    (entry,) = licences.of_training(tmp_path / "상담.csv")
    assert (entry["name"], entry["licence"], entry["records"]) == ("상담", "unknown", None)


def test_what_is_not_commercial_not_known_or_not_pinned_is_said() -> None:
    made = licences.entries(
        [taken("hf:Bingsu/ko_alpaca_data", 1, name="old"), taken("/x", 1), taken("/d", 1, "samples")]
    )
    said = [(warning.ko, warning.en) for warning in licences.warnings(made)]
    assert [en.partition(":")[0] for _, en in said] == ["old", "old", "mine"]
    assert "상업적으로 쓸 수 없는" in said[0][0]
    assert "no revision is pinned" in said[1][1]
    assert "not known" in said[2][1]


@pytest.mark.parametrize(
    ("licence", "source", "count"),
    [
        ("apache-2.0", "koalpaca-v1.0", 1),
        ("cc-by-nc-4.0", "koalpaca-v1.0", 0),
        ("mit", "kobest", 1),
        ("cc-by-sa-4.0", "kobest", 0),
        ("mit", "korquad-v1", 1),
        ("mit", "koalpaca-v1.1a", 1),
        ("mit", "kullm-v2", 1),
        ("mit", "nsmc", 0),
        ("llama2", "koalpaca-v1.0", 1),
        (None, "koalpaca-v1.0", 0),
    ],
)
def test_a_licence_that_does_not_fit_the_data_is_a_conflict(licence: str | None, source: str, count: int) -> None:
    found = licences.conflicts(licence, licences.entries([taken("/d", 1, source)]))
    assert len(found) == count
    assert all(source in said.ko and source in said.en for said in found)


def test_every_described_set_can_be_entered_and_worded() -> None:
    made = licences.entries([taken("/d", 1, name) for name in sources.names()])
    assert [entry["set"] for entry in made] == sources.names()
    assert all(set(said) == {"ko", "en"} for entry in made for said in entry["obligations"])
    flagged = {warning.en.partition(":")[0] for warning in licences.warnings(made) if "commercial" in warning.en}
    assert flagged == {"koalpaca-v1.0", "kor-openorca-platypus", "koalpaca-v1.1a", "ko-wikidata-qa", "kullm-v2"}
