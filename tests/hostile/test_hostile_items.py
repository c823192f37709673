"""Items that no answer can be right to, and what decides whether an instruction was followed."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from koalpaca_tune.instructions import registry
from koalpaca_tune.suites import items
from koalpaca_tune.suites.tasks import load_task

TASK = """\
kind: choice
name: letters
version: 1
title: 글자
title_en: Letters
skill: knowledge
licence: CC0-1.0
source: {items: letters.jsonl}
options: options
answer: {column: gold, read: letter}
metrics: [accuracy]
profiles:
  letters:
    form: completion
    prompt: "{question}\\n{listing}\\n정답:"
    listing: {each: "{letter}. {option}", join: "\\n"}
    choices: "{letter}"
"""


def written(folder: Path, *options: list[str]) -> items.ItemSet:
    (folder / "letters.yaml").write_text(TASK, encoding="utf-8")
    rows = [{"question": f"{n}?", "options": one, "gold": "A"} for n, one in enumerate(options)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "letters.jsonl").write_text(text, encoding="utf-8")
    return items.load(load_task(folder / "letters.yaml"), None)


def test_an_item_whose_right_option_stands_twice_is_told(tmp_path: Path) -> None:
    found = written(tmp_path, ["서울", "부산", "서울 "], ["서울", "부산", "부산"], ["서울", "부산", "대구"])
    # of the second, two wrong options are the same: nothing is lost by that
    assert found.ambiguous == (f"{tmp_path / 'letters.jsonl'}:1",)
    assert [item.choices for item in found.items] == [("A", "B", "C")] * 3


@pytest.mark.parametrize(
    ("ids", "packages"),
    [
        (["punctuation:no_comma"], []),
        (["language:response_language", "punctuation:no_comma"], ["langdetect"]),
        (["length_constraints:number_sentences", "language:response_language"], ["kiwipiepy", "langdetect"]),
    ],
)
def test_the_version_of_what_checks_an_instruction_is_known(ids: list[str], packages: list[str]) -> None:
    assert registry.decided_by(ids) == tuple(f"{package} {version(package)}" for package in packages)
    assert set(registry.BY_PACKAGE) <= set(registry.INSTRUCTIONS)


def test_another_langdetect_gives_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "asks.yaml").write_text(
        "kind: instruction\nname: asks\nversion: 1\ntitle: 지시\ntitle_en: Asks\nskill: instructions\n"
        "licence: CC0-1.0\nsource: {items: asks.jsonl}\ninstructions: ids\narguments: kwargs\n"
        'profiles:\n  plain: {form: question, prompt: "{prompt}", max_new_tokens: 8}\n',
        encoding="utf-8",
    )
    row = {"prompt": "영어로 답하세요.", "ids": ["language:response_language"], "kwargs": [{"language": "en"}]}
    (tmp_path / "asks.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    found = items.load(load_task(tmp_path / "asks.yaml"), None)
    assert found.decided_by == (f"langdetect {version('langdetect')}",)
    monkeypatch.setattr(registry, "version", lambda package: "9.9")
    assert items.load(load_task(tmp_path / "asks.yaml"), None).digest != found.digest
