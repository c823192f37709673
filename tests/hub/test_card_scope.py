"""The card of a comparison that asked only some of a suite says so, in Korean and in English."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koalpaca_tune import jsonl
from koalpaca_tune.comparison import report
from koalpaca_tune.comparison.compare import compare
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.hub import card


def evaluation(folder: Path, identity: dict[str, Any], **limits: Any) -> Path:
    """A finished evaluation of one task, as `koalpaca eval` leaves it."""
    folder.mkdir()
    told = {
        "name": "pick",
        "title": "조사 고르기",
        "title_en": "Particles",
        "kind": "choice",
        "version": 1,
        "hash": "ab",
        "items": 12,
        "primary": "accuracy",
        "metrics": {"accuracy": 0.5},
    }
    suite = {"name": "ko-mini", "version": 1, "title": "작은 평가", "title_en": "Small suite"}
    result = {"suite": suite, "identity": identity, "template": "0" * 16, "tasks": [told | limits]}
    (folder / "result.json").write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
    same = {"task": "pick", "hash": "ab", "choices": ["예", "아니오"], "characters": [1, 3], "tokens": [1, 2]}
    rows = [same | {"id": f"{n:02}", "prompt": "?", "answer": n % 2, "logprobs": [-1.0, -2.0]} for n in range(12)]
    jsonl.write(folder / "items.jsonl", rows)
    return folder


@pytest.fixture
def compared(adapter: Path, record: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """(limits of the task) -> the folder of a comparison of the fixtures' adapter with its base."""
    weights = hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()[:16]
    identity = {"base": "a/b", "base_fingerprint": record["base"]["fingerprint"], "adapter": None}

    def make(**limits: Any) -> Path:
        before = evaluation(tmp_path / "before", identity, **limits)
        after = evaluation(tmp_path / "after", identity | {"adapter": weights}, **limits)
        return report.write(compare(before, after), tmp_path / "out").parent

    return make


def text(adapter: Path, comparison: Path) -> str:
    path = card.write(adapter, comparison, repo="me/talk", license=None, data_licenses=[])
    return path.read_text(encoding="utf-8")


def test_a_limited_run_is_no_result_of_its_suite_on_the_card(adapter: Path, compared: Callable[..., Path]) -> None:
    said = text(adapter, compared(limit=12, of_items=400))
    korean, english = said.split("## English", 1)
    assert "과제마다 처음 12문항만 (--limit)" in korean
    assert "400문항 가운데 12문항" in korean
    assert "‘작은 평가’의 점수라고 할 수 없습니다" in korean
    assert "12 of 400" in english
    assert "This is no score of “Small suite”" in english


def test_added_tasks_are_named_on_the_card(adapter: Path, compared: Callable[..., Path]) -> None:
    said = text(adapter, compared(added=True))
    assert "더한 과제: 조사 고르기" in said
    assert "added: Particles" in said


def test_a_whole_suite_needs_no_word(adapter: Path, compared: Callable[..., Path]) -> None:
    said = text(adapter, compared())
    assert "--limit" not in said
    assert "더한 과제" not in said


@pytest.mark.parametrize(
    "scope", [{"limit": "x"}, {"no": 1}, [], {"added": [7]}, {"chosen": ["가"]}, {"limit": 3, "there": None}]
)
def test_a_scope_that_nobody_wrote_is_refused(adapter: Path, compared: Callable[..., Path], scope: Any) -> None:
    path = compared(limit=12, of_items=400) / "comparison.json"
    jsonl.write_json(path, jsonl.read_json(path) | {"scope": scope})
    with pytest.raises(KoalpacaError) as caught:
        text(adapter, path.parent)
    assert caught.value.problems[0].code in ("card-comparison", "card-record")


def test_a_comparison_from_before_there_was_a_scope_is_read(adapter: Path, compared: Callable[..., Path]) -> None:
    path = compared() / "comparison.json"
    value = jsonl.read_json(path)
    del value["scope"]
    jsonl.write_json(path, value)
    assert "조사 고르기" in text(adapter, path.parent)
