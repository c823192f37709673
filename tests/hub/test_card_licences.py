"""The licences of the data stand on the card, and what does not fit the adapter's is said there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from koalpaca_tune import jsonl
from koalpaca_tune.config.preparation import Input
from koalpaca_tune.data import licences
from koalpaca_tune.data.licences import Taken
from koalpaca_tune.hub import card


def recorded(adapter: Path, record: dict[str, Any], *names: str) -> None:
    given = Input.model_validate({"path": "/home/kim-cheolsu/비밀.csv"})
    taken = [Taken(name, given, None if name == "mine" else name, 1234) for name in names]
    record["data"]["sources"] = licences.entries(taken)
    jsonl.write_json(adapter / "record.json", record)


def written(adapter: Path, license: str | None = "apache-2.0", data_licenses: tuple[str, ...] = ()) -> str:
    card.write(adapter, None, repo="me/talk", license=license, data_licenses=data_licenses)
    return (adapter / "README.md").read_text(encoding="utf-8")


def test_the_licences_of_the_data_come_from_the_run(adapter: Path, record: dict[str, Any]) -> None:
    recorded(adapter, record, "kobest", "nsmc")
    text = written(adapter)
    assert "| 데이터 라이선스 | CC-BY-SA-4.0, CC0-1.0 |" in text
    assert "| Data licences | CC-BY-SA-4.0, CC0-1.0 |" in text
    assert "KoBEST v1.0" in text
    assert "1,234" in text
    assert "고정되지 않음 (not pinned)" in text
    assert "같은 라이선스로 내야" in text
    assert "Kim et al." in text
    assert "CC-BY-4.0" in written(adapter, data_licenses=("CC-BY-4.0",)), "what the recipe says comes first"


def test_flags_and_conflicts_are_on_the_card(adapter: Path, record: dict[str, Any]) -> None:
    recorded(adapter, record, "koalpaca-v1.0", "koalpaca-v1.1a")
    text = written(adapter)
    assert "⚠ 비상업 (non-commercial)" in text
    assert "⚠ 확인되지 않음 (not verified)" in text
    assert "⚠ **라이선스를 확인하세요" in text
    assert "The adapter declares apache-2.0, but koalpaca-v1.0 is not for commercial use" in text


def test_what_fits_is_not_warned_about(adapter: Path, record: dict[str, Any]) -> None:
    recorded(adapter, record, "nsmc")
    assert "⚠" not in written(adapter)


def test_a_file_of_ones_own_is_unknown_and_its_place_stays_here(adapter: Path, record: dict[str, Any]) -> None:
    recorded(adapter, record, "mine")
    text = written(adapter)
    assert "⚠ 확인되지 않음" in text
    assert "| Data licences | not known |" in text
    assert "kim-cheolsu" not in text


def test_an_older_record_without_sources_still_makes_a_card(adapter: Path) -> None:
    text = written(adapter)
    assert "데이터 라이선스 | 알 수 없음" in text
    assert "data sources" not in text
